"""What the fuzzer makes and whom it gives it to."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import TandemError
from gateway.images.decode import decode
from gateway.images.preprocess import preprocess
from modelkit.spec import InputSpec
from tests.hostile.asgi import AsgiGateway
from tests.hostile.mutations import mutant
from tests.hostile.seeds import pictures
from tests.support.pictures import encode, plain

MAX_PIXELS = 4_000_000
_SPECS = (
    InputSpec(height=32, width=48),
    InputSpec(height=32, width=48, fit="crop", shorter_side=48),
    InputSpec(height=32, width=48, fit="letterbox", antialias=False),
)


@dataclass(frozen=True)
class Target:
    make: Callable[[random.Random], tuple[str, bytes]]
    """What it is a mutant of, and the mutant."""
    run: Callable[[bytes], str]
    """What became of it, in a word. Raises where that should not have happened."""
    close: Callable[[], None] = lambda: None


def _picture() -> Target:
    every = pictures()
    seeds = {
        form: [data for name, data in every.items() if name.startswith(form)]
        for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    }

    def make(chance: random.Random) -> tuple[str, bytes]:
        form = chance.choice(list(seeds))
        return form, mutant(seeds[form], chance)

    return Target(make, _decoded)


def _decoded(data: bytes) -> str:
    try:
        image = decode(data, max_pixels=MAX_PIXELS)
    except TandemError as error:
        return error.code
    if image.mode != "RGB" or not 0 < image.width * image.height <= MAX_PIXELS:
        raise AssertionError(f"{image.mode}, {image.size}")
    for spec in _SPECS:
        tensor = preprocess(image, spec)
        if tensor.shape != (1, 32, 48, 3):
            raise AssertionError(f"{tensor.shape} of {image.size}")
    return "decoded"


_BOUNDARY = b"a-boundary"
_FORM = b"multipart/form-data; boundary=" + _BOUNDARY
_JSON, _PNG = b"application/json", b"image/png"
_WORDS = (
    *(b"--" + _BOUNDARY, b"\r\n--" + _BOUNDARY + b"\r\n", b"--" + _BOUNDARY + b"--", b"\r\n", b"\r\n\r\n", b"\r"),
    *(b"Content-Disposition: form-data", b'; name="image"', b'; filename="a.png"', b"; filename*=utf-8''%00", b';"\\"'),
    *(b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: multipart/mixed; boundary=inner\r\n", b"a: b\r\n"),
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b'"b64":', b'"images":', b"null", b"1e999", b"NaN", b"\\ud800"),
    *(b"\\u0000", b"\0", b"=", b"data:image/png;base64,", b"%00", b"%ff", b"&", b"top_k=", b"version=", b"timeout_ms="),
    *(b"min_score=", b"-1", b"9" * 30, b"1" * 5000, b"\xff\xfe", b"\xc0\x80", "ż".encode(), b"<script>", b"[" * 3000),
    b"../../etc/passwd",
)
_QUERIES = (
    *(b"",) * 12,
    *(b"top_k=3&min_score=0.5", b"version=1&runtime=torch", b"timeout_ms=20000", b"runtime=auto"),
    *(b"top_k=99999", b"min_score=nan", b"version=0", b"runtime=tf&runtime=torch", b"nothing=1"),
)
_MAX_DETAIL = 600


def _requests() -> Target:
    gateway = AsgiGateway()
    image = encode(plain(1))
    part = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="a.png"\r\n\r\n%b\r\n'
    end = b"--" + _BOUNDARY + b"--\r\n"
    one, other = part % (_BOUNDARY, b"image", image), part % (_BOUNDARY, b"other", b"text")
    text = json.dumps({"images": [{"b64": base64.b64encode(image).decode()}] * 2}).encode()
    bodies = {
        _FORM: [one + end, one * 3 + other + end, other + one + b"an epilogue" + end, one * 17 + end],
        _JSON: [text, b'{"images": []}', b'{"images": [{"b64": ""}]}'],
        _PNG: [image],
    }

    def make(chance: random.Random) -> tuple[str, bytes]:
        kind = chance.choice(list(bodies))
        body, query = chance.choice(bodies[kind]), chance.choice(_QUERIES)
        content_type = kind if chance.random() < 0.8 else mutant([kind, _FORM, b"image/*", b"text/plain"], chance)
        for _ in range(chance.randint(0, 4)):
            body = _with_word(body, chance) if chance.random() < 0.7 else mutant([body, *bodies[kind]], chance)
        if chance.random() < 0.2:
            query = _with_word(query, chance)
        route = chance.choice((b"predict", b"compare"))
        line = (route, *(each.translate(None, b"\r\n\0")[:4000] for each in (query, content_type)))
        return kind.partition(b";")[0].decode(), b"\n".join((*line, body))

    def run(data: bytes) -> str:
        route, query, content_type, body = data.split(b"\n", 3)
        said = gateway.ask("POST", f"/v1/models/digits/{route.decode()}", query, content_type, body)
        if said.status == 200:
            return "200"
        problem = said.problem
        if said.status >= 500 and not (said.status == 504 and b"timeout_ms" in query):
            raise AssertionError(problem)
        if said.media_type != "application/problem+json" or len(problem["detail"]) > _MAX_DETAIL:
            raise AssertionError(said.body[:2000])
        if str(gateway.var) in problem["detail"]:
            raise AssertionError(problem)
        return f"{said.status} {problem['code']}"

    return Target(make, run, gateway.close)


def _with_word(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(_WORDS) * chance.choice((1, 1, 1, 2, 50)) + data[place:]


TARGETS: dict[str, Callable[[], Target]] = {"pictures": _picture, "requests": _requests}
