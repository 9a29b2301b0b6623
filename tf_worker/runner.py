"""How a request is computed, in the thread that handles it: alone, or (batcher.py) in a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tf_worker.errors import Code, ServingError
from tf_worker.servable import Signature
from tf_worker.tensors import Array


class Runner(Protocol):
    def run(
        self, signature: Signature, outputs: tuple[str, ...], inputs: Sequence[Array], wanted: Callable[[], bool]
    ) -> list[Array]:
        """Compute the named outputs, in that order. Blocks until they are there. Raises ServingError.

        `wanted` says whether somebody still waits for the answer: what is unwanted when its turn comes is not run.
        """


class DirectRunner:
    """Runs each request by itself, at once."""

    def run(
        self, signature: Signature, outputs: tuple[str, ...], inputs: Sequence[Array], wanted: Callable[[], bool]
    ) -> list[Array]:
        if not wanted():
            raise ServingError(Code.DEADLINE_EXCEEDED, "nobody waits for the answer any more")
        return signature.run(outputs, inputs)
