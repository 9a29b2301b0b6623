"""The gRPC services: protobuf in, protobuf out, over the models and a runner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
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

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Context = grpc.ServicerContext

_STATUS = {status.value[0]: status for status in grpc.StatusCode}
_LONGEST_MESSAGE = 1024
SIGNATURE_DEF = "signature_def"


class PredictionService:
    """tensorflow.serving.PredictionService: Predict and GetModelMetadata."""

    def __init__(self, models: Models, runner: Runner, metrics: Metrics) -> None:
        self._models = models
        self._runner = runner
        self._metrics = metrics

    def Predict(self, request: Any, context: Context) -> Any:  # noqa: N802 - the method's name on the wire
        return _answer(context, lambda: self._measured_predict(request, context))

    def GetModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        return _answer(context, lambda: self._metadata(request))

    def Classify(self, request: Any, context: Context) -> Any:  # noqa: ARG002, N802
        _refuse(context, "Classify")

    def Regress(self, request: Any, context: Context) -> Any:  # noqa: ARG002, N802
        _refuse(context, "Regress")

    def MultiInference(self, request: Any, context: Context) -> Any:  # noqa: ARG002, N802
        _refuse(context, "MultiInference")

    def _measured_predict(self, request: Any, context: Context) -> Any:
        begin_s = time.perf_counter()
        code = Code.INTERNAL
        try:
            response = self._predict(request, context)
            code = Code.OK
        except ServingError as error:
            code = error.code
            raise
        finally:
            self._metrics.predicted(request.model_spec.name, code, time.perf_counter() - begin_s)
        return response

    def _predict(self, request: Any, context: Context) -> Any:
        remaining_s = context.time_remaining()
        deadline = None if remaining_s is None else time.monotonic() + remaining_s

        def wanted() -> bool:
            return context.is_active() and (deadline is None or time.monotonic() < deadline)

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
            encode(array, response.outputs[alias])
        return response

    def _metadata(self, request: Any) -> Any:
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


class ModelService:
    """tensorflow.serving.ModelService: GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def GetModelStatus(self, request: Any, context: Context) -> Any:  # noqa: N802
        return _answer(context, lambda: self._status(request))

    def HandleReloadConfigRequest(self, request: Any, context: Context) -> Any:  # noqa: N802
        return _answer(context, lambda: self._reload(request))

    def _status(self, request: Any) -> Any:
        spec = _spec(request)
        versions = self._models.versions(spec.name)
        if spec.HasField("version"):
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

    def _reload(self, request: Any) -> Any:
        self._models.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = Code.OK
        return response


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    return request.model_spec


def _answer(context: Context, work: Callable[[], Answer]) -> Answer:
    """The work's result, or the status of its ServingError; anything else is a fault of ours, INTERNAL."""
    try:
        return work()
    except ServingError as error:
        code, message = error.code, error.message
    except Exception as error:
        log.exception("a request failed")
        code, message = Code.INTERNAL, f"{type(error).__name__}: {error}"
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "...TRUNCATED"
    return context.abort(_STATUS[code], message)  # which raises


def _refuse(context: Context, method: str) -> None:
    context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        f"{method} is not part of this stand-in for TensorFlow Serving, which answers Predict; see docs/tf-worker.md",
    )
