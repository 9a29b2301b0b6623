"""Bodies and parameters made to hurt, each as large as an upload may be, sent to a whole gateway."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.hostile.bombs import UPLOAD
from tests.hostile.cost import forget_peak, peak, processor_s
from tests.support.gateway import Gateway, running_gateway
from tests.support.pictures import encode, plain

PREDICT = "/v1/models/digits/predict"
FORM = "multipart/form-data; boundary=x"
JSON = "application/json"
IMAGE = encode(plain(1))
MAX_CPU_S = 1.0
MAX_MEMORY = 5 * UPLOAD
"""Bytes above what the gateway has at rest: the body as it arrives, whole, and what is taken out of it."""


def part(content: bytes, name: str = "image", more: str = '; filename="a.png"') -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


def filled(words: bytes, room: int = UPLOAD) -> bytes:
    return words * (room // len(words))


END = b"--x--\r\n"
BODIES: dict[str, tuple[str, Callable[[], bytes], int, str]] = {
    "millions of false boundaries": (FORM, lambda: part(filled(b"\r\n--xA")) + END, 400, "bad_request"),
    "millions of false ends": (FORM, lambda: part(filled(b"\r\n--x-A")) + END, 400, "bad_request"),
    "millions of half boundaries": (FORM, lambda: part(filled(b"\r\n--x\r")) + END, 400, "bad_request"),
    "millions of line ends": (FORM, lambda: part(filled(b"\r\n--")) + END, 415, "unsupported_image"),
    "millions of parts": (FORM, lambda: filled(part(b"", "other")) + END, 400, "bad_request"),
    "millions of pictures": (FORM, lambda: filled(part(b"a"), 500_000) + END, 400, "bad_request"),
    "1,000 pictures": (FORM, lambda: part(b"a") * 999 + END, 422, "too_many_images"),
    "a form within a form, and so on": (
        FORM,
        lambda: filled(b"--x\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n", 500_000) + END,
        400,
        "bad_request",
    ),
    "a part of many headers": (FORM, lambda: b"--x\r\n" + filled(b"a: b\r\n"), 400, "bad_request"),
    "a part of a long header": (FORM, lambda: b"--x\r\na: " + filled(b"b"), 400, "bad_request"),
    "a part whose header has no end": (FORM, lambda: b"--x\r\na:" + filled(b" "), 400, "bad_request"),
    "a part whose name is long": (FORM, lambda: part(IMAGE, "n" * 3000) + END, 400, "bad_request"),
    "a part whose name is endless": (FORM, lambda: part(IMAGE, "n" * 1_000_000) + END, 400, "bad_request"),
    "line ends before the form": (FORM, lambda: filled(b"\r\n"), 400, "bad_request"),
    "megabytes behind the form": (FORM, lambda: part(IMAGE) + END + filled(b"--x\r\n", 10_000_000), 400, "bad_request"),
    "text behind the form": (FORM, lambda: part(IMAGE) + END + filled(b"abc"), 200, ""),
    "a form without an end": (FORM, lambda: part(filled(b"abc")), 400, "bad_request"),
    "a boundary of kilobytes": (f"multipart/form-data; boundary={'x' * 10_000}", lambda: IMAGE, 400, "bad_request"),
    "a boundary of a few hundred letters": (
        f"multipart/form-data; boundary={'x' * 300}",
        lambda: IMAGE,
        400,
        "bad_request",
    ),
    "no boundary": ("multipart/form-data; boundary=", lambda: IMAGE, 400, "bad_request"),
    "thousands of parameters": (f"multipart/form-data{';a=b' * 5000}", lambda: IMAGE, 400, "bad_request"),
    "a type of kilobytes": ("a/" + "b" * 20_000, lambda: IMAGE, 415, "unsupported_image"),
    "an image type of kilobytes": ("image/" + "b" * 20_000, lambda: IMAGE, 200, ""),
    "JSON of millions of zeros": (
        JSON,
        lambda: b'{"images":[' + filled(b"0,", UPLOAD - 100) + b"0]}",
        422,
        "too_many_images",
    ),
    "JSON of millions of pictures": (
        JSON,
        lambda: b'{"images":[' + filled(b'{"b64":""},', UPLOAD - 100) + b"{}]}",
        422,
        "too_many_images",
    ),
    "JSON of a million names": (
        JSON,
        lambda: b'{"images":[],' + b",".join(b'"%d":0' % number for number in range(1_500_000)) + b"}",
        422,
        "too_many_images",
    ),
    "JSON with a name of megabytes": (
        JSON,
        lambda: b'{"images":[{"b64":""}],"' + filled(b"k", UPLOAD - 100) + b'":1}',
        400,
        "bad_request",
    ),
    "JSON deep in lists": (JSON, lambda: filled(b"["), 400, "bad_request"),
    "JSON deep in objects": (JSON, lambda: filled(b'{"images":'), 400, "bad_request"),
    "JSON of one great number": (JSON, lambda: b'{"images":' + filled(b"1", UPLOAD - 100) + b"}", 400, "bad_request"),
    "JSON of one long fraction": (
        JSON,
        lambda: b'{"images":1.' + filled(b"1", UPLOAD - 100) + b"}",
        400,
        "bad_request",
    ),
    "JSON of spaces": (JSON, lambda: filled(b" "), 400, "bad_request"),
    "JSON in UTF-16": (JSON, lambda: '{"images": []}'.encode("utf-16"), 400, "bad_request"),
    "JSON with half a letter": (JSON, lambda: b'{"images":[{"b64":"\\ud800"}]}', 400, "bad_request"),
    "JSON with a data URL": (JSON, lambda: b'{"images":[{"b64":"data:image/png;base64,AA=="}]}', 400, "bad_request"),
    "base64 of megabytes of nothing": (
        JSON,
        lambda: b'{"images":[{"b64":"' + filled(b"AAAA", UPLOAD - 100) + b'"}]}',
        415,
        "unsupported_image",
    ),
    "base64 of escaped letters": (
        JSON,
        lambda: b'{"images":[{"b64":"' + filled(b"\\u0041", UPLOAD - 100) + b'"}]}',
        400,
        "bad_request",
    ),
    "base64 of line ends": (
        JSON,
        lambda: b'{"images":[{"b64":"' + filled(b"\\n", UPLOAD - 100) + b'"}]}',
        400,
        "bad_request",
    ),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), TANDEM_LIMITS__TIMEOUT_MS="60000") as gateway:
        yield gateway


@pytest.mark.parametrize("name", BODIES)
def test_a_body_made_to_hurt_is_answered_soon_and_in_bounded_memory(gateway: Gateway, name: str) -> None:
    content_type, make, status, code = BODIES[name]
    body, process = make(), psutil.Process(gateway.process.pid)
    forget_peak(process)
    memory, before_s = process.memory_info().rss, processor_s(process)
    answer = gateway.client.post(PREDICT, content=body, headers={"content-type": content_type})
    spent_s, grown = processor_s(process) - before_s, peak(process) - memory
    assert answer.status_code == status, answer.text[:500]
    assert spent_s < MAX_CPU_S
    assert grown < MAX_MEMORY
    if status != 200:
        problem = answer.json()
        assert problem["code"] == code
        assert len(problem["detail"]) < 500
        assert problem["detail"].endswith((".", "}"))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(f"/v1/models/{'m' * 20_000}/predict", id="a model's name of kilobytes"),
        pytest.param(f"/v1/{'n' * 20_000}", id="a route of kilobytes"),
        pytest.param(f"{PREDICT}?{'p' * 20_000}=1", id="a parameter's name of kilobytes"),
        pytest.param(f"{PREDICT}?{'&'.join(f'p{number}=1' for number in range(3000))}", id="thousands of parameters"),
        pytest.param(f"{PREDICT}?version={'9' * 4000}", id="a version of thousands of digits"),
        pytest.param(f"{PREDICT}?version={2**63}", id="a version that the protocols have no room for"),
        pytest.param(f"{PREDICT}?runtime={'r' * 20_000}", id="a runtime of kilobytes"),
    ],
)
def test_what_the_caller_wrote_is_said_again_in_part_only(gateway: Gateway, path: str) -> None:
    answer = gateway.client.post(path, content=IMAGE, headers={"content-type": "image/png"})
    assert answer.status_code in (404, 422)
    assert len(answer.json()["detail"]) < 1500


def test_a_large_body_is_no_framing_of_the_next_one_on_its_connection(gateway: Gateway) -> None:
    body = IMAGE + bytes(3_000_000)
    for _ in range(3):
        answer = gateway.client.post(PREDICT, content=body, headers={"content-type": "image/png"})
        assert answer.is_success, answer.text


def test_names_of_files_and_letters_beyond_ascii_are_no_way_into_an_answer(gateway: Gateway) -> None:
    body = part(IMAGE, more='; filename="../../etc/passwd\u202e<script>\x00.png"') + END
    answer = gateway.client.post(PREDICT, content=body, headers={"content-type": FORM})
    assert answer.is_success, answer.text
    assert "passwd" not in answer.text
    answer = gateway.client.post(f"{PREDICT}?%3Cscript%3E=1", content=IMAGE, headers={"content-type": "image/png"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.content)["code"] == "invalid_parameter"
