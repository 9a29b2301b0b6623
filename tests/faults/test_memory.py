"""A gateway whose memory is full refuses what has no room in it, and goes on."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import httpx
import psutil

from tests.support.gateway import Gateway, running_gateway
from tests.support.pictures import encode, plain

SIDE = 6_000
LEFT = SIDE * SIDE * 2
"""Bytes: half of what the picture takes."""


def ask(gateway: Gateway, picture: bytes) -> httpx.Response:
    return gateway.client.post("/v1/models/digits/predict", content=picture, headers={"content-type": "image/png"})


def test_a_picture_for_which_there_is_no_memory_may_be_sent_again(tmp_path: Path) -> None:
    small, large = encode(plain(7)), encode(plain(7, (SIDE, SIDE)))
    with running_gateway(tmp_path, TANDEM_LIMITS__DECODE_THREADS="1") as gateway:
        assert ask(gateway, small).status_code == 200
        process = psutil.Process(gateway.process.pid)
        unlimited = process.rlimit(resource.RLIMIT_AS)
        process.rlimit(resource.RLIMIT_AS, (process.memory_info().vms + LEFT, unlimited[1]))
        refused = ask(gateway, large)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert "no memory left" in refused.json()["detail"]
        assert refused.headers["retry-after"] == "1"
        assert ask(gateway, small).status_code == 200
        process.rlimit(resource.RLIMIT_AS, unlimited)
        assert ask(gateway, large).status_code == 200
        assert gateway.count("tandem_inflight_pixels ") == 0
        lines = [json.loads(line) for line in gateway.output.read_text().splitlines()]
    warnings = [line for line in lines if line["event"] == "out_of_memory"]
    assert [(line["level"], line["request_id"]) for line in warnings] == [("warning", refused.headers["x-request-id"])]
    assert not [line for line in lines if line["level"] in ("error", "critical")]
