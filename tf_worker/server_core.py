"""What the server can be asked for, whichever way it is asked: protobuf in, protobuf out, ServingError raised."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
)

from tf_worker.errors import Code, ServingError
from tf_worker.metrics import Metrics
from tf_worker.models import Models
from tf_worker.runner import Runner
from tf_worker.tensors import encode

SIGNATURE_DEF = "signature_def"


class ServerCore:
    """The methods of PredictionService and ModelService over the models and a runner. Thread-safe."""

    def __init__(self, models: Models, runner: Runner, metrics: Metrics, *, as_tensor_content: bool) -> None:
        """`as_tensor_content`: whether an answer's numbers are raw bytes, not in the typed fields."""
        self._models = models
        self._runner = runner
        self._metrics = metrics
        self._encode = _encode_as_content if as_tensor_content else encode

    def predict(self, request: Any, wanted: Callable[[], bool]) -> Any:
        """`wanted` says whether somebody still waits for the answer."""
        with self._models.use(_spec(request)) as (version, servable):
            signature = servable.signature(request.model_spec.signature_name)
            inputs = signature.read(request.inputs)
            outputs = signature.select(request.output_filter)
            begin_s = time.perf_counter()
            arrays = self._runner.run(signature, outputs, inputs, wanted)
            self._metrics.ran(request.model_spec.name, time.perf_counter() - begin_s)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature.name
        for alias, array in zip(outputs, arrays, strict=True):
            self._encode(array, response.outputs[alias])
        return response

    def inputs(self, spec: Any, signature_name: str) -> Mapping[str, Any]:
        """`TensorInfo` of each input of the model's signature; an empty name: `serving_default`."""
        name = signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        with self._models.use(spec) as (_, servable):
            if name not in servable.signature_defs:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f'Serving signature name: "{name}" not found in signature def'
                )
            inputs: Mapping[str, Any] = servable.signature_defs[name].inputs
            return inputs

    def metadata(self, request: Any) -> Any:
        spec = _spec(request)
        if not request.metadata_field:
            raise ServingError(
                Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise ServingError(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._models.use(spec) as (version, servable):
            response.model_spec.name = spec.name
            response.model_spec.version.value = version
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def status(self, request: Any) -> Any:
        spec = _spec(request)
        versions = self._models.versions(spec.name)
        if spec.HasField("version"):  # a label is not looked at, as with the real server
            number = spec.version.value
            if number not in versions:
                raise ServingError(Code.NOT_FOUND, f"Could not find version {number} of model {spec.name}")
            versions = {number: versions[number]}
        if not versions:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, version in sorted(versions.items()):
            status = response.model_version_status.add(version=number, state=int(version.state))
            status.status.error_code = version.error.code if version.error else Code.OK
            status.status.error_message = version.error.message if version.error else ""
        return response

    def reload(self, request: Any) -> Any:
        self._models.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = Code.OK
        return response


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    return request.model_spec


def _encode_as_content(array: Any, tensor: Any) -> None:
    tensor.CopyFrom(tf.make_tensor_proto(array))
