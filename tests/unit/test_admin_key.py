"""The file with the admin key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.admin_key import load_or_create_admin_key
from gateway.key_file import InvalidKeyFile


def test_of_many_that_start_at_once_all_have_the_one_key_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "var" / "admin.key"
    with ThreadPoolExecutor(16) as starts:
        keys = set(starts.map(load_or_create_admin_key, [path] * 16))
    assert keys == {path.read_text().strip()}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_key_file_is_refused_for_any_request_without_a_key_would_match_it(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text("\n")
    with pytest.raises(InvalidKeyFile, match="Remove it"):
        load_or_create_admin_key(path)
