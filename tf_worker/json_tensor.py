"""A JSON value as a tensor: its leaves in order, its shape, and whether they fit.

Shapes, types, codes and messages are those of TensorFlow Serving's util/json_tensor.cc. A value goes two ways: lists
that are even, with leaves of one kind, are read a level at a time, several times faster for a picture; all others a
leaf at a time, which also finds the words for what is wrong.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from tensorflow.core.framework import types_pb2

from tf_worker import json_document
from tf_worker.errors import Code, ServingError

B64 = "b64"


@dataclass(frozen=True)
class _Kind:
    """What a leaf must be to become an element of a type."""

    types: frozenset[type]
    array: DTypeLike
    wide: DTypeLike
    """A type that holds every such leaf; what is out of the range of `array` wraps around, as with the real server."""
    range: range | None = None


_INT32, _INT64 = range(-(2**31), 2**31), range(-(2**63), 2**63)
_DECIMAL, _WHOLE = frozenset({int, float}), frozenset({int})
_KINDS = {
    types_pb2.DT_FLOAT: _Kind(_DECIMAL, np.float32, np.float64),
    types_pb2.DT_DOUBLE: _Kind(_DECIMAL, np.float64, np.float64),
    types_pb2.DT_INT32: _Kind(_WHOLE, np.int32, np.int64, _INT32),
    types_pb2.DT_INT16: _Kind(_WHOLE, np.int16, np.int64, _INT32),
    types_pb2.DT_INT8: _Kind(_WHOLE, np.int8, np.int64, _INT32),
    types_pb2.DT_UINT8: _Kind(_WHOLE, np.uint8, np.int64, _INT32),
    types_pb2.DT_INT64: _Kind(_WHOLE, np.int64, np.int64, _INT64),
    types_pb2.DT_UINT32: _Kind(_WHOLE, np.uint32, np.uint32, range(2**32)),
    types_pb2.DT_UINT64: _Kind(_WHOLE, np.uint64, np.uint64, range(2**64)),
    types_pb2.DT_BOOL: _Kind(frozenset({bool}), np.bool_, np.bool_),
    types_pb2.DT_STRING: _Kind(frozenset({str}), np.object_, np.object_),
}


@dataclass
class Dense:
    """A tensor's leaves in order, and its shape."""

    shape: list[int]
    leaves: list[Any] = field(default_factory=list)

    def write(self, dtype: int, tensor: Any) -> None:
        """Fill an empty TensorProto. Raises ServingError."""
        tensor.dtype = dtype
        for size in self.shape:
            tensor.tensor_shape.dim.add(size=size)
        kind = _KINDS.get(dtype)
        if dtype == types_pb2.DT_STRING:
            tensor.string_val.extend(self.leaves)
        elif kind is not None:
            try:
                with np.errstate(over="ignore"):  # too large for a float is infinite, as with the real server
                    tensor.tensor_content = np.array(self.leaves, kind.wide).astype(kind.array).tobytes()
            except OverflowError as error:
                raise invalid("JSON Parse error: Number too big to be stored in double.") from error


def even(value: Any, dtype: int) -> Dense | None:
    """None for what is not so simple, wrong values among it."""
    kind = _KINDS.get(dtype)
    shape: list[int] = []
    items: Sequence[Any] = [value]
    while items and type(items[0]) is list:
        if {*map(type, items)} != {list} or len({*map(len, items)}) > 1:
            return None
        shape.append(len(items[0]))
        items = list(chain.from_iterable(items))
    if kind is None or not {*map(type, items)} <= kind.types:
        return None
    if kind.range is not None and items and not (min(items) in kind.range and max(items) in kind.range):
        return None
    return Dense(shape, [json_document.to_bytes(item) for item in items] if dtype == types_pb2.DT_STRING else [*items])


def uneven(value: Any, dtype: int) -> Dense:
    """Raises ServingError for a value that is no tensor of the type."""
    dense = Dense([])
    first = value
    while isinstance(first, list):
        dense.shape.append(len(first))
        first = first[0] if first else None
    _walk(value, 0, dtype, dense)
    return dense


def _walk(value: Any, level: int, dtype: int, dense: Dense) -> None:
    rank = len(dense.shape)
    if not isinstance(value, list):
        if level != rank:
            raise json_document.misshapen(
                value, f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {rank}"
            )
        dense.leaves.append(_leaf(value, dtype))
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != dense.shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {dense.shape[level]}"
        )
    for item in value:
        _walk(item, level + 1, dtype, dense)


def _leaf(value: Any, dtype: int) -> Any:
    kind = _KINDS.get(dtype)
    if kind is None and not isinstance(value, dict):
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {json_document.show(value)} to type: {type_name(dtype)}"
        )
    if dtype == types_pb2.DT_STRING and isinstance(value, dict):
        return _binary(value)
    if kind is None or type(value) not in kind.types or not (kind.range is None or value in kind.range):
        raise json_document.misshapen(
            value, f"Type: {json_document.kind(value)} is not of expected type: {type_name(dtype)}"
        )
    return json_document.to_bytes(value) if isinstance(value, str) else value


def _binary(value: dict[str, Any]) -> bytes:
    if is_object(value):
        raise json_document.misshapen(value, "not formatted correctly for base64 data")
    text = "".join(value[B64].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def is_object(value: Any) -> bool:
    """Whether it is an object of named values, and not one that stands for bytes."""
    return isinstance(value, dict) and not (value.keys() == {B64} and isinstance(value[B64], str))


def type_name(dtype: int) -> str:
    """TensorFlow's own name of a type: `float`, `uint8`."""
    return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower()


def invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
