"""`tandem keys`, and the key that other commands send."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway import key_file
from gateway.key_file import Key
from tandem.cli import app
from tests.conftest import StartGateway
from tests.support.pictures import encode, plain


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of keys of the local stack, which is not there yet."""
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    return tmp_path / "keys.json"


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def made(*arguments: str) -> str:
    result = keys(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "shown only now" in result.stderr
    return result.stdout.strip()


def find(path: Path, text: str) -> Key:
    (found,) = (each for each in key_file.read(path) if each.sha256 == key_file.digest(text))
    return found


def test_a_key_is_made_printed_and_kept_as_a_digest(path: Path) -> None:
    text = made("add", "shop", "--rights", "predict,read", "--rate", "100/minute", "--expires", "90d")
    key = find(path, text)
    assert (key.name, sorted(key.rights), key.rate) == ("shop", ["predict", "read"], "100/minute")
    assert key.expires == key.created + timedelta(days=90)
    assert abs(key.created - datetime.now(UTC)) < timedelta(minutes=5)
    assert text.split("_", 2)[2] not in path.read_text()


def test_the_first_key_says_that_the_gateway_is_closed_from_now_on(path: Path) -> None:
    assert "every request to the gateway needs a key" in keys("add", "shop").stderr
    assert "every request" not in keys("add", "other").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Shop"], "name"),
        (["admin"], "belongs to the key that the gateway makes"),
        (["shop", "--rights", "write"], "rights"),
        (["shop", "--rights", ""], "rights"),
        (["shop", "--rate", "many"], "rate"),
        (["shop", "--expires", "soon"], "no length of time"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_makes_no_sense_is_refused_and_nothing_is_made(path: Path, arguments: list[str], said: str) -> None:
    result = keys("add", *arguments)
    assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True), result.stderr
    assert not path.exists()


def test_a_name_is_taken_once(path: Path) -> None:
    made("add", "shop")
    result = keys("add", "shop")
    assert (result.exit_code, "tandem keys rotate shop" in result.stderr) == (1, True)
    assert len(key_file.read(path)) == 1


def test_a_rotation_makes_a_like_key_and_leaves_the_old_one_time(path: Path) -> None:
    old = made("add", "shop", "--rights", "read", "--rate", "5/second", "--expires", "30d")
    new = made("rotate", "shop", "--grace", "2d")
    key, before = find(path, new), find(path, old)
    assert (key.name, list(key.rights), key.rate, key.expires) == (
        "shop",
        ["read"],
        "5/second",
        key.created + timedelta(days=30),
    )
    assert before.expires == key.created + timedelta(days=2)
    newest = made("rotate", "shop", "--grace", "3d")  # the time of the oldest is not made longer
    assert find(path, old).expires == before.expires
    assert len(key_file.read(path)) == 3
    made("rotate", "shop", "--grace", "0s")
    assert len(key_file.read(path)) == 1
    assert newest not in path.read_text()


def test_a_key_is_removed_by_its_name_or_its_id(path: Path) -> None:
    first = made("add", "shop")
    made("rotate", "shop")
    assert keys("remove", find(path, first).id).exit_code == 0
    assert [each.name for each in key_file.read(path)] == ["shop"]
    made("add", "other")
    assert keys("remove", "shop").stderr == ""
    last = keys("remove", "other")
    assert (last.exit_code, "only the admin key opens the gateway" in last.stderr) == (0, True)
    assert key_file.read(path) == ()


@pytest.mark.parametrize("command", ["rotate", "remove"])
def test_a_key_that_is_not_there_is_said_with_those_that_are(path: Path, command: str) -> None:
    made("add", "shop")
    result = keys(command, "store")
    assert (result.exit_code, "Known: shop" in result.stderr) == (1, True)


def test_the_list_tells_everything_but_the_secrets(path: Path) -> None:
    assert "no key is needed" in keys("list").stderr
    text = made("add", "shop", "--rate", "5/second")
    made("add", "late", "--expires", "0s")
    table = keys("list").stdout
    assert "shop" in table
    assert "5/second" in table
    assert "expired" in table
    (first, _) = (json.loads(line) for line in keys("list", "--json").stdout.splitlines())
    assert (first["id"], first["name"], "sha256" in first) == (find(path, text).id, "shop", False)


def test_a_broken_file_is_said_and_left_as_it_is(path: Path) -> None:
    path.write_text("{")
    for arguments in (["list"], ["add", "shop"], ["remove", "shop"]):
        result = keys(*arguments)
        assert (result.exit_code, "no file of keys" in result.stderr) == (1, True)
    assert path.read_text() == "{"


def test_a_folder_that_cannot_be_written_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("")
    monkeypatch.setenv("TANDEM_KEYS__FILE", str(path / "keys.json"))
    result = keys("add", "shop")
    assert (result.exit_code, "cannot be written" in result.stderr) == (1, True)


def test_commands_send_the_key_they_are_given(
    start_gateway: StartGateway, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made("add", "shop", "--rights", "predict,read")
    client: httpx.Client = start_gateway()
    picture = tmp_path / "seven.png"
    picture.write_bytes(encode(plain(7)))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(client.base_url.port))
    predict = ["predict", "--model", "digits", str(picture)]
    url = ["--url", str(client.base_url)]

    def code(*arguments: str) -> tuple[int, bool]:
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, "unauthenticated" in result.stderr

    assert code(*predict) == (0, False)  # the local stack's admin key
    assert code(*predict, *url) == (1, True)  # which no other gateway is shown
    for command in (["models", "list"], ["routing", "show", "digits"]):
        assert code(*command, *url) == (1, True)
    monkeypatch.setenv("TANDEM_API_KEY", key)
    for command in (predict, ["models", "list"], ["routing", "show", "digits"]):
        assert code(*command, *url) == (0, False)
    file = tmp_path / "wrong.key"
    file.write_text("tandem_1_wrong\n")
    assert code("--key-file", str(file), *predict, *url) == (1, True)
    file.write_text(key + "\n")
    monkeypatch.setenv("TANDEM_API_KEY", "tandem_1_wrong")
    assert code("--key-file", str(file), *predict, *url) == (0, False)
    assert code("--key-file", str(tmp_path / "none"), *predict, *url) == (2, False)
