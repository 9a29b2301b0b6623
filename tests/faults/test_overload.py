"""The short form of the overload: three times what a gateway over the fakes can answer, and how it is judged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtests.open_loop import UNANSWERED, OpenLoop, Sent
from loadtests.prove_overload import Overload
from tests.support.gateway import running_gateway
from tests.support.stack import HOST, ROOT

PLACES, LATENCY_MS = 2, 50
CAPACITY = PLACES * 1000 / LATENCY_MS
TARGET = "/v1/models/digits/predict?runtime=torch&timeout_ms=1000"


def test_of_three_times_too_many_requests_many_are_answered_the_rest_refused_and_none_left_behind(
    tmp_path: Path,
) -> None:
    settings = {"TANDEM_TORCH__MAX_INFLIGHT": str(PLACES), "TANDEM_TORCH__MAX_QUEUE": "1000"}
    with running_gateway(tmp_path, f"--latency-ms={LATENCY_MS}", **settings) as gateway:
        port = gateway.client.base_url.port
        assert port is not None

        async def overload() -> Sequence[Sent]:
            load = OpenLoop(HOST, port, TARGET, ROOT / "models/digits/samples/7.png")
            sent = await load.run(3 * CAPACITY, 5.0, patience_s=30)
            load.close()
            return sent

        sent = asyncio.run(overload())
        counts = Counter(each.status for each in sent)
        assert len(sent) == 3 * CAPACITY * 5
        assert set(counts) <= {200, 429, 504}, counts
        assert counts[200] >= CAPACITY, counts  # of five times as many: the machine may be busy
        assert counts[429] > counts[504], counts
        assert all(each.retry_after_s is not None for each in sent if each.status == 429)
        for gauge in ("tandem_inflight{", "tandem_queue_depth{", "tandem_decoding ", "tandem_inflight_bytes "):
            assert gateway.count(gauge) == 0


def sent(status: int = 200, seconds: float = 0.1, at_s: float = 0.0) -> Sent:
    return Sent(at_s, status, seconds, 1 if status == 429 else None, late_s=0.0)


def verdicts(during: Sequence[Sent], after: Sequence[Sent] = (), growth: int = 0) -> dict[str, bool]:
    """Of an overload of one second, at a peak of 100 a second and with a deadline of one second."""
    came = Overload(100, 1.0, 1.0, [sent()] * 50, during, after or [sent()] * 50, [1_000, 1_000 + growth, 1_000])
    return {each.what: each.passed for each in came.verdicts()}


GOOD = [sent()] * 95 + [sent(429, 0.01)] * 205


def test_an_overload_that_is_kept_off_is_no_failure() -> None:
    assert set(verdicts(GOOD).values()) == {True}


@pytest.mark.parametrize(
    ("what", "during"),
    [
        pytest.param("goodput", [sent()] * 85 + [sent(429, 0.01)] * 215, id="too few answers"),
        pytest.param("accepted", [sent()] * 93 + [sent(504)] * 2 + [sent(429, 0.01)] * 205, id="accepted in vain"),
        pytest.param("accepted", [sent()] * 93 + [sent(200, 1.1)] * 2 + [sent(429, 0.01)] * 205, id="too late"),
        pytest.param("refused", [sent()] * 95 + [sent(429, 0.06)] * 205, id="slow refusals"),
        pytest.param("answers", [*GOOD, sent(UNANSWERED)], id="no answer"),
    ],
)
def test_each_target_that_is_missed_is_named(what: str, during: Sequence[Sent]) -> None:
    assert verdicts(during)[what] is False


def test_memory_that_grew_in_between_is_seen() -> None:
    assert verdicts(GOOD, growth=50_000_001)["memory"] is False


@pytest.mark.parametrize(
    ("bad_at_s", "passes"), [pytest.param(4.0, True, id="soon"), pytest.param(6.0, False, id="not within 5 s")]
)
def test_it_is_normal_again_after_the_last_request_that_was_refused_or_slow(bad_at_s: float, passes: bool) -> None:
    after = [sent(at_s=10.0 + n / 10) for n in range(80)] + [sent(429, 0.01, at_s=10.0 + bad_at_s)]
    assert verdicts(GOOD, after)["normal again"] is passes
