"""TorchServe's handler for a Tandem model: bytes of pictures in, safetensors out.

It is packed into every archive and runs inside TorchServe's Python worker, so it imports nothing of this repository.
Its metrics are named in metrics.yaml.
The wire, for each request of a batch:

    in   {"image": bytes of one uint8 [1, H, W, 3] tensor, C order;
          "sent_ns": may be left out: when it was sent, nanoseconds since 1970 in digits}
    out  a safetensors buffer: the named output tensors with batch dimension 1,
         metadata {"batch_size", "inference_ms", "queue_ms" where sent_ns was given};
         or no tensors and metadata {"error": sentence, "code": invalid_input | model_not_loaded | inference_failed}
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
import yaml
from safetensors.numpy import save
from ts.metrics.metric_type_enum import MetricTypes

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
_DIGITS = 20
"""Of nanoseconds since 1970, for some thousand years."""

WARM_UP_RUNS = 3
"""TorchScript profiles a graph in its first run and optimises it in its second: the third is the first ordinary one."""


class Context(Protocol):
    """What is used of TorchServe's context."""

    @property
    def system_properties(self) -> Mapping[str, Any]: ...

    @property
    def manifest(self) -> Mapping[str, Any]: ...

    @property
    def metrics(self) -> Any:
        """TorchServe's cache of the metrics that metrics.yaml names."""

    def get_request_header(self, idx: int, key: str) -> str | None: ...


class ItemError(Exception):
    """Why one item of a batch has no answer. `code` travels to the gateway."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


Network = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]


def _load(folder: Path, device: torch.device) -> Network:
    """The package's `model.pt2`, which AOTInductor compiled, or else its `model.pt`, a TorchScript module."""
    compiled = folder / "model.pt2"
    if compiled.exists():
        from torch._inductor import aoti_load_package  # here: it takes a second, and most models do not need it

        network: Any = aoti_load_package(str(compiled), device_index=-1 if device.index is None else device.index)
        made_for = network.loader.get_metadata()["AOTI_DEVICE_KEY"]
        if made_for != device.type:
            raise ValueError(
                f"model.pt2 was compiled for {made_for} and this worker computes on {device.type}: "
                "build the package on a machine like this one, or without the compiled form"
            )
        return cast(Network, network)
    # Batches come in all sizes: never compile once more for each new one.
    torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
    return cast(Network, torch.jit.load(str(folder / "model.pt"), map_location=device).eval())


def _check_size(what: str, size: int, variable: str) -> None:
    """Raises ValueError for messages that TorchServe, as it was started, would refuse one by one."""
    most = int(os.environ.get(variable, sys.maxsize))
    if size > most:
        raise ValueError(
            f"{what} has {size} bytes, and TorchServe was started for at most {most}, before this model came: "
            "restart the torch worker, which then makes room for it"
        )


class Model:
    """A loaded module that was tried at batch 1 and at the largest batch."""

    def __init__(self, folder: Path, gpu: int | None, max_batch: int) -> None:
        """Raises any exception of reading, moving or running the model: what it says is the reason a client sees."""
        spec = yaml.safe_load((folder / "model.yaml").read_text())
        self.shape = (int(spec["input"]["height"]), int(spec["input"]["width"]), 3)
        self.outputs = {name: (output["dtype"], output["shape"]) for name, output in spec["outputs"].items()}
        self.device = torch.device("cpu" if gpu is None or not torch.cuda.is_available() else f"cuda:{gpu}")
        self.network = _load(folder, self.device)
        self.batch = torch.empty((max_batch, *self.shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        self.rows = self.batch.numpy().reshape(max_batch, -1)
        self.batch.random_()
        _check_size("a picture", self.rows[0].size, "TORCH_WORKER_MAX_PICTURE_BYTES")
        for size in (1, max_batch):
            for _ in range(WARM_UP_RUNS):
                outputs = self.run(size)
                self._check(outputs, size)
            answer_bytes = sum(array.nbytes for array in outputs.values()) // size
            _check_size("an answer", answer_bytes, "TORCH_WORKER_MAX_ANSWER_BYTES")

    def read(self, row: int, item: Mapping[str, Any]) -> None:
        """Copy the picture of `item` into row `row` of the batch buffer. Raises ItemError."""
        image = item.get("image")
        if not isinstance(image, bytes | bytearray):
            raise ItemError("invalid_input", "The request has no part named 'image' with the bytes of a tensor.")
        pixels = np.frombuffer(image, dtype=np.uint8)
        if pixels.size != self.rows[row].size:
            shape = ", ".join(map(str, (1, *self.shape)))
            raise ItemError(
                "invalid_input",
                f"The image has {pixels.size} bytes; a uint8 [{shape}] tensor has {self.rows[row].size}.",
            )
        self.rows[row] = pixels

    def run(self, size: int) -> dict[str, Array]:
        """The outputs, on the CPU, for the first `size` rows of the batch buffer."""
        with torch.inference_mode():
            outputs = self.network(self.batch[:size].to(self.device, non_blocking=True))
            if not isinstance(outputs, dict):
                raise TypeError(f"the module returned a {type(outputs).__name__}, not a dictionary of tensors")
            return {name: tensor.contiguous().cpu().numpy() for name, tensor in outputs.items()}

    def _check(self, outputs: Mapping[str, Array], size: int) -> None:
        found = {name: (array.dtype.name, *array.shape) for name, array in outputs.items()}
        promised = {name: (dtype, size, *shape) for name, (dtype, shape) in self.outputs.items()}
        if found != promised:
            raise ValueError(f"for batch {size} the module returned {found}; model.yaml promises {promised}")


class Metrics:
    """What TorchServe is told of the batches: a line on the standard output for each value, read by the JVM."""

    def __init__(self, context: Context) -> None:
        described = context.manifest["model"]
        self._labels = [described["modelName"], described["modelVersion"]]
        self._size = context.metrics.get_metric("handler_batch_size", MetricTypes.HISTOGRAM)
        self._seconds = context.metrics.get_metric("handler_inference_seconds", MetricTypes.HISTOGRAM)
        self._failed = context.metrics.get_metric("handler_failed_total", MetricTypes.COUNTER)

    def ran(self, size: int, duration_s: float) -> None:
        """A batch has run, to its end."""
        self._size.add_or_update(size, self._labels)
        self._seconds.add_or_update(round(duration_s, 6), self._labels)

    def failed(self, code: str, count: int) -> None:
        """Items get no tensors."""
        self._failed.add_or_update(count, [*self._labels, code])


def _is_of_handler(record: logging.LogRecord) -> bool:
    """TorchServe's own line for each batch, with the ids of all its requests, would be read and dropped."""
    return record.getMessage().startswith("[METRICS]handler_")


class Handler:
    """Answers batches.

    A model that can't be loaded keeps its reason: crashing would make TorchServe start it again and again.
    """

    def __init__(self) -> None:
        self.model: Model | None = None
        self.metrics: Metrics | None = None
        self.failure = "not loaded yet"

    def initialize(self, context: Context) -> None:
        # One line for each request went from here through a pipe to the JVM, to be parsed there and dropped.
        logging.getLogger().setLevel(logging.WARNING)
        metrics_log = logging.getLogger("ts.metrics.caching_metric")
        metrics_log.setLevel(logging.INFO)
        metrics_log.addFilter(_is_of_handler)
        properties = context.system_properties
        try:
            self.metrics = Metrics(context)
            self.model = Model(Path(properties["model_dir"]), properties["gpu_id"], int(properties["batch_size"]))
        except Exception as error:
            logger.exception("the model could not be loaded")
            self.failure = _sentence(error)

    def describe(self) -> dict[str, Any]:
        """What DescribeModel(customized=true) says."""
        if self.model is None:
            return {"state": "failed", "reason": self.failure}
        return {
            "state": "ready",
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "max_batch": len(self.model.batch),
            "torch": torch.__version__,
        }

    def infer(self, items: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """One safetensors buffer for each item (no more than the batch size), in order. Items fail alone."""
        if self.model is None:
            error = ItemError("model_not_loaded", f"The model could not be loaded: {self.failure}")
            return [self._failed(error, len(items))] * len(items)
        answers = [b""] * len(items)
        self._infer_batch(self.model, items, range(len(items)), answers)
        return answers

    def _infer_batch(
        self, model: Model, items: Sequence[Mapping[str, Any]], places: Sequence[int], answers: list[bytes]
    ) -> None:
        """Write the answer to `items[place]` to `answers[place]`, for each of `places`."""
        rows: list[int] = []
        for place in places:
            try:
                model.read(len(rows), items[place])
                rows.append(place)
            except ItemError as error:
                answers[place] = self._failed(error)
        if not rows:
            return
        begin_ns = time.time_ns()
        begin = time.perf_counter()
        try:
            outputs = model.run(len(rows))
        except Exception as error:
            if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
                # From now on every call fails in this process: TorchServe starts a new one.
                logger.exception("the accelerator failed; this worker ends")
                sys.exit(1)
            logger.exception("inference of %d failed", len(rows))
            failure = _sentence(error)
        else:
            self._answer(items, rows, outputs, answers, begin_ns, time.perf_counter() - begin)
            return
        # Out here the exception is gone, and with it the tensors that its traceback kept.
        torch.cuda.empty_cache()
        if len(rows) > 1:
            for place in rows:
                self._infer_batch(model, items, [place], answers)
        else:
            answers[rows[0]] = self._failed(ItemError("inference_failed", f"Inference failed: {failure}"))

    def _answer(
        self,
        items: Sequence[Mapping[str, Any]],
        rows: Sequence[int],
        outputs: Mapping[str, Array],
        answers: list[bytes],
        begin_ns: int,
        elapsed_s: float,
    ) -> None:
        """Write the outputs of the batch that began at `begin_ns` to the `answers` of its items, which `rows` names."""
        if self.metrics:
            self.metrics.ran(len(rows), elapsed_s)
        metadata = {"batch_size": str(len(rows)), "inference_ms": f"{elapsed_s * 1000:.3f}"}
        for row, place in enumerate(rows):
            waited = _queue_ms(items[place], begin_ns)
            answers[place] = save({name: array[row : row + 1] for name, array in outputs.items()}, metadata | waited)

    def _failed(self, error: ItemError, count: int = 1) -> bytes:
        """The answer to an item, or to `count` of them, without tensors."""
        if self.metrics:
            self.metrics.failed(error.code, count)
        return save({}, {"error": str(error), "code": error.code})


def _queue_ms(item: Mapping[str, Any], begin_ns: int) -> dict[str, str]:
    """How long the item waited until its batch began, its way here included: only who sent it knows since when.

    Never negative, though the clocks of two machines may differ.
    """
    sent = item.get("sent_ns")
    if not isinstance(sent, bytes | bytearray) or not sent.isdigit() or len(sent) > _DIGITS:
        return {}
    return {"queue_ms": f"{max(0, begin_ns - int(sent)) / 1e6:.3f}"}


def _sentence(error: BaseException) -> str:
    """An exception in one line; TorchScript's errors are many, the last is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".rstrip(": ")


_handler = Handler()


def handle(items: Sequence[Mapping[str, Any]] | None, context: Context) -> list[bytes] | list[str] | None:
    """TorchServe's entry point: once with no items to load the model, then with each batch."""
    if items is None:
        _handler.initialize(context)
        return None
    if context.get_request_header(0, "describe"):
        return [json.dumps(_handler.describe())]
    return list(_handler.infer(items))
