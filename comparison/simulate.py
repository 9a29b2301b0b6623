"""`python -m comparison.simulate`: how often the statistics are right on simulated latencies, as a table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import repeat
from math import log

import numpy as np

from comparison.interval import Interval, Looks, TooFew
from comparison.observations import Observations, Pairs
from comparison.process import Process
from comparison.ratio import latency_quantile, paired_log_ratio, quantile_log_ratio

Answers = dict[str, bool | None]
"""By question: whether it was so in this run; None: too few effective samples."""
LOOKS = 25
AUTOCORRELATIONS = (0.0, 0.5, 0.95)
BATCH = 50


@dataclass(frozen=True)
class Cell:
    title: str
    process: Process
    pairs: int
    ask: Callable[[Process, Observations, Observations], Answers]
    weight: float = 1.0
    """Share of the runs asked for that this cell gets: long runs are dear."""


@dataclass
class Tally:
    yes: int = 0
    answered: int = 0
    runs: int = 0

    def add(self, answer: bool | None) -> None:
        self.runs += 1
        self.answered += answer is not None
        self.yes += bool(answer)


@dataclass
class Result:
    cell: Cell
    tallies: dict[str, Tally] = field(default_factory=dict)

    def rows(self) -> Iterator[str]:
        for question, tally in self.tallies.items():
            share = f"{100 * tally.yes / tally.answered:.1f} %" if tally.answered else "–"
            few = f"{100 * (1 - tally.answered / tally.runs):.1f} %"
            yield (
                f"| {self.cell.title} | {self.cell.process.autocorrelation} | {self.cell.pairs:,} | {question} "
                f"| {share} | {few} | {tally.runs:,} |"
            )


def one_look(_: Process, a: Observations, b: Observations) -> Answers:
    return {"difference claimed": _excludes(paired_log_ratio(Pairs(a, b)), 0.0)}


def many_looks(_: Process, a: Observations, b: Observations) -> Answers:
    ends = np.linspace(0, len(a.seconds), LOOKS + 1).astype(int)[1:]
    looks = (
        paired_log_ratio(Pairs(*(Observations.answered(side.seconds[:end]) for side in (a, b))), Looks.ANY)
        for end in ends
    )
    return {f"difference claimed in any of {LOOKS} looks": any(_excludes(look, 0.0) for look in looks)}


def planted(_: Process, a: Observations, b: Observations) -> Answers:
    once, ever = (paired_log_ratio(Pairs(a, b), looks) for looks in Looks)
    return {
        "found, one look": _above(once),
        "found, bound for any number of looks": _above(ever),
        "wrong direction": None if isinstance(once, TooFew) else once.high < 0,
    }


def planted_tail(_: Process, a: Observations, b: Observations) -> Answers:
    return {"found by p95": _above(quantile_log_ratio(Pairs(a, b), 0.95))}


def coverage(process: Process, a: Observations, b: Observations) -> Answers:
    pairs = Pairs(a, b)
    covered = {"median of pairs": _covers(paired_log_ratio(pairs), log(process.slowdown))}
    return _named(covered | _quantile_coverage(process, pairs, 0.5))


def tail_coverage(p: float, process: Process, a: Observations, b: Observations) -> Answers:
    return _named(_quantile_coverage(process, Pairs(a, b), p))


def _quantile_coverage(process: Process, pairs: Pairs, p: float) -> Answers:
    return {
        f"p{100 * p:.0f} of a target": _covers(latency_quantile(pairs.a, p), _quantile(process, p)),
        f"ratio of p{100 * p:.0f}": _covers(quantile_log_ratio(pairs, p), log(process.slowdown)),
    }


def _named(covered: Answers) -> Answers:
    return {f"interval covers: {name}": answer for name, answer in covered.items()}


def cells() -> Iterator[Cell]:
    for memory in AUTOCORRELATIONS:
        alike, slower = Process(memory), Process(memory, slowdown=1.05)
        yield Cell("A/A", alike, 2_000, one_look)
        yield Cell("A/A", alike, 3_000, many_looks, 0.3)
        yield Cell("5 % slower", slower, 2_000, planted)
    for memory in AUTOCORRELATIONS:
        slower = Process(memory, slowdown=1.05)
        yield Cell("5 % slower", slower, 500, coverage, 0.5)
        yield Cell("5 % slower", slower, 2_000, coverage, 0.5)
        yield Cell("5 % slower", slower, 20_000, partial(tail_coverage, 0.95), 0.25)
    for memory in AUTOCORRELATIONS:
        yield Cell("5 % slower", Process(memory, slowdown=1.05), 50_000, partial(tail_coverage, 0.99), 0.1)
    yield Cell("5 % slower, no common factor", Process(0.5, slowdown=1.05, common=0.0), 2_000, planted, 0.5)
    for memory in AUTOCORRELATIONS:
        for slowdown in (1.05, 1.1, 1.2):
            process = Process(memory, slowdown=slowdown)
            yield Cell(f"{100 * (slowdown - 1):.0f} % slower", process, 20_000, planted_tail, 0.08)


def batch(index: int, number: int, runs: int) -> list[Answers]:
    """Of the cell with this index; the same whatever the number of processes."""
    cell = list(cells())[index]
    rng = np.random.default_rng((index, number))
    draws = (map(Observations.answered, cell.process.draw(cell.pairs, rng)) for _ in range(runs))
    return [cell.ask(cell.process, a, b) for a, b in draws]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of a cell; cells with many pairs get a stated share")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    print("| case | autocorrelation | pairs | question | yes | too few | runs |")  # noqa: T201 the table is the output
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    with ProcessPoolExecutor(options.processes) as pool:
        for index, cell in enumerate(cells()):
            result = Result(cell)
            batches = max(1, round(options.runs * cell.weight / BATCH))
            for answers in pool.map(batch, repeat(index, batches), range(batches), repeat(BATCH)):
                for answer in answers:
                    for question, so in answer.items():
                        result.tallies.setdefault(question, Tally()).add(so)
            print(*result.rows(), sep="\n", flush=True)  # noqa: T201


@cache
def _quantile(process: Process, p: float) -> float:
    return process.quantile(p)


def _excludes(result: Interval | TooFew, value: float) -> bool | None:
    return None if isinstance(result, TooFew) else result.excludes(value)


def _covers(result: Interval | TooFew, value: float) -> bool | None:
    return None if isinstance(result, TooFew) else not result.excludes(value)


def _above(result: Interval | TooFew) -> bool | None:
    return None if isinstance(result, TooFew) else result.low > 0


if __name__ == "__main__":
    main()
