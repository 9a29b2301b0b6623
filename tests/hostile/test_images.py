"""Pictures made to hurt, sent to a whole gateway: each is answered with what is wrong, soon, and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.hostile.bombs import FORMATS, SIDE, truncated
from tests.hostile.cost import forget_peak, peak, processor_s
from tests.support.gateway import Gateway, running_gateway

PREDICT = "/v1/models/digits/predict"
BODY = {"content-type": "image/png"}
REFUSED = {"invalid_image", "image_too_large", "unsupported_image"}
MAX_CPU_S = 3.0
"""Of one request. The dearest bombs, as large a picture as is allowed, take half a second where this was written."""
MAX_MEMORY = 18 * SIDE**2
"""Bytes above what the gateway has at rest: for the largest picture, WebP's decoder has it four times over."""
DECODED = {
    ("PNG", "as large as allowed, almost no bytes"),
    ("PNG", "a gigabyte for 64 pixels"),
    ("PNG", "zTXt of a gigabyte"),
    ("PNG", "zTXt without keywords, a megabyte each"),
    ("PNG", "iTXt that is no text, a megabyte each"),
    ("PNG", "iTXt behind the pixels"),
    ("PNG", "iCCP, a megabyte each"),
    ("PNG", "EXIF of megabytes"),
    ("JPEG", "as large as allowed, almost no bytes"),
    ("JPEG", "as many scans as allowed"),
    ("JPEG", "hundreds of pieces of EXIF"),
    ("JPEG", "padding of megabytes"),
    ("JPEG", "stuffing of megabytes"),
    ("JPEG", "EXIF whose entries are all of it"),
    ("JPEG", "Photoshop's blocks"),
    ("JPEG", "a multi-picture file of 65,535 pictures"),
    ("GIF", "10,000 frames"),
    ("GIF", "10,000 frames of 65,535 × 65,535"),
    ("WEBP", "as large as allowed, one small frame"),
    ("WEBP", "as large as allowed, one colour"),
    ("WEBP", "10,000 frames"),
    ("WEBP", "EXIF of megabytes"),
    ("TIFF", "a directory that follows itself"),
    ("TIFF", "tags that are each all of the file"),
    ("TIFF", "a resolution of a million fractions"),
    ("TIFF", "as many strips as allowed"),
    ("TIFF", "a gigabyte of deflate"),
    ("TIFF", "EXIF that follows itself"),
    ("BMP", "height below nothing"),
}
"""What hurts in these is beside the picture, or it is only large: they are answered as any other."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), TANDEM_LIMITS__TIMEOUT_MS="60000") as gateway:
        yield gateway


def _assert_refused_or_answered(answer: httpx.Response, what: str) -> None:
    assert answer.status_code < 500, f"{what}: {answer.text}"
    if answer.status_code != 200:
        problem = answer.json()
        assert problem["code"] in REFUSED, f"{what}: {problem}"
        assert problem["detail"].endswith("."), what
        assert not {"/", "0x", "PIL", "Error", "object"} & set(problem["detail"].replace("/", " / ").split()), what


@pytest.mark.parametrize(
    ("form", "name"), [pytest.param(form, name, id=f"{form} {name}") for form in FORMATS for name in FORMATS[form]]
)
def test_a_bomb_is_answered_soon_and_in_bounded_memory(gateway: Gateway, form: str, name: str) -> None:
    data, process = FORMATS[form][name](), psutil.Process(gateway.process.pid)
    forget_peak(process)
    memory, before_s = process.memory_info().rss, processor_s(process)
    answer = gateway.client.post(PREDICT, content=data, headers=BODY)
    spent_s, grown = processor_s(process) - before_s, peak(process) - memory
    _assert_refused_or_answered(answer, name)
    assert answer.is_success == ((form, name) in DECODED), answer.text
    assert spent_s < MAX_CPU_S
    # The body, and a copy without what is not pixels.
    assert grown < MAX_MEMORY + 3 * len(data)


def test_a_picture_cut_off_anywhere_is_refused(gateway: Gateway) -> None:
    answered = 0
    for name, data in truncated():
        answer = gateway.client.post(PREDICT, content=data, headers=BODY)
        _assert_refused_or_answered(answer, name)
        answered += answer.is_success
    # A file whose last bytes alone are missing may have all of its pixels.
    assert answered < 20


def test_after_all_that_the_gateway_still_answers(gateway: Gateway) -> None:
    assert gateway.client.get("/readyz").is_success
    assert gateway.process.poll() is None
