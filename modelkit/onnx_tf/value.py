"""A value of an ONNX graph as TensorFlow holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]

_TO_LAST = (0, 2, 3, 1)
_TO_FIRST = (0, 3, 1, 2)
_AXIS = (0, 3, 1, 2)
"""Where each axis of a channels-first picture lies in a channels-last one."""


@dataclass(frozen=True)
class Value:
    held: Any
    """A numpy array where it is known while the graph is built, else a tensor."""
    last: bool = False
    """Held channels-last, although ONNX means [batch, channels, height, width]."""

    @property
    def known(self) -> bool:
        return isinstance(self.held, np.ndarray)

    @property
    def rank(self) -> int:
        return int(self.held.ndim if self.known else self.held.shape.rank)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """As ONNX means it; None where only a run tells."""
        held = tuple(self.held.shape)
        return tuple(held[axis] for axis in _AXIS) if self.last else held

    def plain(self) -> Any:
        """Held as ONNX means it."""
        return _turned(self.held, _TO_FIRST) if self.last else self.held

    def channels_last(self) -> Any:
        return self.held if self.last else _turned(self.held, _TO_LAST)

    def axis(self, axis: int) -> int:
        """Where ONNX's `axis` lies in what is held."""
        axis = axis % self.rank
        return _AXIS[axis] if self.last else axis


def _turned(held: Any, order: tuple[int, ...]) -> Any:
    return held.transpose(order) if isinstance(held, np.ndarray) else tf.transpose(held, order)


def transposed(value: Value, order: tuple[int, ...]) -> Value:
    """ONNX's Transpose: none at all where it only says what the layout already is."""
    if value.last and order == _TO_LAST:
        return Value(value.held)
    if not value.last and order == _TO_FIRST:
        return Value(value.held, last=True)
    return Value(_turned(value.plain(), order))


def aligned(values: list[Value]) -> tuple[list[Any], bool]:
    """Operands of an element-wise operator in one layout, and whether that is channels-last."""
    if not any(value.last for value in values):
        return [value.held for value in values], False
    held = []
    for value in values:
        if not value.last and 0 < value.rank < 4:
            ones = [1] * (4 - value.rank)
            if value.known:
                value = Value(value.held.reshape((*ones, *value.held.shape)))
            else:
                value = Value(tf.reshape(value.held, tf.concat([ones, tf.shape(value.held)], 0)))
        held.append(value.held if value.rank == 0 else value.channels_last())
    return held, True
