"""What the clients of a soak do: one line for each kind of request, with the answers that are right."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from loadtests.pictures import Picture
from loadtests.soak import pictures
from loadtests.soak.client import Client, Reply, request

Play = Callable[[Client, random.Random], Awaitable[Reply | None]]
"""Does it once. None: the client went away before there was an answer."""

RUNTIMES = ("auto", "torch", "tf")
BUSY = (429, 504)
"""What a request with next to no time may get instead."""
_BOUNDARY = "a-soak"


@dataclass(frozen=True)
class Kind:
    name: str
    weight: float
    """Its share of all requests, relative to the others'."""
    play: Play
    right: frozenset[int]
    """The statuses that are right; of what has no answer none."""
    settles: bool = True
    """Whether nothing of it is left once it is answered; else the gateway keeps something for a minute."""


def asking(name: str, weight: float, make: Callable[[random.Random], bytes], *right: int, settles: bool = True) -> Kind:
    """A request that is sent whole, and waits for its answer."""

    async def play(client: Client, chance: random.Random) -> Reply:
        return await client.ask(make(chance))

    return Kind(name, weight, play, frozenset(right), settles)


def mix(admin_key: str) -> list[Kind]:
    """Everything that a soak does. A new route or policy is one more line."""
    admin = {"Authorization": f"Bearer {admin_key}"}
    return [
        # good requests
        asking("predict, raw", 10, lambda c: _raw(c, _predict(c)), 200),
        asking("predict, multipart", 8, lambda c: _multipart(c, _predict(c)), 200),
        asking("predict, JSON", 5, lambda c: _json(c, _predict(c)), 200),
        asking("predict, several pictures", 2, lambda c: _multipart(c, _predict(c), c.randrange(2, 9)), 200),
        asking("predict, large picture", 0.5, lambda c: _body(_predict(c), pictures.wide(c)), 200),
        asking("predict, drawn", 1, lambda c: _raw(c, _predict(c), Accept=_drawing(c)), 200),
        asking("predict, by key", 2, lambda c: _raw(c, _predict(c), X_Tandem_Key=f"{c.getrandbits(32):x}"), 200),
        asking("compare", 4, lambda c: _raw(c, _compare(c)), 200),
        asking("compare, several pictures", 1, lambda c: _multipart(c, _compare(c), c.randrange(2, 5)), 200),
        asking("compare, drawn", 0.5, lambda c: _raw(c, _compare(c), Accept=_drawing(c)), 200),
        # no time
        asking("1 ms", 2, lambda c: _raw(c, _predict(c, timeout_ms=1)), 200, *BUSY),
        asking("next to no time", 2, lambda c: _raw(c, _predict(c, timeout_ms=c.randrange(2, 30))), 200, *BUSY),
        asking(
            "compare, next to no time", 1, lambda c: _raw(c, _compare(c, timeout_ms=c.randrange(1, 20))), 200, *BUSY
        ),
        # bad pictures
        asking("truncated", 2, lambda c: _body(_any(c), pictures.truncated(c)), 415, 422),
        asking("flipped", 2, lambda c: _body(_any(c), pictures.flipped(c)), 200, 413, 415, 422),
        asking("noise", 1, lambda c: _body(_any(c), pictures.noise(c)), 415, 422),
        asking("bomb", 0.5, lambda c: _body(_any(c), pictures.bomb(c)), 413),
        asking("text bomb", 0.5, lambda c: _body(_any(c), pictures.text_bomb(c)), 200, 413, 422),
        asking("long GIF", 0.5, lambda c: _body(_any(c), pictures.long_gif(c)), 200),
        # bad requests
        asking("empty", 0.5, lambda c: _body(_any(c), b""), 400),
        asking("not a picture's type", 0.5, lambda c: _body(_any(c), b"hello", "text/plain"), 415),
        asking("malformed JSON", 0.5, lambda c: _body(_any(c), b'{"images": [', "application/json"), 400),
        asking("malformed multipart", 0.5, lambda c: _body(_any(c), b"--nothing", f"{_FORM}x"), 400),
        asking("too many pictures", 0.3, lambda c: _multipart(c, _predict(c), 17), 422),
        Kind("too large", 0.1, _too_large, frozenset({413})),
        asking("wrong parameter", 1, lambda c: _raw(c, _any(c) + c.choice(_WRONG)), 422),
        asking("unknown model", 1, lambda c: _raw(c, f"/v1/models/none-{c.getrandbits(32):x}/predict?"), 404),
        asking("unknown version", 0.5, lambda c: _raw(c, _predict(c, version=c.randrange(10**6, 10**9))), 404),
        asking("unknown route", 0.5, lambda c: request("GET", f"/v1/{c.getrandbits(64):x}"), 404),
        asking("wrong method", 0.3, lambda c: request("DELETE", _any(c)), 405),
        asking("not acceptable", 0.3, lambda c: _raw(c, _any(c), Accept="video/mp4"), 406),
        # the other routes
        asking("models", 1, lambda c: request("GET", c.choice(("/v1/models", f"/v1/models/{_model(c)}"))), 200),
        asking("probes", 2, lambda c: request("GET", c.choice(("/livez", "/readyz"))), 200),
        asking("metrics", 0.5, lambda c: request("GET", "/metrics", Accept=c.choice(_METRICS)), 200),
        asking("description", 0.1, lambda c: request("GET", c.choice(("/openapi.json", "/docs"))), 200),
        asking("comparison", 0.1, lambda c: request("GET", f"/v1/comparison?model={_model(c)}"), 200, settles=False),
        # administration
        asking("policy", 0.3, lambda c: _put(c, admin), 200),
        asking("policy shown", 0.5, lambda c: request("GET", f"/v1/models/{_model(c)}/routing"), 200),
        asking("settings", 0.2, lambda _: request("GET", "/v1/settings", None, **admin), 200),
        asking("disagreements", 0.3, lambda _: request("GET", "/v1/disagreements", None, **admin), 200),
        asking(
            "policy, wrong key", 0.5, lambda c: _put(c, {"Authorization": f"Bearer {c.getrandbits(64):x}"}), 401, 403
        ),
        asking("settings, no key", 0.5, lambda _: request("GET", "/v1/settings"), 401, 403),
        asking(
            "removal, wrong key", 0.2, lambda c: request("DELETE", f"/v1/models/{_model(c)}", None, **_NO_KEY), 401, 403
        ),
        # clients that misbehave
        Kind("slow upload", 0.3, _slow_upload, frozenset({200})),
        Kind("hangs up in the upload", 2, _hang_up_in_the_upload, frozenset()),
        Kind("hangs up while it waits", 2, _hang_up_while_it_waits, frozenset()),
        Kind("hangs up in the answer", 1, _hang_up_in_the_answer, frozenset()),
        Kind("hangs up in the head", 0.5, _hang_up_in_the_head, frozenset()),
        Kind("opens and says nothing", 0.3, _say_nothing, frozenset()),
        Kind("no HTTP", 0.3, _no_http, frozenset({400})),
    ]


_NO_KEY = {"Authorization": "Bearer nobody"}
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"
_WRONG = ("top_k=0", "min_score=2", "version=0", "timeout_ms=soon", "colour=red", "version=1.5")
_METRICS = ("*/*", "application/openmetrics-text; version=1.0.0")
_POLICIES: tuple[Mapping[str, object], ...] = (
    {"policy": "fixed", "target": "torch"},
    {"policy": "fixed", "target": "tf"},
    {"policy": "weighted", "weights": {"torch": 0.5, "tf": 0.5}},
    {"policy": "shadow", "primary": "torch", "shadow": "tf", "sample_rate": 1.0, "control_rate": 0.5},
    {"policy": "shadow", "primary": "tf", "shadow": "torch", "sample_rate": 0.5},
    {"policy": "fastest", "targets": ["torch", "tf"], "explore": 0.1},
)


def _model(chance: random.Random) -> str:
    return chance.choice(("digits", "shapes"))


def _predict(chance: random.Random, **parameters: int) -> str:
    return _target(f"/v1/models/{_model(chance)}/predict?runtime={chance.choice(RUNTIMES)}&", parameters)


def _compare(chance: random.Random, **parameters: int) -> str:
    more = chance.choice(("", "mode=sequential&", "targets=tf,tf&"))
    return _target(f"/v1/models/{_model(chance)}/compare?{more}", parameters)


def _any(chance: random.Random) -> str:
    return chance.choice((_predict, _compare))(chance)


def _target(path: str, parameters: Mapping[str, int]) -> str:
    return path + "&".join(f"{name}={value}" for name, value in parameters.items())


def _picture(chance: random.Random, target: str) -> Picture:
    model = target.split("/")[3]
    return chance.choice(pictures.SAMPLES.get(model, pictures.PHOTOGRAPHS))


def _drawing(chance: random.Random) -> str:
    return chance.choice(("image/png", "image/jpeg"))


def _body(target: str, body: bytes, media: str = "image/png", **headers: str) -> bytes:
    return request("POST", target, body, Content_Type=media, **headers)


def _raw(chance: random.Random, target: str, **headers: str) -> bytes:
    content, media = _picture(chance, target)
    return _body(target, content, media, **headers)


def _json(chance: random.Random, target: str) -> bytes:
    images = [{"b64": base64.b64encode(_picture(chance, target).content).decode()}]
    return _body(target, json.dumps({"images": images}).encode(), "application/json")


def _multipart(chance: random.Random, target: str, count: int = 1) -> bytes:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{n}"\r\n\r\n'.encode()
        + _picture(chance, target).content
        + b"\r\n"
        for n in range(count)
    ]
    return _body(target, b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode(), _FORM)


def _put(chance: random.Random, headers: Mapping[str, str]) -> bytes:
    policy = json.dumps(chance.choice(_POLICIES)).encode()
    target = f"/v1/models/{_model(chance)}/routing"
    return request("PUT", target, policy, Content_Type="application/json", **headers)


async def _slow_upload(client: Client, chance: random.Random) -> Reply:
    whole = _raw(chance, _predict(chance))
    piece = len(whole) // 8 + 1
    async with client.opened() as connection:
        for start in range(0, len(whole), piece):
            connection.writer.write(whole[start : start + piece])
            await connection.writer.drain()
            await asyncio.sleep(chance.uniform(0.01, 0.2))
        return await connection.reply()


async def _sent(client: Client, chance: random.Random, what: bytes, wait_s: float, *, read: int = 0) -> None:
    """Send, wait or read, and hang up: in good order or not."""
    connection = await client.open()
    with suppress(OSError, asyncio.IncompleteReadError):
        connection.writer.write(what)
        await connection.writer.drain()
        if read:
            await connection.reader.readexactly(read)
        await asyncio.sleep(wait_s)
    if chance.random() < 0.5:
        connection.reset()
    await connection.close()


async def _hang_up_in_the_upload(client: Client, chance: random.Random) -> None:
    whole = chance.choice((_raw, _multipart))(chance, _any(chance))
    await _sent(client, chance, whole[: chance.randrange(200, len(whole) - 1)], chance.uniform(0, 0.1))


async def _hang_up_while_it_waits(client: Client, chance: random.Random) -> None:
    await _sent(client, chance, _raw(chance, _any(chance)), chance.uniform(0, 0.02))


async def _hang_up_in_the_answer(client: Client, chance: random.Random) -> None:
    await _sent(client, chance, _raw(chance, _compare(chance), Accept="image/png"), 0, read=100)


async def _hang_up_in_the_head(client: Client, chance: random.Random) -> None:
    await _sent(client, chance, b"POST /v1/models/digits/predict HTTP/1.1\r\nHost:", chance.uniform(0, 1))


async def _say_nothing(client: Client, chance: random.Random) -> None:
    await _sent(client, chance, b"", chance.uniform(0.5, 5))


async def _too_large(client: Client, chance: random.Random) -> Reply:
    """It says so, and need not send it to be refused."""
    async with client.opened() as connection:
        connection.writer.write(_body(_any(chance), b"", Content_Length="20000001"))
        return await connection.reply()


async def _no_http(client: Client, _: random.Random) -> Reply:
    async with client.opened() as connection:
        connection.writer.write(b"\x16\x03\x01 is TLS, as from a client that takes this for https\r\n\r\n")
        return await connection.reply()
