"""A real build of the bundled models, made once: about a quarter of a minute."""

from __future__ import annotations

import pytest

from tests.modelkit.builds import Built, run_build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    done = run_build(folder / "store", folder / "serving")
    assert done.returncode == 0, done.stderr
    return Built(folder / "store", folder / "serving", done.stdout)
