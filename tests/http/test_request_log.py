"""What the request log says of each kind of request, over fakes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.admin_key import load_or_create_admin_key
from gateway.app import create_app
from gateway.errors import RuntimeFailed
from gateway.settings import Settings, ShadowSettings
from tests.conftest import Fakes, StartGateway
from tests.http.test_shadow import PICTURE, SHADOW, until
from tests.support.asking import count, set_policy
from tests.support.packages import write_store
from tests.support.rows import read, wait_for

PREDICT = "/v1/models/digits/predict"
COMPARE = "/v1/models/digits/compare"
STAGES = ("receive_s", "decode_s", "preprocess_s", "queue_s", "rpc_s", "postprocess_s")
Rows = list[dict[str, Any]]
Logged = Callable[[int], Rows]


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    """Waits until there are so many rows; gives them by side."""

    def logged(number: int) -> Rows:
        rows = wait_for(tmp_path / "tandem.db", lambda rows: len(rows) >= number)
        assert len(rows) == number
        return sorted(rows, key=lambda row: (row["time"], row["side"]))

    return logged


def some(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def reached(row: dict[str, Any]) -> list[str]:
    """The stages that it has; they add up to its total."""
    stages = [name for name in STAGES if row[name] is not None]
    assert all(row[name] >= 0 for name in stages)
    assert sum(row[name] for name in stages) == pytest.approx(row["total_s"])
    return stages


def test_a_request_is_one_row_with_everything_that_is_known_of_it(
    client: httpx.Client, fakes: Fakes, logged: Logged
) -> None:
    fakes["tf"].batch, fakes["tf"].queue_s, fakes["tf"].inference_s = 5, 0.001, 0.25
    before = time.time()
    files = [("image", PICTURE["image"])] * 3
    client.post(PREDICT, files=files, params={"version": 2, "runtime": "tf"}, headers={"x-request-id": "mine"})
    (row,) = logged(1)
    assert some(row, "request_id", "model", "version", "runtime", "role", "policy") == (
        "mine", "digits", 2, "tf", "primary", "named",
    )  # fmt: skip
    assert some(row, "pair", "side", "called", "outcome", "images", "batch", "cold") == (None, 0, 0, "ok", 3, 5, 1)
    assert some(row, "worker_queue_s", "worker_inference_s") == (0.001, 0.25)
    assert some(row, "compared", "agreeing", "score_difference") == (None, None, None)
    assert before <= row["time"] <= time.time()
    assert reached(row) == list(STAGES)


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (None, "fixed"),
        ({"policy": "weighted", "weights": {"torch": 1}}, "weighted"),
        ({**SHADOW, "sample_rate": 0}, "shadow"),
    ],
    ids=["none", "weighted", "unsampled shadow"],
)
def test_the_row_names_the_policy_that_chose(
    client: httpx.Client, tmp_path: Path, logged: Logged, policy: dict[str, object] | None, name: str
) -> None:
    if policy is not None:
        set_policy(client, tmp_path, "digits", policy)
    client.post(PREDICT, files=PICTURE)
    (row,) = logged(1)
    assert some(row, "policy", "runtime", "pair", "batch") == (name, "torch", None, None)


def test_a_shadowed_request_is_a_pair_whose_second_row_says_whether_they_agree(
    client: httpx.Client, fakes: Fakes, tmp_path: Path, logged: Logged
) -> None:
    set_policy(client, tmp_path, "digits", SHADOW)
    fakes["tf"].offset = 1
    client.post(PREDICT, files=[("image", PICTURE["image"])] * 2)
    primary, shadow = logged(2)
    assert some(primary, "role", "runtime", "side", "called", "policy") == ("primary", "torch", 0, 0, "shadow")
    assert some(shadow, "role", "runtime", "side", "called", "policy") == ("shadow", "tf", 1, 1, "shadow")
    assert primary["pair"] == shadow["pair"] is not None
    assert some(primary, "request_id", "time", *STAGES[:3]) == some(shadow, "request_id", "time", *STAGES[:3])
    assert some(primary, "compared", "agreeing", "score_difference") == (None, None, None)
    assert some(shadow, "compared", "agreeing") == (2, 0)
    assert shadow["score_difference"] == pytest.approx(0.9)
    assert reached(shadow) == list(STAGES)


def test_a_shadows_worker_says_its_part_in_the_shadows_row(
    client: httpx.Client, fakes: Fakes, tmp_path: Path, logged: Logged
) -> None:
    set_policy(client, tmp_path, "digits", SHADOW)
    fakes["tf"].inference_s = 0.25
    client.post(PREDICT, files=PICTURE)
    rows = [some(row, "role", "worker_queue_s", "worker_inference_s") for row in logged(2)]
    assert rows == [("primary", None, None), ("shadow", None, 0.25)]


def test_a_control_is_of_the_pair_in_its_primarys_place_and_in_either_order(
    client: httpx.Client, tmp_path: Path, logged: Logged
) -> None:
    set_policy(client, tmp_path, "digits", {**SHADOW, "control_rate": 1})
    for number in range(20):
        client.post(PREDICT, files=PICTURE)
        logged(3 * (number + 1))
    rows = logged(60)
    primaries = [row for row in rows if row["role"] == "primary"]
    assert {some(row, "runtime", "pair", "side") for row in primaries} == {("torch", None, 0)}
    controls, shadows = ([row for row in rows if row["role"] == "shadow" and row["side"] == side] for side in (0, 1))
    assert (len(controls), len(shadows), len({row["pair"] for row in shadows})) == (20, 20, 20)
    for control, shadow in zip(controls, shadows, strict=True):
        assert control["pair"] == shadow["pair"] is not None
        assert some(control, "runtime", "compared") == ("torch", None)
        assert some(shadow, "runtime", "compared", "agreeing") == ("tf", 1, 1)
        assert reached(control) == reached(shadow) == list(STAGES)
    assert {some(row, "called") for row in controls} == {(0,), (1,)}


def test_a_comparison_is_a_pair_in_either_order(client: httpx.Client, logged: Logged) -> None:
    for number in range(20):
        client.post(COMPARE, files=PICTURE, params={"mode": "sequential" if number % 2 else "parallel"})
    rows = logged(40)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    for first, second in pairs:
        assert first["pair"] == second["pair"] is not None
        assert some(first, "runtime", "side", "role", "policy") == ("torch", 0, "compare", "compare")
        assert some(second, "runtime", "side", "role", "policy") == ("tf", 1, "compare", "compare")
        assert {first["called"], second["called"]} == {0, 1}
        assert some(second, "compared", "agreeing", "score_difference") == (1, 1, 0.0)
        assert reached(first) == reached(second) == list(STAGES)
    assert len({first["pair"] for first, _ in pairs}) == 20
    assert {first["called"] for first, _ in pairs} == {0, 1}


@pytest.mark.parametrize("fails", ["torch", "tf"])
def test_of_a_comparison_of_which_one_failed_both_are_there_and_nothing_was_compared(
    client: httpx.Client, fakes: Fakes, logged: Logged, fails: Any
) -> None:
    fakes[fails].error = RuntimeFailed("It broke.")
    client.post(COMPARE, files=PICTURE)
    for row in logged(2):
        assert row["outcome"] == ("runtime_failed" if row["runtime"] == fails else "ok")
        assert some(row, "compared", "agreeing", "score_difference") == (None, None, None)
        assert reached(row) == list(STAGES[:5] if row["runtime"] == fails else STAGES)


@pytest.mark.parametrize("role", ["primary", "shadow"])
def test_a_request_that_is_not_answered_in_time_ends_in_the_stage_that_it_had_reached(
    start_gateway: StartGateway, fakes: Fakes, tmp_path: Path, logged: Logged, role: str
) -> None:
    client = start_gateway(shadow={"timeout_ms": 200})
    set_policy(client, tmp_path, "digits", SHADOW)
    hung = fakes["torch" if role == "primary" else "tf"]
    hung.hold = asyncio.Event()
    client.post(PREDICT, files=PICTURE, params={"timeout_ms": 200})
    row = next(row for row in logged(2) if row["role"] == role)
    assert row["outcome"] == "deadline_exceeded"
    assert reached(row) == list(STAGES[:5])
    assert row["rpc_s"] > 0.1


def test_a_runtime_that_has_no_room_is_a_row_where_it_was_to_be_compared_and_one_that_was_never_asked_is_none(
    start_gateway: StartGateway, fakes: Fakes, logged: Logged
) -> None:
    fakes["torch"].hold = asyncio.Event()
    client = start_gateway(torch={"max_inflight": 1, "max_queue": 0})
    client.post(PREDICT, files={"image": b"no picture"})
    client.post(COMPARE, files=PICTURE, params={"version": 9})
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(client.post, PREDICT, files=PICTURE)
        until(lambda: len(fakes["torch"].seen) == 1)
        assert client.post(PREDICT, files=PICTURE).json()["code"] == "overloaded"
        compared = client.post(COMPARE, files=PICTURE).json()["runtimes"]
        assert (compared["torch"]["error"]["code"], compared["tf"]["runtime"]) == ("overloaded", "tf")
        row, other = sorted(logged(2), key=lambda row: row["side"])
        fakes["torch"].hold.set()
        assert first.result().status_code == 200
    assert (row["outcome"], other["outcome"]) == ("overloaded", "ok")
    assert reached(row) == list(STAGES[:4])


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"max_inflight": 1, "max_queue": 0}, "queue_full"), ({"max_bytes": 32 * 32 * 3}, "memory_full")],
    ids=["by number", "by bytes"],
)
def test_a_dropped_shadow_is_a_row_of_its_pair(
    start_gateway: StartGateway, fakes: Fakes, tmp_path: Path, logged: Logged, limits: dict[str, int], reason: str
) -> None:
    fakes["tf"].hold = asyncio.Event()
    client = start_gateway(shadow={"timeout_ms": 60_000, **limits})
    set_policy(client, tmp_path, "digits", SHADOW)
    client.post(PREDICT, files=PICTURE)
    until(lambda: len(fakes["tf"].seen) == 1)
    client.post(PREDICT, files=PICTURE)
    until(lambda: count(client, f'tandem_shadow_dropped_total{{model="digits",reason="{reason}"}}') == 1)
    _, primary, shadow = logged(3)  # the first shadow is under way
    assert some(shadow, "outcome", "role", "side", "called") == ("dropped", "shadow", 1, 1)
    assert primary["pair"] == shadow["pair"]
    assert reached(shadow) == list(STAGES[:3])


@pytest.mark.anyio
async def test_shadows_that_are_given_up_when_the_gateway_stops_are_written_all_the_same(
    tmp_path: Path, fakes: Fakes
) -> None:
    fakes["tf"].hold, asked = asyncio.Event(), asyncio.Event()
    fakes["tf"].called = asked.set
    write_store(tmp_path / "store", 1, 2)
    app = create_app(Settings(var=tmp_path, warm_up_requests=0, shadow=ShadowSettings(max_inflight=1)), fakes)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            headers = {"authorization": f"Bearer {load_or_create_admin_key(tmp_path / 'admin.key')}"}
            await client.put("/v1/models/digits/routing", json=SHADOW, headers=headers)
            for _ in range(2):
                assert (await client.post(PREDICT, files=PICTURE)).status_code == 200
        await asyncio.wait_for(asked.wait(), 30)
    rows = read(tmp_path / "tandem.db")
    first, second = (row for row in rows if row["side"] == 0)
    under_way, waiting = (
        next(row for row in rows if row["side"] == 1 and row["pair"] == each["pair"]) for each in (first, second)
    )
    assert (under_way["outcome"], reached(under_way)) == ("cancelled", list(STAGES[:5]))
    assert (waiting["outcome"], reached(waiting)) == ("dropped", list(STAGES[:3]))


def test_a_target_is_cold_for_its_first_fifty_answers(client: httpx.Client, fakes: Fakes, logged: Logged) -> None:
    until(lambda: client.get("/readyz").json()["models"]["digits"]["torch"]["state"] == "ready")
    fakes["torch"].error = RuntimeFailed("It broke.")
    client.post(PREDICT, files=PICTURE)
    fakes["torch"].error = None
    for _ in range(53):
        client.post(PREDICT, files=PICTURE)
    assert [row["cold"] for row in logged(54)] == [1] * 51 + [0] * 3


def test_rows_that_were_written_are_counted(client: httpx.Client, logged: Logged) -> None:
    client.post(COMPARE, files=PICTURE)
    logged(2)
    until(lambda: count(client, "tandem_log_rows_total ") == 2)
    assert count(client, "tandem_log_rows_dropped_total") == 0
