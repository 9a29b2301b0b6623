"""The settings that do more than to hold a value."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.app import create_app
from gateway.settings import InvalidSettings, Settings, TorchSettings, WorkersSettings, read_settings, unfilled_batches

URL = "postgresql://tandem:secret@db.example/tandem"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("", "sqlite:///var/tandem.db"),
        ("sqlite:////data/log.db", "sqlite:////data/log.db"),
        (URL, "postgresql+psycopg://tandem:secret@db.example/tandem"),
        ("postgresql+psycopg://db.example/tandem", "postgresql+psycopg://db.example/tandem"),
    ],
)
def test_the_database_is_named_as_users_name_it(given: str, used: str) -> None:
    assert Settings(database_url=given).database == used


@pytest.mark.parametrize("url", ["mysql://db/tandem", "postgresql+asyncpg://db/tandem", "sqlite://", "tandem.db"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="database_url"):
        Settings(database_url=url)


def test_its_password_is_neither_shown_nor_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Settings(database_url=URL).model_dump(mode="json")["database_url"]
    assert shown == "postgresql://tandem:***@db.example/tandem"
    monkeypatch.setenv("TANDEM_DATABASE_URL", "mysql://tandem:secret@db.example/tandem")
    with pytest.raises(InvalidSettings, match=r"mysql://tandem:\*\*\*@db\.example"):
        read_settings()


def test_too_few_pictures_at_once_to_fill_the_batches_are_said_with_what_is_enough() -> None:
    assert list(unfilled_batches(Settings())) == []
    few = Settings(workers=WorkersSettings(max_batch_size=16, replicas=2), torch=TorchSettings(max_inflight=63))
    (line,) = unfilled_batches(few)
    assert line.startswith("TANDEM_TORCH__MAX_INFLIGHT: 63 pictures")
    assert "set it to 64 or more" in line


def test_postgresql_without_its_driver_ends_the_start_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidSettings, match=r"pip install 'tandem-serving\[postgres\]'"):
        create_app(Settings(var=tmp_path, database_url=URL))
