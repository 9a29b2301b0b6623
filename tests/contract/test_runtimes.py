"""One contract for every runtime: both real ones, and the fake that stands in for them elsewhere."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.deadline import Deadline
from gateway.errors import Conflict, DeadlineExceeded, RuntimeFailed, RuntimeUnavailable
from gateway.images.preprocess import ImageTensor, preprocess
from gateway.runtimes.base import ModelRef, Output, Runtime
from gateway.runtimes.channel import open_channel, unary
from gateway.runtimes.tf import TfRuntime
from gateway.runtimes.torch import TorchRuntime
from gateway.settings import TfSettings, TorchSettings
from modelkit.spec import InputSpec
from proto import methods
from tests.fakes.runtimes import FakeRuntime
from tests.support.stack import HOST, ROOT, Stack, free_ports

pytestmark = pytest.mark.anyio

DIGITS = ModelRef("digits", 1)
REAL = ["torch", "tf"]


def soon() -> Deadline:
    return Deadline.after_ms(30_000)


def tensor(digit: int) -> ImageTensor:
    """What the gateway makes of a sample. Its first red value names no class: the fake answers by that alone."""
    image = Image.open(ROOT / "models" / "digits" / "samples" / f"{digit}.png").convert("RGB")
    return preprocess(image, InputSpec(height=32, width=32))


def open_runtime(name: str, stack: Stack) -> Runtime:
    environment = stack.environment
    if name == "torch":
        return TorchRuntime(
            TorchSettings(
                address=environment["TANDEM_TORCH__ADDRESS"],
                management_address=environment["TANDEM_TORCH__MANAGEMENT_ADDRESS"],
            )
        )
    return TfRuntime(TfSettings(address=environment["TANDEM_TF__ADDRESS"]), stack.var / "serving" / "tf")


@pytest.fixture(params=REAL)
async def real(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Runtime]:
    runtime = open_runtime(request.param, stack)
    yield runtime
    await runtime.close()


@pytest.fixture(params=[*REAL, "fake"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    if request.param == "fake":
        runtime: Runtime = FakeRuntime("torch")
    else:
        runtime = open_runtime(request.param, request.getfixturevalue("stack"))
    yield runtime
    await runtime.close()


async def test_the_answer_is_the_models_tensors_of_one_picture(runtime: Runtime) -> None:
    tensors = (await runtime.infer(DIGITS, tensor(7), deadline=soon())).tensors
    assert set(tensors) == {"scores"}
    assert tensors["scores"].dtype == np.float32
    assert tensors["scores"].shape == (1, 10)
    assert tensors["scores"].sum() == pytest.approx(1, abs=0.01)


async def test_torchserve_says_how_long_a_picture_waited_and_was_computed(stack: Stack) -> None:
    runtime = open_runtime("torch", stack)
    begin_s = time.perf_counter()
    answers = await asyncio.gather(*(runtime.infer(DIGITS, tensor(7), deadline=soon()) for _ in range(16)))
    took_s = time.perf_counter() - begin_s
    await runtime.close()
    for answer in answers:
        assert answer.queue_s is not None
        assert answer.inference_s is not None
        assert 0 < answer.inference_s < took_s
        assert 0 <= answer.queue_s <= took_s - answer.inference_s
    assert max(answer.queue_s or 0 for answer in answers) > 0


async def test_a_loaded_model_is_ready(runtime: Runtime) -> None:
    assert (await runtime.status(DIGITS, deadline=soon())).state == "ready"


async def test_a_passed_deadline_is_exceeded_without_an_answer(runtime: Runtime) -> None:
    if isinstance(runtime, FakeRuntime):
        runtime.hold = asyncio.Event()
    with pytest.raises(DeadlineExceeded):
        await runtime.infer(DIGITS, tensor(7), deadline=Deadline.after_ms(0))


async def test_a_cancelled_call_is_cancelled_and_the_next_one_answered(runtime: Runtime) -> None:
    calls = [asyncio.create_task(runtime.infer(DIGITS, tensor(7), deadline=soon())) for _ in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError | Output) for each in ended)
    assert "scores" in (await runtime.infer(DIGITS, tensor(7), deadline=soon())).tensors


async def test_calls_at_once_get_their_own_answers(real: Runtime) -> None:
    digits = [number % 10 for number in range(TorchSettings().max_inflight)]
    answers = await asyncio.gather(*(real.infer(DIGITS, tensor(digit), deadline=soon()) for digit in digits))
    assert [int(answer.tensors["scores"].argmax()) for answer in answers] == digits
    batches = {answer.batch for answer in answers}
    assert batches == {None} if real.name == "tf" else max(filter(None, batches)) > 1


async def test_torch_says_how_long_it_computed_and_tf_has_no_room_for_it(real: Runtime) -> None:
    start_s = time.perf_counter()
    answer = await real.infer(DIGITS, tensor(7), deadline=soon())
    elapsed_s = time.perf_counter() - start_s
    if real.name == "tf":
        assert (answer.queue_s, answer.inference_s) == (None, None)
    else:
        assert answer.inference_s is not None
        assert 0 < answer.inference_s < elapsed_s


@pytest.mark.parametrize("shape", [(1, 31, 32, 3), (1, 32, 32, 1)], ids=str)
async def test_a_malformed_item_fails_alone_not_with_its_batch(real: Runtime, shape: tuple[int, ...]) -> None:
    malformed = np.zeros(shape, dtype=np.uint8)
    calls = [real.infer(DIGITS, malformed if number == 3 else tensor(number), deadline=soon()) for number in range(8)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers.pop(3), RuntimeFailed)
    digits = [int(answer.tensors["scores"].argmax()) for answer in answers if isinstance(answer, Output)]
    assert digits == [0, 1, 2, 4, 5, 6, 7]


NOT_LOADED = {ModelRef("digits", 7): "absent", ModelRef("nothing", 1): "absent", ModelRef("broken", 1): "failed"}


@pytest.mark.parametrize(("model", "state"), NOT_LOADED.items(), ids=str)
async def test_a_model_that_is_not_loaded_is_unavailable(real: Runtime, model: ModelRef, state: str) -> None:
    with pytest.raises(RuntimeUnavailable):
        await real.infer(model, tensor(7), deadline=soon())
    status = await real.status(model, deadline=soon())
    assert status.state == state
    assert str(model) in (status.reason or "")


async def test_what_is_loaded_or_gone_already_may_be_loaded_or_unloaded_again(runtime: Runtime) -> None:
    await runtime.load(DIGITS, deadline=soon())
    assert (await runtime.status(DIGITS, deadline=soon())).state == "ready"
    await runtime.unload(ModelRef("digits", 7), deadline=soon())
    assert "scores" in (await runtime.infer(DIGITS, tensor(7), deadline=soon())).tensors


async def test_an_archive_that_torchserve_cannot_read_is_refused_and_leaves_nothing_behind(stack: Stack) -> None:
    """TorchServe itself would register it as version 1.0, and start its worker again and again."""
    runtime, damaged = open_runtime("torch", stack), ModelRef("digits", 9)
    archive = stack.var / "serving" / "torch" / "digits-9.mar"
    archive.write_bytes(b"not a zip file")
    with pytest.raises(RuntimeFailed, match="is damaged"):
        await runtime.load(damaged, deadline=soon())
    archive.unlink()
    assert (await runtime.status(damaged, deadline=soon())).state == "absent"
    assert (await runtime.status(DIGITS, deadline=soon())).state == "ready"
    management = open_channel(stack.environment["TANDEM_TORCH__MANAGEMENT_ADDRESS"])
    request = methods.DESCRIBE_MODEL.request(model_name="digits", model_version="all")
    described = await unary(methods.DESCRIBE_MODEL, management)(request, 10)
    assert [each["modelVersion"] for each in json.loads(described.msg)] == ["1"]
    await management.close(grace=None)
    await runtime.close()


async def test_torchserve_is_scaled_up_and_down_while_it_serves(stack: Stack) -> None:
    runtime = open_runtime("torch", stack)
    management = open_channel(stack.environment["TANDEM_TORCH__MANAGEMENT_ADDRESS"])

    async def workers() -> list[str]:
        request = methods.DESCRIBE_MODEL.request(model_name="digits", model_version="1")
        described = await unary(methods.DESCRIBE_MODEL, management)(request, 10)
        return [worker["status"] for worker in json.loads(described.msg)[0]["workers"]]

    async def ask(until: asyncio.Event) -> int:
        answered = 0
        while not until.is_set():
            answer = await runtime.infer(DIGITS, tensor(answered % 10), deadline=soon())
            assert int(answer.tensors["scores"].argmax()) == answered % 10
            answered += 1
        return answered

    scaled = asyncio.Event()
    users = [asyncio.create_task(ask(scaled)) for _ in range(4)]
    await runtime.scale(DIGITS, 2, deadline=Deadline.after_ms(120_000))
    assert await workers() == ["READY"] * 2
    scaled.set()
    assert min(await asyncio.gather(*users)) > 0
    await runtime.scale(DIGITS, 1, deadline=Deadline.after_ms(120_000))
    assert await workers() == ["READY"]
    assert (await runtime.status(DIGITS, deadline=soon())).state == "ready"
    assert "scores" in (await runtime.infer(DIGITS, tensor(7), deadline=soon())).tensors
    await management.close(grace=None)
    await runtime.close()


@pytest.mark.parametrize(
    ("name", "model", "error"),
    [
        pytest.param("torch", ModelRef("nothing", 1), RuntimeUnavailable, id="not there"),
        pytest.param("tf", DIGITS, Conflict, id="not by this runtime"),
    ],
)
async def test_what_cannot_be_scaled_is_refused(
    stack: Stack, name: str, model: ModelRef, error: type[Exception]
) -> None:
    runtime = open_runtime(name, stack)
    with pytest.raises(error, match=str(model)):
        await runtime.scale(model, 2, deadline=soon())
    await runtime.close()


@pytest.mark.parametrize("model", [ModelRef("digits", 7), ModelRef("nothing", 1)], ids=str)
async def test_what_is_not_in_the_view_cannot_be_loaded_and_stays_absent(real: Runtime, model: ModelRef) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"not in T.*'s view"):
        await real.load(model, deadline=soon())
    assert (await real.status(model, deadline=soon())).state == "absent"


@pytest.mark.parametrize("name", REAL)
async def test_a_worker_that_cannot_be_reached_is_unavailable(name: str) -> None:
    nowhere = [f"{HOST}:{port}" for port in free_ports(2)]
    runtime: Runtime = (
        TorchRuntime(TorchSettings(address=nowhere[0], management_address=nowhere[1]))
        if name == "torch"
        else TfRuntime(TfSettings(address=nowhere[0]), Path("nowhere"))
    )
    with pytest.raises(RuntimeUnavailable) as refusal:
        await runtime.infer(DIGITS, tensor(7), deadline=soon())
    assert HOST not in str(refusal.value)  # an address is for the log, not for clients
    assert (await runtime.status(DIGITS, deadline=soon())).state == "unavailable"
    await runtime.close()
