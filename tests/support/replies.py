"""What workers answer on the wire, right and wrong, for the packages of the tests."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from modelkit.spec import ModelSpec, RuntimeName
from proto import tensorflow_pb2 as tf
from proto import tensorflow_serving_pb2 as tfs
from proto import torchserve_inference_pb2 as inference

Arrays = Mapping[str, NDArray[Any]]

_TF_TYPES = {"float32": tf.DT_FLOAT, "float64": tf.DT_DOUBLE, "int64": tf.DT_INT64, "uint8": tf.DT_UINT8}


def reply(runtime: RuntimeName, tensors: Arrays) -> bytes:
    """The message with which a worker answers `tensors`."""
    if runtime == "torch":
        return torch_reply(safetensors.numpy.save(dict(tensors)))
    return tf_reply({name: tf_tensor(array) for name, array in tensors.items()})


def torch_reply(prediction: bytes) -> bytes:
    return inference.PredictionResponse(prediction=prediction).SerializeToString()


def safetensors_buffer(header: object, data: bytes = b"") -> bytes:
    """With whatever header, right or not."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tf_reply(outputs: Mapping[str, tf.TensorProto]) -> bytes:
    return tfs.PredictResponse(outputs=outputs).SerializeToString()


def tf_tensor(array: NDArray[Any]) -> tf.TensorProto:
    return tf.TensorProto(
        dtype=_TF_TYPES[str(array.dtype)], tensor_shape=tf_shape(*array.shape), tensor_content=array.tobytes()
    )


def tf_shape(*sizes: int) -> tf.TensorShapeProto:
    return tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in sizes])


def right(spec: ModelSpec) -> dict[str, NDArray[np.float32]]:
    """Tensors that `spec` allows: of a detector, one square that fills a quarter of the picture."""
    tensors = {name: np.zeros((1, *output.shape), np.float32) for name, output in spec.outputs.items()}
    tensors["scores"][0, 0] = 0.9
    if "boxes" in tensors:
        tensors["boxes"][0, 0] = [8, 8, 40, 40]
    if "prototypes" in tensors:
        tensors["coefficients"][0, 0], tensors["prototypes"][:] = 1, 1
    return tensors
