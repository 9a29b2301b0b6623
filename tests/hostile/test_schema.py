"""Whatever is sent, the answer is one that the description of the API has: status, type, shape and headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.schema import schemathesis, serving


@pytest.mark.parametrize(
    ("failing", "options"),
    [
        pytest.param(False, ("--max-examples", "15"), id="both runtimes well"),
        pytest.param(True, ("--max-examples", "15", "--include-path-regex", "predict|compare"), id="both failing"),
    ],
)
def test_every_answer_is_one_that_the_description_of_the_api_has(
    tmp_path: Path, failing: bool, options: tuple[str, ...]
) -> None:
    with serving(tmp_path, failing=failing) as gateway:
        ran = schemathesis(gateway, "--generation-deterministic", *options)
    assert ran.returncode == 0, ran.stdout
