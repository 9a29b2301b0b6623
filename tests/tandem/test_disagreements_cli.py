"""`tandem disagreements`, with a gateway over fakes that disagree."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tandem.cli import app
from tandem.client import Client
from tests.conftest import Fakes, StartGateway
from tests.support.pictures import encode, plain
from tests.support.stack import free_ports
from tests.support.waiting import wait_until


@pytest.fixture
def local(start_gateway: StartGateway, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """The local stack's gateway, which keeps one disagreement about a digit and one about shapes."""
    client = start_gateway(disagreements={"max_count": 10})
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(client.base_url.port))
    fakes["tf"].offset = 41
    for count, model in enumerate(("digits", "shapes"), 1):
        client.post(f"/v1/models/{model}/compare", files={"image": encode(plain(7))}, headers={"x-request-id": model})
        kept = f'tandem_disagreements_total{{model="{model}",outcome="kept"}} 1.0'
        wait_until(lambda: kept in client.get("/metrics").text, lambda: count, patience_s=30, pause_s=0.01)  # noqa: B023
    return client


def tandem(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["disagreements", *arguments], catch_exceptions=False)


def lines(result: Result) -> list[str]:
    """The lines of a table without its padding."""
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


@pytest.mark.usefixtures("local")
def test_each_is_a_line_that_says_what_both_said_newest_first() -> None:
    result = tandem()
    assert (result.exit_code, result.stderr) == (0, "")
    head, shapes, digits = lines(result)
    assert head == "id time model request target said target said"
    assert shapes.startswith("2 20")
    assert shapes.endswith("shapes shapes torch@1 1 square, 1 circle tf@1 1 square, 1 circle")
    assert digits.endswith("digits digits torch@2 7 0.9100 tf@2 8 0.9100")


def test_as_json_it_is_what_the_gateway_lists(local: httpx.Client, tmp_path: Path) -> None:
    headers = {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
    listed = local.get("/v1/disagreements", headers=headers).json()["disagreements"]
    assert [json.loads(line) for line in tandem("--json").stdout.splitlines()] == listed


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(("arguments", "found"), [(["--model", "digits"], ["1"]), (["--limit", "1"], ["2"])])
def test_one_model_or_the_newest_can_be_asked_for(arguments: list[str], found: list[str]) -> None:
    assert [line.split()[0] for line in lines(tandem(*arguments))[1:]] == found


@pytest.mark.usefixtures("local")
def test_each_is_drawn_to_a_file_of_its_own(tmp_path: Path) -> None:
    result = tandem("--draw", str(tmp_path / "new" / "drawn"))
    assert result.exit_code == 0
    drawn = sorted((tmp_path / "new" / "drawn").iterdir())
    assert [path.name for path in drawn] == ["digits-1.png", "shapes-2.png"]
    for path in drawn:
        with Image.open(path) as image:
            assert (image.format, image.width > image.height) == ("PNG", True)


@pytest.mark.usefixtures("local")
def test_one_that_has_gone_since_it_was_listed_is_said_and_the_others_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (known,) = json.loads(f"[{tandem('--json', '--limit', '1').stdout}]")
    monkeypatch.setattr(Client, "disagreements", lambda *_: [known | {"id": 99}, known])
    result = tandem("--draw", str(tmp_path / "drawn"))
    assert (result.exit_code, len(lines(result))) == (1, 3)
    assert "No disagreement 99 is kept" in result.stderr
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["shapes-2.png"]


@pytest.mark.usefixtures("local")
def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = tandem("--draw", str(tmp_path / "file" / "drawn"))
    assert (result.exit_code, "cannot be made" in result.stderr) == (2, True)


def test_where_none_is_kept_it_says_what_keeps_them(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(client.base_url.port))
    result = tandem()
    assert (result.exit_code, result.stdout) == (0, "")
    assert "TANDEM_DISAGREEMENTS__MAX_COUNT" in result.stderr


def test_another_gateway_wants_its_key(local: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = str(local.base_url)
    refused = tandem("--url", url)
    assert (refused.exit_code, "TANDEM_API_KEY" in refused.stderr) == (1, True)
    monkeypatch.setenv("TANDEM_API_KEY", (tmp_path / "admin.key").read_text().strip())
    assert tandem("--url", url).exit_code == 0


def test_without_a_gateway_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(free_ports(1)[0]))
    assert tandem().exit_code == 3
