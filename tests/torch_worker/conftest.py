from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.torch_worker.sample import MakePackage

if find_spec("torch") is None:  # another environment that collects all of tests/: these need .venv-torch
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def make_package(tmp_path_factory: pytest.TempPathFactory) -> MakePackage:
    """Writes a package folder of its own at each call; the arguments are those of sample.write_package."""
    from tests.torch_worker.sample import write_package

    return lambda *model, **changes: write_package(tmp_path_factory.mktemp("package"), *model, **changes)
