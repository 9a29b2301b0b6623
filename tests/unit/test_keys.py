"""Which keys are valid now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from gateway import key_file
from gateway.errors import Unauthenticated
from gateway.key_file import InvalidKeyFile, new_key
from gateway.keys import Keys
from gateway.metrics import Metrics

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def add(path: Path, name: str = "shop", expires: datetime | None = None) -> str:
    text, key = new_key(name, frozenset(["predict"]), rate=None, created=NOW, expires=expires)
    with key_file.changed(path) as keys:
        keys.append(key)
    return text


def opened(
    tmp_path: Path,
    *,
    required: bool = False,
    named: bool = False,
    now: datetime = NOW,
    registry: CollectorRegistry | None = None,
) -> Keys:
    return Keys(
        tmp_path / "admin.key",
        tmp_path / "keys.json",
        required=required,
        named=named,
        metrics=Metrics(registry or CollectorRegistry()),
        now=lambda: now,
    )


def test_without_a_file_only_the_admin_key_is_known_and_none_is_required(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    assert not keys.required
    assert keys.find((tmp_path / "admin.key").read_text().strip()).may("admin")
    with pytest.raises(Unauthenticated, match="no such key"):
        keys.find("tandem_0123abcd_guessed")


def test_keys_are_required_where_it_is_said_or_where_a_file_is_also_one_without_keys(tmp_path: Path) -> None:
    assert opened(tmp_path, required=True).required
    with key_file.changed(tmp_path / "keys.json"):
        pass
    assert opened(tmp_path).required


def test_a_key_is_known_whole_only(tmp_path: Path) -> None:
    text = add(tmp_path / "keys.json")
    other = add(tmp_path / "keys.json", "other")
    keys = opened(tmp_path)
    assert keys.find(text).name == "shop"
    assert keys.find(other).name == "other"
    prefix, _, secret = text.rpartition("_")
    for wrong in (text[:-1], text + "x", secret, f"{prefix}_{other.rpartition('_')[2]}", None, ""):
        with pytest.raises(Unauthenticated):
            keys.find(wrong)


def test_a_key_is_valid_until_it_expires(tmp_path: Path) -> None:
    text = add(tmp_path / "keys.json", expires=NOW + timedelta(seconds=1))
    assert opened(tmp_path).find(text).name == "shop"
    with pytest.raises(Unauthenticated, match="'shop' has expired"):
        opened(tmp_path, now=NOW + timedelta(seconds=1)).find(text)


def test_a_key_that_is_added_or_removed_counts_without_a_restart(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    text = add(tmp_path / "keys.json")
    keys.refresh()
    assert keys.find(text).name == "shop"
    assert keys.required
    with key_file.changed(tmp_path / "keys.json") as kept:
        kept.clear()
    keys.refresh()
    with pytest.raises(Unauthenticated):
        keys.find(text)
    assert keys.required


def test_the_admin_key_can_be_replaced_without_a_restart(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    old = (tmp_path / "admin.key").read_text().strip()
    (tmp_path / "admin.key").write_text("another-one-that-is-longer-than-the-first-one\n")
    keys.refresh()
    assert keys.find("another-one-that-is-longer-than-the-first-one").may("admin")
    with pytest.raises(Unauthenticated):
        keys.find(old)


@pytest.mark.parametrize("broken", ["{", None, ""], ids=["no JSON", "gone", "empty"])
def test_a_file_that_breaks_while_the_gateway_runs_leaves_the_keys_in_force_and_is_said(
    tmp_path: Path, broken: str | None
) -> None:
    path = tmp_path / "keys.json"
    text, registry = add(path), CollectorRegistry()
    keys = opened(tmp_path, registry=registry)
    assert registry.get_sample_value("tandem_keys_not_read") == 0
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with structlog.testing.capture_logs() as logs:
        keys.refresh()
        keys.refresh()
    assert [(each["event"], each["log_level"]) for each in logs] == [("keys_not_read", "error")]
    assert keys.find(text).name == "shop"
    (tmp_path / "admin.key").write_text("another-one-that-is-longer-than-the-first-one\n")
    keys.refresh()
    assert registry.get_sample_value("tandem_keys_not_read") == 1  # the other file is well
    later = add_after(path)
    keys.refresh()
    assert keys.find(later).name == "later"
    assert registry.get_sample_value("tandem_keys_not_read") == 0


def add_after(path: Path) -> str:
    path.unlink(missing_ok=True)
    return add(path, "later")


def test_a_broken_file_or_one_that_was_named_and_is_missing_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidKeyFile, match="TANDEM_KEYS__FILE names"):
        opened(tmp_path, named=True)
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(InvalidKeyFile, match="no file of keys"):
        opened(tmp_path)


def test_a_file_that_should_be_there_and_cannot_be_reached_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.json").symlink_to(tmp_path / "not mounted")
    with pytest.raises(InvalidKeyFile, match="cannot be read: No such file"):
        opened(tmp_path)
    with pytest.raises(InvalidKeyFile, match="cannot be read: Not a directory"):
        Keys(
            tmp_path / "admin.key",
            tmp_path / "admin.key" / "keys.json",
            required=False,
            metrics=Metrics(CollectorRegistry()),
        )
