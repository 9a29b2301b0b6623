"""Flags, and what is said to somebody who got one wrong. None of this waits for TensorFlow to be imported."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tf_worker.conftest import free_port
from tf_worker import flags, model_config, ssl_config
from tf_worker.errors import StartError

ROOT = Path(__file__).parents[2]
MODEL = ("--model_base_path=/models/x",)


def test_a_flags_value_follows_an_equals_sign_or_a_space() -> None:
    for arguments in (["--port=18500", *MODEL], ["--port", "18500", *MODEL]):
        assert flags.parse(arguments).port == 18500


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--enable_batching", True),
        ("--enable_batching=true", True),
        ("--enable_batching=false", False),
    ],
)
def test_a_boolean_flag_needs_no_value(argument: str, value: bool) -> None:
    assert flags.parse([argument, *MODEL]).enable_batching is value


def test_loads_and_warm_up_are_the_real_servers_unless_told_otherwise() -> None:
    default = flags.parse(MODEL)
    assert (default.num_load_threads, default.max_num_load_retries, default.load_retry_interval_micros) == (
        0,
        5,
        60_000_000,
    )
    assert (default.enable_model_warmup, default.model_config_file_poll_wait_seconds) == (True, 0)
    assert flags.parse(["--load_retry_interval_micros=-1", *MODEL]).load_retry_interval_micros == -1
    assert not flags.parse(["--enable_model_warmup=false", *MODEL]).enable_model_warmup


def test_the_deprecated_model_type_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "models.config"
    file.write_text("model_config_list { config { name: 'x' base_path: '/x' model_type: TENSORFLOW } }")
    (model,) = model_config.from_flags(flags.parse([f"--model_config_file={file}"])).model_config_list.config
    assert model.name == "x"
    assert "Deprecated ModelServerConfig::model_type" in caplog.text


def test_one_model_can_be_served_without_a_file() -> None:
    (model,) = model_config.from_flags(
        flags.parse(["--model_name=x", "--model_base_path=/models/x"])
    ).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("x", "/models/x", "tensorflow")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param(["--ssl_confg_file=x"], "unknown flag --ssl_confg_file=x; --help lists", id="unknown"),
        pytest.param(["--noenable_batching"], "unknown flag --noenable_batching", id="no-boolean"),
        pytest.param(["--port=http"], "--port: expected a port from 1 to 65535, or 0 for none, got 'http'", id="port"),
        pytest.param(["--port=0", *MODEL], "give --port or --grpc_socket_path", id="nowhere"),
        pytest.param(["--enable_batching=1"], "expected true or false, got '1'", id="boolean"),
        pytest.param(["--rest_api_num_threads=0"], "--rest_api_num_threads: expected .* from 1, got '0'", id="threads"),
        pytest.param(["--rest_api_timeout_in_ms=1s"], "expected a whole number, got '1s'", id="timeout"),
        pytest.param(["--per_process_gpu_memory_fraction=2"], "expected a number from 0 to 1, got '2'", id="fraction"),
        pytest.param(["--per_process_gpu_memory_fraction=x"], "expected a number from 0 to 1, got 'x'", id="no-number"),
        pytest.param(["--grpc_channel_arguments=a"], "expected key=value,key=value, got 'a'", id="channel-arguments"),
        pytest.param(["--use_alts_credentials", *MODEL], "give --ssl_config_file for TLS", id="alts"),
        pytest.param(
            [
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
                *MODEL,
            ],
            "give either it or them",
            id="parallelism",
        ),
        pytest.param(["--port", "18500"], "nothing to serve", id="no-model"),
        pytest.param([*MODEL, "--batching_parameters_file=x"], "without --enable_batching", id="batching-file"),
        pytest.param([*MODEL, "--rest_api_port=-1"], "--rest_api_port: expected a port from 1", id="rest-port"),
        pytest.param(["--model_base_path=models/x"], "absolute path or URI; got base_path.*=models/x", id="relative"),
        pytest.param(["--model_config_file=/nowhere"], "cannot read /nowhere: No such file", id="no-file"),
        pytest.param(["--model_config_file={folder}"], "cannot read .*: Is a directory", id="directory"),
    ],
)
def test_a_mistake_is_named_in_one_line(arguments: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=reason) as caught:
        model_config.from_flags(flags.parse([argument.format(folder=tmp_path) for argument in arguments]))
    assert "\n" not in str(caught.value)


def test_a_flag_of_the_real_server_that_means_nothing_here_is_accepted_with_one_warning() -> None:
    for name in flags.WITHOUT_EFFECT:
        read = flags.parse([f"--{name}=1", f"--{name}=1", *MODEL])
        assert [line.partition(" has no effect")[0] for line in read.warnings] == [f"--{name}"]


def test_a_boolean_flag_without_effect_needs_no_value() -> None:
    assert len(flags.parse(["--enable_profiler", "--prefer_tflite_model=true", *MODEL]).warnings) == 2


@pytest.mark.parametrize(
    ("argument", "warning"),
    [
        pytest.param("--rest_api_port=8500", "there is no HTTP: --rest_api_port and --port are both 8500", id="port"),
        pytest.param("--monitoring_config_file=x", "no effect without --rest_api_port", id="monitoring-file"),
        pytest.param("--mixed_precision=float16", "--mixed_precision=float16 has no effect", id="precision"),
    ],
)
def test_what_the_real_server_passes_over_is_passed_over_with_a_warning(argument: str, warning: str) -> None:
    read = flags.parse([argument, *MODEL])
    assert len(read.warnings) == 1
    assert warning in read.warnings[0]
    assert (read.rest_api_port, read.mixed_precision) == (0, "")


def test_a_file_flag_without_a_value_is_the_same_as_no_flag() -> None:
    read = flags.parse(["--ssl_config_file=", "--batching_parameters_file=", "--model_config_file=", *MODEL])
    assert (read.ssl_config_file, read.batching_parameters_file, read.model_config_file) == (None, None, None)


def test_channel_arguments_are_numbers_where_they_can_be() -> None:
    read = flags.parse(["--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.x=a,grpc.y=-1", *MODEL])
    assert read.grpc_channel_arguments == {"grpc.max_connection_age_ms": 2000, "grpc.x": "a", "grpc.y": -1}


def test_the_docs_name_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags.parse(["--help"])
    names = set(re.findall(r"--\w+", capsys.readouterr().out)) - {"--help"}
    page = (ROOT / "docs" / "tf-worker.md").read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_the_tls_file_must_hold_the_texts_themselves(tmp_path: Path) -> None:
    file = tmp_path / "ssl.config"
    file.write_text("server_key: '/etc/key.pem' server_cert: '/etc/cert.pem'")
    with pytest.raises(StartError, match=r"ssl.config: server_key must be the PEM text itself"):
        ssl_config.read(file)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("model_config_list { config { nam: 'x' } }", "line:column 1:30 .* no field named", id="field"),
        pytest.param("custom_model_config {}", "Only ModelConfigList is currently supported", id="custom"),
        pytest.param("", "Only ModelConfigList is currently supported", id="empty"),
        pytest.param(
            "model_config_list { config { name: 'x' base_path: '/x' } }",
            "model_platform, model name is x",
            id="platform",
        ),
        pytest.param(
            "model_config_list { config { name: 'x' base_path: '/x' model_platform: 'pytorch' } }",
            "Model x requests unsupported platform pytorch",
            id="other-platform",
        ),
        pytest.param(
            "model_config_list { config { name: 'x' base_path: '/x' model_type: OTHER } }",
            "model_type choice 2 not supported",
            id="other-type",
        ),
        pytest.param(
            "model_config_list {"
            " config { name: 'x' base_path: '/x' model_type: TENSORFLOW model_platform: 'tensorflow' } }",
            "Illegal setting both ModelServerConfig::model_type",
            id="type-and-platform",
        ),
        pytest.param(
            "model_config_list {"
            " config { name: 'x' base_path: '/x' model_platform: 'tensorflow' }"
            " config { name: 'x' base_path: '/y' model_platform: 'tensorflow' } }",
            "Illegal to list model x multiple times in config list",
            id="twice",
        ),
    ],
)
def test_a_mistake_in_the_models_file_is_named_with_the_file(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(StartError, match=f"models.config.*{reason}"):
        model_config.from_flags(flags.parse([f"--model_config_file={file}"]))


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tf_worker.server", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_wrong_flag_ends_the_process_with_that_line_and_status_2() -> None:
    ended = start("--prot=8500")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("tf_worker: unknown flag --prot=8500;")
    assert ended.stderr.count("\n") == 1


def test_the_version_says_that_it_is_a_stand_in() -> None:
    ended = start("--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"TensorFlow ModelServer: 2[.\d]+, a stand-in\nTensorFlow Library: 2[.\d]+\n", ended.stdout)


@pytest.mark.parametrize("flag", ["--port", "--rest_api_port"])
def test_a_port_in_use_is_named_with_what_to_do(flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = start(f"--port={free_port()}", f"{flag}={port}", *MODEL)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"tf_worker: cannot listen on 127.0.0.1:{port}: Address already in use;"
        f" stop what holds it, or give another {flag} or --host\n"
    )
