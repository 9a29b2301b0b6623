"""`python -m tf_worker.server`: a stand-in for TensorFlow Serving's tensorflow_model_server.

It speaks the real server's gRPC protocol over the tensorflow wheel, for machines without its container image.
docs/tf-worker.md says what it does otherwise.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from importlib.metadata import version
from types import FrameType

from tf_worker import batching_parameters, flags, model_config, monitoring_config, ssl_config
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import StartError

log = logging.getLogger("tf_worker")


def main(arguments: list[str]) -> int:
    """The exit status: 0 after SIGTERM or SIGINT, 2 for a server that could not start, with one line saying why."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)  # until the event loop takes them over; importing takes seconds
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on every import are not about this server
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        parsed = flags.parse(arguments)
        if parsed.version:
            sys.stdout.write(
                f"TensorFlow ModelServer: {version('tensorflow-serving-api')}, a stand-in\n"
                f"TensorFlow Library: {version('tensorflow')}\n"
            )
            return 0
        for line in parsed.warnings:
            log.warning("%s; see docs/tf-worker.md", line)
        config = model_config.from_flags(parsed)
        batching = _batching(parsed)
        file = parsed.monitoring_config_file
        metrics_path = None if file is None else monitoring_config.read(file)
        credentials = None if parsed.ssl_config_file is None else ssl_config.read(parsed.ssl_config_file)
        if parsed.port:
            _check_port(parsed.host, parsed.port, "--port")
        if parsed.rest_api_port:
            _check_port(parsed.host, parsed.rest_api_port, "--rest_api_port")
        log.info(
            "this is a stand-in for TensorFlow Serving's tensorflow_model_server, over the tensorflow %s wheel;"
            " docs/tf-worker.md says how it differs",
            version("tensorflow"),
        )
        from tf_worker import serving  # TensorFlow: seconds, which a wrong flag should not cost

        serving.serve(parsed, config, batching, metrics_path, credentials)
    except StartError as error:
        sys.stderr.write(f"tf_worker: {error}\n")
        return 2
    return 0


def _batching(parsed: flags.Flags) -> BatchingParameters | None:
    if not parsed.enable_batching:
        return None
    if parsed.batching_parameters_file is None:
        return BatchingParameters(
            thread_pool_name="model_server_batch_threads"
        )  # the real server's name without a file
    return batching_parameters.read(parsed.batching_parameters_file)


def _check_port(host: str, port: int, flag: str) -> None:
    """Raises StartError with the system's own reason, which gRPC does not pass on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what holds it, or give another {flag} or --host"
        ) from error


def _exit_at_once(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)  # a load, or a run that has outlasted its grace, would keep an ordinary exit waiting
