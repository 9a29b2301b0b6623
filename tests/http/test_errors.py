"""Every row of the error table, through HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from prometheus_client import CollectorRegistry

from gateway import errors
from gateway.errors import TandemError
from gateway.http import problems
from gateway.http.context import RequestContextMiddleware
from gateway.metrics import Metrics
from tests.conftest import Fakes, StartGateway
from tests.support.pictures import encode, plain
from tests.support.serving import served

PREDICT = "/v1/models/digits/predict"
PNG = {"content-type": "image/png"}
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
GOOD = encode(plain(1))


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"].endswith((".", "}"))
    assert "server-timing" in answer.headers


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b"", PNG, id="empty body"),
        pytest.param(b"nothing of the kind", FORM, id="not multipart"),
        pytest.param(b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", FORM, id="part without a name"),
        pytest.param(
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n--x--\r\n',
            FORM,
            id="empty part",
        ),
        pytest.param(
            b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\na\r\n--x--\r\n',
            FORM,
            id="no part named image",
        ),
        pytest.param(
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\na\r\n--x--\r\n', FORM, id="part is text"
        ),
        pytest.param(
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc', FORM, id="cut off"
        ),
        pytest.param(GOOD, {"content-type": "multipart/form-data"}, id="no boundary"),
        pytest.param(
            b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n\r\n' * 1001 + b"--x--\r\n", FORM, id="1001 parts"
        ),
        pytest.param(b"{", JSON, id="not JSON"),
        pytest.param(b"[]", JSON, id="JSON of another shape"),
        pytest.param(b'{"images": []}', JSON, id="no pictures"),
        pytest.param(b'{"images": [{"b64": "%%%"}]}', JSON, id="not base64"),
        pytest.param(b'{"images": [{"b64": "ab\xc3\xa9c"}]}', JSON, id="base64 with a letter beyond ASCII"),
        pytest.param(b'{"images": [{"b64": ""}]}', JSON, id="empty picture"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_bad_request(
    client: httpx.Client, body: bytes, headers: dict[str, str]
) -> None:
    assert_problem(client.post(PREDICT, content=body, headers=headers), 400, "bad_request")


@pytest.mark.parametrize(
    "params",
    [
        "runtime=onnx",
        "runtme=tf",
        "version=0",
        "version=new",
        "top_k=0",
        "top_k=x",
        "min_score=2",
        "min_score=nan",
        "timeout_ms=0",
    ],
)
def test_a_parameter_of_the_wrong_type_or_range_is_named(client: httpx.Client, params: str) -> None:
    answer = client.post(f"{PREDICT}?{params}", content=GOOD, headers=PNG)
    assert_problem(answer, 422, "invalid_parameter")
    assert params.split("=")[0] in answer.json()["detail"]


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_too_many_images_are_refused(start_gateway: StartGateway, form: str) -> None:
    client = start_gateway(limits={"max_images": 2})
    if form == "multipart":
        answer = client.post(PREDICT, files=[("image", ("a.png", GOOD, "image/png"))] * 3)
    else:
        answer = client.post(PREDICT, json={"images": [{"b64": "YQ=="}] * 3})
    assert_problem(answer, 422, "too_many_images")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/models/", "/v1/models//predict"])
def test_an_unknown_route_is_not_found(client: httpx.Client, path: str) -> None:
    assert_problem(client.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_may_ask_for_the_head_alone(client: httpx.Client, path: str) -> None:
    while client.get("/readyz").status_code != 200:
        pass
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_wrong_method_is_answered_with_the_allowed_ones(client: httpx.Client) -> None:
    answer = client.get(PREDICT)
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    for path, allowed in [("/livez", "GET, HEAD"), ("/v1/models", "GET, POST"), ("/v1/models/digits", "GET, DELETE")]:
        assert client.patch(path).headers["allow"] == allowed


def test_a_body_that_is_no_text_is_a_bad_request_of_a_route_that_there_is(client: httpx.Client, tmp_path: Path) -> None:
    key = {"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
    answer = client.put("/v1/models/digits/default", content=b'{"version": \xff}', headers=key | JSON)
    assert_problem(answer, 400, "bad_request")
    assert answer.json()["detail"] == "There was an error parsing the body. /docs describes what this route takes."


@pytest.mark.parametrize("accept", ["text/html", "image/webp", "application/json;q=0"])
@pytest.mark.parametrize("route", ["predict", "compare"])
def test_an_answer_we_cannot_make_is_not_acceptable(client: httpx.Client, route: str, accept: str) -> None:
    answer = client.post(f"/v1/models/digits/{route}", content=GOOD, headers=PNG | {"accept": accept})
    assert_problem(answer, 406, "not_acceptable")


@pytest.mark.parametrize("route", ["predict", "compare"])
def test_a_drawing_of_several_pictures_is_not_acceptable(client: httpx.Client, route: str) -> None:
    files = [("image", ("a.png", GOOD, "image/png"))] * 2
    answer = client.post(f"/v1/models/digits/{route}", files=files, headers={"accept": "image/png"})
    assert_problem(answer, 406, "not_acceptable")
    assert answer.json()["detail"] == (
        "A drawing is of one picture; this request has 2. Send one at a time, or Accept: application/json."
    )


def test_a_body_that_does_not_arrive_in_time_is_a_request_timeout(start_gateway: StartGateway) -> None:
    client = start_gateway(http={"body_timeout_s": 0.05})
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Type: image/png\r\nContent-Length: 99\r\n\r\nabc".encode()
        )
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["code"] == "request_timeout"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b"%PDF-1.7 ...", PNG, id="a PDF"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", {"content-type": "image/svg+xml"}, id="an SVG"),
        pytest.param(GOOD, {"content-type": "application/x-www-form-urlencoded"}, id="curl's default type"),
        pytest.param(GOOD, {"content-type": ""}, id="no type"),
    ],
)
def test_what_is_no_picture_we_read_is_unsupported(client: httpx.Client, body: bytes, headers: dict[str, str]) -> None:
    assert_problem(client.post(PREDICT, content=body, headers=headers), 415, "unsupported_image")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_picture_is_invalid(client: httpx.Client, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), form)
    assert_problem(client.post(PREDICT, content=data[: len(data) // 2], headers=PNG), 422, "invalid_image")


def test_an_upload_over_the_byte_limit_is_too_large(start_gateway: StartGateway) -> None:
    client = start_gateway(limits={"max_upload_bytes": 1000})
    assert_problem(client.post(PREDICT, content=bytes(1001), headers=PNG), 413, "image_too_large")


def test_an_upload_without_a_declared_length_is_stopped_at_the_limit(start_gateway: StartGateway) -> None:
    client = start_gateway(limits={"max_upload_bytes": 1000})

    def chunks() -> Iterator[bytes]:
        for _ in range(5):
            yield bytes(300)

    assert_problem(client.post(PREDICT, content=chunks(), headers=PNG), 413, "image_too_large")


def test_a_picture_over_the_pixel_limit_is_refused_by_its_header_alone(start_gateway: StartGateway) -> None:
    client = start_gateway(limits={"max_pixels": 1000})
    whole = encode(plain(1, size=(40, 40)))
    answer = client.post(PREDICT, content=whole[:60], headers=PNG)  # no pixel data: it cannot have been decoded
    assert_problem(answer, 413, "image_too_large")


@pytest.mark.parametrize("path", ["/v1/models/nothing/predict", "/v1/models/nothing/compare", f"{PREDICT}?version=9"])
def test_an_unknown_model_or_version_is_not_found(client: httpx.Client, path: str) -> None:
    assert_problem(client.post(path, content=GOOD, headers=PNG), 404, "model_not_found")


def test_an_unknown_model_is_not_found_among_the_models(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/models/nothing"), 404, "model_not_found")


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic abc", "Bearer"])
def test_an_admin_route_without_the_admin_key_is_unauthenticated(
    client: httpx.Client, authorization: str | None
) -> None:
    answer = client.get("/v1/settings", headers={"authorization": authorization} if authorization else {})
    assert_problem(answer, 401, "unauthenticated")
    assert authorization is None or "wrong" not in answer.text
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_admin_key_of_the_first_start_opens_admin_routes_and_stays(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    first = start_gateway()
    key_file = tmp_path / "admin.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    headers = {"authorization": f"Bearer {key_file.read_text().strip()}"}
    assert first.get("/v1/settings", headers=headers).json()["limits"]["max_images"] == 16
    assert start_gateway().get("/v1/settings", headers=headers).status_code == 200


def test_more_requests_than_may_wait_are_told_when_to_come_back(start_gateway: StartGateway, fakes: Fakes) -> None:
    fakes["torch"].hold = asyncio.Event()
    client = start_gateway(torch={"max_inflight": 1, "max_queue": 1})
    held = threading.Barrier(3, timeout=30)

    def ask() -> None:
        answers.append(client.post(f"{PREDICT}?timeout_ms=3000", content=GOOD, headers=PNG))
        held.wait()

    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    while 'tandem_queue_depth{runtime="torch"} 1.0' not in client.get("/metrics").text:
        pass
    refused = client.post(PREDICT, content=GOOD, headers=PNG)
    assert_problem(refused, 429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    held.wait()
    for thread in threads:
        thread.join()
    for answer in answers:  # one at the runtime, one in the queue: each waited to its deadline, not longer
        assert_problem(answer, 504, "deadline_exceeded")


def test_a_runtime_that_is_down_is_unavailable_and_says_when_to_come_back(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].error = errors.RuntimeUnavailable("The worker is away.", retry_after_s=2.5)
    answer = client.post(PREDICT, content=GOOD, headers=PNG)
    assert_problem(answer, 503, "runtime_unavailable")
    assert answer.headers["retry-after"] == "3"
    assert client.post(f"{PREDICT}?runtime=tf", content=GOOD, headers=PNG).status_code == 200


def test_a_deadline_that_passes_at_the_runtime_is_exceeded(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].hold = asyncio.Event()
    assert_problem(client.post(f"{PREDICT}?timeout_ms=30", content=GOOD, headers=PNG), 504, "deadline_exceeded")


def test_a_deadline_longer_than_the_longest_is_cut(start_gateway: StartGateway, fakes: Fakes) -> None:
    fakes["torch"].hold = asyncio.Event()
    client = start_gateway(limits={"max_timeout_ms": 30})
    assert_problem(client.post(f"{PREDICT}?timeout_ms=99999", content=GOOD, headers=PNG), 504, "deadline_exceeded")


def test_a_worker_that_fails_on_a_good_tensor_has_failed(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].error = errors.RuntimeFailed("It broke.")
    assert_problem(client.post(PREDICT, content=GOOD, headers=PNG), 502, "runtime_failed")


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({}, id="tensor missing"),
        pytest.param({"scores": np.zeros((1, 9), np.float32)}, id="wrong shape"),
        pytest.param({"scores": np.zeros((2, 10), np.float32)}, id="wrong batch"),
        pytest.param({"scores": np.zeros((1, 10), np.float64)}, id="wrong type"),
        pytest.param({"scores": np.full((1, 10), np.nan, np.float32)}, id="NaN"),
    ],
)
def test_a_worker_that_answers_nonsense_has_failed(
    client: httpx.Client,
    fakes: Fakes,
    tensors: dict[str, np.ndarray],
) -> None:
    fakes["torch"].tensors = tensors
    assert_problem(client.post(PREDICT, content=GOOD, headers=PNG), 502, "runtime_failed")


def test_a_fault_of_ours_is_an_internal_error_that_says_nothing_of_it(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].error = RuntimeError("a secret")
    answer = client.post(PREDICT, content=GOOD, headers=PNG)
    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text


def _leaves(error: type[TandemError]) -> Iterator[type[TandemError]]:
    if not error.__subclasses__():
        yield error
    for child in error.__subclasses__():
        yield from _leaves(child)


def test_the_table_maps_exactly_the_leaves_of_the_error_tree() -> None:
    assert set(problems.KINDS) == set(_leaves(TandemError))


@pytest.mark.parametrize("error", [pytest.param(error, id=error.code) for error in _leaves(TandemError)])
def test_each_error_is_answered_with_its_own_status_and_code(error: type[TandemError]) -> None:
    """Also those that no route raises yet: conflict, forbidden and rate_limited."""
    app = FastAPI()
    problems.install(app, Metrics(CollectorRegistry()))
    app.add_middleware(RequestContextMiddleware, internal_error=problems.internal_error)

    @app.get("/raise")
    async def fail() -> None:
        if issubclass(error, errors.Overload):
            raise error("A sentence.", retry_after_s=0.2)
        raise error("A sentence.")

    with served(app) as url:
        answer = httpx.get(f"{url}/raise")
    assert_problem(answer, problems.KINDS[error].status, error.code)
    assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
