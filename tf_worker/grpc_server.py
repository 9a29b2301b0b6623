"""The gRPC server: where it listens, with which credentials, which services it has."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tf_worker.errors import StartError
from tf_worker.flags import Flags
from tf_worker.services import ModelService, PredictionService

log = logging.getLogger(__name__)

HEALTH_NAMES = ("", "ModelService", "PredictionService")
_OPTIONS: dict[str, int | str] = {
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    "grpc.so_reuseport": 0,  # two servers on one port would share its connections, and neither would know
}


class GrpcServer:
    """Answers from the moment it is made. Raises StartError if it cannot listen."""

    def __init__(
        self,
        flags: Flags,
        credentials: grpc.ServerCredentials | None,
        prediction: PredictionService,
        models: ModelService,
    ) -> None:
        options = _OPTIONS | flags.grpc_channel_arguments
        threads = ThreadPoolExecutor(flags.grpc_max_threads, thread_name_prefix="request")
        self._server = grpc.server(threads, options=list(options.items()))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        self._health = health.HealthServicer() if flags.enable_grpc_healthcheck_service else None
        if self._health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        addresses = _addresses(flags)
        for address in addresses:
            self._listen(address, credentials)
        self._server.start()
        if self._health:
            for name in HEALTH_NAMES:
                self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        for address in addresses:
            log.info("Running gRPC ModelServer at %s%s ...", address, " with TLS" if credentials else "")

    def _listen(self, address: str, credentials: grpc.ServerCredentials | None) -> None:
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            causes = "another server, a path that is too long or in a folder that is not there"
            if credentials is not None:
                causes += ", a key or certificate of --ssl_config_file that is not valid"
            raise StartError(f"cannot listen on {address} ({causes}): {error}") from error

    def drain(self, grace_s: float) -> None:
        """Take no more requests; return when those that were accepted have been answered or the grace has passed."""
        if self._health:
            self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()


def _addresses(flags: Flags) -> list[str]:
    addresses = [f"{flags.host}:{flags.port}"] if flags.port else []
    if flags.grpc_socket_path:
        addresses.append(f"unix:{flags.grpc_socket_path}")
    return addresses
