"""`tandem predict` and `tandem compare` against a small server with prepared answers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from typer.testing import CliRunner, Result

from tandem.cli import app

TIMING = {"receive": 0.3, "decode": 1.1, "preprocess": 0.2, "queue": 0.0, "rpc": 6.2, "postprocess": 0.1, "total": 7.9}


def results(label: str, score: float) -> list[dict[str, Any]]:
    return [
        {
            "image": {"width": 8, "height": 8},
            "predictions": [
                {"class_id": 7, "label": label, "score": score},
                {"class_id": 1, "label": "[one]", "score": 0.01},
            ],
        }
    ]


PREDICTED = {
    "request_id": "r1",
    "model": "digits",
    "version": "1",
    "runtime": "torch",
    "results": results("7", 0.9876),
    "timing_ms": TIMING,
}
PROBLEM = {
    "type": "urn:tandem:problem:invalid_image",
    "title": "The image cannot be decoded",
    "status": 422,
    "detail": "It ends too early.",
    "code": "invalid_image",
    "request_id": "r2",
}
DOWN = {
    "type": "urn:tandem:problem:runtime_unavailable",
    "title": "The runtime is not available",
    "status": 503,
    "detail": "It is starting.",
    "code": "runtime_unavailable",
    "request_id": "r3",
}
SIDE = {"version": "1", "results": results("7", 0.9876), "timing_ms": TIMING}
COMPARED = {
    "request_id": "r4",
    "model": "digits",
    "runtimes": {name: {"runtime": name, **SIDE} for name in ("torch", "tf")},
    "agreement": {"agree": True, "images": 1, "same_top1": 1, "max_score_difference": 1.2e-07},
}
HALF = {
    "request_id": "r3",
    "model": "digits",
    "runtimes": {"torch": {"runtime": "torch", **SIDE}, "tf": {"error": DOWN}},
    "agreement": None,
}


def found(*predictions: tuple[str, float]) -> dict[str, Any]:
    """What a detector answers."""
    box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
    each = [{"class_id": 0, "label": label, "score": score, "box": box} for label, score in predictions]
    return {"version": "1", "results": [{"image": {"width": 8, "height": 8}, "predictions": each}], "timing_ms": TIMING}


MATCHED = {"agree": True, "images": 1, "matched": 3, "unmatched": 0, "mean_iou": 0.99, "min_iou": 0.9871}


@dataclass
class Gateway:
    """Answers with what is in `answers`, in that order, the last one again and again; drawings with `drawing`."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: ["digits"])
    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    drawing: tuple[int, Any] = (200, b"a drawing")


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, {"models": [{"name": name} for name in gateway.models]})

        def do_POST(self) -> None:
            gateway.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            parts = urlsplit(self.path)
            gateway.asked.append((parts.path, dict(parse_qsl(parts.query))))
            if self.headers["Accept"] == "image/png":
                self.answer(*gateway.drawing)
                return
            self.answer(*(gateway.answers.pop(0) if len(gateway.answers) > 1 else gateway.answers[0]))

        def answer(self, status: int, body: object) -> None:
            kind = "image/png" if isinstance(body, bytes) else "application/json"
            content = (
                body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
            )
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        gateway.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield gateway
        server.shutdown()
        thread.join()


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        path.write_bytes(f"bytes of {path.name}".encode())
    return [str(path) for path in paths]


def tandem(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def words(line: str) -> str:
    """A line of a table without its padding."""
    return " ".join(line.split())


def test_predict_shows_label_score_target_and_time(gateway: Gateway, pictures: list[str]) -> None:
    gateway.answers = [(200, PREDICTED)]
    result = tandem("predict", "--url", gateway.url, pictures[0])
    assert result.exit_code == 0
    assert words(result.stdout.splitlines()[1]) == f"{pictures[0]} torch@1 7 0.9876 [one] 0.0100 7.9"


def test_predict_says_which_runtime_another_answered_for_and_why(gateway: Gateway, pictures: list[str]) -> None:
    failed_over = PREDICTED | {"runtime": "tf", "failover": {"from": "torch", "code": "runtime_unavailable"}}
    gateway.answers = [(200, failed_over), (200, PREDICTED)]
    _, first, second = tandem("predict", "--url", gateway.url, *pictures[:2]).stdout.splitlines()
    assert words(first) == f"{pictures[0]} tf@1 (for torch: runtime_unavailable) 7 0.9876 [one] 0.0100 7.9"
    assert words(second) == f"{pictures[1]} torch@1 7 0.9876 [one] 0.0100 7.9"


def test_json_is_the_gateways_own_a_line_for_each_picture_in_order(gateway: Gateway, pictures: list[str]) -> None:
    gateway.answers = [(200, PREDICTED | {"request_id": name}) for name in "abc"]
    result = tandem("predict", "--json", "--url", gateway.url, *pictures)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        PREDICTED | {"request_id": name} for name in "abc"
    ]
    assert [b"bytes of %c.png" % name in body for name, body in zip(b"abc", gateway.bodies, strict=True)] == [True] * 3


def test_the_options_become_the_requests_parameters(gateway: Gateway, pictures: list[str]) -> None:
    gateway.answers = [(200, PREDICTED)]
    options = ["--model", "other", "--runtime", "tf", "--version", "2", "--top-k", "3", "--timeout-ms", "900"]
    tandem("predict", "--url", gateway.url, *options, pictures[0])
    wanted = {"runtime": "tf", "version": "2", "top_k": "3", "timeout_ms": "900"}
    assert gateway.asked == [("/v1/models/other/predict", wanted)]


def test_without_options_the_only_model_is_asked_and_the_rest_is_left_to_the_gateway(
    gateway: Gateway, pictures: list[str]
) -> None:
    gateway.answers = [(200, COMPARED)]
    tandem("compare", "--url", gateway.url, pictures[0])
    assert gateway.asked == [("/v1/models/digits/compare", {})]


def test_compare_asks_about_other_targets_and_one_after_the_other(gateway: Gateway, pictures: list[str]) -> None:
    gateway.answers = [(200, COMPARED)]
    tandem("compare", "--url", gateway.url, "--targets", "torch@1,torch@2", "--sequential", pictures[0])
    assert gateway.asked == [
        ("/v1/models/digits/compare", {"targets": "torch@1,torch@2", "mode": "sequential"}),
    ]


@pytest.mark.parametrize(
    ("models", "says"), [(["cars", "digits"], "there are cars, digits"), ([], "the gateway serves none")]
)
def test_without_an_only_model_one_must_be_named(
    gateway: Gateway, pictures: list[str], models: list[str], says: str
) -> None:
    gateway.models = models
    result = tandem("predict", "--url", gateway.url, pictures[0])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Say which model with --model: {says}.\n"


def test_compare_shows_both_runtimes_and_their_agreement(gateway: Gateway, pictures: list[str]) -> None:
    gateway.answers = [(200, COMPARED)]
    result = tandem("compare", "--url", gateway.url, pictures[0])
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()[1:]
    assert words(first) == f"{pictures[0]} torch@1 7 0.9876 6.2 7.9 agree, scores within 1e-07"
    assert words(second) == "tf@1 7 0.9876 6.2 7.9"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"queue_ms": 1.25, "inference_ms": 4.5, "batch_size": 8}, "1.2 + 4.5"),
        ({"inference_ms": 4.5}, "– + 4.5"),
        ({"batch_size": 8}, ""),
    ],
    ids=["both", "inference alone", "no time"],
)
def test_compare_shows_queue_and_inference_of_the_worker_that_tells(
    gateway: Gateway, pictures: list[str], said: dict[str, float], shown: str
) -> None:
    sides = {"torch": {"runtime": "torch", **SIDE, "worker": said}, "tf": {"runtime": "tf", **SIDE}}
    gateway.answers = [(200, COMPARED | {"runtimes": sides})]
    table = tandem("compare", "--url", gateway.url, pictures[0]).stdout.splitlines()
    end = table[0].index("worker ms") + len("worker ms")
    assert [line[end - 9 : end].strip() for line in table[1:]] == [shown, ""]


def test_compare_shows_one_answer_when_the_other_runtime_failed(gateway: Gateway, pictures: list[str]) -> None:
    gateway.answers = [(200, HALF)]
    result = tandem("compare", "--url", gateway.url, pictures[0])
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()[1:]
    assert words(first) == f"{pictures[0]} torch@1 7 0.9876 6.2 7.9 unknown"
    assert words(second) == "tf runtime_unavailable"
    assert result.stderr == (
        f"{pictures[0]}: The runtime is not available (503 runtime_unavailable): It is starting. [request r3]\n"
    )


def test_predict_counts_detections_by_label(gateway: Gateway, pictures: list[str]) -> None:
    many = found(("car", 0.9), *((label, 0.6) for label in "abcde"))
    few = found(("car", 0.9), ("[dog]", 0.8), ("car", 0.7))
    gateway.answers = [(200, PREDICTED | few), (200, PREDICTED | many)]
    result = tandem("predict", "--url", gateway.url, *pictures[:2])
    first, second = map(words, result.stdout.splitlines()[1:])
    assert first == f"{pictures[0]} torch@1 2 car, 1 [dog] 0.9000 7.9"
    assert second == f"{pictures[1]} torch@1 1 car, 1 a, 1 b, 1 c, 1 d, … 0.9000 7.9"


@pytest.mark.parametrize(
    ("agreement", "says"),
    [
        (MATCHED, "agree, 3 matched, 0 not, boxes overlap by 0.987, scores within 1e-03"),
        (
            MATCHED | {"min_mask_iou": 0.95, "mean_mask_iou": 0.96},
            "agree, 3 matched, 0 not, boxes overlap by 0.987, masks overlap by 0.950, scores within 1e-03",
        ),
        (
            MATCHED | {"agree": False, "matched": 0, "unmatched": 2, "mean_iou": None, "min_iou": None},
            "disagree, 0 matched, 2 not, scores within 1e-03",
        ),
    ],
    ids=["boxes", "masks", "none matched"],
)
def test_compare_says_how_detections_match(
    gateway: Gateway, pictures: list[str], agreement: dict[str, Any], says: str
) -> None:
    side = found(("car", 0.9))
    sides = {name: {"runtime": name, **side} for name in ("torch", "tf")}
    answer = {"runtimes": sides, "agreement": agreement | {"max_score_difference": 0.001}}
    gateway.answers = [(200, COMPARED | answer)]
    table = tandem("compare", "--url", gateway.url, pictures[0]).stdout.splitlines()
    column = table[0].index("agreement")
    said = [words(line[column:]) for line in table[1:]]
    assert words(" ".join(said)) == says


def test_drawings_are_written_beside_the_table(gateway: Gateway, pictures: list[str], tmp_path: Path) -> None:
    gateway.answers = [(200, PREDICTED)]
    folder = tmp_path / "new" / "drawn"
    result = tandem("predict", "--url", gateway.url, "--runtime", "tf", "--draw", str(folder), *pictures)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"{name}.png": b"a drawing" for name in "abc"
    }
    assert gateway.asked == [("/v1/models/digits/predict", {"runtime": "tf"})] * 6


def test_a_drawing_that_is_refused_is_told_and_the_answer_shown(
    gateway: Gateway, pictures: list[str], tmp_path: Path
) -> None:
    gateway.answers, gateway.drawing = [(200, PREDICTED)], (503, DOWN)
    result = tandem("predict", "--url", gateway.url, "--draw", str(tmp_path / "drawn"), pictures[0])
    assert result.exit_code == 1
    assert "0.9876" in result.stdout
    assert "runtime_unavailable" in result.stderr
    assert list((tmp_path / "drawn").iterdir()) == []


def test_drawings_of_one_name_are_refused_before_anything_is_sent(
    gateway: Gateway, pictures: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "drawn"
    result = tandem("predict", "--url", gateway.url, "--draw", str(folder), pictures[0], pictures[0])
    assert result.exit_code == 2
    assert result.stderr == (f"Several pictures would be drawn to {folder}/a.png. Draw them to different folders.\n")
    assert gateway.asked == []


def test_a_drawing_does_not_take_the_place_of_a_picture(pictures: list[str], tmp_path: Path) -> None:
    result = tandem("predict", "--draw", str(tmp_path), pictures[0])
    assert (result.exit_code, result.stderr) == (
        2,
        f"The drawing would take the place of the picture {pictures[0]}. Name another folder.\n",
    )
    assert (tmp_path / "a.png").read_bytes() == b"bytes of a.png"


def test_a_folder_for_drawings_that_cannot_be_made_is_named(pictures: list[str]) -> None:
    result = tandem("predict", "--draw", pictures[0], pictures[1])
    assert (result.exit_code, result.stderr) == (2, f"{pictures[0]} cannot be made: File exists.\n")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_a_refused_picture_does_not_take_the_others_with_it(
    gateway: Gateway, pictures: list[str], options: list[str]
) -> None:
    gateway.answers = [(200, PREDICTED), (422, PROBLEM), (200, PREDICTED)]
    result = tandem("predict", *options, "--url", gateway.url, *pictures)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()[-3:]
    assert ["invalid_image" in line for line in lines] == [False, True, False]
    assert result.stderr == (
        f"{pictures[1]}: The image cannot be decoded (422 invalid_image): It ends too early. [request r2]\n"
    )


def test_a_picture_that_is_not_there_is_named_before_anything_is_sent(gateway: Gateway, pictures: list[str]) -> None:
    result = tandem("predict", "--url", gateway.url, pictures[0], "none.png")
    assert (result.exit_code, result.stderr) == (2, "There is no file none.png.\n")
    assert gateway.asked == []


def test_a_folder_is_not_a_picture(tmp_path: Path) -> None:
    result = tandem("predict", str(tmp_path))
    assert (result.exit_code, result.stderr) == (2, f"{tmp_path} is a folder.\n")


def test_without_a_gateway_it_says_how_to_start_one(pictures: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    result = tandem("predict", "--url", url, pictures[0])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"No gateway answers at {url} (")
    assert "Is the stack up? `make up` starts it" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("status", [200, 404, 500])
def test_an_answer_that_is_not_the_gateways_is_called_that(gateway: Gateway, pictures: list[str], status: int) -> None:
    gateway.answers = [(status, "<html>hello</html>")]
    result = tandem("predict", "--url", gateway.url, pictures[0])
    assert result.exit_code == 1
    assert f"Not an answer of Tandem's gateway ({status}): {gateway.url} answered" in result.stderr


def test_the_address_comes_from_the_settings_of_the_stack(
    gateway: Gateway, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.answers = [(200, PREDICTED)]
    monkeypatch.setenv("TANDEM_HTTP__PORT", gateway.url.rpartition(":")[2])
    assert tandem("predict", pictures[0]).exit_code == 0


def test_the_version_is_the_packages() -> None:
    assert tandem("--version").stdout == f"tandem {version('tandem-serving')}\n"
