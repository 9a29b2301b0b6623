"""TensorProto to numpy array and back, with a request's and an answer's cost in mind.

A request's numbers come as `tensor_content` or, from other clients, in the typed fields (`float_val`, …). An answer
carries typed fields, as the real server's does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from tf_worker.errors import Code, ServingError

Array = NDArray[Any]

_FIXED_SIZE = {
    dtype: np.dtype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    for dtype in (
        types_pb2.DT_FLOAT,
        types_pb2.DT_DOUBLE,
        types_pb2.DT_HALF,
        types_pb2.DT_BFLOAT16,
        types_pb2.DT_UINT8,
        types_pb2.DT_INT8,
        types_pb2.DT_UINT16,
        types_pb2.DT_INT16,
        types_pb2.DT_UINT32,
        types_pb2.DT_INT32,
        types_pb2.DT_UINT64,
        types_pb2.DT_INT64,
        types_pb2.DT_BOOL,
        types_pb2.DT_COMPLEX64,
        types_pb2.DT_COMPLEX128,
    )
}
_ENUM = {dtype: enum for enum, dtype in _FIXED_SIZE.items()}
_INTEGER_FIELD = {
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
}
# A packed repeated field on the wire is its tag, its length in bytes and the little-endian values, so an array's
# memory is already the field's contents. Tag: (field number << 3) | 2.
_PACKED_TAG = {
    types_pb2.DT_FLOAT: 5 << 3 | 2,
    types_pb2.DT_DOUBLE: 6 << 3 | 2,
    types_pb2.DT_COMPLEX64: 9 << 3 | 2,
    types_pb2.DT_BOOL: 11 << 3 | 2,
    types_pb2.DT_COMPLEX128: 12 << 3 | 2,
}


def decode(name: str, tensor: Any) -> Array:
    """The tensor's values; read-only where they are the message's own bytes. Raises ServingError INVALID_ARGUMENT."""
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    dtype = _FIXED_SIZE.get(tensor.dtype)
    try:
        if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
            raise ValueError("not a full shape")
        if dtype is not None and (content := tensor.tensor_content):
            return np.frombuffer(content, dtype).reshape(shape)
        return np.asarray(tf.make_ndarray(tensor))
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {name}") from error


def encode(array: Array, tensor: Any) -> None:
    """Fill an empty TensorProto with the array, in the typed field of its type."""
    enum = types_pb2.DT_STRING if array.dtype == object else _ENUM.get(array.dtype)
    if enum is None:  # a quantized or 8-bit floating-point type
        tensor.CopyFrom(tf.make_tensor_proto(array))
        return
    tensor.dtype = enum
    dims = tensor.tensor_shape.dim
    for size in array.shape:
        dims.add(size=size)
    if enum == types_pb2.DT_STRING:
        tensor.string_val.extend(array.ravel().tolist())
    elif enum in _PACKED_TAG:
        tensor.MergeFromString(bytes((_PACKED_TAG[enum],)) + _varint(array.nbytes) + array.tobytes())
    elif enum in (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16):
        tensor.half_val.extend(array.ravel().view(np.uint16).tolist())
    else:
        getattr(tensor, _INTEGER_FIELD[enum]).extend(array.ravel().tolist())


def fits(array: Array, shape: tuple[int, ...] | None) -> bool:
    """Whether an array has the signature's shape; -1 stands for any size, None for any shape."""
    return shape is None or (
        array.ndim == len(shape) and all(want in (-1, size) for want, size in zip(shape, array.shape, strict=True))
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
