"""The monitoring file, the same that `tensorflow_model_server --monitoring_config_file` reads.

`MonitoringConfig` is not among the messages of the tensorflow-serving-api package. Its field names, numbers and types
are in TensorFlow Serving's config/monitoring_config.proto, the default path in util/prometheus_exporter.cc; both are
restated here as facts.
"""

from __future__ import annotations

from pathlib import Path

from tf_worker import text_proto
from tf_worker.errors import StartError

DEFAULT_PATH = "/monitoring/prometheus/metrics"
_MESSAGES = {
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
}


def read(path: Path) -> str | None:
    """The path of the metrics page; None if it is not enabled. Raises StartError for a file that cannot be read."""
    prometheus = text_proto.read(path, text_proto.define(_MESSAGES, "MonitoringConfig")).prometheus_config
    page: str = prometheus.path or DEFAULT_PATH
    if not page.startswith("/"):
        raise StartError(f"{path}: prometheus_config.path must begin with a slash; was {page}")
    return page if prometheus.enable else None
