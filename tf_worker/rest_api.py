"""The REST API: which path asks the core for what, and what its answers and errors are in JSON and in HTTP.

Facts from TensorFlow Serving's model_servers/http_rest_api_util.cc, http_rest_api_handler.cc and http_server.cc.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tf_worker import json_answer, json_request
from tf_worker.errors import Code, ServingError
from tf_worker.metrics import Metrics
from tf_worker.server_core import SIGNATURE_DEF, ServerCore
from tf_worker.services import refuse

log = logging.getLogger(__name__)

_WHICH = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"/v1/models/(?P<model>[^/:]+){_WHICH}:(?P<verb>classify|regress|predict)", re.IGNORECASE)
_GET = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_WHICH}(?:/(?P<verb>metadata))?", re.IGNORECASE)
_LARGEST_VERSION = 2**63 - 1

HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


@dataclass(frozen=True)
class Reply:
    status: int
    json: bytes


@dataclass(frozen=True)
class _Call:
    """What a method and a path ask for."""

    method: str
    path: str
    model: str = ""
    version: str = ""
    label: str = ""
    verb: str = ""
    understood: bool = False

    @classmethod
    def parse(cls, method: str, path: str) -> _Call:
        pattern = {"POST": _POST, "GET": _GET}.get(method)
        found = pattern.fullmatch(path) if pattern else None
        if found is None:
            return cls(method, path)
        groups = {name: unquote(text) for name, text in found.groupdict(default="").items()}
        return cls(method, path, **groups, understood=True)

    def fill(self, spec: Any) -> None:
        """Raises ServingError."""
        spec.name = self.model
        if self.version:
            if int(self.version) > _LARGEST_VERSION:
                raise ServingError(Code.INVALID_ARGUMENT, f"Failed to convert version: {self.version} to numeric.")
            spec.version.value = int(self.version)
        if self.label:
            spec.version_label = self.label


class RestApi:
    """Answers in `threads` threads of its own, each request within `timeout_s`. Thread-safe."""

    def __init__(self, core: ServerCore, metrics: Metrics, *, threads: int, timeout_s: float | None) -> None:
        self._core = core
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="rest")

    def answer(self, method: str, path: str, body: bytes) -> Reply:
        """The answer to a request. `path` is as it came, with its query."""
        begin_s = time.perf_counter()
        call = _Call.parse(method, path)
        code, text = Code.OK, ""
        try:
            text = self._in_time(lambda wanted: self._do(call, body, wanted))
        except ServingError as error:
            code, text = error.code, json_answer.error_answer(error.message)
        except Exception as error:
            log.exception("a REST request failed")
            code, text = Code.INTERNAL, json_answer.error_answer(f"{type(error).__name__}: {error}")
        self._metrics.answered(call.model, code, time.perf_counter() - begin_s, api=call.verb, entrypoint="REST")
        return Reply(HTTP_STATUS[code], text.encode(errors="surrogateescape"))

    def _in_time(self, work: Callable[[Callable[[], bool]], str]) -> str:
        """The work's result. At the deadline the client is answered, and what has not begun to run never will."""
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        result = self._threads.submit(work, lambda: deadline is None or time.monotonic() < deadline)
        try:
            return result.result(self._timeout_s)
        except TimeoutError as error:
            result.cancel()
            raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification") from error

    def _do(self, call: _Call, body: bytes, wanted: Callable[[], bool]) -> str:
        match call.method, call.verb:
            case "POST", "predict":
                return self._predict(call, body, wanted)
            case "POST", ("classify" | "regress") as verb:
                refuse(verb.capitalize())
            case "GET", ("metadata" | "") if call.understood:
                if not call.model:
                    raise ServingError(Code.INVALID_ARGUMENT, "Missing model name in request.")
                return self._metadata(call) if call.verb else self._status(call)
        raise ServingError(Code.INVALID_ARGUMENT, f"Malformed request: {call.method} {call.path}")

    def _predict(self, call: _Call, body: bytes, wanted: Callable[[], bool]) -> str:
        request = predict_pb2.PredictRequest()
        call.fill(request.model_spec)
        form = json_request.fill(body, request, lambda name: self._core.inputs(request.model_spec, name))
        return json_answer.predict_answer(self._core.predict(request, wanted).outputs, form)

    def _status(self, call: _Call) -> str:
        request = get_model_status_pb2.GetModelStatusRequest()
        call.fill(request.model_spec)
        return _json(self._core.status(request)) + "\n"

    def _metadata(self, call: _Call) -> str:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURE_DEF])
        call.fill(request.model_spec)
        response = self._core.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(signatures)
        return (
            f'{{\n"model_spec":{_json(response.model_spec)}\n,\n'
            f'"metadata": {{"signature_def": {_json(signatures)}\n}}\n}}\n'
        )


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=1
    )
