"""Which version of a model answers requests that name none."""

from __future__ import annotations

from collections.abc import Collection


def choose(*, wanted: int, settled: int | None, ready: Collection[int], loaded: Collection[int]) -> int | None:
    """The version to settle on; None to leave it as it is.

    `ready`: the versions that both runtimes answer for, warmed up; `loaded`: those that both have, warmed up or not.
    `settled` is the version that was chosen last. It moves only to the wanted one, and only once that is ready; where
    none was chosen yet, the greatest that is ready answers in the meantime.
    """
    if wanted in ready:
        return wanted
    # A gateway that starts while the wanted version is warming up does not answer with another one for those seconds.
    if settled is not None or wanted in loaded:
        return None
    return max(ready, default=None)
