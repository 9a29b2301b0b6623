"""What the embedded stack starts its workers with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings
from modelkit import batching
from tandem import stack
from torch_worker.tuning import available_cpus


def commands(**sections: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    settings = Settings.model_validate({"var": Path("/v"), **sections})
    return {service.name: service.command for service in stack.services(settings, {})}


def value(command: tuple[str, ...], flag: str) -> str:
    return command[command.index(flag) + 1]


@pytest.mark.parametrize(
    ("threads", "given"), [pytest.param(3, "3", id="a number"), pytest.param(0, str(available_cpus()), id="all")]
)
def test_both_workers_compute_with_the_same_threads(threads: int, given: str) -> None:
    started = commands(workers={"threads": threads})
    assert value(started["torch"], "--threads") == given
    assert value(started["tf"], "--tensorflow_intra_op_parallelism") == given
    assert value(started["tf"], "--tensorflow_inter_op_parallelism") == given


def test_the_replicas_are_torchserves_processes_unless_it_has_a_number_of_its_own() -> None:
    assert value(commands(workers={"replicas": 3})["torch"], "--workers") == "3"
    assert value(commands(workers={"replicas": 3}, torch={"workers": 2})["torch"], "--workers") == "2"
    assert value(commands()["torch"], "--workers") == "0"  # for the launcher to decide


def test_tensorflow_serving_batches_as_the_view_says() -> None:
    file = value(commands()["tf"], "--batching_parameters_file")
    assert file == str(batching.path(Path("/v/serving")))
