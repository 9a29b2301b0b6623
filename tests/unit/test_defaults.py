"""Which version answers requests that name none."""

from __future__ import annotations

import pytest

from gateway.defaults import choose


@pytest.mark.parametrize(
    ("wanted", "settled", "ready", "loaded", "chosen"),
    [
        pytest.param(2, 1, [1], [1, 2], None, id="the wanted one is only loaded"),
        pytest.param(2, 1, [1, 2], [1, 2], 2, id="the wanted one is ready"),
        pytest.param(1, 2, [1, 2], [1, 2], 1, id="it moves back too"),
        pytest.param(1, 1, [], [], None, id="a runtime went down"),
        pytest.param(3, 1, [1, 2], [1, 2], None, id="a third one that is ready was not asked for"),
        pytest.param(2, None, [], [], None, id="nothing is ready at the start"),
        pytest.param(3, None, [1, 2], [1, 2], 2, id="the wanted one is not loaded at the start"),
        pytest.param(2, None, [1], [1, 2], None, id="the wanted one is warming up at the start"),
    ],
)
def test_the_default_moves_only_to_what_is_wanted_and_ready(
    wanted: int, settled: int | None, ready: list[int], loaded: list[int], chosen: int | None
) -> None:
    assert choose(wanted=wanted, settled=settled, ready=ready, loaded=loaded) == chosen
