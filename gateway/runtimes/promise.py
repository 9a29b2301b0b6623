"""What a model's package promises of its answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gateway.errors import RuntimeFailed
from gateway.runtimes.base import ModelRef, Tensors
from modelkit.spec import ModelSpec

SpecOf = Callable[[ModelRef], ModelSpec | None]
"""The package of a version; None for one that is not in the store any more."""
LARGEST = 1e18
"""No score, pixel or coefficient is so large; what is made of two smaller ones does not overflow."""


def keep(spec: ModelSpec, tensors: Tensors) -> None:
    """Raises RuntimeFailed where a tensor of one picture is missing, of another type or shape, or holds NaN or values
    as large as LARGEST."""
    for name, output in spec.outputs.items():
        tensor = tensors.get(name)
        if tensor is None:
            has = ", ".join(sorted(tensors))[:200] or "none"
            raise RuntimeFailed(f"The runtime's answer lacks the tensor {name!r}; it has {has}.")
        if tensor.dtype != np.float32 or tensor.shape != (1, *output.shape):
            raise RuntimeFailed(
                f"The runtime's tensor {name!r} is {tensor.dtype} {list(tensor.shape[:10])}, "
                f"not float32 {[1, *output.shape]}."
            )
        # Written so that NaN is refused, too.
        if not (tensor.max(initial=0) < LARGEST and tensor.min(initial=0) > -LARGEST):
            raise RuntimeFailed(f"The runtime's tensor {name!r} holds NaN, infinite or senselessly large values.")
