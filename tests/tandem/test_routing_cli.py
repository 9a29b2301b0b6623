"""`tandem routing`, with a gateway over fakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from tandem.cli import app
from tests.conftest import StartGateway
from tests.support.stack import free_ports


@pytest.fixture
def local(client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """The local stack's gateway."""
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(client.base_url.port))
    return client


def tandem(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["routing", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "policy", "sentence"),
    [
        (["tf@1"], {"policy": "fixed", "target": "tf@1"}, "tf@1 answers"),
        (["fixed", "tf"], {"policy": "fixed", "target": "tf"}, "tf answers"),
        (
            ["weighted", "torch=0.9", "tf@1=0.1"],
            {"policy": "weighted", "weights": {"torch": 0.9, "tf@1": 0.1}},
            "weighted, torch=0.9, tf@1=0.1",
        ),
        (
            ["shadow", "torch", "tf", "--rate", "0.5", "--control", "0.1"],
            {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 0.5, "control_rate": 0.1},
            "torch answers, tf shadows 0.5 of the requests, with a control for 0.1 of these",
        ),
        (
            ["shadow", "torch", "torch@1"],
            {"policy": "shadow", "primary": "torch", "shadow": "torch@1", "sample_rate": 1.0, "control_rate": 0.2},
            "torch answers, torch@1 shadows 1 of the requests, with a control for 0.2 of these",
        ),
        (
            ["fastest", "torch", "tf@1", "--explore", "0.1"],
            {"policy": "fastest", "targets": ["torch", "tf@1"], "explore": 0.1},
            "the fastest answers (torch not known, tf@1 not known), the others 0.1 of the requests",
        ),
        (
            ["failover", "tf", "torch@1"],
            {"policy": "failover", "targets": ["tf", "torch@1"]},
            "tf answers, where it fails torch@1 does",
        ),
        (
            ["tf", "--failover", "--hedge", "auto"],
            {"policy": "fixed", "target": "tf", "failover": True, "hedge": {"after_ms": None, "budget": 0.05}},
            "tf answers; where it fails the other runtime does; hedged after what 95 % took, at most 0.05 of the "
            "requests",
        ),
        (
            ["failover", "torch", "tf", "--hedge", "50", "--hedge-budget", "0.1"],
            {"policy": "failover", "targets": ["torch", "tf"], "hedge": {"after_ms": 50.0, "budget": 0.1}},
            "torch answers, where it fails tf does; hedged after 50 ms, at most 0.1 of the requests",
        ),
    ],
    ids=" ".join,
)
def test_a_policy_is_set_and_shown(
    local: httpx.Client, arguments: list[str], policy: dict[str, Any], sentence: str
) -> None:
    assert tandem("show", "digits").stdout == "digits: torch answers (never set: the default)\n"
    result = tandem("set", "digits", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"digits: {sentence} (set ")
    assert tandem("show", "digits").stdout == result.stdout
    shown = json.loads(tandem("show", "digits", "--json").stdout)
    assert shown == local.get("/v1/models/digits/routing").json()
    assert policy.items() <= shown.items()


def test_a_canary_is_set_with_its_steps_and_guards_and_shown_with_its_history(local: httpx.Client) -> None:
    options = "--steps 0.5,1 --hold 60 --max-latency-ratio 1.2 --max-error-rate 0.02 --min-agreement 0.9 --rate 0.3"
    result = tandem("set", "digits", "canary", "torch", "tf@1", *options.split())
    assert (result.exit_code, result.stderr) == (0, "")
    policy = {
        "policy": "canary", "from": "torch", "to": "tf@1", "steps": [0.5, 1.0], "hold_s": 60.0, "sample_rate": 0.3,
        "guards": {"latency_ratio": 1.2, "error_rate": 0.02, "agreement": 0.9},
    }  # fmt: skip
    assert policy.items() <= local.get("/v1/models/digits/routing").json().items()
    first, why, begun = result.stdout.splitlines()
    assert first.startswith("digits: canary from torch to tf@1, step 1 of 2: tf@1 answers 0.5 of the requests since ")
    assert why == "  tf@1 answers 0.5 of the requests, torch the others"
    assert begun.endswith("start, step 1: tf@1 answers 0.5 of the requests, torch the others")
    tandem("set", "digits", "tf")
    assert tandem("show", "digits").stdout.splitlines()[1:] == [begun]


@pytest.mark.usefixtures("local")
def test_what_a_canary_is_not_told_is_as_the_gateway_has_it() -> None:
    tandem("set", "digits", "canary", "torch", "tf")
    shown = json.loads(tandem("show", "digits", "--json").stdout)
    assert (shown["steps"], shown["hold_s"], shown["sample_rate"]) == ([0.01, 0.05, 0.25, 1.0], 600.0, 0.1)
    assert shown["guards"] == {"latency_ratio": 1.1, "error_rate": 0.01, "agreement": 0.99}
    tandem("set", "digits", "canary", "torch", "tf", "--rate", "0")
    assert json.loads(tandem("show", "digits", "--json").stdout)["guards"]["agreement"] is None


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["torch", "tf"], "Name one target"),
        (["weighted", "torch"], "'torch' is no weight"),
        (["weighted", "torch=1", "torch=2"], "torch has two weights"),
        (["shadow", "torch"], "Name two targets"),
        (["torch", "--rate", "0.5"], "--rate goes with shadow or canary, not with fixed"),
        (["shadow", "torch", "tf", "--explore", "0.5"], "--explore goes with fastest, not with shadow"),
        (["weighted", "torch=1", "--min-agreement", "0.5"], "--min-agreement goes with canary"),
        (["fastest", "torch"], "Name at least two targets"),
        (["failover", "torch"], "Name two targets: `failover FIRST SECOND`"),
        (["failover", "torch", "tf", "--failover"], "The policy failover needs no --failover"),
        (["torch", "--hedge-budget", "0.1"], "--hedge-budget goes with --hedge"),
        (["torch", "--hedge", "soon"], "'soon' is no time"),
        (["canary", "torch"], "Name two targets: `canary FROM TO`"),
        (["canary", "torch", "tf", "--steps", "0.1;1"], "'0.1;1' are no shares"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_wrong_usage(arguments: list[str], says: str) -> None:
    result = tandem("set", "digits", *arguments)
    assert (result.exit_code, says in result.stderr) == (2, True)


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["onnx"], "Targets are torch and tf"), (["tf@9"], "It has: 1, 2."), (["weighted"], "weights")],
    ids=["no target", "no version", "no weights"],
)
def test_what_the_gateway_refuses_is_said_and_changes_nothing(arguments: list[str], says: str) -> None:
    result = tandem("set", "digits", *arguments)
    assert (result.exit_code, says in result.stderr) == (1, True)
    assert json.loads(tandem("show", "digits", "--json").stdout)["revision"] == 0


def test_a_target_that_is_gone_is_named(local: httpx.Client, tmp_path: Path) -> None:
    tandem("set", "digits", "tf@1")
    headers = {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
    local.delete("/v1/models/digits/versions/1", headers=headers).raise_for_status()
    assert "Not there any more: tf@1." in tandem("show", "digits").stderr


def test_another_gateway_wants_its_key(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(start_gateway().base_url)
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    refused = tandem("set", "digits", "tf", "--url", url)
    assert (refused.exit_code, "TANDEM_API_KEY" in refused.stderr) == (1, True)
    monkeypatch.setenv("TANDEM_API_KEY", (tmp_path / "admin.key").read_text().strip())
    assert tandem("set", "digits", "tf", "--url", url).exit_code == 0


def test_without_a_gateway_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(free_ports(1)[0]))
    for arguments in (["show", "digits"], ["set", "digits", "tf"]):
        assert tandem(*arguments).exit_code == 3
