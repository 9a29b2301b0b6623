"""What tests ask of a gateway over HTTP, and are told."""

from __future__ import annotations

from pathlib import Path

import httpx


def count(client: httpx.Client, series: str) -> float:
    """The sum of the values of all series of `/metrics` that begin like this."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


def set_policy(client: httpx.Client, var: Path, model: str, policy: dict[str, object]) -> None:
    """As the admin of the gateway whose folder is `var`."""
    key = (var / "admin.key").read_text().strip()
    answer = client.put(f"/v1/models/{model}/routing", json=policy, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
