"""The monitoring file, the same that `tensorflow_model_server --monitoring_config_file` reads.

`MonitoringConfig` is not among the messages of the tensorflow-serving-api package. Its field names, numbers and types
are in TensorFlow Serving's config/monitoring_config.proto, the default path in util/prometheus_exporter.cc; both are
restated here as facts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tf_worker import text_proto
from tf_worker.errors import StartError

DEFAULT_PATH = "/monitoring/prometheus/metrics"


def read(path: Path) -> str | None:
    """The path of the metrics page; None if it is not enabled. Raises StartError for a file that cannot be read."""
    prometheus = text_proto.read(path, _message()).prometheus_config
    page: str = prometheus.path or DEFAULT_PATH
    if not page.startswith("/"):
        raise StartError(f"{path}: prometheus_config.path must begin with a slash; was {page}")
    return page if prometheus.enable else None


def _message() -> Any:
    """An empty MonitoringConfig message, of a pool of its own: the real definition may be in the default one."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tandem/monitoring_config.proto", package="tensorflow.serving", syntax="proto3"
    )
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_BOOL)
    prometheus.field.add(name="path", number=2, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
    file.message_type.add(name="MonitoringConfig").field.add(
        name="prometheus_config",
        number=1,
        label=kinds.LABEL_OPTIONAL,
        type=kinds.TYPE_MESSAGE,
        type_name=".tensorflow.serving.PrometheusConfig",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.MonitoringConfig"))()
