"""Folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelkit.files import digest, replaced, tree


def test_a_block_that_raises_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    with replaced(folder) as new:
        (new / "a").write_text("old")

    def fail() -> None:
        with replaced(folder) as new:
            (new / "a").write_text("new")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert (folder / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_block_that_ends_replaces_all_of_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    for name in ("a", "b"):
        with replaced(folder) as new:
            (new / name).write_text(name)
    assert tree(folder) == [folder / "b"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".1.aside-xyz" / "new"
    left.mkdir(parents=True)
    with replaced(tmp_path / "1") as new:
        (new / "a").write_text("a")
    assert list(tmp_path.iterdir()) == [tmp_path / "1"]


def test_a_digest_changes_with_a_name_and_with_a_content(tmp_path: Path) -> None:
    def of(**files: str) -> str:
        with replaced(tmp_path / "d") as new:
            for name, text in files.items():
                (new / name).write_text(text)
        return digest(tree(tmp_path / "d"), tmp_path / "d")

    digests = [of(a="x", b="y"), of(a="x", c="y"), of(a="x", b="z"), of(a="xb", c="y")]
    assert len(set(digests)) == len(digests)
    assert of(b="y", a="x") == digests[0]
