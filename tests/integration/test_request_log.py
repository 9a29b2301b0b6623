"""The request log on the running stack."""

from __future__ import annotations

import httpx

from tests.support.rows import read
from tests.support.stack import ROOT, Stack

SEVEN = {"image": (ROOT / "models" / "digits" / "samples" / "7.png").read_bytes()}


def test_comparisons_are_pairs_of_rows_and_torchserve_says_how_large_its_batch_was(
    stack: Stack, client: httpx.Client
) -> None:
    stack.wait_until_ready()
    ids = {f"logged-{number}" for number in range(10)}
    for each in ids:
        client.post("/v1/models/digits/compare", files=SEVEN, headers={"x-request-id": each}).raise_for_status()

    def rows(runtime: str) -> list[dict[str, object]]:
        return [row for row in read(stack.var / "tandem.db") if row["runtime"] == runtime and row["request_id"] in ids]

    stack.wait_until(lambda: len(rows("torch")) == len(rows("tf")) == 10)
    assert {row["pair"] for row in rows("torch")} == {row["pair"] for row in rows("tf")}
    assert {(row["outcome"], row["batch"]) for row in rows("torch")} == {("ok", 1)}
    assert {(row["outcome"], row["batch"], row["agreeing"]) for row in rows("tf")} == {("ok", None, 1)}
