"""The gRPC services: the core's methods, with its errors as gRPC's statuses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from tf_worker.errors import Code, ServingError
from tf_worker.metrics import Metrics
from tf_worker.server_core import ServerCore

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Context = grpc.ServicerContext

_STATUS = {status.value[0]: status for status in grpc.StatusCode}
_LONGEST_MESSAGE = 1024


class PredictionService:
    """tensorflow.serving.PredictionService: Predict and GetModelMetadata."""

    def __init__(self, core: ServerCore, metrics: Metrics) -> None:
        self._core = core
        self._metrics = metrics

    def Predict(self, request: Any, context: Context) -> Any:  # noqa: N802 - the method's name on the wire
        return _answer(context, lambda: self._measured_predict(request, context))

    def GetModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        return _answer(context, lambda: self._core.metadata(request))

    def Classify(self, request: Any, context: Context) -> Any:  # noqa: ARG002, N802
        return _answer(context, lambda: refuse("Classify"))

    def Regress(self, request: Any, context: Context) -> Any:  # noqa: ARG002, N802
        return _answer(context, lambda: refuse("Regress"))

    def MultiInference(self, request: Any, context: Context) -> Any:  # noqa: ARG002, N802
        return _answer(context, lambda: refuse("MultiInference"))

    def _measured_predict(self, request: Any, context: Context) -> Any:
        begin_s = time.perf_counter()
        remaining_s = context.time_remaining()
        deadline = None if remaining_s is None else time.monotonic() + remaining_s

        def wanted() -> bool:
            return context.is_active() and (deadline is None or time.monotonic() < deadline)

        code = Code.INTERNAL
        try:
            response = self._core.predict(request, wanted)
            code = Code.OK
        except ServingError as error:
            code = error.code
            raise
        finally:
            self._metrics.answered(
                request.model_spec.name, code, time.perf_counter() - begin_s, api="Predict", entrypoint="GRPC"
            )
        return response


class ModelService:
    """tensorflow.serving.ModelService: GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, core: ServerCore) -> None:
        self._core = core

    def GetModelStatus(self, request: Any, context: Context) -> Any:  # noqa: N802
        return _answer(context, lambda: self._core.status(request))

    def HandleReloadConfigRequest(self, request: Any, context: Context) -> Any:  # noqa: N802
        return _answer(context, lambda: self._core.reload(request))


def refuse(method: str) -> None:
    """Raises ServingError UNIMPLEMENTED."""
    raise ServingError(
        Code.UNIMPLEMENTED,
        f"{method} is not part of this stand-in for TensorFlow Serving, which answers Predict; see docs/tf-worker.md",
    )


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
