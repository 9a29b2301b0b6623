"""What `tandem doctor` says of differences between what the two runtimes are given."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from gateway.settings import Settings
from modelkit import serving
from modelkit.batching import Batching
from tandem.fairness import Registered, differences, registered, terms
from torch_worker.archive import build_archive


def settings(var: Path, **sections: Mapping[str, Any]) -> Settings:
    return Settings.model_validate({"var": var, **sections})


def model(**changed: int) -> Registered:
    return Registered(**{
        "modelName": "digits", "modelVersion": "1", "batchSize": 8, "maxBatchDelay": 1, "minWorkers": 1, **changed,
    })  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "torch").mkdir(parents=True)
    (folder / "model.yaml").write_text("name: digits\nversion: 1\n")
    (folder / "torch" / "model.pt").write_bytes(b"weights")
    return folder


def test_the_defaults_are_alike(tmp_path: Path) -> None:
    assert list(differences(settings(tmp_path), [model()])) == []
    assert "batches of up to 8 pictures, a wait of up to 0 µs (TorchServe: 1 ms)" in terms(settings(tmp_path))


@pytest.mark.parametrize(
    ("torch", "named"),
    [
        pytest.param(
            {"max_inflight": 65}, "TANDEM_TORCH__MAX_INFLIGHT is 65 and TANDEM_TF__MAX_INFLIGHT is 64", id="in flight"
        ),
        pytest.param({"max_queue": 1}, "TANDEM_TORCH__MAX_QUEUE is 1 and TANDEM_TF__MAX_QUEUE is 256", id="queue"),
        pytest.param({"device": "gpu"}, "TANDEM_TORCH__DEVICE is gpu and TANDEM_TF__DEVICE is not set", id="device"),
        pytest.param({"workers": 3}, "TANDEM_WORKERS__REPLICAS in its place", id="workers"),
    ],
)
def test_a_setting_of_one_runtime_alone_is_named(tmp_path: Path, torch: dict[str, Any], named: str) -> None:
    (found,) = differences(settings(tmp_path, torch=torch), [])
    assert named in found


def test_too_few_pictures_at_once_for_the_batches_are_said(tmp_path: Path) -> None:
    found = list(differences(settings(tmp_path, workers={"max_batch_size": 64}), []))
    assert len(found) == 2
    assert all("set it to 256 or more" in each for each in found)


def test_a_view_and_an_archive_with_other_batches_are_said(tmp_path: Path, package: Path) -> None:
    here = settings(tmp_path)
    serving.update_batching(Batching.of(here), here.serving)
    build_archive(package, here.serving / "torch", batch_size=4, max_batch_delay_ms=1)
    (found,) = differences(here, [])
    assert found.startswith("digits-1: ")
    assert "batches of 4" in found
    build_archive(package, here.serving / "torch", batch_size=8, max_batch_delay_ms=1)
    assert list(differences(here, [])) == []
    (found,) = differences(settings(tmp_path, workers={"max_batch_size": 4}), [])
    assert "was made with other settings" in found


def test_an_archive_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    here = settings(tmp_path)
    serving.update_batching(Batching.of(here), here.serving)
    (here.serving / "torch").mkdir()
    (here.serving / "torch" / "digits-1.mar").write_bytes(b"no zip file")
    (found,) = differences(here, [])
    assert "digits-1.mar cannot be read" in found


def test_a_running_torchserve_with_other_batches_than_the_view_is_said(tmp_path: Path) -> None:
    (found,) = differences(settings(tmp_path), [model(batchSize=16, maxBatchDelay=100)])
    assert "digits 1: TorchServe runs batches of 16 and waits 100 ms" in found


def test_a_torchserve_that_does_not_answer_is_an_http_error(tmp_path: Path) -> None:
    class Gone(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with HTTPServer(("127.0.0.1", 0), Gone) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(httpx.HTTPStatusError):
            registered(settings(tmp_path, torch={"http_management_port": server.server_port}))
        server.shutdown()
