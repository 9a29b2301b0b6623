"""Nothing that is sent in confidence comes out anywhere: whatever goes wrong, and with all logging and tracing on."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, PngImagePlugin

from gateway import key_file
from gateway.key_file import Right, new_key
from tests.fakes.collector import Collector
from tests.support.gateway import Gateway, running_gateway
from tests.support.stack import ROOT
from tests.support.waiting import wait_until

PREDICT, COMPARE = "/v1/models/digits/predict", "/v1/models/digits/compare"
IN_THE_PICTURE, FILE_NAME, CUSTOMER = "PIXELS-0b9d71", "passport-of-alice", "alice-4711"
LIMITS = {"TANDEM_LIMITS__MAX_UPLOAD_BYTES": "50000", "TANDEM_LIMITS__MAX_PIXELS": "10000"}


def picture(side: int = 64) -> bytes:
    """A PNG with a text in it, as it stands in the file."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", IN_THE_PICTURE)
    out = io.BytesIO()
    Image.new("RGB", (side, side), (7, 7, 7)).save(out, "PNG", pnginfo=text)
    assert IN_THE_PICTURE.encode() in out.getvalue()
    return out.getvalue()


GOOD = picture()


@dataclass
class Told:
    """What came out of a gateway."""

    answers: str
    elsewhere: dict[str, str]
    keys: dict[str, str] = field(repr=False)
    """Those that were sent, and the digests that the file has."""
    var: Path

    def everything(self) -> dict[str, str]:
        return {"answers": self.answers, **self.elsewhere}


def bodies() -> Iterator[dict[str, Any]]:
    """Good and bad ones."""
    yield {"content": GOOD, "headers": {"content-type": "image/png"}}
    yield {"files": [("image", (f"{FILE_NAME}.png", GOOD, "image/png"))]}
    yield {"files": [("picture", (f"{FILE_NAME}.png", GOOD, "image/png"))]}
    yield {"files": [("image", (f"{FILE_NAME}.png", GOOD, "image/png"))] * 17}
    yield {"json": {"images": [{"b64": base64.b64encode(GOOD).decode()}]}}
    yield {"json": {"images": [{"b64": f"!{IN_THE_PICTURE}"}]}}
    yield {"json": {"images": [IN_THE_PICTURE]}}
    yield {"content": f'{{"{IN_THE_PICTURE}'.encode(), "headers": {"content-type": "application/json"}}
    for content in (GOOD[:-30], GOOD[:60], IN_THE_PICTURE.encode(), b"", GOOD * 300, picture(side=101)):
        yield {"content": content, "headers": {"content-type": "image/png"}}
    yield {"content": GOOD, "headers": {"content-type": "text/plain"}}
    yield {"content": GOOD, "headers": {"content-type": "multipart/form-data; boundary=x"}}


def credentials(keys: dict[str, str]) -> Iterator[dict[str, str]]:
    for key in keys.values():
        yield {"authorization": f"Bearer {key}"}
        yield {"authorization": key}
        yield {"authorization": f"Basic {key}"}
        yield {"x-api-key": key}


def ask(client: httpx.Client, keys: dict[str, str]) -> Iterator[httpx.Response]:
    good = {"authorization": f"Bearer {keys['shop']}", "x-tandem-key": CUSTOMER}
    admin = {"authorization": f"Bearer {keys['admin']}"}
    for body in bodies():
        for path in (f"{PREDICT}?runtime=torch", f"{PREDICT}?runtime=tf", COMPARE):
            yield client.post(path, **body | {"headers": {**body.get("headers", {}), **good}})
    for query in (f"api_key={keys['shop']}", f"top_k={keys['shop']}", f"version={keys['shop']}", "timeout_ms=1"):
        yield client.post(f"{PREDICT}?{query}", content=GOOD, headers={"content-type": "image/png", **good})
    for headers in credentials(keys):
        for _ in range(2):
            yield client.post(PREDICT, content=GOOD, headers={"content-type": "image/png", **headers})
        yield client.get("/v1/settings", headers=headers)
    for method, path, options in [
        ("GET", "/v1/models", {}),
        ("GET", "/v1/models/nothing", {}),
        ("GET", "/v1/jobs/1", {}),
        ("GET", "/v1/comparison?model=digits", {}),
        ("PUT", "/v1/models/digits/routing", {"json": {"policy": keys["shop"]}}),
        ("PUT", "/v1/models/digits/default", {"json": {"version": 99}}),
        ("DELETE", "/v1/models/digits/versions/99", {}),
        ("POST", "/v1/models/digits/verify", {"json": {"samples": 5}}),
        ("GET", "/nothing", {}),
        ("PATCH", PREDICT, {}),
        ("GET", "/readyz", {}),
    ]:
        yield client.request(method, path, headers=admin, **options)  # type: ignore[arg-type]


@pytest.fixture
def told(tmp_path: Path, collector: Collector) -> Told:
    """Asked everything, on a gateway of which torch is broken, at the lowest level of the log."""
    keys, digests = {"unknown": "tandem_0badcafe_0123456789-never-made"}, {}
    now = datetime.now(UTC)
    made: list[tuple[str, Right, timedelta | None, str | None]] = [
        ("shop", "predict", None, None),
        ("late", "predict", timedelta(0), None),
        ("reader", "read", None, None),
        ("often", "predict", None, "1/day"),
    ]
    with key_file.changed(tmp_path / "keys.json") as kept:
        for name, right, valid, rate in made:
            expires = None if valid is None else now + valid
            keys[name], key = new_key(name, frozenset([right]), rate=rate, created=now, expires=expires)
            digests[f"digest of {name}"] = key.sha256
            kept.append(key)
    settings = {"TANDEM_LOG__LEVEL": "debug", "TANDEM_TRACING__ENDPOINT": collector.endpoint, **LIMITS}
    with running_gateway(tmp_path, "--fail", "torch", **settings) as gateway:
        keys["admin"] = (tmp_path / "admin.key").read_text().strip()
        answers = list(ask(gateway.client, keys))
        (tmp_path / "keys.json").write_text(f'{{"keys": [{{"id": "{keys["shop"]}"}}]}}')
        wait_until(lambda: "keys_not_read" in gateway.output.read_text(), gateway.output.read_text, pause_s=0.1)
        metrics = gateway.client.get("/metrics", headers={"authorization": f"Bearer {keys['reader']}"}).text
        stop(gateway)
        log = gateway.output.read_text()
    with closing(sqlite3.connect(tmp_path / "tandem.db")) as database:
        rows = "\n".join(database.iterdump())
    spans = b"".join(collector.bodies).decode("utf-8", "replace")
    everything = "\n".join(
        f"{each.status_code} {each.headers} {each.text}" for each in answers if not shows_paths(each)
    )
    seen = {each.status_code for each in answers}
    assert seen >= {200, 400, 401, 403, 404, 405, 413, 415, 422, 429, 500}
    return Told(everything, {"log": log, "metrics": metrics, "spans": spans, "rows": rows}, keys | digests, tmp_path)


def shows_paths(answer: httpx.Response) -> bool:
    """To the admin, on purpose: the settings have some."""
    return answer.request.url.path == "/v1/settings" and answer.is_success


def stop(gateway: Gateway) -> None:
    """So that it writes and sends what it has."""
    gateway.process.terminate()
    gateway.process.wait(60)


def test_no_key_picture_file_name_or_customer_comes_out_and_no_path_but_in_the_log(told: Told) -> None:
    everything = told.everything()
    # All of it was there to be told.
    assert "internal_error" in everything["answers"]
    lines = [json.loads(line) for line in everything["log"].splitlines() if line.startswith("{")]
    assert {line.get("key") for line in lines} >= {"shop", "reader", "often", "admin"}
    assert 'key="often"' in everything["metrics"]
    for place in ("spans", "rows", "metrics"):
        assert "digits" in everything[place]
    secrets = {name: key.split("_", 2)[-1] for name, key in told.keys.items()}
    secrets |= {"picture": IN_THE_PICTURE, "file name": FILE_NAME, "customer": CUSTOMER}
    secrets["picture in base64"] = base64.b64encode(GOOD).decode()[:60]
    found = {(place, name) for place, text in everything.items() for name, secret in secrets.items() if secret in text}
    assert found == set()
    paths = {(place, path) for place, text in everything.items() for path in (str(told.var), str(ROOT)) if path in text}
    assert {place for place, _ in paths} <= {"log"}
