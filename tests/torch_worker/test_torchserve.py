"""Against the real TorchServe, over its HTTP ports. What it says over gRPC is in tests/ of the gateway."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import Any, NamedTuple

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import load

from tests.torch_worker.sample import BAD_FOR_THE_MODEL, GOOD, MakePackage, endless
from torch_worker.archive import build_archive

TIMEOUT_S = 60.0


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def metadata(self) -> dict[str, str]:
        return dict(json.loads(self.body[8 : 8 + int.from_bytes(self.body[:8], "little")])["__metadata__"])


class TorchServe:
    """One that was started by the launcher; `log` grows while it runs."""

    def __init__(self, process: subprocess.Popen[str], ports: dict[str, int], work: Path) -> None:
        self.process = process
        self.ports = ports
        self.work = work
        self.log: list[str] = []
        self._grown = Condition()
        for line in self._lines():
            if line == "Model server started.\n":
                break
        else:
            pytest.fail("TorchServe did not start:\n" + "".join(self.log))
        Thread(target=lambda: list(self._lines()), daemon=True).start()

    def _lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.log.append(line)
                self._grown.notify_all()
            yield line

    def await_line(self, text: str, start: int) -> None:
        """Wait for a line with `text` in it, at or after line `start` of the log."""
        with self._grown:
            assert self._grown.wait_for(lambda: any(text in line for line in self.log[start:]), TIMEOUT_S), text

    def get(self, port: str, path: str, body: bytes | None = None, content_type: str = "") -> Answer:
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        request = urllib.request.Request(url, body, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                return Answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read())

    def predict(self, image: bytes, model: str = "mean", version: str = "1", part: str = "image") -> Answer:
        head = f'--x\r\nContent-Disposition: form-data; name="{part}"; filename="i"\r\n'
        head += "Content-Type: application/octet-stream\r\n"
        body = head.encode() + b"\r\n" + image + b"\r\n--x--\r\n"
        return self.get("http", f"/predictions/{model}/{version}", body, "multipart/form-data; boundary=x")

    def describe(self, model: str = "mean") -> dict[str, Any]:
        """Asks the model's worker, and so returns when that has loaded the model."""
        [description] = json.loads(self.get("http_management", f"/models/{model}/1?customized=true").body)
        return dict(description)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def free_ports(names: list[str]) -> dict[str, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return {name: taken.getsockname()[1] for name, taken in zip(names, sockets, strict=True)}


@contextmanager
def running(serving: Path) -> Iterator[TorchServe]:
    ports = free_ports(["grpc", "grpc_management", "http", "http_management", "metrics"])
    options = [part for name, port in ports.items() for part in (f"--{name.replace('_', '-')}-port", str(port))]
    # Not pytest's folder: its path may be too long for the workers' sockets.
    with tempfile.TemporaryDirectory(prefix="ts-") as work:
        command = [sys.executable, "-m", "torch_worker", "--serving", str(serving), "--work-dir", work, *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            children: list[psutil.Process] = []
            try:
                torchserve = TorchServe(process, ports, Path(work))
                children = torchserve.workers()
                yield torchserve
            finally:
                process.kill()
                psutil.wait_procs(children, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def serving(make_package: MakePackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good model, one that can't be loaded, one file that is no archive."""
    serving = tmp_path_factory.mktemp("serving")
    build_archive(make_package(), serving)
    build_archive(make_package(b"not a module", name="broken"), serving)
    (serving / "corrupt-1.mar").write_bytes(b"nothing")
    return serving


@pytest.fixture(scope="module")
def torchserve(serving: Path) -> Iterator[TorchServe]:
    with running(serving) as torchserve:
        yield torchserve


def test_a_picture_is_answered_with_safetensors(torchserve: TorchServe) -> None:
    answer = torchserve.predict(bytes([5]) * 192)
    assert answer.status == 200
    assert load(answer.body)["scores"].tolist() == [[5.0] * 8]


def test_malformed_and_failing_pictures_fail_alone_among_many(torchserve: TorchServe) -> None:
    images = [bytes([1]) * 192, b"short", BAD_FOR_THE_MODEL] * 8
    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(torchserve.predict, images))
    assert {answer.status for answer in answers} == {200}
    assert [answer.metadata.get("code") for answer in answers] == [None, "invalid_input", "inference_failed"] * 8


def test_a_model_that_cannot_be_loaded_says_why_and_the_others_serve(torchserve: TorchServe) -> None:
    described = torchserve.describe("broken")
    assert described["customizedMetadata"]["state"] == "failed"
    assert described["customizedMetadata"]["reason"].startswith("RuntimeError")
    assert torchserve.predict(GOOD, "broken").metadata["code"] == "model_not_loaded"
    assert torchserve.describe("mean")["customizedMetadata"]["state"] == "ready"


def test_a_file_that_is_no_archive_is_skipped_in_the_log(torchserve: TorchServe) -> None:
    assert any(line.startswith("torch_worker: skipped corrupt-1.mar: ") for line in torchserve.log)


@pytest.mark.parametrize(("model", "version"), [("unknown", "1"), ("mean", "9")], ids=["model", "version"])
def test_an_unknown_model_or_version_is_not_found(torchserve: TorchServe, model: str, version: str) -> None:
    assert torchserve.predict(GOOD, model, version).status == 404


def test_ordinary_requests_leave_no_line_in_the_log(torchserve: TorchServe) -> None:
    before = len(torchserve.log)
    for _ in range(200):
        torchserve.predict(GOOD)
    torchserve.predict(BAD_FOR_THE_MODEL)  # its traceback marks that everything before it has arrived
    torchserve.await_line("RuntimeError: too bright", before)
    assert len(torchserve.log) - before < 100


def test_all_files_stay_in_the_work_folder(torchserve: TorchServe) -> None:
    assert {path.name for path in torchserve.work.iterdir()} == {"config.properties", "tmp"}


def samples(torchserve: TorchServe) -> dict[tuple[Any, ...], float]:
    """The page on the metrics port, as Prometheus reads it: values by name and labels, but the host's."""
    return {
        (sample.name, *sorted(pair for pair in sample.labels.items() if pair[0].lower() != "hostname")): sample.value
        for family in text_string_to_metric_families(torchserve.get("metrics", "/metrics").body.decode())
        for sample in family.samples
    }


def test_the_page_for_prometheus_counts_requests_batches_pictures_and_failures(make_package: MakePackage) -> None:
    with tempfile.TemporaryDirectory() as serving:
        build_archive(make_package(), Path(serving))
        with running(Path(serving)) as torchserve:
            torchserve.describe()  # it is loaded
            images = [GOOD] * 30 + [b"short"] * 3 + [BAD_FOR_THE_MODEL]
            with ThreadPoolExecutor(len(images)) as pool:
                list(pool.map(torchserve.predict, images))
            model = (("model_name", "mean"), ("model_version", "1"))
            last = ("handler_failed_total", ("code", "inference_failed"), *model)
            end_s = time.monotonic() + TIMEOUT_S
            page = samples(torchserve)
            # What the handler says goes through a pipe and comes after the answers.
            while last not in page or page["handler_batch_size_sum", *model] < 30:
                assert time.monotonic() < end_s, page
                page = samples(torchserve)
            assert page["ts_inference_requests_total", *model] == 34
            assert page["handler_batch_size_sum", *model] == 30
            assert page[last] == 1
            assert page["handler_failed_total", ("code", "invalid_input"), *model] == 3
            batches = page["handler_batch_size_count", *model]
            assert 4 <= batches <= 30
            assert page["handler_inference_seconds_count", *model] == batches
            assert 0 < page["handler_inference_seconds_sum", *model] < TIMEOUT_S
            assert page["QueueTime_count", ("Level", "Host")] == 34
            assert page["QueueTime_sum", ("Level", "Host")] >= 0
            assert page["ts_queue_latency_microseconds_total", *model] > 0  # over HTTP, as here


def test_a_killed_worker_is_replaced_and_requests_wait_for_the_new_one(torchserve: TorchServe) -> None:
    [worker] = torchserve.describe()["workers"]
    before = len(torchserve.log)
    os.kill(worker["pid"], signal.SIGKILL)
    torchserve.await_line("Retry worker", before)
    assert load(torchserve.predict(GOOD).body)["scores"].shape == (1, 8)
    [replaced] = torchserve.describe()["workers"]
    assert replaced["pid"] != worker["pid"]


def test_a_worker_killed_in_the_middle_of_a_batch_fails_that_batch_and_serves_again(make_package: MakePackage) -> None:
    with tempfile.TemporaryDirectory() as serving, ThreadPoolExecutor(1) as pool:
        build_archive(make_package(endless), Path(serving))
        with running(Path(serving)) as torchserve:
            [worker] = torchserve.describe()["workers"]
            before = len(torchserve.log)
            answer = pool.submit(torchserve.predict, BAD_FOR_THE_MODEL)  # which it would never answer
            process = psutil.Process(worker["pid"])
            idle_s = process.cpu_times().user
            end_s = time.monotonic() + TIMEOUT_S
            while process.cpu_times().user < idle_s + 0.2:  # it computes
                assert time.monotonic() < end_s
            process.kill()
            failed = answer.result(TIMEOUT_S)
            assert failed.status in (500, 507)  # 507 where the JVM has seen the signal already
            assert b"Worker died." in failed.body
            torchserve.await_line("Retry worker", before)
            assert load(torchserve.predict(GOOD).body)["scores"].shape == (1, 8)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to end", "killed"])
def test_no_worker_outlives_torchserve(make_package: MakePackage, tmp_path: Path, number: signal.Signals) -> None:
    build_archive(make_package(), tmp_path)
    with running(tmp_path) as torchserve:
        torchserve.describe()
        workers = torchserve.workers()
        assert len(workers) == 1
        torchserve.process.send_signal(number)
        torchserve.process.wait(TIMEOUT_S)
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert alive == []
