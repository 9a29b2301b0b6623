"""The main job, end to end: real TorchServe, the real embedded TensorFlow server, the real gateway."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from loadtests.closed_loop import HttpCaller, closed_loop
from tandem.cli import app as cli
from tests.support.pictures import encode
from tests.support.stack import HOST, ROOT, Stack

SAMPLES = ROOT / "models" / "digits" / "samples"
PREDICT = "/v1/models/digits/predict"
COMPARE = "/v1/models/digits/compare"
RUNTIMES = ["torch", "tf"]

pytestmark = pytest.mark.anyio


def upload(digit: int) -> dict[str, bytes]:
    return {"image": (SAMPLES / f"{digit}.png").read_bytes()}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir()))
def test_each_sample_is_read_right_and_its_stages_add_up(client: httpx.Client, runtime: str, sample: str) -> None:
    answer = client.post(PREDICT, files={"image": (SAMPLES / sample).read_bytes()}, params={"runtime": runtime}).json()
    assert (answer["runtime"], answer["version"]) == (runtime, "1")
    assert answer["results"][0]["predictions"][0]["label"] == sample[0]
    timing = answer["timing_ms"]
    assert sum(timing.values()) - timing["total"] == pytest.approx(timing["total"], rel=0.05)


def test_compare_shows_both_runtimes_and_that_they_agree(client: httpx.Client) -> None:
    answer = client.post(COMPARE, files=upload(7)).json()
    for runtime in RUNTIMES:
        assert answer["runtimes"][runtime]["results"][0]["predictions"][0]["label"] == "7"
    assert answer["agreement"]["agree"] is True
    assert answer["agreement"]["max_score_difference"] < 1e-4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_pictures_of_one_request_come_back_in_order(client: httpx.Client, runtime: str) -> None:
    digits = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    files = [("image", upload(digit)["image"]) for digit in digits]
    results = client.post(PREDICT, files=files, params={"runtime": runtime}).json()["results"]
    assert [int(result["predictions"][0]["label"]) for result in results] == digits


async def test_400_mixed_uploads_at_32_at_once_are_all_right_and_none_is_crossed(stack: Stack) -> None:
    """Each picture has a size of its own, which the answer repeats: an answer to another upload would show."""
    forms = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]
    places = asyncio.Semaphore(32)
    sources = {digit: Image.open(SAMPLES / f"{digit}.png").convert("RGB") for digit in range(10)}

    async def ask(client: httpx.AsyncClient, number: int) -> tuple[int, str, int]:
        digit, form = number % 10, forms[number % len(forms)]
        picture = encode(sources[digit].resize((100 + number, 120 + number)), form)
        runtime = RUNTIMES[number // 10 % 2]
        async with places:
            answer = await client.post(PREDICT, files={"image": picture}, params={"runtime": runtime})
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        assert answer.json()["runtime"] == runtime
        return result["image"]["width"] - 100, result["predictions"][0]["label"], result["image"]["height"] - 120

    async with httpx.AsyncClient(base_url=stack.url, timeout=60, limits=httpx.Limits(max_connections=32)) as client:
        answers = await asyncio.gather(*(ask(client, number) for number in range(400)))
    assert answers == [(number, str(number % 10), number) for number in range(400)]


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_more_pictures_at_once_than_the_worker_queues_wait_in_the_gateway(stack: Stack, runtime: str) -> None:
    files = [("image", upload(number % 10)["image"]) for number in range(16)]
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        asked = (client.post(PREDICT, files=files, params={"runtime": runtime}) for _ in range(18))
        answers = await asyncio.gather(*asked)
    for answer in answers:
        assert answer.status_code == 200, answer.text
        labels = [result["predictions"][0]["label"] for result in answer.json()["results"]]
        assert labels == [str(number % 10) for number in range(16)]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_deadline_that_is_too_short_is_exceeded_on_the_real_worker(client: httpx.Client, runtime: str) -> None:
    answer = client.post(PREDICT, files=upload(1), params={"runtime": runtime, "timeout_ms": 1})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_that_cannot_be_loaded_says_why_and_the_gateway_serves_the_others(
    stack: Stack, client: httpx.Client, runtime: str
) -> None:
    stack.wait_until(lambda: stack.states()["broken", runtime] == "failed")
    reason = client.get("/readyz").json()["models"]["broken"][runtime]["reason"]
    assert "could not load broken version 1: " in reason
    (state,) = client.get("/v1/models/broken").json()["runtimes"][runtime]
    assert state == {"version": "1", "state": "failed", "reason": reason}
    answer = client.post("/v1/models/broken/predict", files=upload(1), params={"runtime": runtime})
    assert (answer.status_code, answer.json()["code"]) == (503, "runtime_unavailable")
    assert "retry-after" in answer.headers
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_worker_that_dies_is_started_again_while_the_other_answers(
    stack: Stack, client: httpx.Client, runtime: str
) -> None:
    other = "tf" if runtime == "torch" else "torch"
    printed = len(stack.output.read_text())
    os.kill(stack.pid(runtime), signal.SIGKILL)
    stack.wait_until(lambda: stack.states()["digits", runtime] != "ready")
    answer = client.post(PREDICT, files=upload(1), params={"runtime": runtime})
    assert (answer.status_code, answer.json()["code"]) == (503, "runtime_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert client.post(PREDICT, files=upload(1), params={"runtime": other}).status_code == 200
    entries = client.post(COMPARE, files=upload(1)).json()["runtimes"]
    assert (entries[runtime]["error"]["code"], entries[other]["results"][0]["predictions"][0]["label"]) == (
        "runtime_unavailable",
        "1",
    )
    stack.wait_until_ready()
    assert client.post(PREDICT, files=upload(1), params={"runtime": runtime}).status_code == 200
    line = next(line for line in stack.output.read_text()[printed:].splitlines() if "SIGKILL" in line)
    assert runtime in line
    assert "starts again in" in line


def test_the_admin_key_of_the_stack_is_its_owners_alone_and_opens_the_settings(
    stack: Stack, client: httpx.Client
) -> None:
    key_file = stack.var / "admin.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert client.get("/v1/settings").status_code == 401
    headers = {"authorization": f"Bearer {key_file.read_text().strip()}"}
    assert (
        client.get("/v1/settings", headers=headers).json()["tf"]["address"] == stack.environment["TANDEM_TF__ADDRESS"]
    )


async def test_the_gateway_stays_small_over_5000_requests_and_holds_neither_framework(stack: Stack) -> None:
    callers = [
        HttpCaller(
            HOST, int(stack.environment["TANDEM_HTTP__PORT"]), f"{PREDICT}?runtime={runtime}", SAMPLES / "7.png", "7"
        )
        for runtime in RUNTIMES * 8
    ]
    answered = 0
    while answered < 5000:
        answered += (await closed_loop(callers, 2.0)).images
    for caller in callers:
        await caller.close()
    pid = stack.pid("gateway")
    assert psutil.Process(pid).memory_info().rss < 200_000_000
    loaded = {Path(each.path).name for each in psutil.Process(pid).memory_maps()}
    assert not [name for name in loaded if "torch" in name or "tensorflow" in name]


@pytest.mark.parametrize("package", ["torch", "tensorflow"])
def test_the_gateways_environment_has_neither_framework(package: str) -> None:
    assert importlib.util.find_spec(package) is None


def test_the_command_line_asks_the_stack_and_the_doctor_says_what_is_wrong_with_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    predicted = CliRunner().invoke(cli, ["predict", "--model", "digits", "--json", str(SAMPLES / "7.png")])
    assert json.loads(predicted.stdout)["results"][0]["predictions"][0]["label"] == "7"
    compared = CliRunner().invoke(cli, ["compare", "--model", "digits", str(SAMPLES / "7.png")])
    assert (compared.exit_code, "agree" in compared.stdout) == (0, True)

    examined = CliRunner().invoke(cli, ["doctor", "--json"])
    assert examined.exit_code == 1
    found = {finding["what"]: finding for finding in map(json.loads, examined.stdout.splitlines())}
    assert found["gateway"]["ok"]
    assert found["digits on torch"]["said"] == "ready"
    assert "could not load broken version 1" in found["broken on tf"]["said"]


def test_uploads_from_curl_and_a_picture_turned_by_its_camera_work(client: httpx.Client) -> None:
    turned = Image.open(SAMPLES / "7.png").rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = encode(turned.convert("RGB"), "JPEG", exif=exif.tobytes(), quality=95)
    assert Image.open(io.BytesIO(picture)).getexif()[0x0112] == 6
    answer = client.post(PREDICT, content=picture, headers={"content-type": "image/jpeg"}).json()
    assert answer["results"][0]["predictions"][0]["label"] == "7"
