"""Packages that come, become the default and go, in a store and a view of their own; nothing runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from modelkit import lifecycle, serving
from modelkit import store as stored
from modelkit.files import tree
from modelkit.lifecycle import NoSuchVersion, Refused
from modelkit.spec import InvalidPackage, read, write
from modelkit.store import Version
from tests.support.packages import add_artifacts, digits_spec


class Place(NamedTuple):
    store: Path
    view: Path

    def made(self, name: str, version: int) -> Path:
        """A package outside the store."""
        package = self.store.parent / f"made-{name}-{version}"
        package.mkdir()
        add_artifacts(digits_spec(version).model_copy(update={"name": name}), package)
        return package

    def publish(self, name: str, *versions: int) -> None:
        for version in versions:
            lifecycle.publish(self.made(name, version), self.store, self.view, lambda _: None)

    def in_view(self) -> set[str]:
        """What workers find, hidden left-overs included."""
        archives = {path.name for path in (self.view / "torch").iterdir() if not path.name.endswith(".made-of")}
        models = {"/".join(path.parts[-2:]) for path in (self.view / "tf").glob("*/*")}
        return archives | models

    def configured(self) -> list[str]:
        lines = (self.view / "tf" / "models.config").read_text().splitlines()
        return [line.split('"')[1] for line in lines if line.strip().startswith("name:")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", sys.executable)  # the packing of archives needs nothing of torch
    (tmp_path / "store").mkdir()
    return Place(tmp_path / "store", tmp_path / "view")


def test_a_published_package_is_in_the_store_and_in_both_workers_view(place: Place) -> None:
    place.publish("digits", 1, 2)
    assert stored.models(place.store) == {"digits": [1, 2]}
    assert place.in_view() == {"digits-1.mar", "digits-2.mar", "digits/1", "digits/2"}
    assert place.configured() == ["digits"]


def test_a_version_that_is_there_is_not_replaced(place: Place) -> None:
    place.publish("digits", 1)
    again = place.made("digits", 1)
    with pytest.raises(Refused, match="There is a digits version 1 already"):
        lifecycle.publish(again, place.store, place.view, lambda _: None)
    assert again.is_dir()


def test_the_wanted_default_is_the_greatest_version_until_one_is_named(place: Place) -> None:
    place.publish("digits", 2, 10, 1)
    assert stored.wanted_default(place.store / "digits", [1, 2, 10]) == 10
    lifecycle.set_default(place.store, "digits", 2)
    assert stored.wanted_default(place.store / "digits", [1, 2, 10]) == 2
    assert stored.wanted_default(place.store / "digits", [1, 10]) == 10


def test_what_is_not_there_cannot_become_the_default_or_be_removed(place: Place) -> None:
    place.publish("digits", 1)
    with pytest.raises(NoSuchVersion, match="It has: 1"):
        lifecycle.set_default(place.store, "digits", 2)
    with pytest.raises(NoSuchVersion, match="Known: digits"):
        lifecycle.retire(place.store, "cats")


def test_the_default_version_stays_while_there_are_others(place: Place) -> None:
    place.publish("digits", 1, 2)
    with pytest.raises(Refused, match=r"version 2 is the default\. Make another one the default first; there are: 1"):
        lifecycle.retire(place.store, "digits", 2)
    lifecycle.set_default(place.store, "digits", 1)
    assert lifecycle.retire(place.store, "digits", 2) == [Version("digits", 2)]


def test_a_removed_version_is_nowhere_any_more(place: Place) -> None:
    place.publish("digits", 1, 2)
    lifecycle.remove(place.store, place.view, "digits", 1)
    assert stored.models(place.store) == {"digits": [2]}
    assert place.in_view() == {"digits-2.mar", "digits/2"}
    assert list((place.store / stored.RETIRED).iterdir()) == []


@pytest.mark.parametrize("version", [None, 1], ids=["whole model", "its last version"])
def test_a_removed_model_leaves_the_workers_list_and_no_default(place: Place, version: int | None) -> None:
    place.publish("digits", 1)
    place.publish("cats", 1)
    lifecycle.set_default(place.store, "digits", 1)
    lifecycle.remove(place.store, place.view, "digits", version)
    assert [path.name for path in place.store.iterdir() if not path.name.startswith(".")] == ["cats"]
    assert place.in_view() == {"cats-1.mar", "cats/1"}
    assert place.configured() == ["cats"]


def test_a_retired_version_is_noted_without_its_artifacts_and_kept_in_the_view(place: Place) -> None:
    place.publish("digits", 1, 2)
    lifecycle.retire(place.store, "digits", 1)
    ((version, note),) = stored.retired(place.store).items()
    assert version == Version("digits", 1)
    assert list(note.iterdir()) == []
    assert "digits-1.mar" in place.in_view()


def test_a_retired_version_stays_in_the_view_until_its_own_turn(place: Place) -> None:
    """Requests for it may still be under way when something else comes or goes."""
    place.publish("digits", 1, 2, 3)
    (one,) = lifecycle.retire(place.store, "digits", 1)
    (two,) = lifecycle.retire(place.store, "digits", 2)
    place.publish("cats", 1)
    lifecycle.clean_view(place.store, place.view, one)
    assert place.in_view() == {f"{name}-{n}.mar" for name, n in (("digits", 2), ("digits", 3), ("cats", 1))} | {
        "digits/2", "digits/3", "cats/1"
    }  # fmt: skip
    lifecycle.clean_view(place.store, place.view, two)
    assert "digits/2" not in place.in_view()


def test_a_version_that_workers_still_have_loaded_is_not_published_again(place: Place) -> None:
    place.publish("digits", 1, 2)
    lifecycle.retire(place.store, "digits", 1)
    again = place.made("digits", 1).rename(place.store.parent / "again")
    with pytest.raises(Refused, match="still being unloaded"):
        lifecycle.publish(again, place.store, place.view, lambda _: None)
    lifecycle.forget(place.store, Version("digits", 1))
    lifecycle.publish(again, place.store, place.view, lambda _: None)
    assert stored.models(place.store) == {"digits": [1, 2]}


def test_a_package_in_the_wrong_place_is_not_read(place: Place) -> None:
    place.publish("digits", 1)
    shutil.copytree(place.store / "digits" / "1", place.store / "digits" / "2")
    with pytest.raises(InvalidPackage, match="says that it is digits version 1"):
        stored.read(place.store / "digits" / "2")
    write(read(place.store / "digits" / "2").model_copy(update={"version": 2}), place.store / "digits" / "2")
    assert stored.read(place.store / "digits" / "2").version == 2


def test_a_staging_folder_in_use_stays_and_an_abandoned_one_goes(place: Place) -> None:
    (place.store / ".staging-abandoned").mkdir()
    with lifecycle.staging(place.store) as one, lifecycle.staging(place.store) as other:
        assert sorted(path for path in place.store.iterdir() if path.is_dir()) == sorted([one, other])
    assert [path for path in place.store.iterdir() if path.is_dir()] == []


def test_cleaning_a_view_that_is_right_changes_nothing(place: Place) -> None:
    place.publish("digits", 1)
    before = {path: path.stat().st_mtime_ns for path in tree(place.view)}
    serving.clean(stored.models(place.store), place.view)
    assert {path: path.stat().st_mtime_ns for path in tree(place.view)} == before
