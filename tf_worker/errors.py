"""The one error a request, a load or a reload ends with: a canonical status code and the real server's message."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Canonical status codes: TensorFlow, gRPC and `StatusProto.error_code` number them alike."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """Answered to the client as it is, or kept as the reason of a version that did not load."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def from_tensorflow(cls, error: Any) -> ServingError:
        """The status of a `tf.errors.OpError`."""
        return cls(Code(error.error_code), error.message)


class StartError(Exception):
    """The server cannot start; its text is one line for the person who started it."""
