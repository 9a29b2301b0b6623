"""What is asked of the statistics in a simulation: the cells of the table in docs/comparison-statistics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from math import log

import numpy as np

from comparison.interval import FIRST_LOOK, Interval, Looks, TooFew, next_spaced_look, spaced_look
from comparison.observations import Bools, Observations, Pairs
from comparison.process import Process
from comparison.rate import rate
from comparison.ratio import latency_quantile, paired_log_ratio, quantile_log_ratio
from comparison.unpaired import Arrivals, stratified_log_ratio

Answers = dict[str, bool | None]
"""By question: whether it was so in this run; None: too few effective samples."""
LOOKS = 25
AUTOCORRELATIONS = (0.0, 0.5, 0.95)
GUARD = 0.995


@dataclass(frozen=True)
class Cell:
    group: str
    title: str
    dependence: str
    """Autocorrelation, or how wrong labels come."""
    n: int
    """Pairs, requests in all, or pictures."""
    ask: Callable[[int, np.random.Generator], Answers]
    weight: float = 1.0
    """Share of the runs asked for that this cell gets: long runs are dear."""


def cells() -> Iterator[Cell]:
    for memory in AUTOCORRELATIONS:
        alike, slower = Process(memory), Process(memory, slowdown=1.05)
        yield _cell("claim", "A/A", alike, 2_000, one_look)
        yield _cell("claim", "A/A", alike, 3_000, many_looks)
        yield _cell("claim", "5 % slower", slower, 2_000, planted)
    yield _cell("claim", "5 % slower, no common factor", Process(0.5, slowdown=1.05, common=0.0), 2_000, planted)
    for memory in AUTOCORRELATIONS:
        slower = Process(memory, slowdown=1.05)
        yield _cell("coverage", "5 % slower", slower, 500, coverage)
        yield _cell("coverage", "5 % slower", slower, 2_000, coverage)
    for memory in AUTOCORRELATIONS:
        alike, slower = Process(memory), Process(memory, slowdown=1.05)
        for n, share, weight in ((2_000, 0.5, 0.5), (4_000, 0.5, 0.5), (40_000, 0.05, 0.05), (200_000, 0.01, 0.02)):
            title = f"{share:.0%} to a".replace("%", " %")
            yield _cell("unpaired", f"A/A, {title}", alike, n, partial(unpaired_alike, share), weight)
            yield _cell("unpaired", f"5 % slower, {title}", slower, n, partial(unpaired_planted, share), weight)
        yield _cell("unpaired", "A/A, 50 % to a", alike, 6_000, partial(unpaired_looks, 0.5), 0.06)
    for share in (0.99, 0.999):
        for length, come in ((1, "single"), (10, "in tens")):
            for n, weight in ((2_000, 0.5), (14_000, 0.1)):
                yield Cell("agreement", f"{100 * share:g} % agree", come, n, partial(agreement, share, length), weight)
    for memory in AUTOCORRELATIONS:
        for n, p, weight in ((20_000, 0.95, 0.1), (50_000, 0.99, 0.1)):
            yield _cell(
                "tail coverage", "5 % slower", Process(memory, slowdown=1.05), n, partial(tail_coverage, p), weight
            )
    for memory in AUTOCORRELATIONS:
        for slowdown in (1.05, 1.1, 1.2):
            process = Process(memory, slowdown=slowdown)
            yield _cell("tail", f"{100 * (slowdown - 1):.0f} % slower", process, 20_000, planted_tail, 0.05)
    for memory in AUTOCORRELATIONS:
        yield _cell("many looks", "A/A", Process(memory), 80_000, spaced_looks, 0.2)


def _cell(
    group: str,
    title: str,
    process: Process,
    n: int,
    ask: Callable[[Process, int, np.random.Generator], Answers],
    weight: float = 1.0,
) -> Cell:
    return Cell(group, title, str(process.autocorrelation), n, partial(ask, process), weight)


def one_look(process: Process, n: int, rng: np.random.Generator) -> Answers:
    return {"difference claimed": _excludes(paired_log_ratio(_pairs(process, n, rng)), 0.0)}


def many_looks(process: Process, n: int, rng: np.random.Generator) -> Answers:
    ends = np.linspace(0, n, LOOKS + 1).astype(int)[1:]
    return _looks(_pairs(process, n, rng), ends.tolist(), f"any of {LOOKS} looks")


def spaced_looks(process: Process, n: int, rng: np.random.Generator) -> Answers:
    looks = [FIRST_LOOK]
    while (next_look := next_spaced_look(looks[-1] + 1)) <= n:
        looks.append(next_look)
    return _looks(_pairs(process, n, rng), looks, f"any of {len(looks)} looks, wherever it can change")


def _looks(pairs: Pairs, ends: Iterable[int], when: str) -> Answers:
    changes = sorted({spaced_look(end) for end in ends})
    looks = (paired_log_ratio(_first(pairs, end), Looks.ANY) for end in changes)
    return {f"difference claimed in {when}": any(_excludes(look, 0.0) for look in looks)}


def planted(process: Process, n: int, rng: np.random.Generator) -> Answers:
    pairs = _pairs(process, n, rng)
    return _found(*(paired_log_ratio(pairs, looks) for looks in Looks))


def planted_tail(process: Process, n: int, rng: np.random.Generator) -> Answers:
    return {"found by p95": _above(quantile_log_ratio(_pairs(process, n, rng), 0.95))}


def coverage(process: Process, n: int, rng: np.random.Generator) -> Answers:
    pairs = _pairs(process, n, rng)
    covered = {"median of pairs": _covers(paired_log_ratio(pairs), log(process.slowdown))}
    return _named(covered | _quantile_coverage(process, pairs, 0.5))


def tail_coverage(p: float, process: Process, n: int, rng: np.random.Generator) -> Answers:
    return _named(_quantile_coverage(process, _pairs(process, n, rng), p))


def unpaired_alike(share: float, process: Process, n: int, rng: np.random.Generator) -> Answers:
    return {"difference claimed": _excludes(stratified_log_ratio(*_spread(process, n, share, rng)).ratio, 0.0)}


def unpaired_planted(share: float, process: Process, n: int, rng: np.random.Generator) -> Answers:
    a, b = _spread(process, n, share, rng)
    once, ever = (stratified_log_ratio(a, b, looks).ratio for looks in Looks)
    return _named({"ratio": _covers(once, log(process.slowdown))}) | _found(once, ever)


def unpaired_looks(share: float, process: Process, n: int, rng: np.random.Generator) -> Answers:
    a, b = _spread(process, n, share, rng)
    looks = (
        stratified_log_ratio(_until(a, end), _until(b, end), Looks.ANY).ratio
        for end in np.linspace(0, n, LOOKS + 1)[1:]
    )
    return {f"difference claimed in any of {LOOKS} looks": any(_excludes(look, 0.0) for look in looks)}


def agreement(share: float, length: int, n: int, rng: np.random.Generator) -> Answers:
    agreed = ~wrong_labels(n, 1 - share, length, rng)
    once, ever = (rate(agreed, looks) for looks in Looks)
    looks = [rate(agreed[: int(end)], Looks.ANY) for end in np.linspace(0, n, LOOKS + 1)[1:]]
    return {
        "interval covers: agreement": _covers(once, share),
        f"falsely shown to be lower in any of {LOOKS} looks": any(_below(look, share) for look in looks),
        f"below {100 * GUARD:g} % shown, any number of looks": _below(ever, GUARD),
    }


def wrong_labels(n: int, share: float, length: int, rng: np.random.Generator) -> Bools:
    """That share of n pictures, in rows of that length at random places of a grid with a random start."""
    rows = rng.random(n // length + 2) < share
    labels: Bools = np.repeat(rows, length)[rng.integers(length) :][:n]
    return labels


def _pairs(process: Process, n: int, rng: np.random.Generator) -> Pairs:
    return Pairs(*map(Observations.answered, process.draw(n, rng)))


def _spread(process: Process, n: int, share: float, rng: np.random.Generator) -> tuple[Arrivals, Arrivals]:
    """Each of n requests by one target, that share of them by a."""
    a, b = process.draw(n, rng)
    times, mine = np.arange(n, dtype=np.float64), rng.random(n) < share
    return Arrivals(times[mine], Observations.answered(a[mine])), Arrivals(
        times[~mine], Observations.answered(b[~mine])
    )


def _first(pairs: Pairs, n: int) -> Pairs:
    return Pairs(*(Observations.answered(side.seconds[:n]) for side in (pairs.a, pairs.b)))


def _until(side: Arrivals, end: float) -> Arrivals:
    n = int(np.searchsorted(side.times, end))
    return Arrivals(side.times[:n], Observations.answered(side.seen.seconds[:n]))


def _quantile_coverage(process: Process, pairs: Pairs, p: float) -> Answers:
    return {
        f"p{100 * p:.0f} of a target": _covers(latency_quantile(pairs.a, p), _quantile(process, p)),
        f"ratio of p{100 * p:.0f}": _covers(quantile_log_ratio(pairs, p), log(process.slowdown)),
    }


def _named(covered: Answers) -> Answers:
    return {f"interval covers: {name}": answer for name, answer in covered.items()}


def _found(once: Interval | TooFew, ever: Interval | TooFew) -> Answers:
    return {
        "found, one look": _above(once),
        "found, bound for any number of looks": _above(ever),
        "wrong direction": None if isinstance(once, TooFew) else once.high < 0,
    }


@cache
def _quantile(process: Process, p: float) -> float:
    return process.quantile(p)


def _excludes(result: Interval | TooFew, value: float) -> bool | None:
    return None if isinstance(result, TooFew) else result.excludes(value)


def _covers(result: Interval | TooFew, value: float) -> bool | None:
    return None if isinstance(result, TooFew) else not result.excludes(value)


def _above(result: Interval | TooFew) -> bool | None:
    return None if isinstance(result, TooFew) else result.low > 0


def _below(result: Interval | TooFew, value: float) -> bool | None:
    return None if isinstance(result, TooFew) else result.high < value
