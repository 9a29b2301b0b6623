"""The command line: tensorflow_model_server's flags, by its names and with its defaults.

Facts from TensorFlow Serving's model_servers/main.cc and server.h, and TensorFlow's util/command_line_flags.cc.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tf_worker.errors import StartError
from tf_worker.flag_values import (
    boolean,
    channel_arguments,
    fraction,
    integer,
    natural_number,
    path,
    port,
    positive,
    texts,
)

CPUS = len(os.sched_getaffinity(0))

WITHOUT_EFFECT = {
    "enable_profiler": "it has no profiler service",
    "enable_signature_method_name_check": "it has no Classify and Regress, which alone look at it",
    "flush_filesystem_caches": "it leaves the file cache to the system",
    "num_tflite_interpreters_per_pool": "it has no TensorFlow Lite",
    "num_tflite_pools": "it has no TensorFlow Lite",
    "platform_config_file": "it takes sessions and batching from the other flags",
    "prefer_tflite_model": "it has no TensorFlow Lite",
    "remove_unused_fields_from_bundle_metagraph": "it keeps of a metagraph the signatures alone",
    "skip_initialize_tpu": "it has no TPUs",
    "thread_pool_factory_config_file": "its sessions have TensorFlow's own thread pools",
    "xla_cpu_compilation_enabled": "XLA is in it as in the tensorflow wheel",
    "xla_gpu_compilation_enabled": "XLA is in it as in the tensorflow wheel",
}
"""Flags of the real server that mean nothing here, and why. They are accepted with a warning."""


@dataclass(frozen=True)
class Flags:
    host: str
    """Address to listen on. Our own flag: the real server always listens on all of them."""
    port: int
    """gRPC port; 0: none."""
    grpc_socket_path: str
    """Unix socket for gRPC, beside the port or instead of it; empty: none."""
    grpc_channel_arguments: dict[str, int | str]
    grpc_max_threads: int
    ssl_config_file: Path | None
    enable_grpc_healthcheck_service: bool
    enable_serialization_as_tensor_content: bool

    rest_api_port: int
    """HTTP port; 0: none."""
    rest_api_num_threads: int
    rest_api_timeout_in_ms: int
    """How long a request over REST may take; 0 or less: as long as it likes."""
    rest_api_enable_cors_support: bool
    monitoring_config_file: Path | None

    model_config_file: Path | None
    model_name: str
    model_base_path: str
    saved_model_tags: tuple[str, ...]
    enable_per_model_batching_parameters: bool
    allow_version_labels_for_unavailable_models: bool
    model_config_file_poll_wait_seconds: int
    num_load_threads: int
    num_unload_threads: int
    max_num_load_retries: int
    load_retry_interval_micros: int
    enable_model_warmup: bool
    num_request_iterations_for_warmup: int
    file_system_poll_wait_seconds: int

    enable_batching: bool
    batching_parameters_file: Path | None

    tensorflow_session_config_file: Path | None
    tensorflow_session_parallelism: int
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    per_process_gpu_memory_fraction: float
    mixed_precision: str

    use_alts_credentials: bool
    version: bool
    """Say which version this is, and end."""
    warnings: tuple[str, ...]
    """What was accepted and has no effect, a line each."""


def parse(arguments: Sequence[str]) -> Flags:
    """Read `--flag=value`, and `--flag value` of our own. Raises StartError with one line that names the wrong flag."""
    parser = _Parser(
        prog="python -m tf_worker.server",
        description="A stand-in for TensorFlow Serving's tensorflow_model_server (docs/tf-worker.md).",
        allow_abbrev=False,
    )
    parser.set_defaults(warnings=())
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    _add_grpc(parser)
    _add_rest(parser)
    _add_models(parser)
    _add_sessions(parser)
    _add_bool(parser, "--version", "print the versions and end")
    for name, reason in WITHOUT_EFFECT.items():
        parser.add_argument(
            f"--{name}", action=_WithoutEffect, nargs="?", default=argparse.SUPPRESS, help=f"no effect: {reason}"
        )

    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise StartError(f"unknown flag {unknown[0]}; --help lists those of tensorflow_model_server")
    if not known.version:
        _check(known)
    return Flags(**vars(known))


def _add_grpc(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=port, default=8500, help="gRPC port; 0: none (8500)")
    add("--grpc_socket_path", default="", help="Unix socket for gRPC, beside the port or instead of it")
    add(
        "--grpc_channel_arguments",
        type=channel_arguments,
        default={},
        help="arguments of the gRPC server: grpc.max_receive_message_length=67108864,…",
    )
    add(
        "--grpc_max_threads",
        type=positive,
        default=256,
        help="gRPC requests handled at once; others wait (256)",
    )
    add("--ssl_config_file", type=path, help="SSLConfig in protobuf text format: TLS for gRPC")
    _add_bool(parser, "--use_alts_credentials", "Google's ALTS, which this server does not have")
    _add_bool(parser, "--enable_grpc_healthcheck_service", "have the service grpc.health.v1.Health")
    _add_bool(parser, "--enable_serialization_as_tensor_content", "answer with tensor_content, not the typed fields")


def _add_rest(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--rest_api_port",
        type=port,
        default=0,
        help="HTTP port, for REST and the metrics page; 0: none (0)",
    )
    add(
        "--rest_api_num_threads",
        type=positive,
        default=4 * CPUS,
        help=f"REST requests handled at once; others wait (4 for each CPU: {4 * CPUS})",
    )
    add(
        "--rest_api_timeout_in_ms",
        type=integer,
        default=30000,
        help="deadline of a REST request; 0: none (30000)",
    )
    _add_bool(parser, "--rest_api_enable_cors_support", "CORS headers in REST answers")
    add("--monitoring_config_file", type=path, help="MonitoringConfig in protobuf text format")


def _add_models(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model_config_file", type=path, help="ModelServerConfig in protobuf text format")
    add("--model_name", default="default", help="name of the one model, without --model_config_file (default)")
    add("--model_base_path", default="", help="folder of the one model's versions, without --model_config_file")
    add(
        "--saved_model_tags",
        type=texts,
        default=("serve",),
        help="tags of the metagraph to load: serve,gpu (serve)",
    )
    _add_bool(
        parser,
        "--allow_version_labels_for_unavailable_models",
        "let a new version label name a version that is not loaded yet; needed for labels in a config file",
    )
    _add_bool(
        parser,
        "--enable_per_model_batching_parameters",
        "take each version's batching parameters from batching_params.pbtxt in its folder; without one, no batching",
    )
    add(
        "--model_config_file_poll_wait_seconds",
        type=natural_number,
        default=0,
        help="how often to read --model_config_file again; 0: only at the start (0)",
    )
    add(
        "--num_load_threads",
        type=natural_number,
        default=0,
        help="versions loaded at once after the start; 0: one",
    )
    add("--num_unload_threads", type=natural_number, default=0, help="versions unloaded at once; 0: one")
    add(
        "--max_num_load_retries",
        type=natural_number,
        default=5,
        help="tries of a load after the first failed (5)",
    )
    add(
        "--load_retry_interval_micros",
        type=integer,
        default=60_000_000,
        help="pause between two tries of a load; negative: none (60000000)",
    )
    _add_bool(parser, "--enable_model_warmup", "warm up each version before it is available (true)", default=True)
    add(
        "--num_request_iterations_for_warmup",
        type=natural_number,
        default=0,
        help="how often each warm-up record is run; 0: once (0)",
    )
    add(
        "--file_system_poll_wait_seconds",
        type=natural_number,
        default=1,
        help="how often to look for new and removed versions; 0: only at the start (1)",
    )


def _add_sessions(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_bool(parser, "--enable_batching", "join requests into batches")
    add("--batching_parameters_file", type=path, help="BatchingParameters in protobuf text format")
    add("--tensorflow_session_config_file", type=path, help="ConfigProto in protobuf text format")
    add(
        "--tensorflow_session_parallelism",
        type=natural_number,
        default=0,
        help="the next two at once; 0: auto",
    )
    add(
        "--tensorflow_intra_op_parallelism",
        type=natural_number,
        default=0,
        help="threads in an op; 0: auto",
    )
    add("--tensorflow_inter_op_parallelism", type=natural_number, default=0, help="ops at once; 0: auto")
    add("--per_process_gpu_memory_fraction", type=fraction, default=0.0, help="0: as needed (0)")
    add("--mixed_precision", default="", help="bfloat16: let TensorFlow compute in it where it thinks fit")


def _check(known: Any) -> None:
    """Raises StartError for what the real server refuses at the start; what it passes over adds to the warnings."""
    if not known.port and not known.grpc_socket_path:
        raise StartError("nowhere to listen: give --port or --grpc_socket_path")
    if known.use_alts_credentials:
        raise StartError("--use_alts_credentials: ALTS needs Google's platform; give --ssl_config_file for TLS")
    if known.model_config_file is None and not known.model_base_path:
        raise StartError("nothing to serve: give --model_config_file or --model_base_path")
    if known.batching_parameters_file is not None and not known.enable_batching:
        raise StartError("--batching_parameters_file is set without --enable_batching=true")
    parallelism = ("session", "intra_op", "inter_op")
    if all(getattr(known, f"tensorflow_{name}_parallelism") for name in parallelism):
        raise StartError("--tensorflow_session_parallelism stands for the other two: give either it or them")
    if known.mixed_precision not in ("", "bfloat16"):
        known.warnings += (f"--mixed_precision={known.mixed_precision} has no effect: there is bfloat16 alone",)
        known.mixed_precision = ""
    if known.rest_api_port and known.rest_api_port == known.port:
        known.warnings += (f"there is no HTTP: --rest_api_port and --port are both {known.port}; give another one",)
        known.rest_api_port = 0
    elif known.monitoring_config_file is not None and not known.rest_api_port:
        known.warnings += ("--monitoring_config_file has no effect without --rest_api_port, where its page would be",)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartError(message)


class _WithoutEffect(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ARG002
        line = f"{option_string} has no effect on this stand-in: {WITHOUT_EFFECT[self.dest]}"
        if line not in namespace.warnings:
            namespace.warnings += (line,)


def _add_bool(parser: argparse.ArgumentParser, name: str, help_: str, *, default: bool = False) -> None:
    parser.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="true|false", help=help_)
