"""The end of a server."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.tf_worker.conftest import refusal, request, run_server

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STEPS = 200_000  # a second or so of a graph that counts


def test_sigterm_finishes_what_was_accepted_takes_no_more_and_exits_with_0(tmp_path: Path, model_folder: Path) -> None:
    with run_server(tmp_path, "--model_name=slow", f"--model_base_path={model_folder / 'slow'}") as server:
        assert server.states("slow") == {1: ("AVAILABLE", 0, "")}
        accepted = server.prediction.Predict.future(request("slow", n=STEPS), timeout=30)
        server.states("slow")  # on the same connection, so it is answered after the other has been accepted
        assert not accepted.done()
        server.process.send_signal(signal.SIGTERM)
        assert list(accepted.result().outputs["n"].int_val) == [STEPS]
        assert server.process.wait(10) == 0
        with pytest.raises(grpc.RpcError) as caught:
            server.predict("slow", n=1)
        assert refusal(caught.value)[0] is grpc.StatusCode.UNAVAILABLE
        assert "finishing what was accepted" in server.log


def test_sigterm_answers_accepted_rest_requests_and_refuses_more(tmp_path: Path, model_folder: Path) -> None:
    with run_server(tmp_path, "--model_name=slow", f"--model_base_path={model_folder / 'slow'}") as server:
        assert server.states("slow") == {1: ("AVAILABLE", 0, "")}
        with closing(server.rest.connect()) as idle, closing(server.rest.connect()) as accepted:
            idle.request("GET", "/v1/models/slow")
            assert idle.getresponse().read()
            body = json.dumps({"inputs": STEPS}).encode()
            accepted.putrequest("POST", "/v1/models/slow:predict")
            accepted.putheader("Content-Length", str(len(body)))
            accepted.putheader("Expect", "100-continue")
            accepted.endheaders()
            assert accepted.sock.recv(len(CONTINUE)) == CONTINUE
            server.process.send_signal(signal.SIGTERM)
            while "finishing what was accepted" not in server.log:
                pass
            idle.request("GET", "/v1/models/slow")
            refused = idle.getresponse()
            assert (refused.status, refused.getheader("Connection")) == (503, "close")
            assert json.loads(refused.read()) == {"error": "the server is stopping"}
            accepted.send(body)
            answer = accepted.getresponse()
            assert (answer.status, json.loads(answer.read())) == (200, {"outputs": STEPS})
        assert server.process.wait(10) == 0
