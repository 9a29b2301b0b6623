"""Where and how the stand-in listens for gRPC: TLS, Unix sockets, channel arguments, the health service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tests.tf_worker.conftest import Server, refusal, request, run_server
from tf_worker import flags
from tf_worker.errors import Code, ServingError
from tf_worker.metrics import Metrics
from tf_worker.servable import Servable

LARGEST = 1_000_000


@dataclass
class Secured:
    """A server that only lets clients in that have a certificate."""

    server: Server
    authority: trustme.CA
    socket: Path

    def credentials(self, authority: trustme.CA | None) -> grpc.ChannelCredentials:
        """Those of a client of that authority."""
        root = self.authority.cert_pem.bytes()
        if authority is None:
            return grpc.ssl_channel_credentials(root)
        client = authority.issue_cert("client@example.org")
        chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
        return grpc.ssl_channel_credentials(root, client.private_key_pem.bytes(), chain)

    def predict(self, target: str, authority: trustme.CA | None, rows: int = 1) -> Any:
        options = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(target, self.credentials(authority), options=options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return stub.Predict(request("scale", x=np.ones((rows, 3), np.float32)), timeout=30)


@pytest.fixture(scope="module")
def secured(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    cert = authority.issue_cert("localhost", "127.0.0.1")
    texts = {
        "server_key": cert.private_key_pem.bytes().decode(),
        "server_cert": "".join(blob.bytes().decode() for blob in cert.cert_chain_pems),
        "custom_ca": authority.cert_pem.bytes().decode(),
    }
    config = folder / "ssl.config"
    config.write_text(
        "".join(f"{name}: {json.dumps(text)}\n" for name, text in texts.items()) + "client_verify: true\n"
    )
    socket = folder / "grpc.sock"
    with run_server(
        folder,
        "--model_name=scale",
        f"--model_base_path={model_folder / 'scale'}",
        f"--ssl_config_file={config}",
        f"--grpc_socket_path={socket}",
        f"--grpc_channel_arguments=grpc.max_receive_message_length={LARGEST}",
    ) as server:
        while f"at unix:{socket} with TLS" not in server.log:
            assert server.process.poll() is None, server.log
        yield Secured(server, authority, socket)


@pytest.mark.parametrize("by", ["port", "socket"])
def test_a_client_with_a_certificate_is_served_over_tls(secured: Secured, by: str) -> None:
    target = f"127.0.0.1:{secured.server.port}" if by == "port" else f"unix:{secured.socket}"
    answer = secured.predict(target, secured.authority)
    assert tf.make_ndarray(answer.outputs["total"]).tolist() == [30]


@pytest.mark.parametrize("authority", [None, trustme.CA()], ids=["nobody", "another"])
def test_a_client_without_a_certificate_of_the_authority_is_not_let_in(
    secured: Secured, authority: trustme.CA | None
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        secured.predict(f"127.0.0.1:{secured.server.port}", authority)
    assert refusal(caught.value)[0] is grpc.StatusCode.UNAVAILABLE


def test_a_client_without_tls_is_not_let_in(secured: Secured) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        secured.server.predict("scale", x=[[1.0, 2.0, 3.0]])
    assert refusal(caught.value)[0] is grpc.StatusCode.UNAVAILABLE


def test_a_message_over_the_limit_of_the_channel_arguments_is_refused(secured: Secured) -> None:
    with pytest.raises(grpc.RpcError, match=f"larger than max .*{LARGEST}") as caught:
        secured.predict(f"127.0.0.1:{secured.server.port}", secured.authority, rows=LARGEST // 12 + 1)
    assert refusal(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def local(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A channel to a server that has a Unix socket alone, and more flags than others."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "session.config").write_text("inter_op_parallelism_threads: 7 log_device_placement: false")
    arguments = [
        "--port=0",
        f"--grpc_socket_path={folder / 'grpc.sock'}",
        "--rest_api_port=0",
        "--grpc_max_threads=2",
        "--enable_grpc_healthcheck_service",
        "--enable_serialization_as_tensor_content",
        f"--tensorflow_session_config_file={folder / 'session.config'}",
        "--tensorflow_session_parallelism=1",
        "--mixed_precision=bfloat16",
        "--saved_model_tags=serve",
        "--flush_filesystem_caches=false",
        "--model_name=scale",
        f"--model_base_path={model_folder / 'scale'}",
    ]
    with (
        run_server(folder, *arguments) as server,
        closing(grpc.insecure_channel(f"unix:{folder / 'grpc.sock'}")) as channel,
    ):
        grpc.channel_ready_future(channel).result(90)
        assert server.log.count("--flush_filesystem_caches has no effect on this stand-in: it leaves") == 1
        assert "REST" not in server.log
        yield channel


def test_a_server_without_a_port_is_reached_by_its_socket(local: grpc.Channel) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(local)
    answer = stub.Predict(request("scale", x=[[1.0, 2.0, 3.0]]), timeout=30)
    assert tf.make_ndarray(answer.outputs["scaled"]).tolist() == [[10, 20, 30]]


def test_answers_are_raw_bytes_if_the_flag_says_so(local: grpc.Channel) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(local)
    scaled = stub.Predict(request("scale", x=[[1.0, 2.0, 3.0]]), timeout=30).outputs["scaled"]
    assert scaled.tensor_content == np.array([10, 20, 30], np.float32).tobytes()
    assert not scaled.float_val


@pytest.mark.parametrize("service", ["", "PredictionService", "ModelService"])
def test_the_health_service_says_serving(local: grpc.Channel, service: str) -> None:
    answer = health_pb2_grpc.HealthStub(local).Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_saved_model_is_loaded_by_its_tags(model_folder: Path) -> None:
    read = flags.parse(["--saved_model_tags=serve,gpu", "--model_base_path=/models/x"])
    config = tf.compat.v1.ConfigProto()
    with pytest.raises(ServingError, match="gpu") as caught:
        Servable.load(model_folder / "scale" / "1", read.saved_model_tags, config, Metrics(None))
    assert caught.value.code is Code.NOT_FOUND
    Servable.load(model_folder / "scale" / "1", ("serve",), config, Metrics(None)).close()


def test_a_key_that_is_none_is_named_with_the_file_to_mend(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ssl.config").write_text("server_key: '-----BEGIN X' server_cert: '-----BEGIN Y'")
    arguments = [f"--ssl_config_file={tmp_path / 'ssl.config'}", f"--model_base_path={model_folder / 'scale'}"]
    with run_server(tmp_path, *arguments) as server:
        assert server.process.wait(60) == 2
        assert "certificate of --ssl_config_file that is not valid" in server.log
