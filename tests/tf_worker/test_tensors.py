"""TensorProto and back: what the real server reads and writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from tf_worker.errors import Code, ServingError
from tf_worker.tensors import Array, decode, encode, shape_of

SMALL = tf.dtypes.experimental
DTYPES = [
    tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.uint8, tf.int8, tf.uint16, tf.int16, tf.uint32, tf.int32,
    tf.uint64, tf.int64, tf.bool, tf.complex64, tf.complex128, tf.qint8, tf.quint8, tf.qint16, tf.quint16, tf.qint32,
    SMALL.int4, SMALL.uint4, SMALL.float8_e5m2, SMALL.float8_e4m3fn,
]  # fmt: skip
TYPED_FIELDS = {
    tf.float32: "float_val", tf.float64: "double_val", tf.float16: "half_val", tf.bfloat16: "half_val",
    tf.uint8: "int_val", tf.int8: "int_val", tf.uint16: "int_val", tf.int16: "int_val", tf.int32: "int_val",
    tf.uint32: "uint32_val", tf.uint64: "uint64_val", tf.int64: "int64_val", tf.bool: "bool_val",
    tf.complex64: "scomplex_val", tf.complex128: "dcomplex_val", tf.qint8: "int_val", tf.quint8: "int_val",
    tf.qint16: "int_val", tf.quint16: "int_val", tf.qint32: "int_val", SMALL.int4: "int_val", SMALL.uint4: "int_val",
    SMALL.float8_e5m2: "float8_val", SMALL.float8_e4m3fn: "float8_val",
}  # fmt: skip


def example(dtype: Any) -> Any:
    array = np.array([[0, 1, 2], [3, 1, 6]])
    numpy_dtype = np.dtype(dtype.as_numpy_dtype)
    return array.astype(numpy_dtype[0]).view(numpy_dtype) if numpy_dtype.names else array.astype(numpy_dtype)


def read(name: str, tensor: Any) -> Array:
    return decode(name, tensor, shape_of(name, tensor))


def proto(dtype: int, *shape: int, **fields: Any) -> Any:
    tensor = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_an_answer_is_in_the_typed_field_and_tensorflow_reads_the_same_values(dtype: Any) -> None:
    tensor = tensor_pb2.TensorProto()
    encode(example(dtype), tensor)
    assert {field.name for field, _ in tensor.ListFields()} == {"dtype", "tensor_shape", TYPED_FIELDS[dtype]}
    parsed = tf.io.parse_tensor(tensor.SerializeToString(), dtype).numpy()
    assert parsed.tolist() == example(dtype).view(parsed.dtype).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_a_request_is_read_from_its_contents_and_from_its_typed_field(dtype: Any) -> None:
    typed = tensor_pb2.TensorProto()
    encode(example(dtype), typed)
    contents = tensor_pb2.TensorProto(
        dtype=dtype.as_datatype_enum, tensor_shape=typed.tensor_shape, tensor_content=example(dtype).tobytes()
    )
    for tensor in (contents, typed):
        array = read("x", tensor)
        assert array.dtype == dtype.as_numpy_dtype
        assert array.tolist() == example(dtype).tolist()


def test_strings_travel_both_ways() -> None:
    words = np.array([[b"a", b"\xff\x00"], [b"", b"long"]], dtype=object)
    tensor = tensor_pb2.TensorProto()
    encode(words, tensor)
    assert read("word", tensor).tolist() == words.tolist()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0, 3)], ids=str)
def test_scalars_and_empty_tensors_keep_their_shape(shape: tuple[int, ...]) -> None:
    tensor = tensor_pb2.TensorProto()
    encode(np.ones(shape, np.float32), tensor)
    assert read("x", tensor).shape == shape


def test_an_answer_that_is_a_view_into_a_batch_holds_its_own_rows() -> None:
    tensor = tensor_pb2.TensorProto()
    encode(np.arange(12, dtype=np.float32).reshape(6, 2)[2:4], tensor)
    assert list(tensor.float_val) == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        pytest.param(proto(types_pb2.DT_FLOAT, 3, float_val=[7]), [7, 7, 7], id="one-for-all"),
        pytest.param(proto(types_pb2.DT_FLOAT, 4, float_val=[1, 2]), [1, 2, 2, 2], id="too-few"),
        pytest.param(proto(types_pb2.DT_FLOAT, 2, float_val=[1, 2, 3]), [1, 2], id="too-many"),
        pytest.param(proto(types_pb2.DT_FLOAT, 2), [0, 0], id="none"),
        pytest.param(proto(types_pb2.DT_FLOAT, 2, double_val=[1, 2]), [0, 0], id="another-types"),
        pytest.param(proto(types_pb2.DT_STRING, 3, string_val=[b"a", b"b"]), [b"a", b"b", b"b"], id="strings"),
        pytest.param(proto(types_pb2.DT_STRING, 2), [b"", b""], id="no-strings"),
        pytest.param(proto(types_pb2.DT_COMPLEX64, 2, scomplex_val=[1, 2, 3]), [1 + 2j, 1 + 2j], id="half-a-complex"),
        pytest.param(proto(types_pb2.DT_UINT8, 2, int_val=[257, -1]), [1, 255], id="numbers-cut-to-their-width"),
        pytest.param(proto(types_pb2.DT_HALF, 3, half_val=[0x3C00]), [1, 1, 1], id="one-half"),
        pytest.param(proto(types_pb2.DT_FLOAT, 0, 3, tensor_content=b"xyz"), [], id="bytes-for-nothing"),
        pytest.param(
            proto(types_pb2.DT_STRING, 2, tensor_content=b"\x01\xc8\x01a" + b"b" * 200),
            [b"a", b"b" * 200],
            id="strings-in-contents",
        ),
    ],
)
def test_the_typed_fields_are_read_as_tensorflow_reads_them(tensor: Any, values: list[Any]) -> None:
    """Held to TensorFlow's own reading of the same message."""
    array = read("x", tensor)
    dtype = tf.dtypes.as_dtype(tensor.dtype)
    assert array.tolist() == values
    assert tf.io.parse_tensor(tensor.SerializeToString(), dtype).numpy().tolist() == values


def test_a_nan_and_infinities_travel_both_ways() -> None:
    tensor = tensor_pb2.TensorProto()
    encode(np.array([np.nan, np.inf, -np.inf], np.float32), tensor)
    assert np.array_equal(read("x", tensor), np.array([np.nan, np.inf, -np.inf], np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        pytest.param(b"\x00" * 5, [2], id="bytes-that-are-no-whole-numbers"),
        pytest.param(b"\x00" * 8, [3], id="too-few-bytes"),
        pytest.param(b"\x00" * 8, [1], id="too-many-bytes"),
        pytest.param(b"\x00" * 4, [1] * 255, id="too-many-dimensions"),
        pytest.param(b"\x00" * 8, [-1], id="unknown-size"),
        pytest.param(b"\x00" * 8, [2**62, 2**62], id="absurd-size"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_an_invalid_argument(content: bytes, shape: list[int]) -> None:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=content)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    with pytest.raises(ServingError, match="tensor parsing error: x") as caught:
        read("x", tensor)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(proto(types_pb2.DT_STRING, 2, tensor_content=b"\x01\x05ab"), id="strings-end-early"),
        pytest.param(proto(types_pb2.DT_STRING, 2, tensor_content=b"\x01"), id="lengths-end-early"),
        pytest.param(proto(types_pb2.DT_INVALID, 2), id="no-type"),
        pytest.param(proto(types_pb2.DT_RESOURCE, 2), id="resource"),
        pytest.param(proto(999, 2), id="unknown-type"),
    ],
)
def test_what_is_no_tensor_is_an_invalid_argument(tensor: Any) -> None:
    with pytest.raises(ServingError, match="tensor parsing error: x"):
        read("x", tensor)
