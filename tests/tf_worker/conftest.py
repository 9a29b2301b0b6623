"""A running stand-in, as its users start it, and the official stubs to talk to it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.tf_worker import saved_models

ROOT = Path(__file__).parents[2]
MAX_BATCH_SIZE = 4
MODELS = ("scale", "choosy", "words", "mixed", "half_broken", "types")
"""Those that `server` has."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Rest:
    """The HTTP port, asked on a connection for each request."""

    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """`body` as http.client takes it: bytes, or their parts, which are then sent in chunks."""
        with closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {}, encode_chunked=not isinstance(body, bytes | None))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, document: Any) -> Answer:
        """A document, or the JSON text itself."""
        text = document if isinstance(document, str) else json.dumps(document)
        return self.ask("POST", path, text.encode())


class Server:
    """A stand-in in a process of its own. `log` is what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, rest: Rest, log: Path) -> None:
        self.process = process
        self._log = log
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 100),
            ],
        )
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.port = port
        self.rest = rest

    @property
    def log(self) -> str:
        return self._log.read_text()

    def predict(self, model: str, *, timeout: float = 30, **inputs: Any) -> dict[str, Any]:
        response = self.prediction.Predict(request(model, **inputs), timeout=timeout)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def states(self, model: str) -> dict[int, tuple[str, int, str]]:
        """State, error code and message of each version."""
        message = get_model_status_pb2.GetModelStatusRequest()
        message.model_spec.name = model
        answer = self.models.GetModelStatus(message, wait_for_ready=True, timeout=90)
        names = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            item.version: (names(item.state), item.status.error_code, item.status.error_message)
            for item in answer.model_version_status
        }


def request(model: str, **inputs: Any) -> Any:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


@contextmanager
def run_server(folder: Path, *flags: str) -> Iterator[Server]:
    """`flags` come after those of its ports."""
    port, rest = free_port(), Rest(free_port())
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tf_worker.server", f"--port={port}", f"--rest_api_port={rest.port}", *flags],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    server = Server(process, port, rest, log)
    try:
        yield server
    finally:
        server.channel.close()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<model>/<version>/saved_model.pb for every model of the tests."""
    folder = tmp_path_factory.mktemp("models")
    saved_models.save_scale(folder / "scale" / "1", 2.0)
    saved_models.save_scale(folder / "scale" / "2", 10.0)
    saved_models.save(saved_models.Choosy(), folder / "choosy" / "1")
    saved_models.save(saved_models.Words(), folder / "words" / "1")
    saved_models.save(saved_models.Mixed(), folder / "mixed" / "1")
    saved_models.save(saved_models.Slow(), folder / "slow" / "1")
    saved_models.save_types(folder / "types" / "1")
    (folder / "half_broken" / "2").mkdir(parents=True)
    (folder / "half_broken" / "2" / "saved_model.pb").write_bytes(b"not a model")
    (folder / "half_broken" / "3").mkdir()
    saved_models.save_scale(folder / "half_broken" / "1", 3.0)
    return folder


@pytest.fixture(scope="session")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A stand-in with batching that serves all versions of the models."""
    folder = tmp_path_factory.mktemp("server")
    models = "".join(
        f'config {{ name: "{name}" base_path: "{model_folder / name}" model_platform: "tensorflow"'
        " model_version_policy { all {} } }"
        for name in MODELS
    )
    (folder / "models.config").write_text(f"model_config_list {{ {models} }}")
    (folder / "batching.config").write_text(
        f"max_batch_size {{ value: {MAX_BATCH_SIZE} }} num_batch_threads {{ value: 1 }}"
    )
    with run_server(
        folder,
        f"--model_config_file={folder / 'models.config'}",
        "--enable_batching",
        "--batching_parameters_file",
        str(folder / "batching.config"),
        "--tensorflow_intra_op_parallelism=1",
    ) as running:
        states = running.states("half_broken")
        while any(state in ("START", "LOADING") for state, _, _ in states.values()):
            states = running.states("half_broken")
        yield running


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Code and message of a refused call."""
    assert isinstance(error, grpc.Call)
    return error.code(), error.details() or ""
