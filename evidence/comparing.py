"""The document of a comparison, from the rows of the request log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection

from comparison.interval import Interval, Looks, TooFew
from comparison.observations import Bools, Observations, Outcome, Pairs
from comparison.rate import rate
from comparison.ratio import quantile_log_ratio
from comparison.sentence import sentence
from comparison.unpaired import Arrivals
from comparison.verdict import Objection, Verdict, verdict, verdict_unpaired
from evidence import rows as log
from evidence.document import Agreement, Comparison, Measure, Paired, Quantiles, Target, Unpaired, target_names
from evidence.figures import distribution, measured, series, target_figures
from evidence.pairing import FIXED_ORDER, Indices, Sorted, compared_s, observations, paired, sort
from evidence.rows import Rows

COLD_LIMIT = 0.05
"""Share of the pairs with one side alone cold above which there is no verdict."""
ENOUGH_PAIRS = 300
"""From so many on the verdict rests on pairs, whatever else there is."""
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def compare(
    connection: Connection,
    model: str,
    a: Target,
    b: Target,
    *,
    since: float,
    until: float,
    environment: Mapping[str, Any],
) -> Comparison:
    """What the log says of two targets. The same target twice: it against itself."""
    rows = log.read(connection, model, a, b, since=since, until=until)
    found = sort(rows, same=a == b, until=until)
    names = target_names(a, b)
    pairs = paired(rows, found)
    agreed, difference = _agreement(rows, found.judged)
    objections = _objections(environment, names, found)
    by_pairs = verdict(*names, pairs, agreed, objections)
    sides = _spread(rows, found)
    by_chance = verdict_unpaired(*names, *sides, [each for each in objections if each is not Objection.COLD])
    unpaired = _unpaired(by_chance)
    measure: Measure | None = None
    if by_pairs.pairs >= ENOUGH_PAIRS or (len(pairs) and not all(unpaired.n)):
        measure = "paired"
    elif any(unpaired.n):
        measure = "unpaired"
    said = by_chance if measure == "unpaired" else by_pairs
    mine = {name: np.flatnonzero(found.which == side) for side, name in enumerate(names)}
    seconds = until - float(rows["time"][0]) if len(rows) else 0.0
    return Comparison(
        model=model,
        since=rows.since,
        until=until,
        window_s=until - since,
        runtimes={
            name: target_figures(rows, mine[name], target, seconds=seconds)
            for name, target in zip(names, (a, b), strict=True)
        },
        measure=measure,
        paired=_paired(rows, found, pairs, by_pairs),
        unpaired=unpaired,
        agreement=Agreement(
            images=len(agreed),
            agreeing=int(agreed.sum()),
            share=measured(rate(agreed)),
            share_any_looks=measured(rate(agreed, Looks.ANY), Looks.ANY),
            max_score_difference=difference,
        ),
        finding=said.finding.value,
        faster=said.faster,
        objections=tuple(each.value for each in said.objections),
        excluded=found.excluded,
        notes=tuple(_notes(rows, found, names)),
        environment=dict(environment),
        distribution=distribution(
            dict(zip(names, (pairs.a, pairs.b) if by_pairs.pairs else (each.seen for each in sides), strict=True))
        ),
        series=series(rows, mine, until=until),
        verdict=sentence(said),
    )


def _objections(environment: Mapping[str, Any], names: tuple[str, str], found: Sorted) -> list[Objection]:
    objections = []
    for what, objection in {"devices": Objection.DEVICE, "precision": Objection.PRECISION}.items():
        known = environment.get(what, {})
        first, second = (known.get(name) for name in names)
        if first and second and first != second:
            objections.append(objection)
    if found.one_cold > COLD_LIMIT * found.pairs_seen:
        objections.append(Objection.COLD)
    return objections


def _agreement(rows: Rows, chosen: Indices) -> tuple[Bools, float | None]:
    """For each picture that both answered, in order of time, whether they said the same; the greatest difference."""
    judged = np.sort(chosen[rows["compared"][chosen] > 0])
    compared, agreeing = rows["compared"][judged], rows["agreeing"][judged]
    ends = np.cumsum(compared)
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - compared, compared)
    differences = rows["score_difference"][judged]
    differences = differences[~np.isnan(differences)]
    return place < np.repeat(agreeing, compared), float(differences.max()) if len(differences) else None


def _paired(rows: Rows, found: Sorted, pairs: Pairs, said: Verdict) -> Paired:
    whole = (found.a >= 0) & (found.b >= 0)
    worst = np.maximum(_rank(pairs.a), _rank(pairs.b))
    counts = {name: int((worst == rank).sum()) for rank, name in _CENSORED.items()}
    return Paired(
        n=len(pairs),
        complete=said.pairs,
        censored={name: count for name, count in counts.items() if count},
        a_called_first=int((rows["called"][found.a[whole]] < rows["called"][found.b[whole]]).sum()),
        median_ms=_ms(said.median_s),
        difference_ms=None if said.difference_s is None else measured(said.difference_s, scale=1e3),
        ratio=measured(said.ratio),
        ratio_any_looks=measured(said.ratio_any_looks, Looks.ANY),
        quantile_ratios=_ratios(said.quantile_ratios.__getitem__, Looks.ONE),
        quantile_ratios_any_looks=_ratios(lambda p: quantile_log_ratio(pairs, p, Looks.ANY).exp(), Looks.ANY),
    )


_CENSORED = {1: "timed out", 2: "failed", 3: "dropped"}


def _rank(side: Observations) -> Any:
    """What is said of a pair of which one side failed and the other was dropped: the greater one."""
    return np.select([side.outcome == each for each in (Outcome.TIMED_OUT, Outcome.FAILED, Outcome.DROPPED)], [1, 2, 3])


def _ratios(of: Callable[[float], Interval | TooFew], looks: Looks) -> Quantiles:
    return Quantiles(**{name: measured(of(p), looks) for name, p in _QUANTILES.items()})


def _spread(rows: Rows, found: Sorted) -> tuple[Arrivals, Arrivals]:
    """Requests of a and of b whose target was chosen by chance."""
    seconds = compared_s(rows)
    a, b = (Arrivals(rows["time"][side], observations(rows, side, seconds)) for side in found.unpaired)
    return a, b


def _unpaired(said: Verdict) -> Unpaired:
    return Unpaired(
        n=said.spread or (0, 0),
        strata=said.strata or 0,
        median_ms=_ms(said.median_s),
        ratio=measured(said.ratio),
        ratio_any_looks=measured(said.ratio_any_looks, Looks.ANY),
    )


def _notes(rows: Rows, found: Sorted, names: tuple[str, str]) -> list[str]:
    notes = [rows.moved] if rows.moved else []
    whole = (found.a >= 0) & (found.b >= 0)
    first = rows["called"][found.a[whole]] < rows["called"][found.b[whole]]
    if len(first) and (first.all() or not first.any()):
        name = names[0] if first.all() else names[1]
        notes.append(
            f"{name} was called first in every pair: what the order does is in the ratio. Of compare requests it is "
            "random."
        )
    if not len(found.a) and found.excluded.get(FIXED_ORDER):
        notes.append(
            "Every shadow was asked after its primary: that says whether they agree, not which is faster. Give the "
            "policy a control_rate."
        )
    if lost := int((~whole).sum()):
        notes.append(f"Pairs of which one row is not in the log count as dropped: {lost:,}.")
    return notes


def _ms(seconds: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if seconds is None else (seconds[0] * 1e3, seconds[1] * 1e3)
