"""How pictures are joined into batches: from the settings to what each worker reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

from gateway.settings import Settings, TfSettings, WorkersSettings
from modelkit import lifecycle, serving
from modelkit.batching import Batching
from tests.support.packages import add_artifacts, digits_spec


def batching(**knobs: int) -> Batching:
    return Batching.of(Settings(workers=WorkersSettings(**knobs)))


def configured(archive: Path) -> tuple[int, int]:
    """The batch size of an archive and its delay in milliseconds."""
    with ZipFile(archive) as opened:
        config: dict[str, Any] = yaml.safe_load(opened.read("model-config.yaml"))
    return config["batchSize"], config["maxBatchDelay"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", sys.executable)  # the packing of archives needs nothing of torch
    made = tmp_path / "package"
    made.mkdir()
    add_artifacts(digits_spec(1), made)
    return made


@pytest.mark.parametrize(
    ("timeout_us", "delay_ms"),
    [
        pytest.param(0, 1, id="none"),
        pytest.param(200, 1, id="under a millisecond"),
        pytest.param(1000, 1, id="a millisecond"),
        pytest.param(1001, 2, id="rounded up"),
    ],
)
def test_torchserve_counts_whole_milliseconds_from_one(timeout_us: int, delay_ms: int) -> None:
    assert batching(batch_timeout_us=timeout_us).max_batch_delay_ms == delay_ms


@pytest.mark.parametrize("size", [1, 8, 100, 1024])
def test_the_queue_has_room_for_twice_what_the_gateway_sends_at_once(size: int) -> None:
    settings = Settings(workers=WorkersSettings(max_batch_size=size), tf=TfSettings(max_inflight=200))
    assert Batching.of(settings).max_enqueued_batches * size >= 2 * (200 + settings.shadow.max_inflight)


def test_the_view_keeps_what_was_set_and_has_the_defaults_before(tmp_path: Path) -> None:
    assert Batching.read(tmp_path) == batching()
    wanted = batching(max_batch_size=32, batch_timeout_us=2500, replicas=4)
    serving.update_batching(wanted, tmp_path)
    assert Batching.read(tmp_path) == wanted


def test_archives_have_the_views_batches_and_are_made_anew_when_these_change(tmp_path: Path, package: Path) -> None:
    view, said = tmp_path / "view", list[str]()
    archive = view / "torch" / "digits-1.mar"
    for knobs, expected in ({}, (8, 1)), ({"max_batch_size": 4, "batch_timeout_us": 1500}, (4, 2)):
        serving.update_batching(batching(**knobs), view)
        for _ in range(2):
            serving.update_torch(digits_spec(1), package, view, said.append)
        assert configured(archive) == expected
    assert len(said) == 2  # never without a change


def test_a_model_that_is_added_later_gets_what_the_running_workers_have(tmp_path: Path, package: Path) -> None:
    """The environment of the command that adds it may say nothing, or something else."""
    store, view = tmp_path / "store", tmp_path / "view"
    store.mkdir()
    serving.update_batching(batching(max_batch_size=16), view)
    lifecycle.publish(package, store, view, lambda _: None)
    assert configured(view / "torch" / "digits-1.mar") == (16, 1)
    assert Batching.read(view) == batching(max_batch_size=16)  # what else a change does in the view leaves it there
