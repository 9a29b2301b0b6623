"""Comparisons made by hand, for whoever decides on them."""

from __future__ import annotations

from collections.abc import Sequence

from evidence.document import Agreement, Comparison, Looks, Measured, Paired, Quantiles, Target, TargetFigures, Unpaired

Figure = tuple[float | None, float | None, float | None]
"""Estimate, low, high; a missing end as in the document."""
UNKNOWN: Figure = (None, None, None)


def measured(figure: Figure, looks: Looks = "any number of looks", n: int = 1000) -> Measured:
    estimate, low, high = figure
    return Measured(estimate=estimate, low=low, high=high, looks=looks, n=n, effective_n=n, needed=n + 250)


def comparison(
    *,
    a: Target | None = None,
    b: Target | None = None,
    paired: Figure = (1.25, 1.2, 1.3),
    unpaired: Figure = UNKNOWN,
    errors: tuple[Figure, Figure] = ((0.001, 0.0002, 0.004), (0.001, 0.0002, 0.004)),
    agreement: Figure = (0.999, 0.995, 1.0),
    objections: Sequence[str] = (),
    since: float = 0.0,
) -> Comparison:
    """Of torch and tf, both version 1; all figures at any number of looks, `paired` and `unpaired` of a over b.

    By default all is well, and b is faster. The figures of one look are nonsense: who looks again must not use them.
    """
    nonsense = measured((50.0, 49.0, 51.0), "one look")
    quantiles = Quantiles(p50=nonsense, p95=nonsense, p99=nonsense)
    sides = (a or Target(runtime="torch", version=1), b or Target(runtime="tf", version=1))
    return Comparison(
        model="digits",
        since=since,
        until=since + 60,
        window_s=60,
        runtimes={
            f"{side.runtime}@{side.version}": TargetFigures(
                runtime=side.runtime,
                version=side.version,
                requests=1000,
                images=1000,
                images_per_s=10,
                outcomes={"ok": 1000},
                error_rate=nonsense,
                error_rate_any_looks=measured(figure),
                latency_ms={},
            )
            for side, figure in zip(sides, errors, strict=True)
        },
        measure="paired",
        paired=Paired(
            n=1000,
            complete=1000,
            censored={},
            median_ms=None,
            ratio=nonsense,
            ratio_any_looks=measured(paired),
            quantile_ratios=quantiles,
        ),
        unpaired=Unpaired(
            n=(1000, 1000), strata=10, median_ms=None, ratio=nonsense, ratio_any_looks=measured(unpaired)
        ),
        agreement=Agreement(
            images=1000,
            agreeing=999,
            share=nonsense,
            share_any_looks=measured(agreement),
            max_score_difference=None,
        ),
        finding="no difference shown yet",
        faster=None,
        objections=tuple(objections),
        excluded={},
        environment={},
        verdict="Made by hand.",
    )
