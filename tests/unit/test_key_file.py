"""The file with the API keys."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway import key_file
from gateway.key_file import InvalidKeyFile, Key, new_key

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def make(name: str = "shop", **options: Any) -> tuple[str, Key]:
    options = {"rights": frozenset(["predict"]), "rate": None, "created": NOW, "expires": None} | options
    return new_key(name, **options)


def test_what_was_written_is_read_again_and_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "keys.json"
    text, key = make(rate="100/minute", expires=NOW + timedelta(days=90))
    with key_file.changed(path) as keys:
        keys.append(key)
    assert key_file.read(path) == (key,)
    assert path.stat().st_mode & 0o777 == 0o600
    secret = text.split("_", 2)[2]
    assert len(secret) > 20
    assert secret not in path.read_text()


def test_a_key_is_found_by_its_id_and_known_by_its_digest() -> None:
    text, key = make()
    assert key_file.id_of(text) == key.id
    assert key_file.digest(text) == key.sha256
    assert make()[0] != text


@pytest.mark.parametrize("text", ["", "tandem", "other_abc_def", "abc"])
def test_other_texts_have_no_id(text: str) -> None:
    assert key_file.id_of(text) == ""


def test_admin_may_do_everything_and_the_other_rights_only_what_they_say() -> None:
    admin, both, predict = (
        make(rights=frozenset(rights))[1] for rights in (["admin"], ["predict", "read"], ["predict"])
    )
    assert [[key.may(right) for right in ("predict", "read", "admin")] for key in (admin, both, predict)] == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "Shop"},
        {"name": ""},
        {"name": "a b"},
        {"name": "x" * 65},
        {"rights": frozenset()},
        {"rights": frozenset(["write"])},
        {"rate": "100"},
        {"rate": "0/minute"},
        {"rate": "5/fortnight"},
        {"created": datetime(2026, 1, 1)},  # noqa: DTZ001  on purpose
    ],
    ids=str,
)
def test_a_key_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**options)


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def add(number: int) -> None:
        with key_file.changed(path) as keys:
            keys.append(make(f"client-{number}")[1])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(24)))
    assert {key.name for key in key_file.read(path)} == {f"client-{number}" for number in range(24)}
    assert sorted(each.name for each in tmp_path.iterdir()) == [".keys.json.lock", "keys.json"]


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with key_file.changed(path) as keys:
        keys.append(make()[1])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="belongs to the key that the gateway makes"), key_file.changed(path) as keys:
        keys.append(make("admin")[1])
    assert path.read_bytes() == before


def broken(change: dict[str, Any]) -> str:
    return json.dumps({"keys": [make()[1].model_dump(mode="json") | change]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "Invalid JSON"),
        ("[]", "keys"),
        ('{"keys": [{}]}', "keys.0.id"),
        (broken({"sha256": "no digest"}), "keys.0.sha256"),
        (broken({"more": 1}), "keys.0.more"),
        (json.dumps({"keys": [make()[1].model_dump(mode="json")] * 2}), "several keys have the id"),
    ],
    ids=["empty", "list", "no id", "digest", "unknown field", "twice"],
)
def test_a_file_that_is_none_of_keys_is_refused_with_where_and_why(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(InvalidKeyFile, match=said) as refused:
        key_file.read(path)
    assert "no digest" not in str(refused.value)
