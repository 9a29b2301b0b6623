"""TensorProto and back: what the real server reads and writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from tf_worker.errors import Code, ServingError
from tf_worker.tensors import decode, encode

DTYPES = [
    tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.uint8, tf.int8, tf.uint16, tf.int16, tf.uint32, tf.int32,
    tf.uint64, tf.int64, tf.bool, tf.complex64, tf.complex128,
]  # fmt: skip
TYPED_FIELDS = {
    tf.float32: "float_val", tf.float64: "double_val", tf.float16: "half_val", tf.bfloat16: "half_val",
    tf.uint8: "int_val", tf.int8: "int_val", tf.uint16: "int_val", tf.int16: "int_val", tf.int32: "int_val",
    tf.uint32: "uint32_val", tf.uint64: "uint64_val", tf.int64: "int64_val", tf.bool: "bool_val",
    tf.complex64: "scomplex_val", tf.complex128: "dcomplex_val",
}  # fmt: skip


def example(dtype: Any) -> Any:
    return np.array([[0, 1, 2], [3, 1, 100]]).astype(dtype.as_numpy_dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_an_answer_is_in_the_typed_field_and_tensorflow_reads_the_same_values(dtype: Any) -> None:
    tensor = tensor_pb2.TensorProto()
    encode(example(dtype), tensor)
    assert {field.name for field, _ in tensor.ListFields()} == {"dtype", "tensor_shape", TYPED_FIELDS[dtype]}
    read = tf.io.parse_tensor(tensor.SerializeToString(), dtype).numpy()
    assert read.tolist() == example(dtype).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_a_request_is_read_from_its_contents_and_from_its_typed_field(dtype: Any) -> None:
    typed = tensor_pb2.TensorProto()
    encode(example(dtype), typed)
    contents = tensor_pb2.TensorProto(
        dtype=dtype.as_datatype_enum, tensor_shape=typed.tensor_shape, tensor_content=example(dtype).tobytes()
    )
    for tensor in (contents, typed):
        array = decode("x", tensor)
        assert array.dtype == dtype.as_numpy_dtype
        assert array.tolist() == example(dtype).tolist()


def test_strings_travel_both_ways() -> None:
    words = np.array([[b"a", b"\xff\x00"], [b"", b"long"]], dtype=object)
    tensor = tensor_pb2.TensorProto()
    encode(words, tensor)
    assert decode("word", tensor).tolist() == words.tolist()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0, 3)], ids=str)
def test_scalars_and_empty_tensors_keep_their_shape(shape: tuple[int, ...]) -> None:
    tensor = tensor_pb2.TensorProto()
    encode(np.ones(shape, np.float32), tensor)
    assert decode("x", tensor).shape == shape


def test_an_answer_that_is_a_view_into_a_batch_holds_its_own_rows() -> None:
    tensor = tensor_pb2.TensorProto()
    encode(np.arange(12, dtype=np.float32).reshape(6, 2)[2:4], tensor)
    assert list(tensor.float_val) == [4, 5, 6, 7]


def test_one_value_fills_a_larger_shape() -> None:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[7])
    tensor.tensor_shape.dim.add(size=3)
    assert decode("x", tensor).tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        pytest.param(b"\x00" * 5, [2], id="bytes-that-are-no-whole-numbers"),
        pytest.param(b"\x00" * 8, [3], id="too-few-bytes"),
        pytest.param(b"\x00" * 8, [-1], id="unknown-size"),
        pytest.param(b"\x00" * 8, [2**62, 2**62], id="absurd-size"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_an_invalid_argument(content: bytes, shape: list[int]) -> None:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=content)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    with pytest.raises(ServingError, match="tensor parsing error: x") as caught:
        decode("x", tensor)
    assert caught.value.code is Code.INVALID_ARGUMENT
