"""Several gateway processes behave as one. Real processes; each connection stays with the process that took it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.sockets import Raw, connected, upload
from tests.support.stack import HOST
from tests.support.waiting import wait_until

FIXED = "/v1/models/digits/routing"


def processes(gateway: Gateway) -> list[psutil.Process]:
    return psutil.Process(gateway.process.pid).children()


def connections(process: psutil.Process) -> int:
    return sum(each.status == psutil.CONN_ESTABLISHED and bool(each.raddr) for each in process.net_connections("tcp"))


def wait(gateway: Gateway, wanted: object) -> None:
    wait_until(wanted, gateway.output.read_text, patience_s=60, pause_s=0.05)  # type: ignore[arg-type]


@contextmanager
def two(var: Path, *arguments: str, **settings: str) -> Iterator[Gateway]:
    """A gateway of two processes that both take connections."""
    with running_gateway(var, *arguments, TANDEM_HTTP__PROCESSES="2", **settings) as gateway:
        wait(gateway, lambda: gateway.output.read_text().count('"listening"') == 2)
        yield gateway


@contextmanager
def spread(gateway: Gateway) -> Iterator[list[httpx.Client]]:
    """Clients with a connection each, some at both processes: a busy one leaves newcomers to the other."""
    with ExitStack() as stack:
        clients: list[httpx.Client] = []
        while len(clients) < 8 or any(connections(process) < 3 for process in processes(gateway)):
            assert len(clients) < 100
            clients.append(stack.enter_context(httpx.Client(base_url=gateway.client.base_url, timeout=30)))
            assert clients[-1].get("/livez").status_code == 200
        yield clients


def predict(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/models/digits/predict", content=upload().partition(b"\r\n\r\n")[2], headers=PNG)


PNG = {"content-type": "image/png"}


def test_metrics_add_up_whichever_process_is_asked(tmp_path: Path) -> None:
    with two(tmp_path) as gateway, spread(gateway) as clients:
        for number in range(24):
            assert predict(clients[number % len(clients)]).status_code == 200
        pages = [client.get("/metrics").text for client in clients]
        for page in pages:
            assert (
                'tandem_requests_total{model="digits",outcome="ok",role="primary",runtime="torch",version="2"} 24.0'
                in page
            )
            assert "tandem_build_info{version=" in page
        counts = [line for line in pages[0].splitlines() if line.startswith("tandem_request_seconds_count")]
        assert [line.rpartition(" ")[2] for line in counts] == ["24.0"]
        resident = float(pages[0].partition("\nprocess_resident_memory_bytes ")[2].partition("\n")[0])
        assert resident == pytest.approx(sum(each.memory_info().rss for each in processes(gateway)), rel=0.2)


def test_a_policy_set_at_one_process_is_followed_by_the_other(tmp_path: Path) -> None:
    with two(tmp_path) as gateway, spread(gateway) as clients:
        key = {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
        assert clients[0].put(FIXED, json={"policy": "fixed", "target": "tf"}, headers=key).status_code == 200
        wait(gateway, lambda: {predict(client).json()["runtime"] for client in clients} == {"tf"})


def test_a_job_is_seen_by_every_process_and_one_at_a_time_runs(tmp_path: Path) -> None:
    nobody = {"TANDEM_TORCH__ADDRESS": f"{HOST}:9", "TANDEM_TF__ADDRESS": f"{HOST}:9"}
    with two(tmp_path, **nobody) as gateway, spread(gateway) as clients:
        key = {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
        started = clients[0].post("/v1/models/digits/verify", json={"version": 1}, headers=key)
        assert started.status_code == 202
        job = started.headers["location"]
        for client in clients:
            assert client.get(job, headers=key).json()["state"] == "running"
            refused = client.post("/v1/models/digits/verify", json={"version": 1}, headers=key)
            assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
            assert job in refused.json()["detail"]
        wait(gateway, lambda: clients[0].get(job, headers=key).json()["state"] != "running")
        assert len({client.get(job, headers=key).text for client in clients}) == 1
        assert "TorchServe cannot take requests now" in clients[0].get(job, headers=key).json()["error"]


def test_a_process_that_is_killed_takes_only_its_own_requests_along(tmp_path: Path) -> None:
    with two(tmp_path, "--latency-ms=20") as gateway, spread(gateway) as clients:
        for client in clients:
            assert predict(client).status_code == 200
        victim, survivor = processes(gateway)
        theirs = {each.raddr.port for each in survivor.net_connections("tcp") if each.raddr}
        kept = [client for client in clients if _port(client) in theirs]
        assert 0 < len(kept) < len(clients)
        failed: list[object] = []

        def ask() -> None:
            for _ in range(20):
                answers = [predict(client) for client in kept]
                failed.extend(answer.text for answer in answers if answer.status_code != 200)

        asking = threading.Thread(target=ask)
        asking.start()
        victim.send_signal(signal.SIGKILL)
        for _ in range(10):  # who comes meanwhile is taken by the other one, and later by the new one
            with httpx.Client(base_url=gateway.client.base_url, timeout=30) as newcomer:
                assert predict(newcomer).status_code == 200
        asking.join()
        assert failed == []
        wait(gateway, lambda: gateway.output.read_text().count('"listening"') == 3)
        assert "process_ended" in gateway.output.read_text()
        with httpx.Client(base_url=gateway.client.base_url, timeout=30) as newcomer:
            counted = [
                line for line in newcomer.get("/metrics").text.splitlines() if line.startswith("tandem_requests_total{")
            ]
        assert [float(line.rpartition(" ")[2]) for line in counted] == [len(clients) + 20 * len(kept) + 10]


def _port(client: httpx.Client) -> int:
    """The local port of the client's connection."""
    (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
    return int(connection._connection._network_stream.get_extra_info("client_addr")[1])


def test_all_of_them_answer_what_they_accepted_and_end(tmp_path: Path) -> None:
    with two(tmp_path, "--latency-ms=3000") as gateway, ExitStack() as stack:
        raws = [stack.enter_context(connected(gateway.client)) for _ in range(6)]
        for raw in raws:
            raw.send(upload())
        wait(gateway, lambda: gateway.count('tandem_inflight{runtime="torch"}') == 6)
        gateway.process.terminate()
        for raw in raws:
            reply = raw.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert gateway.process.wait(30) == -signal.SIGTERM


def test_they_end_with_their_supervisor_even_if_it_is_killed_and_answer_first(tmp_path: Path) -> None:
    with two(tmp_path, "--latency-ms=3000") as gateway:
        both = processes(gateway)
        raw = Raw(gateway.client)
        raw.send(upload())
        wait(gateway, lambda: gateway.count('tandem_inflight{runtime="torch"}') == 1)
        gateway.process.kill()
        assert raw.reply().status == 200
        raw.close()
        assert psutil.wait_procs(both, 30)[1] == []
        assert gateway.client.base_url.port is not None
        socket.create_server((HOST, gateway.client.base_url.port)).close()  # the address is free again


def test_processes_that_cannot_start_end_the_gateway_and_say_why(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("")
    with pytest.raises(RuntimeError, match=r"admin\.key is empty"), two(tmp_path):
        pass
