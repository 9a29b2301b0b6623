"""The end of a server."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest

from tests.tf_worker.conftest import refusal, request, run_server

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
