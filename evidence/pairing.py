"""Which rows of the log belong together, and which may say something about the two targets at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from comparison.observations import Bools, Floats, Observations, Outcome, Pairs
from evidence.rows import NO_PAIR, OUTCOMES, Choice, Role, Rows

SETTLED_AFTER_S: Final = 35.0
"""A pair's second row comes this long after the request at the latest: a shadow may wait as long as it may take."""
LEAST_S: Final = 1e-9
"""A stage that took no time that a clock can see took this long: logarithms need one above 0."""

FIXED_ORDER: Final = "asked in a fixed order"

Indices = NDArray[np.int64]
_OUTCOME: Final = np.array(
    [{"ok": Outcome.OK, "deadline_exceeded": Outcome.TIMED_OUT, "dropped": Outcome.DROPPED,
      "overtaken": Outcome.OVERTAKEN}.get(name, Outcome.FAILED) for name in OUTCOMES], dtype=np.int8,
)  # fmt: skip
_CANCELLED, _OVERTAKEN = OUTCOMES.index("cancelled"), OUTCOMES.index("overtaken")


@dataclass(frozen=True)
class Sorted:
    """The rows, sorted by what they can say."""

    which: NDArray[np.int8]
    """For each row: 0 where it is a's, 1 b's, 2 neither's."""
    a: Indices
    """For each pair, in order of time, the row of a; -1 where it is lost."""
    b: Indices
    judged: Indices
    """Rows of pairs, in whatever order they were asked: those that say whether both agree."""
    one_cold: int
    """Pairs left out because one side alone was cold."""
    pairs_seen: int
    """Pairs that are over, cold ones too."""
    unpaired: tuple[Indices, Indices]
    """Rows of a and b whose target was chosen by chance."""
    excluded: dict[str, int]
    """Rows of a and b that are in no measure between the two, by why."""


@dataclass(frozen=True)
class _Halves:
    """The rows of pairs; of one that is lost the number is -1."""

    first: Indices
    second: Indices

    def take(self, chosen: Bools | Indices) -> _Halves:
        return _Halves(self.first[chosen], self.second[chosen])


def sort(rows: Rows, *, same: bool, until: float) -> Sorted:
    """`same`: a and b are one target."""
    which = _which(rows) if same else rows["target"].astype(np.int8)
    status = _Status(rows, which)
    whole, half = _pairs(rows)
    ours = which[whole.first] + which[whole.second] == 1
    theirs = half[_belongs(rows, which, whole, ours, half)]
    status.set("paired with another target", whole.take(~ours))
    pairs = _Halves(
        np.concatenate([whole.first[ours], theirs]), np.concatenate([whole.second[ours], np.full(len(theirs), -1)])
    )
    pairs = pairs.take(np.lexsort((rows["id"][pairs.first], rows["time"][pairs.first])))
    open_since = np.min(rows["time"][half[rows["time"][half] > until - SETTLED_AFTER_S]], initial=np.inf)
    pairs = status.leave_out("not over yet", pairs, rows["time"][pairs.first] >= open_since)
    pairs = status.leave_out("chosen by speed", pairs, _either(rows["choice"] == Choice.SPEED, pairs))
    given_up = np.isin(rows["outcome"], (_CANCELLED, _OVERTAKEN))
    pairs = status.leave_out("cancelled", pairs, _either(given_up, pairs))
    seen = len(pairs.first)
    one_cold = int((rows["cold"][pairs.first] ^ _at(rows["cold"], pairs.second)).sum())
    pairs = status.leave_out("cold", pairs, _either(rows["cold"], pairs))
    judged = np.concatenate([pairs.first, pairs.second[pairs.second >= 0]])
    # A primary is always asked before its shadow: what that does would be taken for a difference.
    pairs = status.leave_out(FIXED_ORDER, pairs, _either(rows["role"] == Role.PRIMARY, pairs))
    status.set("", pairs)
    swap = which[pairs.first] == 1
    a, b = np.where(swap, pairs.second, pairs.first), np.where(swap, pairs.first, pairs.second)
    alone = (rows["pair"] == NO_PAIR) & (rows["role"] == Role.PRIMARY) & (rows["choice"] == Choice.CHANCE)
    alone &= ~rows["cold"] & (rows["outcome"] != _CANCELLED)
    unpaired = tuple(np.flatnonzero(alone & (which == side)) for side in (0, 1))
    for side in unpaired:
        status.reasons[side] = 0
    return Sorted(which, a, b, judged, one_cold, seen, (unpaired[0], unpaired[1]), status.counts())


def observations(rows: Rows, chosen: Indices, seconds: Floats) -> Observations:
    """Of the rows with these numbers, dropped where the number is -1; `seconds` of every row."""
    outcome = np.where(chosen < 0, np.int8(Outcome.DROPPED), _OUTCOME[rows["outcome"][chosen]])
    return Observations(np.maximum(seconds[chosen], LEAST_S), outcome)


def compared_s(rows: Rows) -> Floats:
    """Of every row, the stages that depend on the target. A shadow has no queue: its wait is not measured."""
    result: Floats = np.nan_to_num(rows["rpc"]) + np.nan_to_num(rows["postprocess"]) + np.nan_to_num(rows["queue"])
    return result


def paired(rows: Rows, found: Sorted) -> Pairs:
    """What each pair took, without the queue where one of the two is a shadow."""
    seconds = compared_s(rows)
    without_queue = seconds - np.nan_to_num(rows["queue"])
    shadowed = _either(rows["role"] == Role.SHADOW, _Halves(found.a, found.b))
    # A pair that has lost one of its rows, and may have lost the shadow's, has no ratio anyhow.
    sides = []
    for side in (found.a, found.b):
        both = observations(rows, side, seconds), observations(rows, side, without_queue)
        sides.append(Observations(np.where(shadowed, both[1].seconds, both[0].seconds), both[0].outcome))
    return Pairs(*sides)


class _Status:
    """Why each row of the two targets is in no measure between them: a number, 0 where it is in one."""

    def __init__(self, rows: Rows, which: NDArray[np.int8]) -> None:
        self._names = ["", "one target alone"]
        self.reasons = np.full(len(rows), 1, dtype=np.int8)
        self.reasons[which == 2] = 0
        self._theirs = which == 2
        alone = rows["pair"] == NO_PAIR
        for name, chosen in {
            "one row of a pair is lost": ~alone,
            "cold": alone & rows["cold"] & (rows["choice"] == Choice.CHANCE),
            "cancelled": alone & (rows["outcome"] == _CANCELLED),
            "chosen by speed": rows["choice"] == Choice.SPEED,
        }.items():
            self.reasons[chosen & ~self._theirs] = self._number(name)

    def set(self, name: str, pairs: _Halves) -> None:
        for side in (pairs.first, pairs.second):
            self.reasons[side[side >= 0]] = self._number(name)

    def leave_out(self, name: str, pairs: _Halves, chosen: Bools) -> _Halves:
        """The pairs without those `chosen`, which are left out for that reason."""
        self.set(name, pairs.take(chosen))
        return pairs.take(~chosen)

    def counts(self) -> dict[str, int]:
        counted = Counter(self.reasons[~self._theirs].tolist())
        return {name: counted[i] for i, name in enumerate(self._names) if i and counted[i]}

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)


def _which(rows: Rows) -> NDArray[np.int8]:
    """One target twice: `compare` names sides. A shadow's are tossed by the pair's random number, or else the order in
    which the two are always called would look like a difference. So are those of other requests, by their row's."""
    by_pair = np.where(rows["role"] == Role.COMPARE, rows["side"], rows["side"] ^ (rows["pair"] & 1))
    side = np.where(rows["pair"] == NO_PAIR, rows["id"] & 1, by_pair)
    return np.where(rows["target"] == 2, 2, side).astype(np.int8)


def _pairs(rows: Rows) -> tuple[_Halves, Indices]:
    """The rows of whole pairs, and those whose other half is not there."""
    number = rows["pair"]
    order = np.lexsort((rows["side"], number))
    order = order[number[order] != NO_PAIR]
    starts = np.flatnonzero(np.diff(number[order], prepend=NO_PAIR))
    sizes = np.diff(starts, append=len(order))
    whole = starts[sizes == 2]
    return _Halves(order[whole], order[whole + 1]), order[starts[sizes == 1]]


def _belongs(rows: Rows, which: NDArray[np.int8], whole: _Halves, ours: Bools, half: Indices) -> Bools:
    """Whether each half is of a pair of the two targets: if the last whole pair before it with such a half was."""
    result = which[half] < 2
    for number, row in enumerate((whole.first, whole.second)):
        for target in (0, 1):
            like = row[which[row] == target]
            mine = (which[half] == target) & (rows["side"][half] == number)
            if len(like) and mine.any():
                order = np.argsort(rows["time"][like], kind="stable")
                before = np.searchsorted(rows["time"][like][order], rows["time"][half[mine]], side="right") - 1
                result[mine] = ours[which[row] == target][order][np.maximum(before, 0)]
    return result


def _either(so: Bools, pairs: _Halves) -> Bools:
    result: Bools = _at(so, pairs.first) | _at(so, pairs.second)
    return result


def _at(column: Bools, rows: Indices) -> Bools:
    """False where there is no row."""
    result: Bools = column[rows] & (rows >= 0)
    return result
