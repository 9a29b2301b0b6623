"""What is run before a version is available, over real SavedModels and a runner that notes what it is given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tests.tf_worker import saved_models
from tests.tf_worker.conftest import request
from tf_worker import warm_up
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import Code, ServingError
from tf_worker.loading import BATCHING_FILE, Loader
from tf_worker.metrics import Metrics
from tf_worker.runner import DirectRunner
from tf_worker.servable import Servable, Signature
from tf_worker.tensors import Array


class NotingRunner(DirectRunner):
    def __init__(self) -> None:
        self.ran: list[tuple[str, tuple[str, ...], list[Any]]] = []

    def run(
        self, signature: Signature, outputs: tuple[str, ...], inputs: Sequence[Array], wanted: Callable[[], bool]
    ) -> list[Array]:
        self.ran.append((signature.name, outputs, [array.tolist() for array in inputs]))
        return super().run(signature, outputs, inputs, wanted)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    saved_models.save_scale(tmp_path / "1", 2.0)
    return tmp_path / "1"


def write(version: Path, *records: Any) -> None:
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())


def predict_log(x: Any, signature: str = "", *output_filter: str) -> Any:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request("whatever", x=np.array(x, np.float32)))
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.output_filter.extend(output_filter)
    return log


def load(version: Path, runner: NotingRunner | None = None, **options: Any) -> Servable:
    defaults: dict[str, Any] = {
        "tags": ("serve",),
        "session_config": None,
        "batching": None,
        "per_model_batching": False,
        "runner": runner or NotingRunner(),
        "warm_up": True,
        "warm_up_iterations": 1,
        "metrics": Metrics(None),
    }
    return Loader(**{**defaults, **options}).load("scale", 1, version)


def test_each_record_of_the_file_is_run_as_it_was_sent(version: Path) -> None:
    write(version, predict_log([[1, 2, 3]]), predict_log([[4, 5]], "any_width", "scaled"))
    runner = NotingRunner()
    load(version, runner)
    assert runner.ran == [
        ("serving_default", ("scaled", "total"), [[[1, 2, 3]]]),
        ("any_width", ("scaled",), [[[4, 5]]]),
    ]


def test_each_record_is_run_as_often_as_asked_for(version: Path) -> None:
    write(version, predict_log([[1, 2, 3]]))
    runner = NotingRunner()
    load(version, runner, warm_up_iterations=3)
    assert len(runner.ran) == 3


@pytest.mark.parametrize("has_records", [True, False])
def test_without_warm_up_nothing_is_run(version: Path, has_records: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if has_records:
        write(version, predict_log([[1, 2, 3]]))
    runs: list[Any] = []
    monkeypatch.setattr(Signature, "run", lambda *arguments: runs.append(arguments))
    load(version, warm_up=False)
    assert runs == []


def test_without_records_the_smallest_and_the_largest_batch_of_zeros_are_run_first(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(Signature, "warm_up", lambda self, size: sizes.append(size) if self.name[0] == "s" else None)
    load(version, batching=BatchingParameters(max_batch_size=8))
    assert sizes == [1, 8, 2, 4]


def test_the_zeros_end_with_their_budget(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servable = load(version, warm_up=False)
    sizes: list[int] = []
    monkeypatch.setattr(Signature, "warm_up", lambda _, size: sizes.append(size))
    monkeypatch.setattr(servable, "signatures", {"x": servable.signature("")})
    moments = iter([0.0, 0.0, 9.0, 11.0])
    warm_up.run_zeros(servable, [1, 2, 4, 8], budget_s=10, clock=lambda: next(moments))
    assert sizes == [1, 8]


def test_logs_of_other_methods_are_skipped_with_one_warning_for_each_kind(
    version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classify = prediction_log_pb2.PredictionLog(classify_log={})
    write(version, classify, predict_log([[1, 2, 3]]), classify, prediction_log_pb2.PredictionLog())
    runner = NotingRunner()
    with caplog.at_level(logging.WARNING, logger="tf_worker.warm_up"):
        load(version, runner)
    assert len(runner.ran) == 1
    assert [record.message.split(" in ")[0] for record in caplog.records] == ["the records of classify_log"]


@pytest.mark.parametrize(
    ("records", "code", "message"),
    [
        pytest.param([b"\xff\xff"], Code.INVALID_ARGUMENT, "Failed to parse warmup record from", id="no-log"),
        pytest.param(
            [predict_log([[1, 2]])], Code.INVALID_ARGUMENT, "Shape mismatch: input x has shape", id="wrong-shape"
        ),
        pytest.param(
            [predict_log([[1, 2, 3]], "nope")], Code.FAILED_PRECONDITION, 'key "nope" not found', id="no-signature"
        ),
        pytest.param(
            [prediction_log_pb2.PredictionLog(session_run_log={})],
            Code.UNIMPLEMENTED,
            "Unsupported log_type for warmup: session_run_log",
            id="session-run",
        ),
        pytest.param(
            [prediction_log_pb2.PredictionLog()] * 1001,
            Code.INVALID_ARGUMENT,
            r"Number of warmup records exceeds the maximum \(1000\) at",
            id="too-many",
        ),
    ],
)
def test_a_record_that_cannot_be_run_fails_the_load(
    version: Path, records: list[Any], code: Code, message: str
) -> None:
    write(version, *records)
    with pytest.raises(ServingError, match=message) as caught:
        load(version)
    assert caught.value.code is code


def test_a_thousand_records_are_allowed(version: Path) -> None:
    write(version, *[prediction_log_pb2.PredictionLog()] * 1000)
    load(version)


def test_a_file_that_is_no_tfrecord_fails_the_load(version: Path) -> None:
    write(version, predict_log([[1, 2, 3]]))
    (version / warm_up.RECORDS).write_bytes(b"these are not records, but bytes")
    with pytest.raises(ServingError, match=r"Please verify your warmup data is in TFRecord format\.") as caught:
        load(version)
    assert caught.value.code is Code.DATA_LOSS


def test_a_version_has_the_batching_parameters_of_its_own_folder_where_that_is_asked_for(version: Path) -> None:
    common = BatchingParameters(max_batch_size=8)

    def batching_with(*, per_model: bool) -> BatchingParameters | None:
        return load(version, batching=common, per_model_batching=per_model).signature("").batching

    assert batching_with(per_model=True) is None, "without the file, its requests are not joined"
    (version / BATCHING_FILE).write_text("max_batch_size { value: 3 }")
    assert batching_with(per_model=True) == BatchingParameters(max_batch_size=3)
    assert batching_with(per_model=False) == common


def test_a_mistake_in_a_versions_batching_parameters_fails_its_load(version: Path) -> None:
    (version / BATCHING_FILE).write_text("max_batch_size { value: 0 }")
    with pytest.raises(ServingError, match=r"batching_params.pbtxt: max_batch_size must be positive") as caught:
        load(version, batching=BatchingParameters(), per_model_batching=True)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_what_is_unloaded_gives_its_memory_back(tmp_path: Path) -> None:
    size = 32 * 2**20
    module = saved_models.Heavy(size)
    saved_models.save(module, tmp_path / "1")

    def load_and_unload() -> int:
        load(tmp_path / "1").close()
        return resident_bytes()

    load_and_unload()
    first = load_and_unload()
    last = [load_and_unload() for _ in range(10)][-1]
    assert last - first < size


def resident_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024
