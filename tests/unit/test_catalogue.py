"""What the gateway knows of a store that changes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import structlog

from gateway.catalogue import Catalogue
from gateway.errors import ModelNotFound
from gateway.runtimes.base import ModelRef
from gateway.snapshot import Snapshot
from modelkit import lifecycle, spec
from tests.support.packages import digits_spec, write_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path, 1, 2)
    return tmp_path


def test_the_wanted_default_version_is_the_greatest() -> None:
    catalogue = Catalogue(Path("nowhere"), Snapshot.of([digits_spec(2), digits_spec(10), digits_spec(1)]))
    assert catalogue.find("digits").version == 10
    assert catalogue.find("digits", 2).version == 2
    assert [each.version for each in catalogue.versions("digits")] == [1, 2, 10]


def test_an_unknown_model_or_version_is_answered_with_the_known_ones() -> None:
    catalogue = Catalogue(Path("nowhere"), Snapshot.of([digits_spec(1), digits_spec(3)]))
    with pytest.raises(ModelNotFound, match="It has: 1, 3"):
        catalogue.find("digits", 2)
    with pytest.raises(ModelNotFound, match="Known: digits"):
        catalogue.find("cats")


async def test_a_version_that_comes_is_found_and_one_that_goes_is_not(store: Path) -> None:
    catalogue = Catalogue(store)
    write_store(store, 3)
    lifecycle.retire(store, "digits", 1)
    await catalogue.refresh()
    assert [each.version for each in catalogue.versions("digits")] == [2, 3]
    assert list(catalogue.retired) == [ModelRef("digits", 1)]
    with pytest.raises(ModelNotFound, match="It has: 2, 3"):
        catalogue.find("digits", 1)


async def test_the_effective_default_stays_until_it_is_settled_again(store: Path) -> None:
    catalogue = Catalogue(store)
    catalogue.settle("digits", 2)
    lifecycle.set_default(store, "digits", 1)
    await catalogue.refresh()
    assert (catalogue.wanted("digits"), catalogue.default("digits")) == (1, 2)
    catalogue.settle("digits", 1)
    assert catalogue.find("digits").version == 1


async def test_an_effective_default_that_vanishes_leaves_the_wanted_one(store: Path) -> None:
    catalogue = Catalogue(store)
    catalogue.settle("digits", 1)
    lifecycle.retire(store, "digits", 1)
    await catalogue.refresh()
    assert (catalogue.settled("digits"), catalogue.default("digits")) == (None, 2)


async def test_only_what_changed_is_read_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, original = [], spec.read

    def counted(package: Path) -> spec.ModelSpec:
        read.append(package.name)
        return original(package)

    monkeypatch.setattr(spec, "read", counted)
    catalogue = Catalogue(store)
    before = catalogue.specs[ModelRef("digits", 1)]
    shutil.rmtree(store / "digits" / "2")
    write_store(store, 2, 3)
    await catalogue.refresh()
    await catalogue.refresh()
    assert read == ["1", "2", "2", "3"]
    assert catalogue.specs[ModelRef("digits", 1)] is before


async def test_a_package_that_cannot_be_read_is_left_out_with_one_line_until_it_changes(store: Path) -> None:
    (store / "digits" / "2" / "model.yaml").write_text("name: 7")
    with structlog.testing.capture_logs() as logs:
        catalogue = Catalogue(store)
        await catalogue.refresh()
        await catalogue.refresh()
        assert [each.version for each in catalogue.versions("digits")] == [1]
        shutil.rmtree(store / "digits" / "2")
        write_store(store, 2)
        await catalogue.refresh()
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["model_package_invalid"]
    assert [each.version for each in catalogue.versions("digits")] == [1, 2]


async def test_a_store_that_cannot_be_read_takes_nothing_away(store: Path) -> None:
    catalogue = Catalogue(store)
    await asyncio.to_thread(store.rename, store.with_name("elsewhere"))
    with structlog.testing.capture_logs() as logs:
        await catalogue.refresh()
        await catalogue.refresh()
    assert [log["event"] for log in logs] == ["store_unreadable"]
    assert catalogue.find("digits").version == 2


def test_a_version_is_in_use_while_a_request_for_it_runs() -> None:
    one, two = digits_spec(1), digits_spec(2)
    catalogue = Catalogue(Path("nowhere"), Snapshot.of([one, two]))
    with catalogue.using(one), catalogue.using(one):
        assert catalogue.in_use(ModelRef.of(one))
        assert not catalogue.in_use(ModelRef.of(two))
    assert not catalogue.in_use(ModelRef.of(one))
