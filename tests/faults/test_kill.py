"""A gateway all of whose processes were killed by `kill -9` starts clean and knows what was recorded before."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.sockets import PICTURE
from tests.support.stack import HOST
from tests.support.waiting import wait_until

NOBODY = {"TANDEM_TORCH__ADDRESS": f"{HOST}:9", "TANDEM_TF__ADDRESS": f"{HOST}:9"}
ROUTING = "/v1/models/digits/routing"
CANARY = {"policy": "canary", "from": "torch", "to": "tf", "steps": [0.5, 1.0]}


def key(var: Path) -> dict[str, str]:
    return {"authorization": f"Bearer {(var / 'admin.key').read_text().strip()}"}


def rows(var: Path) -> set[str]:
    with closing(sqlite3.connect(f"file:{var / 'tandem.db'}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in database.execute("SELECT request_id FROM inferences")}


def kill_all(gateway: Gateway) -> None:
    leader = psutil.Process(gateway.process.pid)
    processes = [leader, *leader.children(recursive=True)]
    for process in processes:
        process.suspend()  # so that none sees another one go
    for process in processes:
        process.kill()
    gateway.process.wait()
    psutil.wait_procs(processes, 30)


def errors(gateway: Gateway) -> list[str]:
    lines = [json.loads(line) for line in gateway.output.read_text().splitlines()]
    return [line["event"] for line in lines if line["level"] in ("error", "critical")]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_next_start_is_clean_and_has_what_was_recorded(tmp_path: Path, processes: str) -> None:
    answered: list[str] = []

    def ask_until_it_dies(client: httpx.Client) -> None:
        try:
            while True:
                answer = client.post(
                    "/v1/models/digits/predict", content=PICTURE, headers={"content-type": "image/png"}
                )
                answered.append(answer.json()["request_id"])
        except httpx.TransportError:
            pass

    settings = {"TANDEM_HTTP__PROCESSES": processes, **NOBODY}
    with running_gateway(tmp_path, **settings) as gateway:
        client = gateway.client
        assert client.put(ROUTING, json=CANARY, headers=key(tmp_path)).status_code == 200
        with httpx.Client(base_url=client.base_url, timeout=30) as user:
            asking = threading.Thread(target=ask_until_it_dies, args=[user])
            asking.start()
            wait_until(lambda: len(rows(tmp_path)) > 20, gateway.output.read_text, patience_s=30, pause_s=0.05)
            recorded = rows(tmp_path)
            started = client.post("/v1/models/digits/verify", json={"version": 1}, headers=key(tmp_path))
            job = started.headers["location"]
            assert client.get(job, headers=key(tmp_path)).json()["state"] == "running"
            policy = client.get(ROUTING).json()
            kill_all(gateway)
            asking.join()
    admin = key(tmp_path)
    assert recorded <= rows(tmp_path)
    with running_gateway(tmp_path, **settings) as gateway:
        client = gateway.client
        wait_until(lambda: client.get("/readyz").status_code == 200, gateway.output.read_text, patience_s=30)
        assert key(tmp_path) == admin
        assert client.get(ROUTING).json() == policy
        found = client.get(job, headers=admin).json()
        assert (found["state"], found["error"]) == ("failed", "The gateway process that ran it ended. Start it again.")
        assert client.post("/v1/models/digits/verify", json={"version": 1}, headers=admin).status_code == 202
        answer = client.post("/v1/models/digits/predict", content=PICTURE, headers={"content-type": "image/png"})
        assert answer.status_code == 200
        request_id = answer.json()["request_id"]
        wait_until(lambda: request_id in rows(tmp_path), gateway.output.read_text, patience_s=30, pause_s=0.05)
        assert recorded <= rows(tmp_path)
        assert errors(gateway) == []
