"""Our TensorFlow Serving protos against the official stubs, side by side in one process."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import Default
from tensorflow.core.protobuf import meta_graph_pb2  # noqa: F401  registers SignatureDef
from tensorflow_serving.apis import (
    get_model_metadata_pb2,  # noqa: F401
    model_service_pb2,
    predict_pb2,  # noqa: F401
    prediction_service_pb2,
)

from proto import methods, tensorflow_pb2, tensorflow_serving_pb2
from tests.support.wire import assert_fields_match, assert_same_bytes, messages_of, paths_of

OWN = "tandem.wire."
# Take tf.Example, which no image upload is.
LEFT_OUT = frozenset({"Classify", "Regress", "MultiInference"})
# These the official definition nests in the configuration of the file-system source.
NESTED = "tensorflow.serving.FileSystemStoragePathSourceConfig."
MESSAGES = [
    pytest.param(descriptor, id=descriptor.full_name.removeprefix(OWN))
    for module in (tensorflow_pb2, tensorflow_serving_pb2)
    for descriptor in messages_of(module)
]


def official(own: Descriptor) -> Descriptor:
    name = own.full_name.removeprefix(OWN)
    if "ServableVersionPolicy" in name:
        name = NESTED + name.removeprefix("tensorflow.serving.")
    return Default().FindMessageTypeByName(name)


@pytest.mark.parametrize("own", MESSAGES)
def test_each_message_has_the_official_fields(own: Descriptor) -> None:
    assert_fields_match(own, official(own))


@pytest.mark.parametrize("own", MESSAGES)
def test_each_message_has_the_official_bytes(own: Descriptor) -> None:
    assert_same_bytes(own, official(own))


@pytest.mark.parametrize(
    ("module", "service"),
    [
        pytest.param(prediction_service_pb2, "PredictionService", id="prediction"),
        pytest.param(model_service_pb2, "ModelService", id="model"),
    ],
)
def test_each_service_has_the_official_methods_and_the_table_their_paths(module: object, service: str) -> None:
    theirs = paths_of(module.DESCRIPTOR.services_by_name[service], without=LEFT_OUT)  # type: ignore[attr-defined]
    own = paths_of(tensorflow_serving_pb2.DESCRIPTOR.services_by_name[service])
    assert {path.replace(OWN, ""): types for path, types in own.items()} == theirs
    table = {
        method.path: (method.request.DESCRIPTOR.name, method.response.DESCRIPTOR.name)
        for method in methods.UNARY_METHODS
        if method.path.startswith(f"/tensorflow.serving.{service}/")
    }
    assert table == theirs
