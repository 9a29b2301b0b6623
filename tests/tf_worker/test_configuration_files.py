"""The files that the official image is given, mounted or in the serving view: read, with what is in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tf_worker import batching_parameters, monitoring_config
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import StartError

ROOT = Path(__file__).parents[2]


def test_the_generated_models_file_is_a_message_of_the_official_package(tmp_path: Path) -> None:
    for version in ("shapes/1", "digits/1", "digits/2"):
        (tmp_path / "tf" / version).mkdir(parents=True)
    # In the environment that generates it: this one cannot import modelkit.
    program = f"from pathlib import Path; from modelkit.serving import *; update_models_config(Path({str(tmp_path)!r}))"
    subprocess.run([ROOT / ".venv/bin/python", "-c", program], cwd=ROOT, check=True)
    text = (tmp_path / "tf" / "models.config").read_text()
    models = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert [(model.name, model.base_path, model.model_platform) for model in models] == [
        ("digits", str(tmp_path / "tf/digits"), "tensorflow"),
        ("shapes", str(tmp_path / "tf/shapes"), "tensorflow"),
    ]
    assert {model.model_version_policy.WhichOneof("policy_choice") for model in models} == {"all"}


def test_the_generated_batching_file_is_read_with_the_values_that_were_set(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from gateway.settings import Settings
from modelkit.batching import Batching
from modelkit.serving import update_batching
update_batching(Batching.of(Settings()), Path({str(tmp_path)!r}))
"""
    knobs = {"MAX_BATCH_SIZE": "16", "BATCH_TIMEOUT_US": "1500", "REPLICAS": "3"}
    environ = os.environ | {f"TANDEM_WORKERS__{name}": value for name, value in knobs.items()}
    subprocess.run([ROOT / ".venv/bin/python", "-c", program], cwd=ROOT, env=environ, check=True)
    assert batching_parameters.read(tmp_path / "tf" / "batching.config") == BatchingParameters(
        max_batch_size=16, batch_timeout_micros=1500, num_batch_threads=3, max_enqueued_batches=9
    )


def test_the_monitoring_file_puts_the_page_where_prometheus_looks() -> None:
    path = monitoring_config.read(ROOT / "tf_worker" / "monitoring.config")
    assert path is not None
    assert f"metrics_path: {path}" in (ROOT / "monitoring" / "prometheus.yml").read_text()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("prometheus_config { enable: true path: '/x' }", "/x", id="path"),
        pytest.param("prometheus_config { enable: true }", "/monitoring/prometheus/metrics", id="default-path"),
        pytest.param("prometheus_config { path: '/x' }", None, id="not-enabled"),
        pytest.param("", None, id="empty"),
    ],
)
def test_a_monitoring_file_gives_the_path_of_the_page(tmp_path: Path, text: str, path: str | None) -> None:
    (tmp_path / "monitoring.config").write_text(text)
    assert monitoring_config.read(tmp_path / "monitoring.config") == path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("prometheus { enable: true }", "line:column 1:1 .* no field named", id="unknown-field"),
        pytest.param("prometheus_config { enable: true path: 'x' }", "must begin with a slash; was x", id="no-slash"),
    ],
)
def test_a_monitoring_file_with_a_mistake_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "monitoring.config").write_text(text)
    with pytest.raises(StartError, match=f"monitoring.config.*{reason}") as caught:
        monitoring_config.read(tmp_path / "monitoring.config")
    assert "\n" not in str(caught.value)
