"""Waiting for what the admin API has started."""

from __future__ import annotations

import time
from typing import Any

import httpx

_PATIENCE_S = 300


def ended(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """The job of a 202, once it has ended."""
    assert answer.status_code == 202, answer.text
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        job: dict[str, Any] = client.get(answer.headers["location"]).json()
        if job["state"] != "running":
            return job
        assert time.monotonic() < end_s, job
        time.sleep(0.05)
