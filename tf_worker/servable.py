"""One loaded version of a model: its SavedModel in a session, and its signatures.

The SavedModel runs in a `tf.compat.v1.Session`, as in the real server, and not as the function that
`tf.saved_model.load` returns: same graph optimisation, same error messages, and a call of a small model costs 24 µs
in place of 127 (docs/tf-worker.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import Code, ServingError
from tf_worker.metrics import Metrics
from tf_worker.tensors import QUANTIZED, Array, decode, fits, shape_of


class Input:
    """One input of a signature."""

    def __init__(self, alias: str, info: Any, default: Any | None) -> None:
        self.alias = alias
        self.feed = info.name
        self.dtype = tf.dtypes.as_dtype(info.dtype)
        self.default = default
        self.shape: tuple[int, ...] | None = None
        """Sizes with -1 for any; None for any rank."""
        if not info.tensor_shape.unknown_rank:
            self.shape = tuple(dim.size for dim in info.tensor_shape.dim)

    def read(self, proto: Any) -> Array:
        """Raises ServingError INVALID_ARGUMENT for another type or shape than the signature's."""
        if proto.dtype != self.dtype.as_datatype_enum:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Type mismatch: actual {_type_name(proto.dtype)} vs. expect {self.dtype.name} for input {self.alias}",
            )
        shape = shape_of(self.alias, proto)
        if not fits(shape, self.shape):  # before the values are made: a shape alone may ask for any memory
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Shape mismatch: input {self.alias} has shape {_show(shape)},"
                f" the signature expects {_show(self.shape or ())}",
            )
        return decode(self.alias, proto, shape)

    def blank(self, rows: int) -> Array | None:
        """Zeros for so many rows, or None if the signature does not say how large a row is."""
        if not self.shape or -1 in self.shape[1:] or self.dtype == tf.string:
            return None
        return np.zeros((rows, *self.shape[1:]), self.dtype.as_numpy_dtype)


class Signature:
    """One way to call a servable. Thread-safe."""

    def __init__(self, name: str, definition: Any, session: Any, metrics: Metrics) -> None:
        self.name = name
        self.inputs = [
            Input(alias, info, definition.defaults.get(alias)) for alias, info in sorted(definition.inputs.items())
        ]
        self.outputs = {alias: info.name for alias, info in sorted(definition.outputs.items())}
        self._quantized = {
            alias: np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype)
            for alias, info in definition.outputs.items()
            if info.dtype in QUANTIZED
        }
        self.batching: BatchingParameters | None = None
        """How its requests are joined into batches; None: not at all."""
        self._session = session
        self._metrics = metrics
        self._callables: dict[tuple[str, ...], Callable[..., list[Array]]] = {}
        self._making = Lock()

    def read(self, tensors: Mapping[str, Any]) -> list[Array]:
        """The request's tensors in the order of `inputs`. Raises ServingError INVALID_ARGUMENT."""
        if len(tensors) != len(self.inputs) or any(item.alias not in tensors for item in self.inputs):
            self._check_names(set(tensors))
        return [item.read(tensors.get(item.alias, item.default)) for item in self.inputs]

    def _check_names(self, sent: set[str]) -> None:
        wanted = {item.alias for item in self.inputs}
        defaults = {item.alias for item in self.inputs if item.default is not None}
        if len(sent) > len(wanted) or (len(sent) < len(wanted) and not defaults):
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"input size does not match signature: {len(sent)}!={len(wanted)}"
                f" len({_names(sent)}) != len({_names(wanted)})."
                f" Sent extra: {_names(sent - wanted)}. Missing but required: {_names(wanted - sent)}.",
            )
        for item in self.inputs:
            if item.alias not in sent and item.default is None:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"Signature input alias: {item.alias}(feed name: {item.feed}) not found in request and no default"
                    f" value provided. Inputs expected to be in the request {_names(sent)},"
                    f" or default input alias set: {','.join(sorted(defaults))}",
                )
        if sent - wanted:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "Inputs contains invalid name. Used request inputs: "
                f"{','.join(sorted(sent & wanted))}, request input: {','.join(sorted(sent))}",
            )

    def select(self, output_filter: Sequence[str]) -> tuple[str, ...]:
        """The outputs to compute. Raises ServingError INVALID_ARGUMENT for an unknown or a repeated one."""
        if not output_filter:
            return tuple(self.outputs)
        for position, alias in enumerate(output_filter):
            if alias not in self.outputs:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"output tensor alias not found in signature: {alias}"
                    f" Outputs expected to be in the set {_names(set(self.outputs))}.",
                )
            if alias in output_filter[:position]:
                raise ServingError(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        return tuple(sorted(output_filter))

    def run(self, outputs: tuple[str, ...], inputs: Sequence[Array]) -> list[Array]:
        """Compute the named outputs, in that order. Blocks without holding the GIL. Raises ServingError."""
        run = self._callables.get(outputs) or self._callable(outputs)
        begin_s = time.perf_counter()
        try:
            arrays = run(*inputs)
        except tf.errors.OpError as error:
            raise ServingError.from_tensorflow(error) from error
        self._metrics.graph_ran(time.perf_counter() - begin_s)
        if self._quantized:  # which the session gives as the integers they are made of
            return [
                array.view(self._quantized.get(alias, array.dtype))
                for alias, array in zip(outputs, arrays, strict=True)
            ]
        return arrays

    def _callable(self, outputs: tuple[str, ...]) -> Callable[..., list[Array]]:
        with self._making:
            if outputs not in self._callables:
                options = config_pb2.CallableOptions(
                    feed=[item.feed for item in self.inputs], fetch=[self.outputs[alias] for alias in outputs]
                )
                # Private, and the tensorflow wheel is pinned for it: the public make_callable checks every feed in
                # Python, which `read` has done, and costs five times as much.
                self._callables[outputs] = self._session._make_callable_from_options(options)
            return self._callables[outputs]

    def warm_up(self, rows: int) -> bool:
        """Run zeros of so many rows; False where the signature does not say what to run."""
        inputs = [item.blank(rows) for item in self.inputs]
        if not inputs or not self.outputs or any(array is None for array in inputs):
            return False
        self.run(tuple(self.outputs), [array for array in inputs if array is not None])
        return True


class Servable:
    """A version that can be asked."""

    def __init__(self, session: Any, signature_defs: Any, metrics: Metrics) -> None:
        self.signature_defs = signature_defs
        """`SignatureDef` by name, as in the SavedModel."""
        self._session = session
        self.signatures = {name: Signature(name, item, session, metrics) for name, item in signature_defs.items()}

    @classmethod
    def load(cls, path: Path, tags: Sequence[str], config: Any, metrics: Metrics) -> Servable:
        """Load the SavedModel's metagraph of those tags with that `ConfigProto`. Raises ServingError."""
        if not any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ServingError(
                Code.NOT_FOUND, f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}"
            )
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(session, tags, str(path))
            return cls(session, meta_graph.signature_def, metrics)
        except Exception as error:
            session.close()
            raise _load_error(error) from error

    def signature(self, name: str) -> Signature:
        """The signature of that name; empty: `serving_default`. Raises ServingError FAILED_PRECONDITION."""
        name = name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        if name not in self.signatures:
            raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def set_batching(self, parameters: BatchingParameters | None) -> None:
        """How requests are joined into batches; None: not at all."""
        for signature in self.signatures.values():
            signature.batching = parameters

    def close(self) -> None:
        """Free the memory. No run may be under way or come after."""
        self._session.close()


def _load_error(error: Exception) -> ServingError:
    if isinstance(error, tf.errors.OpError):
        return ServingError.from_tensorflow(error)
    if isinstance(error, OSError):  # what the loader raises for a file that is no SavedModel
        return ServingError(Code.DATA_LOSS, str(error))
    if isinstance(error, RuntimeError) and "MetaGraphDef" in str(error):  # and for one without these tags
        return ServingError(Code.NOT_FOUND, str(error))
    return ServingError(Code.UNKNOWN, f"{type(error).__name__}: {error}")


def _names(names: set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _show(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _type_name(enum: int) -> str:
    try:
        return str(tf.dtypes.as_dtype(enum).name)
    except TypeError:
        return "invalid"
