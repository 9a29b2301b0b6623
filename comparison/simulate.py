"""`python -m comparison.simulate`: how often the statistics are right on simulated latencies, as tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from comparison.cells import Answers, Cell, cells

BATCH = 50


@dataclass
class Tally:
    yes: int = 0
    answered: int = 0
    runs: int = 0

    def add(self, answer: bool | None) -> None:
        self.runs += 1
        self.answered += answer is not None
        self.yes += bool(answer)

    def __str__(self) -> str:
        if not self.answered:
            return "too few"
        share, few = f"{100 * self.yes / self.answered:.1f} %", 100 * (1 - self.answered / self.runs)
        return share if few < 0.05 else f"{share} (too few: {min(few, 99.9):.1f} %)"


Result = tuple[Cell, dict[str, Tally]]
"""By question."""


def batch(index: int, number: int, runs: int) -> list[Answers]:
    """Of the cell with this index; the same whatever the number of processes."""
    cell = list(cells())[index]
    rng = np.random.default_rng((index, number))
    return [cell.ask(cell.n, rng) for _ in range(runs)]


def simulate(group: str, runs: int, pool: Executor) -> Iterator[Result]:
    for index, cell in enumerate(cells()):
        if cell.group == group:
            tallies: dict[str, Tally] = {}
            batches = max(1, round(runs * cell.weight / BATCH))
            for answers in pool.map(batch, repeat(index, batches), range(batches), repeat(BATCH)):
                for answer in answers:
                    for question, so in answer.items():
                        tallies.setdefault(question, Tally()).add(so)
            yield cell, tallies


def table(group: str, results: Iterable[Result]) -> Iterator[str]:
    """A row a question, a column a kind of dependence."""
    rows: dict[tuple[str, int, str], dict[str, Tally]] = {}
    columns: dict[str, None] = {}
    for cell, tallies in results:
        columns[cell.dependence] = None
        for question, tally in tallies.items():
            rows.setdefault((cell.title, cell.n, question), {})[cell.dependence] = tally
    yield f"| {group} | n | yes, if | {' | '.join(columns)} | runs |"
    yield "|---|---|---|" + "---|" * len(columns) + "---|"
    for (title, n, question), seen in rows.items():
        shares = " | ".join(str(seen[column]) if column in seen else "" for column in columns)
        yield f"| {title} | {n:,} | {question} | {shares} | {max(tally.runs for tally in seen.values()):,} |"


def main() -> None:
    groups = list(dict.fromkeys(cell.group for cell in cells()))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of a cell; cells with much data get a stated share")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--cells", nargs="+", choices=groups, default=groups, help="which tables; all by default")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        for group in options.cells:
            print(*table(group, simulate(group, options.runs, pool)), "", sep="\n", flush=True)  # noqa: T201 the output


if __name__ == "__main__":
    main()
