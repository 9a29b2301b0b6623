"""The command line: those of tensorflow_model_server's flags that the stand-in has, by the same names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tf_worker.errors import StartError

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class Flags:
    host: str
    """Address to listen on. Our own flag: the real server always listens on all of them."""
    port: int
    rest_api_port: int
    """HTTP port; 0: none."""
    monitoring_config_file: Path | None
    model_config_file: Path | None
    model_name: str
    model_base_path: str | None
    enable_batching: bool
    batching_parameters_file: Path | None
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
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int


def parse(arguments: Sequence[str]) -> Flags:
    """Read `--flag=value` and `--flag value`. Raises StartError with one line that names the wrong flag."""
    parser = _Parser(
        prog="python -m tf_worker.server",
        description="A stand-in for TensorFlow Serving's tensorflow_model_server (docs/tf-worker.md).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=_port, default=8500, help="gRPC port (8500)")
    add("--rest_api_port", type=_port_or_none, default=0, help="HTTP port, for the metrics page; 0: none (0)")
    add("--monitoring_config_file", type=Path, help="MonitoringConfig in protobuf text format")
    add("--model_config_file", type=Path, help="ModelServerConfig in protobuf text format")
    add("--model_name", default="default", help="name of the one model, without --model_config_file (default)")
    add("--model_base_path", help="folder of the one model's versions, without --model_config_file")
    _add_bool(parser, "--enable_batching", "join requests into batches")
    add("--batching_parameters_file", type=Path, help="BatchingParameters in protobuf text format")
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
        type=_natural_number,
        default=0,
        help="how often to read --model_config_file again; 0: only at the start (0)",
    )
    add("--num_load_threads", type=_natural_number, default=0, help="versions loaded at once after the start; 0: one")
    add("--num_unload_threads", type=_natural_number, default=0, help="versions unloaded at once; 0: one")
    add("--max_num_load_retries", type=_natural_number, default=5, help="tries of a load after the first failed (5)")
    add(
        "--load_retry_interval_micros",
        type=_whole_number,
        default=60_000_000,
        help="pause between two tries of a load; negative: none (60000000)",
    )
    _add_bool(parser, "--enable_model_warmup", "warm up each version before it is available (true)", default=True)
    add(
        "--num_request_iterations_for_warmup",
        type=_natural_number,
        default=0,
        help="how often each warm-up record is run; 0: once (0)",
    )
    add(
        "--file_system_poll_wait_seconds",
        type=_natural_number,
        default=1,
        help="how often to look for new and removed versions; 0: only at the start (1)",
    )
    add("--tensorflow_intra_op_parallelism", type=_natural_number, default=0, help="threads in an op; 0: auto")
    add("--tensorflow_inter_op_parallelism", type=_natural_number, default=0, help="ops at once; 0: auto")

    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise StartError(f"unknown flag {unknown[0]}; --help lists those the stand-in has, docs/tf-worker.md the rest")
    flags = Flags(**vars(known))
    if flags.model_config_file is None and not flags.model_base_path:
        raise StartError("nothing to serve: give --model_config_file or --model_base_path")
    if flags.batching_parameters_file is not None and not flags.enable_batching:
        raise StartError("--batching_parameters_file is set without --enable_batching=true")
    if flags.monitoring_config_file is not None and not flags.rest_api_port:
        raise StartError("--monitoring_config_file is set without --rest_api_port, where its page would be")
    if flags.rest_api_port == flags.port:
        raise StartError(f"--rest_api_port and --port are both {flags.port}; give another --rest_api_port")
    return flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartError(message)


def _add_bool(parser: argparse.ArgumentParser, name: str, help_: str, *, default: bool = False) -> None:
    parser.add_argument(name, type=_boolean, nargs="?", const=True, default=default, metavar="true|false", help=help_)


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _natural_number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")


def _whole_number(text: str) -> int:
    return -_natural_number(text[1:]) if text.startswith("-") else _natural_number(text)


def _port_or_none(text: str) -> int:
    return 0 if text == "0" else _port(text)


def _port(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
