from __future__ import annotations

import ast
import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from tests.torch_worker.sample import (
    BAD_FOR_THE_MODEL,
    GOOD,
    Forward,
    MakePackage,
    batch_of_one,
    compile_package,
    no_names,
    wrong_name,
)
from torch_worker import handler as module
from torch_worker.handler import Handler

METRICS = Path(module.__file__).with_name("metrics.yaml")


class FakeContext:
    def __init__(self, folder: Path, batch_size: int = 4, headers: Mapping[str, str] | None = None) -> None:
        self.system_properties = {"model_dir": str(folder), "gpu_id": None, "batch_size": batch_size}
        self.headers = headers or {}
        self.manifest = {"model": {"modelName": "mean", "modelVersion": "1"}}
        self.metrics = MetricsCacheYamlImpl(str(METRICS))
        self.metrics.initialize_cache()

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.headers.get(key)


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """The handler changes them."""
    loggers = (logging.getLogger(), logging.getLogger("ts.metrics.caching_metric"))
    before = [(logger.level, list(logger.filters)) for logger in loggers]
    yield
    for logger, (level, filters) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.filters[:] = filters


def unpacked(package: Path) -> Path:
    """The package as TorchServe unpacks its archive."""
    for artifact in (package / "torch").iterdir():
        artifact.rename(package / artifact.name)
    return package


def initialized(package: Path, batch_size: int = 4) -> Handler:
    handler = Handler()
    handler.initialize(FakeContext(unpacked(package), batch_size))
    return handler


@pytest.fixture
def handler(make_package: MakePackage) -> Handler:
    return initialized(make_package())


def metadata(answer: bytes) -> dict[str, str]:
    header = json.loads(answer[8 : 8 + int.from_bytes(answer[:8], "little")])
    return dict(header["__metadata__"])


def row_means(image: bytes) -> np.ndarray[Any, Any]:
    rows: np.ndarray[Any, Any] = np.frombuffer(image, np.uint8).reshape(1, 8, 24)
    return np.asarray(rows.mean(2))


def test_an_answer_holds_the_named_tensors_of_one_picture(handler: Handler) -> None:
    [answer] = handler.infer([{"image": bytearray(GOOD)}])
    tensors = load(answer)
    assert list(tensors) == ["scores"]
    assert tensors["scores"].dtype == np.float32
    np.testing.assert_allclose(tensors["scores"], row_means(GOOD), rtol=1e-6)


def test_each_item_of_a_batch_gets_its_own_row(handler: Handler) -> None:
    images = [bytes([value]) * 192 for value in (10, 20, 30)]
    answers = handler.infer([{"image": image} for image in images])
    assert [load(answer)["scores"][0, 0] for answer in answers] == [10, 20, 30]


def test_an_answer_says_the_batch_it_was_in_and_how_long_that_ran(handler: Handler) -> None:
    answers = handler.infer([{"image": GOOD}] * 3)
    for answer in answers:
        assert metadata(answer)["batch_size"] == "3"
        assert float(metadata(answer)["inference_ms"]) > 0


SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("sent_ns", "queue_ms"),
    [
        pytest.param(b"%d" % (5 * SECOND_NS), {"queue_ms": "2000.000"}, id="two seconds before"),
        pytest.param(b"%d" % (9 * SECOND_NS), {"queue_ms": "0.000"}, id="by a clock that is ahead"),
        pytest.param(b"yesterday", {}, id="no number"),
        pytest.param(b"-1", {}, id="negative"),
        pytest.param(b"1" * 5000, {}, id="too long for a number"),
    ],
)
def test_an_answer_says_how_long_it_waited_where_the_request_says_since_when(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, sent_ns: bytes, queue_ms: dict[str, str]
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 7 * SECOND_NS)
    told, untold = handler.infer([{"image": GOOD, "sent_ns": sent_ns}, {"image": GOOD}])
    assert {name: value for name, value in metadata(told).items() if name == "queue_ms"} == queue_ms
    assert "queue_ms" not in metadata(untold)


@pytest.mark.parametrize(
    ("variable", "most", "what"),
    [
        pytest.param("TORCH_WORKER_MAX_PICTURE_BYTES", 192, "a picture has 192 bytes", id="picture"),
        pytest.param("TORCH_WORKER_MAX_ANSWER_BYTES", 32, "an answer has 32 bytes", id="answer"),
    ],
)
def test_a_model_too_large_for_the_running_torchserve_says_to_restart_it(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch, variable: str, most: int, what: str
) -> None:
    monkeypatch.setenv(variable, str(most))
    assert initialized(make_package()).describe()["state"] == "ready"
    monkeypatch.setenv(variable, str(most - 1))
    description = initialized(make_package()).describe()
    assert description["state"] == "failed"
    assert what in description["reason"]
    assert "restart the torch worker" in description["reason"]


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        pytest.param(
            {"image": GOOD[:-1]}, "The image has 191 bytes; a uint8 [1, 8, 8, 3] tensor has 192.", id="too short"
        ),
        pytest.param(
            {"image": GOOD + b"x"}, "The image has 193 bytes; a uint8 [1, 8, 8, 3] tensor has 192.", id="too long"
        ),
        pytest.param({"image": b""}, "The image has 0 bytes; a uint8 [1, 8, 8, 3] tensor has 192.", id="empty"),
        pytest.param({"body": GOOD}, "The request has no part named 'image' with the bytes of a tensor.", id="no part"),
        pytest.param({"image": "text"}, "The request has no part named 'image' with the bytes of a tensor.", id="text"),
    ],
)
def test_a_malformed_item_fails_alone(handler: Handler, item: dict[str, Any], sentence: str) -> None:
    first, malformed, last = handler.infer([{"image": bytes([1]) * 192}, item, {"image": bytes([9]) * 192}])
    assert metadata(malformed) == {"code": "invalid_input", "error": sentence}
    assert load(malformed) == {}
    assert load(first)["scores"][0, 0] == 1
    assert load(last)["scores"][0, 0] == 9
    assert metadata(first)["batch_size"] == "2"


def test_an_item_the_model_fails_on_does_not_spoil_the_others(handler: Handler) -> None:
    first, failed, last = handler.infer([{"image": GOOD}, {"image": BAD_FOR_THE_MODEL}, {"image": bytes(192)}])
    assert metadata(failed)["code"] == "inference_failed"
    assert metadata(failed)["error"].endswith("too bright")
    np.testing.assert_allclose(load(first)["scores"], row_means(GOOD), rtol=1e-6)
    assert load(last)["scores"].max() == 0
    assert metadata(first)["batch_size"] == "1"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("no memory")], ids=["device", "host"]
)
def test_running_out_of_memory_for_a_batch_is_survived_one_by_one_with_an_empty_cache(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert handler.model is not None
    run = handler.model.run
    emptied: list[BaseException | None] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(sys.exception()))

    def only_one(size: int) -> dict[str, np.ndarray[Any, Any]]:
        if size > 1:
            raise error
        return run(size)

    monkeypatch.setattr(handler.model, "run", only_one)
    answers = handler.infer([{"image": bytes([value]) * 192} for value in (1, 2, 3, 4)])
    assert [load(answer)["scores"][0, 0] for answer in answers] == [1, 2, 3, 4]
    assert emptied == [None]  # when no traceback holds the batch's tensors any more


@pytest.mark.parametrize(
    "error",
    [torch.AcceleratorError("device-side assert"), RuntimeError("CUDA error: an illegal memory access")],
    ids=["from torch", "from TorchScript"],
)
def test_a_broken_accelerator_ends_the_process_for_torchserve_to_start_another(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(size: int) -> None:
        raise error

    monkeypatch.setattr(handler.model, "run", broken)
    with pytest.raises(SystemExit):
        handler.infer([{"image": GOOD}])


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(b"not a zip file", "RuntimeError", id="unreadable"),
        pytest.param(
            wrong_name, "returned {'logits': ('float32', 1, 8)}; model.yaml promises {'scores'", id="wrong name"
        ),
        pytest.param(no_names, "the module returned a Tensor, not a dictionary of tensors", id="no names"),
        pytest.param(batch_of_one, "shape '[1, 8, 24]' is invalid for input of size 768", id="batch frozen at 1"),
    ],
)
def test_a_model_that_cannot_serve_keeps_its_reason_and_says_it_to_everyone(
    make_package: MakePackage, broken: Forward | bytes, reason: str
) -> None:
    handler = initialized(make_package(broken))
    description = handler.describe()
    assert description["state"] == "failed"
    assert reason in description["reason"]
    assert "\n" not in description["reason"]
    for answer in handler.infer([{"image": GOOD}] * 2):
        assert metadata(answer)["code"] == "model_not_loaded"
        assert reason in metadata(answer)["error"]


def test_a_loaded_model_describes_itself(handler: Handler) -> None:
    assert handler.describe() == {
        "state": "ready",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "max_batch": 4,
        "torch": torch.__version__,
    }


@pytest.fixture(scope="module")
def compiled(make_package: MakePackage) -> Path:
    """A package with a compiled module, as TorchServe unpacks its archive."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("AOTInductor needs a C++ compiler (g++ or clang++), and there is none here")
    package = make_package()
    compile_package(package)
    return unpacked(package)


def test_a_compiled_module_answers_as_the_other_does(compiled: Path) -> None:
    handler = Handler()
    handler.initialize(FakeContext(compiled))
    assert handler.describe()["state"] == "ready", handler.describe()
    images = [bytes([value]) * 192 for value in (10, 20, 30)]
    answers = handler.infer([{"image": image} for image in [*images, GOOD]])
    assert [load(answer)["scores"][0, 0] for answer in answers[:3]] == [10, 20, 30]
    np.testing.assert_allclose(load(answers[3])["scores"], row_means(GOOD), rtol=1e-6)


def test_a_module_compiled_for_another_device_is_refused(compiled: Path) -> None:
    with pytest.raises(ValueError, match="was compiled for cpu and this worker computes on meta"):
        module._load(compiled, torch.device("meta"))


def test_loading_runs_batch_one_and_the_largest_batch(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    run = module.Model.run

    def noted(self: module.Model, size: int) -> dict[str, np.ndarray[Any, Any]]:
        sizes.append(size)
        return run(self, size)

    monkeypatch.setattr(module.Model, "run", noted)
    initialized(make_package(), batch_size=6)
    assert set(sizes) == {1, 6}


def test_the_docs_name_every_series() -> None:
    page = METRICS.parents[1].joinpath("docs", "torch-worker.md").read_text()
    types = [
        types
        for section in ("ts_metrics", "model_metrics")
        for types in yaml.safe_load(METRICS.read_text())[section].values()
    ]
    assert [metric["name"] for metrics in types for metric in metrics if f"`{metric['name']}`" not in page] == []


def measured(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What TorchServe is told, without the moment and the host."""
    return [record.getMessage().partition("|#hostname:")[0] for record in caplog.records if record.levelname == "INFO"]


def test_a_batch_that_ran_is_measured_by_its_size_and_its_time(
    handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    handler.infer([{"image": GOOD}, {"image": b""}, {"image": GOOD}])
    failed, size, seconds = measured(caplog)
    labels = "|#model_name:mean,model_version:1"
    assert failed == f"[METRICS]handler_failed_total.Pictures:1{labels},code:invalid_input|#type:COUNTER"
    assert size == f"[METRICS]handler_batch_size.Pictures:2{labels}|#type:HISTOGRAM"
    value = re.fullmatch(
        rf"\[METRICS\]handler_inference_seconds\.Seconds:(.*){re.escape(labels)}\|#type:HISTOGRAM", seconds
    )
    assert value is not None
    assert 0 < float(value[1]) < 60


def test_items_that_fail_are_counted_by_their_code(
    handler: Handler, make_package: MakePackage, caplog: pytest.LogCaptureFixture
) -> None:
    unloaded = initialized(make_package(b"not a module"))
    caplog.clear()
    handler.infer([{"image": BAD_FOR_THE_MODEL}])
    unloaded.infer([{"image": GOOD}] * 3)
    assert [line.partition("handler_failed_total.Pictures:")[2] for line in measured(caplog)] == [
        "1|#model_name:mean,model_version:1,code:inference_failed|#type:COUNTER",
        "3|#model_name:mean,model_version:1,code:model_not_loaded|#type:COUNTER",
    ]


def test_nothing_else_is_printed_for_an_ordinary_batch(
    make_package: MakePackage, caplog: pytest.LogCaptureFixture
) -> None:
    context = FakeContext(unpacked(make_package()))
    Handler().initialize(context)
    caplog.clear()
    context.metrics.add_time("PredictionTime", 1.0)  # as TorchServe does after each batch
    assert measured(caplog) == []
    assert logging.getLogger().level == logging.WARNING


def test_torchserves_entry_point_loads_describes_and_infers(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_handler", Handler())
    folder = unpacked(make_package())
    assert module.handle(None, FakeContext(folder)) is None
    described = module.handle([{}], FakeContext(folder, headers={"describe": "True"}))
    assert described is not None
    assert json.loads(described[0])["state"] == "ready"
    answers = module.handle([{"image": GOOD}], FakeContext(folder))
    assert isinstance(answers, list)  # TorchServe asks for exactly this type
    assert isinstance(answers[0], bytes)
    assert list(load(answers[0])) == ["scores"]


def test_the_handler_imports_nothing_of_this_repository() -> None:
    """It is packed into the archive alone."""
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    imported |= {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "safetensors", "torch", "ts", "yaml"}
