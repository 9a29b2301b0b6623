"""TensorProto to numpy array and back, with a request's and an answer's cost in mind.

A request's numbers come as `tensor_content` or, from other clients, in the typed fields (`float_val`, …). An answer
carries typed fields, as the real server's does. The rules are those of TensorFlow's core/framework/tensor.cc.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from tf_worker.errors import Code, ServingError

Array = NDArray[Any]
Shape = tuple[int, ...]

_MOST_DIMENSIONS = 254
_FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_HALF: "half_val",
    types_pb2.DT_BFLOAT16: "half_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_COMPLEX64: "scomplex_val",
    types_pb2.DT_COMPLEX128: "dcomplex_val",
    types_pb2.DT_STRING: "string_val",
    types_pb2.DT_QINT8: "int_val",
    types_pb2.DT_QUINT8: "int_val",
    types_pb2.DT_QINT16: "int_val",
    types_pb2.DT_QUINT16: "int_val",
    types_pb2.DT_QINT32: "int_val",
    types_pb2.DT_INT4: "int_val",
    types_pb2.DT_UINT4: "int_val",
    types_pb2.DT_FLOAT8_E5M2: "float8_val",
    types_pb2.DT_FLOAT8_E4M3FN: "float8_val",
}
QUANTIZED = frozenset(
    (types_pb2.DT_QINT8, types_pb2.DT_QUINT8, types_pb2.DT_QINT16, types_pb2.DT_QUINT16, types_pb2.DT_QINT32)
)
"""Types that numpy has as records of one integer."""
_NUMPY = {enum: np.dtype(tf.dtypes.as_dtype(enum).as_numpy_dtype) for enum in _FIELDS}
_ENUM = {dtype: enum for enum, dtype in _NUMPY.items()}
# What the values of a field are before they are the tensor's: their bits, or numbers that are cut to its width.
_BITS: dict[str, np.dtype[Any]] = {"half_val": np.dtype(np.uint16), "float8_val": np.dtype(np.uint8)}
_PAIRS: dict[str, np.dtype[Any]] = {"scomplex_val": np.dtype(np.float32), "dcomplex_val": np.dtype(np.float64)}
# A packed repeated field on the wire is its tag, its length in bytes and the little-endian values, so an array's
# memory is already the field's contents. Tag: (field number << 3) | 2.
_PACKED_TAG = {
    types_pb2.DT_FLOAT: 5 << 3 | 2,
    types_pb2.DT_DOUBLE: 6 << 3 | 2,
    types_pb2.DT_COMPLEX64: 9 << 3 | 2,
    types_pb2.DT_BOOL: 11 << 3 | 2,
    types_pb2.DT_COMPLEX128: 12 << 3 | 2,
}


def shape_of(name: str, tensor: Any) -> Shape:
    """Raises ServingError INVALID_ARGUMENT for what is no full shape."""
    proto = tensor.tensor_shape
    shape = tuple([dim.size for dim in proto.dim])
    if proto.unknown_rank or min(shape, default=0) < 0 or len(shape) > _MOST_DIMENSIONS:
        raise _unreadable(name)
    return shape


def decode(name: str, tensor: Any, shape: Shape) -> Array:
    """The tensor's values, in its own shape; read-only where they are the message's own bytes.

    Of the typed field's values, a last one that is missing is like the one before, and those too many are left out,
    as with the real server; no value at all is zeros. Raises ServingError INVALID_ARGUMENT, also for bytes of
    `tensor_content` that are too many or too few.
    """
    dtype = _NUMPY.get(tensor.dtype)
    count = math.prod(shape)
    if dtype is None:
        raise _unreadable(name)
    try:
        content = tensor.tensor_content if count else b""
        if not content:
            return _from_field(tensor, dtype, count).reshape(shape)
        if tensor.dtype == types_pb2.DT_STRING:
            return np.array(_strings(content, count), object).reshape(shape)
        if len(content) != count * dtype.itemsize:
            raise _unreadable(name)
        return np.frombuffer(content, dtype).reshape(shape)
    except (ValueError, TypeError, OverflowError, MemoryError, IndexError) as error:
        raise _unreadable(name) from error


def _from_field(tensor: Any, dtype: np.dtype[Any], count: int) -> Array:
    field = _FIELDS[tensor.dtype]
    values = getattr(tensor, field)
    if field == "string_val":
        given = np.empty(min(len(values), count), object)
        given[:] = values[:count]
    elif field == "float8_val":
        given = np.frombuffer(values, np.uint8)[:count].view(dtype)
    elif field in _BITS:
        given = np.array(values[:count], np.int64).astype(_BITS[field]).view(dtype)
    elif field in _PAIRS:
        given = np.array(values[: min(2 * count, len(values) // 2 * 2)], _PAIRS[field]).view(dtype)
    elif tensor.dtype in QUANTIZED:
        given = np.array(values[:count], np.int64).astype(dtype[0]).view(dtype)
    elif field == "int_val":
        given = np.array(values[:count], np.int64).astype(dtype)
    else:
        given = np.array(values[:count], dtype)
    if len(given) == count:
        return given
    if not len(given):
        return np.full(count, b"", object) if dtype.hasobject else np.zeros(count, dtype)
    filled = np.empty(count, dtype)
    filled[: len(given)] = given
    filled[len(given) :] = given[-1]
    return filled


def _strings(content: bytes, count: int) -> list[bytes]:
    """Strings in `tensor_content`: the length of each as a varint, and then their bytes. Raises ValueError."""
    lengths: list[int] = []
    position = 0
    for _ in range(count):
        length = shift = 0
        while content[position] & 0x80:
            length |= (content[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
        lengths.append(length | content[position] << shift)
        position += 1
    ends = list(accumulate(lengths, initial=position))
    if ends[-1] != len(content):
        raise ValueError("the strings' lengths do not add up")
    return [content[start:end] for start, end in pairwise(ends)]


def encode(array: Array, tensor: Any) -> None:
    """Fill an empty TensorProto with the array, in the typed field of its type."""
    enum = _ENUM.get(array.dtype)
    if enum is None:  # a type that the real server does not know either
        tensor.CopyFrom(tf.make_tensor_proto(array))
        return
    tensor.dtype = enum
    dims = tensor.tensor_shape.dim
    for size in array.shape:
        dims.add(size=size)
    field = _FIELDS[enum]
    if enum in _PACKED_TAG:
        tensor.MergeFromString(bytes((_PACKED_TAG[enum],)) + _varint(array.nbytes) + array.tobytes())
    elif field == "float8_val":
        tensor.float8_val = array.tobytes()
    elif field == "half_val":
        tensor.half_val.extend(array.ravel().view(np.uint16).tolist())
    elif enum in QUANTIZED:
        tensor.int_val.extend(array.ravel().view(array.dtype[0]).tolist())
    elif enum in (types_pb2.DT_INT4, types_pb2.DT_UINT4):
        tensor.int_val.extend(array.ravel().astype(np.int32).tolist())
    else:
        getattr(tensor, field).extend(array.ravel().tolist())


def fits(sizes: Shape, shape: Shape | None) -> bool:
    """Whether an array of those sizes has the signature's shape; -1 stands for any size, None for any shape."""
    return shape is None or (
        len(sizes) == len(shape) and all(want in (-1, size) for want, size in zip(shape, sizes, strict=True))
    )


def _unreadable(name: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {name}")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
