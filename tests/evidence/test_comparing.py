"""From rows of the request log to the document: what is counted, what is left out, and that the truth is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, create_engine

from comparison.process import Process
from evidence import rows as log
from evidence.comparing import compare
from evidence.document import Comparison, Target
from evidence.pairing import SETTLED_AFTER_S
from tests.support.inferences import TF, TORCH, Row, pair, pairs, row, write

Compare = Callable[..., Comparison]


@pytest.fixture
def database() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def comparison(database: Connection) -> Compare:
    def of(
        rows: list[Row],
        a: Target = TORCH,
        b: Target = TF,
        *,
        since: float = 0.0,
        until: float = 1e6,
        environment: dict[str, Any] | None = None,
    ) -> Comparison:
        write(database, rows)
        return compare(database, "digits", a, b, since=since, until=until, environment=environment or {})

    return of


def planted(slowdown: float, n: int = 2_000) -> tuple[Any, Any]:
    return Process(0.5, slowdown=slowdown).draw(n, np.random.default_rng(3))


def test_a_planted_slowdown_is_found_with_its_size(comparison: Compare) -> None:
    found = comparison(pairs(*planted(1.2)))
    assert (found.finding, found.faster, found.measure) == ("faster", "tf", "paired")
    assert found.verdict.startswith("tf is faster: ")
    difference = found.paired.difference_ms
    assert difference is not None
    assert difference.estimate is not None
    assert 1.5 < difference.estimate < 4.5
    ratio = found.paired.ratio
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 1.2 < ratio.high
    assert found.paired.ratio_any_looks.looks == "any number of looks"
    assert (found.paired.n, found.paired.complete) == (2000, 2000)
    assert 0.4 < (found.paired.a_called_first or 0) / found.paired.n < 0.6
    assert found.notes == ()
    assert found.agreement.images == found.agreement.agreeing == 2000


def test_a_primary_and_its_shadow_say_whether_they_agree_and_not_which_is_faster(comparison: Compare) -> None:
    rows = pairs(*planted(1.2))
    for primary, shadow in zip(rows[::2], rows[1::2], strict=True):
        primary.update(role="primary", called=0)
        shadow.update(called=1, agreeing=0)
    found = comparison(rows)
    assert (found.paired.n, found.faster, found.finding) == (0, None, "too few effective samples")
    assert (found.agreement.images, found.agreement.agreeing) == (2000, 0)
    assert found.excluded == {"asked in a fixed order": 4000}
    assert found.notes[0].endswith("Give the policy a control_rate.")


def test_one_target_alone_called_first_in_every_pair_is_said(comparison: Compare) -> None:
    rows = pairs(*planted(1.2), role="compare")
    for side in (0, 1):
        for each in rows[side::2]:
            each["called"] = side
    found = comparison(rows)
    assert found.paired.a_called_first == found.paired.n == 2000
    assert "torch was called first in every pair" in found.notes[0]


def test_a_target_against_itself_is_no_different_whatever_its_sides_differ_in(comparison: Compare) -> None:
    slow, quick = planted(1.2)
    found = comparison(pairs(slow, quick, b=TORCH), TORCH, TORCH)
    assert list(found.runtimes) == ["torch", "torch again"]
    assert found.faster is None
    assert found.paired.ratio.low is not None
    assert found.paired.ratio.high is not None
    assert found.paired.ratio.low < 1 < found.paired.ratio.high
    assert 0.4 < (found.paired.a_called_first or 0) / found.paired.n < 0.6


def test_compare_names_the_sides_of_a_target_against_itself(comparison: Compare) -> None:
    rows = pairs(*planted(1.2), b=TORCH)
    found = comparison([each | {"role": "compare", "policy": "compare"} for each in rows], TORCH, TORCH)
    assert found.faster == "torch again"


def test_pairs_count_whichever_target_was_the_primary(comparison: Compare) -> None:
    slow, quick = planted(1.2)
    there, back = pairs(slow[::2], quick[::2], every_s=0.2), pairs(quick[1::2], slow[1::2], a=TF, b=TORCH, every_s=0.2)
    found = comparison([*there, *(each | {"pair": each["pair"] + 1, "time": each["time"] + 0.1} for each in back)])
    assert (found.faster, found.paired.n, found.paired.a_called_first) == ("tf", 2000, 1000)
    assert found.notes == ()


def test_only_stages_that_depend_on_the_target_are_compared(comparison: Compare) -> None:
    rows = [
        each
        for i in range(400)
        for each in (
            row(TORCH, 0.010, pair=i, time=i, role="compare", queue_s=0.004, postprocess_s=0.001, decode_s=1.0),
            row(TF, 0.010, pair=i, time=i, role="compare", side=1, queue_s=0.0, postprocess_s=0.001, decode_s=1.0),
        )
    ]
    found = comparison(rows)
    assert found.paired.median_ms == pytest.approx((15.0, 11.0))
    assert found.runtimes["torch"].latency_ms["compared"].p50.estimate == pytest.approx(15.0)
    assert found.runtimes["torch"].latency_ms["decode"].p50.estimate == pytest.approx(1000.0)


def test_rpc_is_taken_apart_where_the_worker_says_its_part(comparison: Compare) -> None:
    said = {"worker_queue_s": 0.001, "worker_inference_s": 0.006}
    rows = [each for i in range(400) for each in pair(i, i, 0.015, 0.020)]
    for number, each in enumerate(rows[::2]):
        each.update(said if number % 4 else said | {"worker_queue_s": 0.005})
    torch, tf = comparison(rows).runtimes.values()
    assert list(torch.worker_ms) == ["queue", "inference", "transport"]
    assert {part: found.mean for part, found in torch.worker_ms.items()} == pytest.approx(
        {"queue": 2.0, "inference": 6.0, "transport": 7.0}
    )
    queue = torch.worker_ms["queue"]
    assert (queue.p50.n, queue.p50.looks) == (400, "one look")
    assert (queue.p50.estimate, queue.p95.estimate) == pytest.approx((1.0, 5.0))
    assert tf.worker_ms == {}


def test_of_a_worker_that_says_its_inference_alone_the_rest_is_not_known(comparison: Compare) -> None:
    rows = [row(TORCH, 0.010, time=i, worker_inference_s=0.006) for i in range(20)]
    rows += [row(TORCH, 0.010, time=50.0), row(TORCH, None, time=60.0, outcome="deadline_exceeded")]
    found = comparison(rows).runtimes["torch"].worker_ms
    assert list(found) == ["inference"]
    assert found["inference"].mean == pytest.approx(6.0)
    assert found["inference"].p50.n == 20


def test_the_longest_queue_and_inference_of_two_pictures_leave_no_less_than_nothing(comparison: Compare) -> None:
    rows = [row(TORCH, 0.010, images=2, worker_queue_s=0.007, worker_inference_s=0.006)]
    assert comparison(rows).runtimes["torch"].worker_ms["transport"].mean == 0.0


def test_a_primary_does_not_pay_for_a_queue_that_its_shadow_is_spared(comparison: Compare) -> None:
    rows = [each for i in range(400) for each in pair(i, i, 0.010, 0.010)]
    for each in rows[::2]:
        each["queue_s"] = 0.1
    assert comparison(rows).paired.median_ms == pytest.approx((10.0, 10.0))


def test_what_did_not_answer_is_censored_and_what_the_client_gave_up_is_left_out(comparison: Compare) -> None:
    rows = pairs(*planted(1.0, 1000))
    for i, outcome in {1: "deadline_exceeded", 3: "dropped", 5: "runtime_failed", 7: "weird", 8: "cancelled"}.items():
        rows[i] |= {"outcome": outcome, "rpc_s": None}
    found = comparison(rows)
    assert (found.paired.n, found.paired.complete) == (999, 995)
    assert found.paired.censored == {"timed out": 1, "failed": 2, "dropped": 1}
    assert found.excluded == {"cancelled": 2}
    tf = found.runtimes["tf"]
    assert tf.outcomes == {"ok": 996, "deadline_exceeded": 1, "dropped": 1, "runtime_failed": 1, "other": 1}
    assert tf.error_rate.estimate == pytest.approx(3 / 999)
    assert found.runtimes["torch"].error_rate.estimate == 0


def test_too_many_dropped_shadows_are_an_objection(comparison: Compare) -> None:
    rows = pairs(*planted(1.2, 1000))
    for each in rows[1:200:2]:
        each |= {"outcome": "dropped", "rpc_s": None}
    found = comparison(rows)
    assert (found.finding, found.objections) == ("do not compare", ("more than 5 % of pairs lack a latency",))


def test_a_pair_whose_second_row_is_lost_counts_as_dropped_and_an_open_one_not_yet(comparison: Compare) -> None:
    rows = pairs(*planted(1.0, 1000), every_s=0.1)  # the last one at 1099.9
    until = 1100.0
    old, recent = 2 * 100 + 1, 2 * 990 + 1
    assert rows[recent]["time"] > until - SETTLED_AFTER_S > rows[old]["time"]
    found = comparison([each for i, each in enumerate(rows) if i not in (old, recent)], until=until)
    assert found.paired.n == 990  # what came after the open one is not counted yet either
    assert found.paired.censored == {"dropped": 1}
    assert found.excluded == {"not over yet": 19}
    assert "Pairs of which one row is not in the log count as dropped: 1." in found.notes


def test_rows_chosen_by_speed_or_for_one_target_alone_are_in_no_ratio_but_in_its_figures(comparison: Compare) -> None:
    rows = [row(time=1, policy="fastest"), row(TF, time=2, role="failover"), row(time=3, policy="named")]
    found = comparison(rows)
    assert found.excluded == {"chosen by speed": 2, "one target alone": 1}
    assert (found.measure, found.paired.n, found.unpaired.n) == (None, 0, (0, 0))
    assert (found.runtimes["torch"].requests, found.runtimes["tf"].requests) == (2, 1)
    assert found.finding == "too few effective samples"


def test_a_pair_with_another_target_is_none_of_these_two(comparison: Compare) -> None:
    newer = Target(runtime="torch", version=2)
    rows = [each for i in range(10) for each in pair(i, i, 0.01, 0.01, b=newer)]
    lost = pair(99, 20.0, 0.01, 0.01, b=newer)[0]
    found = comparison([*rows, lost])
    assert found.paired.n == 0
    assert found.excluded == {"paired with another target": 10, "one row of a pair is lost": 1}


def test_pairs_with_a_cold_side_are_left_out_and_many_are_an_objection(comparison: Compare) -> None:
    rows = pairs(*planted(1.2, 1000))
    for each in rows[:40:2]:
        each["cold"] = True
    found = comparison(rows)
    assert (found.paired.n, found.excluded, found.objections) == (980, {"cold": 40}, ())
    for each in rows[:200:2]:
        each |= {"cold": True}
    again = comparison([each | {"time": each["time"] + 1e5} for each in rows], since=5e4)
    assert again.objections == ("one side was cold",)


@pytest.mark.parametrize(
    ("environment", "objections"),
    [
        ({"devices": {"torch": "cpu", "tf": "gpu"}}, ("device differs",)),
        ({"devices": {"torch": "cpu", "tf": ""}}, ()),
        ({"precision": {"torch": "fp32", "tf": "fp16"}}, ("precision differs",)),
    ],
    ids=["device", "unknown device", "precision"],
)
def test_known_differences_forbid_a_verdict(
    comparison: Compare, environment: dict[str, Any], objections: tuple[str, ...]
) -> None:
    found = comparison(pairs(*planted(1.2)), environment=environment)
    assert found.objections == objections
    assert (found.finding == "do not compare") == bool(objections)
    assert found.environment == environment


def test_agreement_is_by_picture(comparison: Compare) -> None:
    rows = pairs(*planted(1.0, 500), images=4)
    for each in rows[1::2]:
        each |= {"compared": 4, "agreeing": 4}
    rows[1] |= {"agreeing": 1, "score_difference": 0.25}
    found = comparison(rows).agreement
    assert (found.images, found.agreeing, found.max_score_difference) == (2000, 1997, 0.25)
    assert found.share.estimate == pytest.approx(1997 / 2000)


def test_without_pairs_requests_spread_by_chance_have_the_say(comparison: Compare) -> None:
    slow, quick = planted(1.2)
    sides = np.random.default_rng(5).random(len(slow)) < 0.5
    rows = [
        row(TORCH if torch else TF, slow[i] if torch else quick[i], time=i, policy="weighted")
        for i, torch in enumerate(sides.tolist())
    ]
    found = comparison(rows)
    assert (found.measure, found.unpaired.n) == ("unpaired", (int(sides.sum()), int((~sides).sum())))
    assert (found.finding, found.faster) == ("faster", "tf")
    assert "at the median of requests spread over both" in found.verdict
    ratio = found.unpaired.ratio
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 1.2 < ratio.high
    assert found.distribution is not None
    assert sum(found.distribution.counts["torch"]) == sides.sum()


def test_the_window_is_kept_to(comparison: Compare) -> None:
    found = comparison(pairs(*planted(1.0, 1000)), since=1050.0, until=1070.0)
    assert (found.paired.n, found.since, found.until, found.window_s) == (200, 1050.0, 1070.0, 20.0)
    other = comparison([row(model="shapes")])
    assert other.paired.n == 1000


def test_charts_hold_every_answer(comparison: Compare) -> None:
    found = comparison(pairs(*planted(1.2, 1000)))
    assert found.distribution is not None
    assert {name: sum(counts) for name, counts in found.distribution.counts.items()} == {"torch": 1000, "tf": 1000}
    assert found.series is not None
    assert {name: sum(line.requests) for name, line in found.series.lines.items()} == {"torch": 1000, "tf": 1000}
    assert Comparison.model_validate_json(found.model_dump_json()) == found


def test_an_empty_log_has_an_answer(comparison: Compare) -> None:
    found = comparison([row(model="shapes")])
    assert (found.measure, found.distribution, found.series) == (None, None, None)
    assert found.verdict.startswith("too few effective samples: 0 pairs")


def test_of_too_many_rows_the_newest_count_from_a_start_that_stands_still(
    database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MOST_ROWS", 1000)
    write(database, [row(time=float(i)) for i in range(1500)])
    starts = []
    for i in range(1500, 1900):
        write(database, [row(time=float(i))])
        read = log.read(database, "digits", TORCH, TF, since=0.0, until=1e6)
        assert 700 <= len(read) <= 1000
        assert read.moved is not None
        starts.append(read.since)
    assert starts == sorted(starts)
    assert 2 <= len(set(starts)) <= 5


def test_where_the_log_was_trimmed_the_start_stands_still_too(database: Connection) -> None:
    write(database, [row(time=float(i)) for i in range(2000)])
    assert log.read(database, "digits", TORCH, TF, since=0.0, until=1e6).moved is None
    starts = set()
    for oldest in range(10, 110, 10):
        database.exec_driver_sql("DELETE FROM inferences WHERE id <= ?", (oldest,))
        read = log.read(database, "digits", TORCH, TF, since=0.0, until=1e6)
        assert read.moved == "Counting starts later than asked for: older requests are not in the log any more."
        starts.add(read.since)
    assert len(starts) == 1
    assert log.read(database, "digits", TORCH, TF, since=500.0, until=1e6).moved is None
