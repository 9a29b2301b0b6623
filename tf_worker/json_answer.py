"""A PredictResponse as the REST API's JSON: `predictions`, rows, or `outputs`, columns.

Forms, codes and messages are those of TensorFlow Serving's util/json_tensor.cc: an only output has no name, bytes are
base64 where the output's name ends in `_bytes`, a decimal has six digits or as many as it takes to be read back alike.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from tf_worker.json_request import Format
from tf_worker.json_tensor import B64, invalid, type_name
from tf_worker.tensors import Array, decode, shape_of

_INDENT = "    "
_BYTES = "_bytes"
_DECIMALS = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_WHOLE = frozenset(
    {
        types_pb2.DT_INT32,
        types_pb2.DT_INT16,
        types_pb2.DT_INT8,
        types_pb2.DT_UINT8,
        types_pb2.DT_INT64,
        types_pb2.DT_UINT32,
        types_pb2.DT_UINT64,
    }
)


def predict_answer(outputs: Mapping[str, Any], form: Format) -> str:
    """The JSON of the TensorProtos. Raises ServingError."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    tensors = {
        name: (decode(name, tensor, shape_of(name, tensor)), tensor.dtype) for name, tensor in sorted(outputs.items())
    }
    if form is Format.ROWS:
        return f'{{\n{_INDENT}"predictions": {_rows(tensors)}\n}}'
    return f'{{\n{_INDENT}"outputs": {_columns(tensors)}\n}}'


def error_answer(message: str) -> str:
    return f'{{\n{_INDENT}"error": {_quoted(message)}\n}}'


def _rows(tensors: Mapping[str, tuple[Array, int]]) -> str:
    rows = -1
    for name, (array, _) in tensors.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows not in (-1, len(array)):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)
    columns = {}
    for name, (array, dtype) in tensors.items():
        leaves = iter(_leaves(name, array, dtype))
        columns[name] = [_line(leaves, array.shape[1:]) for _ in range(rows)]
    if rows == 0:
        return "[]"
    if len(columns) == 1:
        (column,) = columns.values()
        return f"[{', '.join(column)}\n{_INDENT}]"
    items = [_object(columns.keys(), values, 3) for values in zip(*columns.values(), strict=True)]
    return "[" + ",".join(f"\n{2 * _INDENT}{item}" for item in items) + f"\n{_INDENT}]"


def _columns(tensors: Mapping[str, tuple[Array, int]]) -> str:
    level = 1 if len(tensors) == 1 else 2
    values = [_block(iter(_leaves(name, array, dtype)), array.shape, level) for name, (array, dtype) in tensors.items()]
    return values[0] if len(tensors) == 1 else _object(tensors.keys(), values, 2)


def _object(names: Any, values: Sequence[str], level: int) -> str:
    members = (f"\n{level * _INDENT}{_quoted(name)}: {value}" for name, value in zip(names, values, strict=True))
    return "{" + ",".join(members) + f"\n{(level - 1) * _INDENT}}}"


def _line(leaves: Iterator[str], shape: Sequence[int]) -> str:
    """The next tensor of that shape, on one line."""
    if not shape:
        return next(leaves)
    return "[" + ", ".join(_line(leaves, shape[1:]) for _ in range(shape[0])) + "]"


def _block(leaves: Iterator[str], shape: Sequence[int], level: int) -> str:
    """The next tensor of that shape, each element on a line of its own."""
    if not shape:
        return next(leaves)
    items = [f"\n{(level + 1) * _INDENT}{_block(leaves, shape[1:], level + 1)}" for _ in range(shape[0])]
    return "[" + ",".join(items) + (f"\n{level * _INDENT}]" if items else "]")


def _leaves(name: str, array: Array, dtype: int) -> Sequence[str]:
    """The text of each element, in order."""
    values = array.ravel()
    if dtype in _DECIMALS:
        return _decimals(values)
    if dtype == types_pb2.DT_STRING:
        text = _base64 if name.endswith(_BYTES) else _text
        return [text(value) for value in values]
    if dtype == types_pb2.DT_BOOL:
        return ["true" if value else "false" for value in values]
    if dtype not in _WHOLE:
        raise invalid(f"Failed to write JSON value for tensor type: {type_name(dtype)}")
    return [str(value) for value in values.tolist()]


def _decimals(values: Array) -> list[str]:
    digits = 9 if values.dtype == np.float32 else 17
    numbers = values.tolist()
    short = [f"{number:g}" for number in numbers]
    same = np.array(short, np.float64).astype(values.dtype) == values
    texts = [
        brief if alike else f"{number:.{digits}g}" for number, brief, alike in zip(numbers, short, same, strict=True)
    ]
    return [_SPECIAL.get(text) or (text if "." in text or "e" in text else f"{text}.0") for text in texts]


_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _text(value: bytes) -> str:
    return _quoted(value.decode(errors="surrogateescape"))


def _base64(value: bytes) -> str:
    return f'{{"{B64}": "{base64.b64encode(value).decode()}"}}'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
