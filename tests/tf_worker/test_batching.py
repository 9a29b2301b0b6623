"""Dynamic batching, over a signature whose runs the test can hold up. Nothing here waits for time to pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Semaphore
from typing import Any, cast

import numpy as np
import pytest

from tf_worker import batching_parameters
from tf_worker.batch_queue import BatchQueue
from tf_worker.batcher import EXPIRED, Batcher
from tf_worker.batching_parameters import BatchingParameters
from tf_worker.errors import Code, ServingError, StartError
from tf_worker.metrics import Metrics
from tf_worker.servable import Signature
from tf_worker.tensors import Array

HOUR_US = 3_600_000_000
BAD = 13.0


class DoublingSignature:
    """Doubles its input; fails a batch that holds BAD. Each run is recorded, and waits for `gate`."""

    def __init__(self) -> None:
        self.batching: BatchingParameters | None = None
        self.sizes: list[int] = []
        self.started = Semaphore(0)
        self.gate = Event()
        self.gate.set()

    def run(self, outputs: tuple[str, ...], inputs: Sequence[Array]) -> list[Array]:
        self.sizes.append(len(inputs[0]))
        self.started.release()
        assert self.gate.wait(30)
        if (inputs[0] == BAD).any():
            raise ServingError(Code.INVALID_ARGUMENT, "unlucky")
        return [inputs[0] * 2 if name == "doubled" else np.array(1, np.float32) for name in outputs]


class Harness:
    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.signature = DoublingSignature()
        self.queued = Semaphore(0)
        self._threads = threads

    def send(self, batcher: Batcher, array: Array, **options: Any) -> Future[list[Array]]:
        """Ask in a thread; returns once the request is queued or was refused."""
        future = self._threads.submit(self.ask, batcher, array, **options)
        future.add_done_callback(lambda _: self.queued.release())
        assert self.queued.acquire(timeout=30)
        return future

    def ask(
        self,
        batcher: Batcher,
        array: Array,
        outputs: tuple[str, ...] = ("doubled",),
        wanted: Callable[[], bool] = lambda: True,
    ) -> list[Array]:
        return batcher.run(cast(Signature, self.signature), outputs, [array], wanted)

    def occupy(self, batcher: Batcher) -> Future[list[Array]]:
        """Keep the batcher's one thread busy until `gate` is set."""
        self.signature.gate.clear()
        first = self.send(batcher, row(0))
        assert self.signature.started.acquire(timeout=30)
        return first


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    with ThreadPoolExecutor(16) as threads:
        harness = Harness(threads)
        add = BatchQueue.add

        def add_and_tell(self: BatchQueue[Any], *arguments: Any) -> Any:
            result = add(self, *arguments)
            harness.queued.release()
            return result

        monkeypatch.setattr(BatchQueue, "add", add_and_tell)
        yield harness


def row(*values: float) -> Array:
    """One row for each value."""
    return np.array([[value] for value in values], np.float32)


def parameters(**values: Any) -> BatchingParameters:
    return BatchingParameters(**{"max_batch_size": 4, "num_batch_threads": 1, **values})


def batcher_of(harness: Harness, **values: Any) -> Batcher:
    """A batcher, with one thread, and the harness's signature with those parameters."""
    harness.signature.batching = parameters(**values)
    return Batcher(1, Metrics("threads"))


def test_a_lone_request_runs_at_once(harness: Harness) -> None:
    assert harness.ask(batcher_of(harness), row(1))[0].tolist() == [[2]]
    assert harness.signature.sizes == [1]


def test_requests_that_come_while_the_thread_is_busy_run_as_one_batch_and_get_their_own_rows(harness: Harness) -> None:
    batcher = batcher_of(harness)
    harness.occupy(batcher)
    answers = [harness.send(batcher, row(1)), harness.send(batcher, row(2, 3)), harness.send(batcher, row(4))]
    harness.signature.gate.set()
    assert [answer.result(30)[0].tolist() for answer in answers] == [[[2]], [[4], [6]], [[8]]]
    assert harness.signature.sizes == [1, 4]


def test_a_request_that_does_not_fit_opens_the_next_batch(harness: Harness) -> None:
    batcher = batcher_of(harness)
    harness.occupy(batcher)
    answers = [harness.send(batcher, row(1, 2, 3)), harness.send(batcher, row(4, 5))]
    harness.signature.gate.set()
    assert [answer.result(30)[0].tolist() for answer in answers] == [[[2], [4], [6]], [[8], [10]]]
    assert sorted(harness.signature.sizes) == [1, 2, 3]


def test_a_full_batch_does_not_wait_for_the_timeout(harness: Harness) -> None:
    batcher = batcher_of(harness, batch_timeout_micros=HOUR_US)
    answers = [harness.send(batcher, row(n)) for n in range(4)]
    assert [answer.result(30)[0].tolist() for answer in answers] == [[[0]], [[2]], [[4]], [[6]]]
    assert harness.signature.sizes == [4]


def test_a_batch_behind_another_sends_it_off_before_its_timeout(harness: Harness) -> None:
    batcher = batcher_of(harness, batch_timeout_micros=HOUR_US)
    first = harness.send(batcher, row(1, 2, 3))
    second = harness.send(batcher, row(4, 5))
    assert first.result(30)[0].tolist() == [[2], [4], [6]]
    harness.send(batcher, row(6, 7))
    assert second.result(30)[0].tolist() == [[8], [10]]


def test_a_lone_request_runs_when_its_timeout_is_over(harness: Harness) -> None:
    assert harness.ask(batcher_of(harness, batch_timeout_micros=1000), row(1))[0].tolist() == [[2]]


def test_more_rows_than_a_batch_may_have_are_an_invalid_argument(harness: Harness) -> None:
    with pytest.raises(ServingError, match="Task size 5 is larger than maximum input batch size 4") as caught:
        harness.ask(batcher_of(harness), row(1, 2, 3, 4, 5))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_full_queue_is_unavailable_and_spoils_nothing(harness: Harness) -> None:
    batcher = batcher_of(harness, max_enqueued_batches=1)
    harness.occupy(batcher)
    queued = harness.send(batcher, row(1, 2, 3, 4))
    with pytest.raises(ServingError, match="1 batches enqueued and max_enqueued_batches is 1") as caught:
        harness.ask(batcher, row(5))
    assert caught.value.code is Code.UNAVAILABLE
    harness.signature.gate.set()
    assert queued.result(30)[0].tolist() == [[2], [4], [6], [8]]


def test_what_nobody_waits_for_any_more_is_not_run_but_its_company_is(harness: Harness) -> None:
    batcher = batcher_of(harness)
    harness.occupy(batcher)
    given_up = harness.send(batcher, row(1), wanted=lambda: False)
    other = harness.send(batcher, row(2))
    harness.signature.gate.set()
    assert other.result(30)[0].tolist() == [[4]]
    with pytest.raises(ServingError, match=EXPIRED.replace("(", r"\(").replace(")", r"\)")) as caught:
        given_up.result(30)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert harness.signature.sizes == [1, 1]


def test_an_item_that_fails_the_batch_fails_alone(harness: Harness) -> None:
    batcher = batcher_of(harness)
    harness.occupy(batcher)
    answers = [harness.send(batcher, row(value)) for value in (1, BAD, 3)]
    harness.signature.gate.set()
    assert answers[0].result(30)[0].tolist() == [[2]]
    assert answers[2].result(30)[0].tolist() == [[6]]
    with pytest.raises(ServingError, match="unlucky"):
        answers[1].result(30)
    assert harness.signature.sizes == [1, 3, 1, 1, 1]


def test_a_batch_is_padded_up_to_an_allowed_size(harness: Harness) -> None:
    batcher = batcher_of(harness, allowed_batch_sizes=(1, 4))
    assert harness.ask(batcher, row(1, 2))[0].tolist() == [[2], [4]]
    assert harness.ask(batcher, row(3))[0].tolist() == [[6]]
    assert harness.signature.sizes == [4, 1]


def test_rows_of_different_shapes_and_different_outputs_do_not_meet_in_a_batch(harness: Harness) -> None:
    batcher = batcher_of(harness)
    harness.occupy(batcher)
    answers = [
        harness.send(batcher, np.ones((1, width), np.float32), outputs=outputs)
        for width, outputs in ((1, ("doubled",)), (2, ("doubled",)), (1, ("doubled", "doubled")))
    ]
    harness.signature.gate.set()
    assert [answer.result(30)[0].shape for answer in answers] == [(1, 1), (1, 2), (1, 1)]
    assert harness.signature.sizes == [1, 1, 1, 1]


def test_an_empty_request_gets_an_empty_answer(harness: Harness) -> None:
    batcher = batcher_of(harness, allowed_batch_sizes=(4,))
    assert harness.ask(batcher, np.ones((0, 1), np.float32))[0].shape == (0, 1)


def test_an_output_without_a_batch_dimension_is_a_failed_precondition(harness: Harness) -> None:
    with pytest.raises(ServingError, match="Batched output tensor has 0 dimensions") as caught:
        harness.ask(batcher_of(harness), row(1), outputs=("constant",))
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_a_scalar_input_is_an_invalid_argument(harness: Harness) -> None:
    with pytest.raises(ServingError, match="at least one dimension"):
        harness.ask(batcher_of(harness), np.asarray(np.float32(1)))


SPLIT: dict[str, Any] = {"max_batch_size": 10, "enable_large_batch_splitting": True, "max_execution_batch_size": 4}


def test_a_large_request_fills_the_open_batch_and_runs_as_several(harness: Harness) -> None:
    batcher = batcher_of(harness, **SPLIT)
    harness.occupy(batcher)
    small = harness.send(batcher, row(1, 2, 3))
    large = harness.send(batcher, row(4, 5, 6, 7, 8, 9, 10))
    harness.signature.gate.set()
    assert small.result(30)[0].tolist() == [[2], [4], [6]]
    assert large.result(30)[0].tolist() == [[8], [10], [12], [14], [16], [18], [20]]
    assert sorted(harness.signature.sizes) == [1, 2, 4, 4]


def test_a_request_with_more_rows_than_max_batch_size_is_refused_also_where_large_ones_are_split(
    harness: Harness,
) -> None:
    batcher = batcher_of(harness, **SPLIT)
    assert len(harness.ask(batcher, row(*range(10)))[0]) == 10
    with pytest.raises(ServingError, match="Task size 11 is larger than maximum input batch size 10"):
        harness.ask(batcher, row(*range(11)))


def test_a_split_request_that_does_not_fit_into_the_queue_is_unavailable_as_a_whole(harness: Harness) -> None:
    batcher = batcher_of(harness, **SPLIT, max_enqueued_batches=2)
    harness.occupy(batcher)
    queued = harness.send(batcher, row(1, 2, 3))
    with pytest.raises(
        ServingError,
        match=r"task size is 6 but scheduling capacity is only 5 \(num_enqueued_batches=1, max_enqueued_batches=2,"
        r" open_batch_size=3, max_execution_batch_size=4\)",
    ) as caught:
        harness.ask(batcher, row(*range(6)))
    assert caught.value.code is Code.UNAVAILABLE
    harness.signature.gate.set()
    assert queued.result(30)[0].tolist() == [[2], [4], [6]]


def test_a_split_request_fails_if_one_of_its_parts_does_and_its_company_does_not(harness: Harness) -> None:
    batcher = batcher_of(harness, **SPLIT)
    harness.occupy(batcher)
    small = harness.send(batcher, row(1))
    large = harness.send(batcher, row(2, BAD, 4, 5, 6))
    harness.signature.gate.set()
    assert small.result(30)[0].tolist() == [[2]]
    with pytest.raises(ServingError, match="unlucky"):
        large.result(30)


def test_rows_of_different_lengths_are_padded_with_their_own_first_value_where_that_is_asked_for(
    harness: Harness,
) -> None:
    batcher = batcher_of(harness, pad_variable_length_inputs=True, allowed_batch_sizes=(1, 4))
    harness.occupy(batcher)
    short = harness.send(batcher, np.array([[1, 2]], np.float32))
    long = harness.send(batcher, np.array([[3, 4, 5], [6, 7, 8]], np.float32))
    harness.signature.gate.set()
    assert short.result(30)[0].tolist() == [[2, 4, 2]]
    assert long.result(30)[0].tolist() == [[6, 8, 10], [12, 14, 16]]
    assert harness.signature.sizes == [1, 4]


def test_an_empty_row_beside_longer_ones_runs_alone_where_they_are_padded(harness: Harness) -> None:
    batcher = batcher_of(harness, pad_variable_length_inputs=True)
    harness.occupy(batcher)
    empty = harness.send(batcher, np.ones((1, 0), np.float32))
    other = harness.send(batcher, np.ones((1, 2), np.float32))
    harness.signature.gate.set()
    assert empty.result(30)[0].shape == (1, 0)
    assert other.result(30)[0].tolist() == [[2, 2]]


def test_a_nan_is_a_number_like_others_and_stays_its_senders(harness: Harness) -> None:
    batcher = batcher_of(harness)
    harness.occupy(batcher)
    answers = [harness.send(batcher, row(value)) for value in (1, float("nan"))]
    harness.signature.gate.set()
    assert answers[0].result(30)[0].tolist() == [[2]]
    assert np.isnan(answers[1].result(30)[0]).all()


def test_a_signature_without_batching_runs_each_request_alone_with_as_many_rows_as_it_has(harness: Harness) -> None:
    batcher = batcher_of(harness)
    harness.signature.batching = None
    assert len(harness.ask(batcher, row(*range(9)))[0]) == 9
    assert harness.signature.sizes == [9]


def test_an_empty_queue_is_taken_as_one_of_one_batch() -> None:
    assert BatchingParameters(max_enqueued_batches=0).max_enqueued_batches == 1


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        pytest.param({"max_batch_size": 6}, [1, 2, 4, 6], id="powers-of-two"),
        pytest.param({"max_batch_size": 6, "allowed_batch_sizes": (3, 6)}, [3, 6], id="allowed"),
        pytest.param(SPLIT, [1, 2, 4], id="split"),
        pytest.param({**SPLIT, "allowed_batch_sizes": (2, 4, 10)}, [2, 4], id="split-and-allowed"),
    ],
)
def test_the_sizes_that_are_warmed_up_are_those_that_are_run(values: dict[str, Any], sizes: list[int]) -> None:
    assert BatchingParameters(**values).likely_sizes() == sizes


def test_the_files_fields_are_read_and_the_rest_have_the_real_servers_defaults(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text(
        "# a comment\nmax_batch_size { value: 8 }\nbatch_timeout_micros { value: 500 }\n"
        'thread_pool_name { value: "threads" }\nallowed_batch_sizes: [2, 4, 8]\n'
    )
    read = batching_parameters.read(file)
    assert read == BatchingParameters(
        max_batch_size=8, batch_timeout_micros=500, thread_pool_name="threads", allowed_batch_sizes=(2, 4, 8)
    )
    assert (read.max_enqueued_batches, BatchingParameters().max_batch_size) == (10, 1000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("max_batch_sizes { value: 8 }", "line:column 1:1 .* no field named", id="unknown-field"),
        pytest.param("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0", id="zero"),
        pytest.param("batch_timeout_micros { value: -1 }", "non-negative; was -1", id="negative"),
        pytest.param(
            "max_batch_size { value: 8 } allowed_batch_sizes: 4", "last entry was 4; expected 8", id="sizes-end-early"
        ),
        pytest.param("allowed_batch_sizes: [4, 2]", "increasing", id="sizes-fall"),
        pytest.param(
            "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 1001 }",
            "max_execution_batch_size must not be over max_batch_size, 1000; was 1001",
            id="executes-more-than-a-request-may-have",
        ),
        pytest.param(
            "enable_large_batch_splitting { value: true } max_enqueued_batches { value: 0 }",
            "max_enqueued_batches must be positive; was 0",
            id="no-queue-with-splitting",
        ),
    ],
)
def test_a_file_with_a_mistake_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "batching.config").write_text(text)
    with pytest.raises(StartError, match=f"batching.config.*{reason}") as caught:
        batching_parameters.read(tmp_path / "batching.config")
    assert "\n" not in str(caught.value)
