"""Shadows: measured, and without any effect on the request that they are a copy of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gateway.admin_key import load_or_create_admin_key
from gateway.app import create_app
from gateway.errors import RuntimeFailed, RuntimeUnavailable
from gateway.settings import Settings, ShadowSettings
from modelkit.spec import RuntimeName
from tests.conftest import Fakes, StartGateway
from tests.support.asking import count, set_policy
from tests.support.packages import write_store
from tests.support.pictures import encode, plain

MODEL = "/v1/models/digits"
SHADOW: dict[str, object] = {"policy": "shadow", "primary": "torch", "shadow": "tf", "control_rate": 0}
PICTURE = {"image": encode(plain(7))}
_PATIENCE_S = 30.0

StartShadowing = Callable[..., httpx.Client]


@pytest.fixture
def start(start_gateway: StartGateway, tmp_path: Path) -> StartShadowing:
    """A gateway whose `digits` is shadowed, by default torch by tf."""

    def start(policy: dict[str, object] = SHADOW, **settings: object) -> httpx.Client:
        client = start_gateway(**settings)
        set_policy(client, tmp_path, "digits", policy)
        return client

    return start


@pytest.fixture
def hang(fakes: Fakes) -> None:
    """tf answers nobody."""
    fakes["tf"].hold = asyncio.Event()


def ask(client: httpx.Client, **params: object) -> httpx.Response:
    return client.post(f"{MODEL}/predict", files=PICTURE, params=params)  # type: ignore[arg-type]


def shadows(client: httpx.Client, outcome: str = "ok", runtime: str = "tf", version: int = 2) -> float:
    labels = f'model="digits",outcome="{outcome}",role="shadow",runtime="{runtime}",version="{version}"'
    return count(client, f"tandem_requests_total{{{labels}}}")


def dropped(client: httpx.Client, reason: str) -> float:
    return count(client, f'tandem_shadow_dropped_total{{model="digits",reason="{reason}"}}')


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s


def without_times(answer: httpx.Response) -> dict[str, object]:
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name not in ("request_id", "timing_ms")}


def test_a_shadow_is_measured_in_its_own_role_and_the_pair_compared(start: StartShadowing, fakes: Fakes) -> None:
    client = start()
    assert without_times(ask(client))["runtime"] == "torch"
    until(lambda: count(client, "tandem_agreement_total") == 1)
    assert shadows(client) == 1
    labels = 'model="digits",role="shadow",runtime="tf"'
    assert count(client, f"tandem_request_seconds_count{{{labels}") == 1
    for stage in ("queue", "rpc", "postprocess"):
        assert count(client, f'tandem_stage_seconds_count{{{labels},stage="{stage}"') == 1
    assert count(client, 'tandem_images_total{model="digits",runtime="tf"') == 1
    assert count(client, 'tandem_agreement_total{model="digits",outcome="agree"}') == 1
    assert count(client, "tandem_score_difference_count") == 1
    assert count(client, "tandem_inflight") == 0
    assert fakes["tf"].seen == fakes["torch"].seen


def test_a_pair_that_disagrees_is_counted_and_its_primary_answered(start: StartShadowing, fakes: Fakes) -> None:
    fakes["tf"].offset = 1
    client = start()
    assert ask(client).json()["results"][0]["predictions"][0]["label"] == "7"
    until(lambda: count(client, 'tandem_agreement_total{model="digits",outcome="disagree"}') == 1)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeFailed("It broke."), "runtime_failed"),
        (RuntimeUnavailable("It is away."), "runtime_unavailable"),
        (RuntimeError("A fault of ours."), "internal_error"),
    ],
    ids=["fails", "away", "raises"],
)
def test_a_shadow_that_fails_changes_nothing_for_the_primary(
    start: StartShadowing, fakes: Fakes, error: Exception, outcome: str
) -> None:
    client = start()
    healthy = without_times(ask(client))
    until(lambda: shadows(client) == 1)
    fakes["tf"].error = error
    assert without_times(ask(client)) == healthy
    until(lambda: shadows(client, outcome) == 1)
    assert count(client, "tandem_agreement_total") == 1
    fakes["tf"].error = None
    assert without_times(ask(client)) == healthy
    until(lambda: count(client, "tandem_agreement_total") == 2)


@pytest.mark.usefixtures("hang")
def test_a_shadow_that_hangs_is_not_waited_for_and_ends_at_its_own_deadline(start: StartShadowing) -> None:
    client = start(shadow={"timeout_ms": 300})
    answer = ask(client, timeout_ms=30_000)
    assert without_times(answer)["runtime"] == "torch"
    assert shadows(client, "deadline_exceeded") == 0  # the primary was answered, the shadow still hangs
    until(lambda: shadows(client, "deadline_exceeded") == 1)
    assert count(client, "tandem_agreement_total") == 0


def test_a_slow_shadow_is_compared_after_its_primary_was_answered(start: StartShadowing, fakes: Fakes) -> None:
    fakes["tf"].hold = asyncio.Event()
    client = start()
    ask(client)
    assert count(client, "tandem_agreement_total") == 0
    fakes["tf"].hold.set()
    until(lambda: count(client, "tandem_agreement_total") == 1)


def test_a_shadow_outlives_its_primarys_deadline_and_failure(start: StartShadowing, fakes: Fakes) -> None:
    client = start()
    fakes["torch"].error = RuntimeFailed("It broke.")
    assert ask(client).json()["code"] == "runtime_failed"
    until(lambda: shadows(client) == 1)
    fakes["torch"].error, fakes["torch"].hold = None, asyncio.Event()
    assert ask(client, timeout_ms=20).json()["code"] == "deadline_exceeded"
    until(lambda: shadows(client) == 2)
    assert count(client, "tandem_agreement_total") == 0


@pytest.mark.usefixtures("hang")
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_inflight": 2, "max_queue": 3}, "queue_full"),
        ({"max_bytes": 5 * 32 * 32 * 3}, "memory_full"),
    ],
    ids=["by number", "by bytes"],
)
def test_behind_a_shadow_that_hangs_only_so_many_are_kept_and_the_rest_dropped_and_counted(
    start: StartShadowing, fakes: Fakes, limits: dict[str, int], reason: str
) -> None:
    client = start(shadow={"timeout_ms": 60_000, **limits})
    for _ in range(30):
        assert ask(client).status_code == 200
    until(lambda: dropped(client, reason) == 25)
    assert len(fakes["tf"].seen) <= 5
    assert count(client, 'tandem_requests_total{model="digits",outcome="ok",role="primary"') == 30


@pytest.mark.usefixtures("hang")
def test_a_shadow_that_waited_too_long_for_its_place_is_dropped_and_says_nothing_of_the_runtime(
    start: StartShadowing,
) -> None:
    client = start(shadow={"max_inflight": 1, "timeout_ms": 1000})
    ask(client)
    # Begun at the same moment, the second one's patience would end when the first one's does: either could come first.
    began_s = time.monotonic()
    until(lambda: time.monotonic() - began_s > 0.4)
    for _ in range(2):
        ask(client)
    # The first one hangs until its deadline and gives its place to the second; the third has waited long enough then.
    until(lambda: shadows(client, "deadline_exceeded") == 2)
    assert dropped(client, "expired") == 1


@pytest.mark.usefixtures("hang")
def test_shadows_take_no_places_of_requests_for_the_same_runtime(start: StartShadowing, fakes: Fakes) -> None:
    client = start(tf={"max_inflight": 1, "max_queue": 0})
    for _ in range(3):
        ask(client)
    until(lambda: len(fakes["tf"].seen) == 3)
    assert count(client, 'tandem_inflight{runtime="tf"}') == 0
    assert ask(client, runtime="tf", timeout_ms=50).json()["code"] == "deadline_exceeded"  # not: overloaded


def test_a_control_asks_the_primarys_target_again_in_either_order(start: StartShadowing, fakes: Fakes) -> None:
    asked: list[object] = []
    for name, fake in fakes.items():
        fake.called = lambda name=name: asked.append(name)
    client = start({**SHADOW, "control_rate": 1})
    orders = set()
    for number in range(20):
        ask(client)
        until(lambda number=number: len(asked) == 3 * (number + 1))  # type: ignore[misc]
        assert asked[-3] == "torch"
        orders.add(tuple(asked[-2:]))
    until(lambda: shadows(client) == shadows(client, runtime="torch") == 20)
    assert orders == {("torch", "tf"), ("tf", "torch")}
    assert count(client, 'tandem_agreement_total{model="digits",outcome="agree"}') == 20


@pytest.mark.parametrize(("failing", "other"), [("torch", "tf"), ("tf", "torch")])
def test_of_a_shadow_and_its_control_one_failing_does_not_keep_the_other_from_being_asked(
    start: StartShadowing, fakes: Fakes, failing: RuntimeName, other: str
) -> None:
    client = start({**SHADOW, "control_rate": 1})
    fakes[failing].error = RuntimeFailed("It broke.")
    for _ in range(10):
        ask(client)
    until(lambda: shadows(client, runtime=other) == 10)
    until(lambda: shadows(client, "runtime_failed", runtime=failing) == 10)


def test_a_target_can_be_shadowed_by_itself(start: StartShadowing) -> None:
    client = start({**SHADOW, "primary": "tf", "shadow": "tf"})
    assert ask(client).json()["runtime"] == "tf"
    until(lambda: count(client, 'tandem_agreement_total{model="digits",outcome="agree"}') == 1)
    assert shadows(client) == 1


def test_two_versions_on_one_runtime_can_be_compared(start: StartShadowing) -> None:
    client = start({**SHADOW, "primary": "torch@2", "shadow": "torch@1"})
    assert ask(client).json()["version"] == "2"
    until(lambda: count(client, "tandem_agreement_total") == 1)
    assert shadows(client, runtime="torch", version=1) == 1


def test_no_request_that_names_its_runtime_and_none_of_a_rate_of_0_is_shadowed(
    start: StartShadowing, fakes: Fakes, tmp_path: Path
) -> None:
    client = start({**SHADOW, "sample_rate": 0})
    ask(client)
    set_policy(client, tmp_path, "digits", SHADOW)
    ask(client, runtime="torch")
    ask(client)
    until(lambda: shadows(client) == 1)
    assert (len(fakes["tf"].seen), len(fakes["torch"].seen)) == (1, 3)


@pytest.mark.parametrize("model", ["shapes", "outlines"])
def test_boxes_and_masks_are_compared_too(start: StartShadowing, tmp_path: Path, model: str) -> None:
    client = start()
    set_policy(client, tmp_path, model, SHADOW)
    drawn = client.post(f"/v1/models/{model}/predict", files=PICTURE, headers={"accept": "image/png"})
    assert drawn.headers["content-type"] == "image/png"
    until(lambda: count(client, f'tandem_agreement_total{{model="{model}",outcome="agree"}}') == 1)


@pytest.mark.anyio
@pytest.mark.usefixtures("hang")
async def test_a_gateway_that_stops_gives_its_shadows_up(tmp_path: Path, fakes: Fakes) -> None:
    write_store(tmp_path / "store", 1, 2)
    started = asyncio.Event()
    fakes["tf"].called = started.set
    app = create_app(Settings(var=tmp_path, warm_up_requests=0, shadow=ShadowSettings(timeout_ms=60_000)), fakes)
    async with asyncio.timeout(_PATIENCE_S), app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            headers = {"authorization": f"Bearer {load_or_create_admin_key(tmp_path / 'admin.key')}"}
            assert (await client.put(f"{MODEL}/routing", json=SHADOW, headers=headers)).status_code == 200
            assert (await client.post(f"{MODEL}/predict", files=PICTURE)).json()["runtime"] == "torch"
        await started.wait()
    assert fakes["tf"].running == 0
