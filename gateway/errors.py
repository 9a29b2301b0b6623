"""What can go wrong, in the words of the domain. No HTTP and no gRPC in here.

TandemError
├── RequestError                the caller can mend it
│   ├── BadRequest              body empty, or malformed multipart, JSON or base64
│   ├── InvalidParameter        a parameter of the wrong type or range
│   ├── TooManyImages
│   ├── RequestTimeout          head or body did not arrive in time
│   ├── HeadTooLarge            first line and headers over the limit
│   ├── NotAcceptable           cannot make what the caller asks for
│   ├── UnsupportedImage        not an image type we read
│   ├── InvalidImage            truncated, corrupt or empty picture
│   ├── ImageTooLarge           over the byte or the pixel limit
│   ├── ModelNotFound           unknown model or version
│   ├── JobNotFound             unknown job
│   ├── DisagreementNotFound    not kept, or not any more
│   ├── Conflict                an admin change that contradicts the present state
│   ├── Unauthenticated         no key, or a wrong one
│   └── Forbidden               a key without that right
├── Overload                    the caller should come back later
│   ├── Overloaded              the gateway's own admission says no, or its memory is full
│   ├── TooManyConnections      at once
│   ├── Stopping                the gateway ends, and has waited long enough
│   └── RateLimited             this key's rate limit
├── RuntimeFault                a worker's side
│   ├── RuntimeUnavailable      down, not ready, model not loaded
│   ├── DeadlineExceeded
│   └── RuntimeFailed           failed on a good tensor, or answered nonsense
├── DatabaseUnavailable         what should be kept cannot be
└── StatisticsUnavailable       a comparison cannot be computed

`gateway/http/problems.py` maps each leaf to a status.
"""

from __future__ import annotations

import re
from typing import ClassVar


class TandemError(Exception):
    """`str(error)` is a sentence for the caller that says what to do next; it holds no secret, path or pixel."""

    code: ClassVar[str]
    """The error's name in answers, metrics and logs: that of its class in snake case."""

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class RequestError(TandemError):
    pass


class BadRequest(RequestError):
    pass


class InvalidParameter(RequestError):
    pass


class TooManyImages(RequestError):
    pass


class RequestTimeout(RequestError):
    pass


class HeadTooLarge(RequestError):
    pass


class NotAcceptable(RequestError):
    pass


class UnsupportedImage(RequestError):
    pass


class InvalidImage(RequestError):
    pass


class ImageTooLarge(RequestError):
    pass


class ModelNotFound(RequestError):
    pass


class JobNotFound(RequestError):
    pass


class DisagreementNotFound(RequestError):
    pass


class Conflict(RequestError):
    pass


class Unauthenticated(RequestError):
    pass


class Forbidden(RequestError):
    pass


class Overload(TandemError):
    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Overload):
    pass


class TooManyConnections(Overload):
    pass


class Stopping(Overload):
    pass


class RateLimited(Overload):
    pass


class RuntimeFault(TandemError):
    pass


class RuntimeUnavailable(RuntimeFault):
    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RuntimeFault):
    pass


class RuntimeFailed(RuntimeFault):
    pass


class DatabaseUnavailable(TandemError):
    retry_after_s = 1.0


class StatisticsUnavailable(TandemError):
    retry_after_s = 5.0
