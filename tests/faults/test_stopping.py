"""A gateway that is told to stop answers what it accepted. Real processes; when it stops under load is
`python -m loadtests.prove_drain`."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.sockets import PICTURE, connected, upload
from tests.support.waiting import wait_until

HALF = len(PICTURE) // 2


def wait(gateway: Gateway, wanted: Callable[[], object]) -> None:
    wait_until(wanted, gateway.output.read_text, patience_s=30, pause_s=0.02)


def stop(gateway: Gateway) -> None:
    """Send SIGTERM, and wait until it has been heard."""
    gateway.process.send_signal(signal.SIGTERM)
    wait(gateway, lambda: '"draining"' in gateway.output.read_text())


def test_what_is_at_a_worker_is_answered_and_its_connection_ends(tmp_path: Path) -> None:
    with running_gateway(tmp_path, "--latency-ms=3000") as gateway, connected(gateway.client) as raw:
        raw.send(upload())
        wait(gateway, lambda: gateway.count('tandem_inflight{runtime="torch"}') == 1)
        stop(gateway)
        reply = raw.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert raw.ended
        assert gateway.process.wait(30) == -signal.SIGTERM
    with sqlite3.connect(tmp_path / "tandem.db") as database:
        assert database.execute("SELECT outcome FROM inferences").fetchall() == [("ok",)]


def test_a_body_that_is_still_arriving_is_waited_for(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway, connected(gateway.client) as raw:
        raw.send(upload()[:-HALF])
        wait(gateway, lambda: gateway.count("tandem_connections") == 2)
        stop(gateway)
        raw.send(PICTURE[-HALF:])
        assert raw.reply().status == 200
        assert gateway.process.wait(30) == -signal.SIGTERM


def test_a_connection_that_was_idle_may_ask_once_more(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway, connected(gateway.client) as raw, connected(gateway.client) as idle:
        for each in raw, idle:
            each.send(upload())
            assert "connection" not in each.reply().headers
        stop(gateway)
        raw.send(upload())
        reply = raw.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert idle.ended
        assert gateway.process.wait(30) == -signal.SIGTERM


def test_in_the_delay_it_is_not_ready_and_still_answers(tmp_path: Path) -> None:
    with running_gateway(tmp_path, TANDEM_HTTP__DRAIN_DELAY_S="600") as gateway:
        assert gateway.client.get("/readyz").status_code == 200
        stop(gateway)
        assert gateway.client.get("/readyz").status_code == 503
        with connected(gateway.client) as raw:
            raw.send(upload())
            reply = raw.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")


def test_who_cannot_be_answered_in_time_is_told_to_ask_again(tmp_path: Path) -> None:
    with (
        running_gateway(tmp_path, "--hang=torch", TANDEM_HTTP__DRAIN_S="0.2") as gateway,
        connected(gateway.client) as raw,
    ):
        raw.send(upload())
        wait(gateway, lambda: gateway.count('tandem_inflight{runtime="torch"}') == 1)
        stop(gateway)
        reply = raw.reply()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert json.loads(reply.body)["code"] == "stopping"
        assert gateway.process.wait(30) == -signal.SIGTERM
        assert "Traceback" not in gateway.output.read_text()


def test_an_address_that_is_taken_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        port = str(gateway.client.base_url.port)
        with pytest.raises(RuntimeError, match="Set TANDEM_HTTP__HOST and TANDEM_HTTP__PORT"):  # noqa: SIM117
            with running_gateway(tmp_path, TANDEM_HTTP__PORT=port):
                pass
