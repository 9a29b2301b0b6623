"""`tandem models`: on a store alone, with the local gateway over fakes, and through another one's HTTP API."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.runtimes.base import ModelRef, ModelStatus
from modelkit import store as stored
from modelkit.spec import RUNTIME_NAMES, Agreement, read, write
from tandem import models_cli
from tandem.cli import app
from tests.conftest import Fakes, StartGateway
from tests.support.packages import write_store
from tests.support.stack import free_ports

MODELS = "models"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local stack is the one under tmp_path, where nothing runs yet."""
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(free_ports(1)[0]))
    monkeypatch.setattr(models_cli, "POLL_S", 0.01)
    write_store(tmp_path / "store", 1, 2)


@pytest.fixture
def local(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """The local stack's gateway, with version 2 as its effective default."""
    client = start_gateway()
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(client.base_url.port))
    end_s = time.monotonic() + 30
    while not client.get("/readyz").json()["ready"]:
        assert time.monotonic() < end_s
    return client


def tandem(*arguments: str) -> Result:
    return CliRunner().invoke(app, [MODELS, *arguments], catch_exceptions=False)


def lines(result: Result) -> list[str]:
    """The lines of a table without its padding."""
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def change(package: Path, **fields: object) -> None:
    write(read(package).model_copy(update=fields), package)


def test_the_list_of_a_store_alone_has_every_version_and_the_default() -> None:
    assert lines(tandem("list"))[1:] == [
        "digits 1 classify fp32 10 of 10",
        "digits 2 classify fp32 default 10 of 10",
    ]


@pytest.mark.usefixtures("local")
def test_the_list_has_the_states_that_the_gateway_knows() -> None:
    assert lines(tandem("list"))[1] == "digits 1 classify fp32 ready ready 10 of 10"
    (model,) = [json.loads(line) for line in tandem("list", "--json").stdout.splitlines()]
    assert model["default_version"] == "2"


def test_the_list_marks_what_was_taken_with_a_mismatch_and_what_proves_nothing(tmp_path: Path) -> None:
    change(tmp_path / "store" / "digits" / "1", mismatch_allowed=True)
    package = tmp_path / "store" / "digits" / "2"
    change(package, parity={"fp32": read(package).proof.model_copy(update={"distinct": 1})})
    first, second = lines(tandem("list"))[1:]
    assert "mismatch allowed" in first
    assert "proves nothing" in second


def test_a_package_that_cannot_be_read_is_named_beside_the_list(tmp_path: Path) -> None:
    (tmp_path / "store" / "digits" / "2" / "model.yaml").write_text("name: 7")
    result = tandem("list")
    assert lines(result)[1:] == ["digits 1 classify fp32 default 10 of 10"]
    assert result.stderr.startswith("left out: ")


def test_show_says_all_that_a_package_says() -> None:
    said = "\n".join(lines(tandem("show", "digits")))
    for part in ("digits version 2", "default default", "licence Apache-2.0", "fit stretch", "sha256 0000", "10 of 10"):
        assert part in said
    assert json.loads(tandem("show", "digits", "--json").stdout)["versions"][0]["version"] == "1"


def test_a_version_in_16_bits_shows_its_precision_and_how_it_agrees_with_itself_in_fp32(tmp_path: Path) -> None:
    package = tmp_path / "store" / "digits" / "2"
    against = {runtime: Agreement(agreeing=9, max_score_difference=0.02) for runtime in RUNTIME_NAMES}
    record = read(package).proof.model_copy(update={"against_fp32": against})
    change(package, precision="bf16", parity={"bf16": record})
    assert lines(tandem("list"))[2] == "digits 2 classify bf16 default 10 of 10"
    said = "\n".join(lines(tandem("show", "digits")))
    for part in ("precision bf16", "parity bf16", "torch against fp32 9 of 10 pictures", "tf against fp32 9 of 10"):
        assert part in said


@pytest.mark.parametrize("precision", ["int8", "FP32"])
def test_a_precision_that_is_not_known_is_wrong_usage(precision: str) -> None:
    result = tandem("add", "model.onnx", "--name", "new", "--precision", precision)
    assert (result.exit_code, "--precision: " in result.stderr) == (2, True), result.stderr


def test_what_is_not_there_is_answered_with_what_is() -> None:
    for arguments in (("show", "cats"), ("default", "cats", "1"), ("remove", "cats")):
        result = tandem(*arguments)
        assert (result.exit_code, result.stderr) == (1, "There is no model 'cats'. Known: digits.\n")


def test_the_default_of_a_store_alone_is_set_without_waiting(tmp_path: Path) -> None:
    assert tandem("default", "digits", "1").exit_code == 0
    assert stored.wanted_default(tmp_path / "store" / "digits", [1, 2]) == 1


def test_default_waits_until_the_gateway_has_moved(local: httpx.Client) -> None:
    assert tandem("default", "digits", "1").exit_code == 0
    assert local.get("/v1/models/digits").json()["default_version"] == "1"


def test_default_says_what_is_not_ready_and_on_which_runtime(
    start_gateway: StartGateway, fakes: Fakes, request: pytest.FixtureRequest
) -> None:
    fakes["tf"].statuses[ModelRef("digits", 1)] = ModelStatus("failed", "It is not a model.")
    request.getfixturevalue("local")
    result = tandem("default", "digits", "1")
    assert result.exit_code == 1
    assert "digits version 2 answers by default now" in result.stderr
    assert result.stderr.endswith("Not ready: tf: It is not a model.\n")


def test_default_gives_up_waiting_and_says_what_for(fakes: Fakes, request: pytest.FixtureRequest) -> None:
    fakes["tf"].statuses[ModelRef("digits", 1)] = ModelStatus("loading", "It is loading.")
    request.getfixturevalue("local")
    result = tandem("default", "digits", "1", "--wait-s", "0.1")
    assert result.exit_code == 1
    assert "tf: It is loading." in result.stderr


def test_remove_without_a_gateway_leaves_nothing_of_it(tmp_path: Path) -> None:
    result = tandem("remove", "digits", "1")
    assert result.stdout == "digits version 1: removed.\n"
    assert stored.models(tmp_path / "store") == {"digits": [2]}
    assert stored.retired(tmp_path / "store") == {}


def test_remove_waits_until_the_gateway_does_not_list_it(local: httpx.Client) -> None:
    assert tandem("remove", "digits", "1").exit_code == 0
    assert [each["version"] for each in local.get("/v1/models/digits").json()["versions"]] == ["2"]
    assert tandem("remove", "digits").exit_code == 0
    assert local.get("/v1/models").json() == {"models": []}


def test_the_default_is_not_removed_while_there_are_others(tmp_path: Path) -> None:
    result = tandem("remove", "digits", "2")
    assert result.exit_code == 1
    assert "is the default. Make another one the default first; there are: 1." in result.stderr
    assert stored.models(tmp_path / "store") == {"digits": [1, 2]}


def test_what_still_answers_by_default_is_not_removed(
    tmp_path: Path, fakes: Fakes, request: pytest.FixtureRequest
) -> None:
    fakes["tf"].statuses[ModelRef("digits", 1)] = ModelStatus("failed", "It is not a model.")
    request.getfixturevalue("local")
    tandem("default", "digits", "1", "--wait-s", "0")
    result = tandem("remove", "digits", "2")
    assert (result.exit_code, "answers by default" in result.stderr) == (1, True)
    assert stored.models(tmp_path / "store") == {"digits": [1, 2]}


def test_another_gateway_is_changed_through_its_api_with_its_key(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(start_gateway().base_url)
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path / "elsewhere"))
    refused = tandem("default", "digits", "1", "--url", url)
    assert (refused.exit_code, "TANDEM_API_KEY" in refused.stderr) == (1, True)
    monkeypatch.setenv("TANDEM_API_KEY", (tmp_path / "admin.key").read_text().strip())
    assert tandem("default", "digits", "1", "--url", url).exit_code == 0
    assert tandem("remove", "digits", "2", "--url", url).exit_code == 0
    assert stored.models(tmp_path / "store") == {"digits": [1]}


def test_a_model_is_scaled_and_the_answer_says_for_how_long(local: httpx.Client, fakes: Fakes) -> None:
    result = tandem("scale", "digits", "--runtime", "torch", "--replicas", "2")
    assert result.exit_code == 0
    assert result.stdout.startswith("digits version 2 on torch: 2 at once, until the runtime's worker starts anew")
    assert fakes["torch"].scales == [(ModelRef("digits", 2), 2)]


def test_another_gateway_that_does_not_answer_is_not_replaced_by_the_store() -> None:
    result = tandem("list", "--url", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert (result.exit_code, result.stdout) == (3, "")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("iou", "--agreement iou is not KEY=VALUE"),
        ("iou=2", "--agreement iou: Input should be less than or equal to 1"),
        ("colour=red", "--agreement colour: Extra inputs are not permitted"),
    ],
)
def test_tolerances_that_cannot_be_meant_are_wrong_usage(given: str, says: str) -> None:
    result = tandem("add", "model.onnx", "--name", "new", "--agreement", given)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
