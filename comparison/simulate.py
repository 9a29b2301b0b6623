"""`python -m comparison.simulate`: how often the statistics are right on simulated latencies, as a table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
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


@dataclass
class Result:
    cell: Cell
    tallies: dict[str, Tally] = field(default_factory=dict)

    def rows(self) -> Iterator[str]:
        for question, tally in self.tallies.items():
            share = f"{100 * tally.yes / tally.answered:.1f} %" if tally.answered else "–"
            few = f"{100 * (1 - tally.answered / tally.runs):.1f} %"
            yield (
                f"| {self.cell.title} | {self.cell.dependence} | {self.cell.n:,} | {question} "
                f"| {share} | {few} | {tally.runs:,} |"
            )


def batch(index: int, number: int, runs: int) -> list[Answers]:
    """Of the cell with this index; the same whatever the number of processes."""
    cell = list(cells())[index]
    rng = np.random.default_rng((index, number))
    return [cell.ask(cell.n, rng) for _ in range(runs)]


def main() -> None:
    groups = list(dict.fromkeys(cell.group for cell in cells()))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of a cell; cells with much data get a stated share")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--cells", nargs="+", choices=groups, default=groups, help="groups of rows; all by default")
    options = parser.parse_args()
    print("| case | dependence | n | question | yes | too few | runs |")  # noqa: T201 the table is the output
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    with ProcessPoolExecutor(options.processes) as pool:
        for index, cell in enumerate(cells()):
            if cell.group not in options.cells:
                continue
            result = Result(cell)
            batches = max(1, round(options.runs * cell.weight / BATCH))
            for answers in pool.map(batch, repeat(index, batches), range(batches), repeat(BATCH)):
                for answer in answers:
                    for question, so in answer.items():
                        result.tallies.setdefault(question, Tally()).add(so)
            print(*result.rows(), sep="\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
