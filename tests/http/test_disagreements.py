"""Disagreements over HTTP: kept from `compare` and shadows, listed, drawn, given back and removed."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from gateway.images.draw import colour_of
from tests.conftest import Fakes, StartGateway
from tests.support.pictures import encode, plain
from tests.support.waiting import wait_until

PATH = "/v1/disagreements"
WIDE = encode(plain(100, (128, 64)))
Start = Callable[..., httpx.Client]


@pytest.fixture
def start(start_gateway: StartGateway, fakes: Fakes, tmp_path: Path) -> Start:
    """A gateway that keeps disagreements, whose runtimes disagree, and its admin's client."""
    fakes["tf"].offset = 40

    def start(**settings: object) -> httpx.Client:
        client = start_gateway(**({"disagreements": {"max_count": 100}} | settings))
        client.headers["authorization"] = f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"
        return client

    return start


def compare(client: httpx.Client, model: str, *pictures: bytes, **headers: str) -> httpx.Response:
    files = [("image", picture) for picture in pictures]
    answer = client.post(f"/v1/models/{model}/compare", files=files, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def counted(client: httpx.Client, outcome: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    series = [line for line in lines if line.startswith("tandem_disagreements_total{") and f'"{outcome}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in series)


def kept(client: httpx.Client, count: int, **params: Any) -> list[dict[str, Any]]:
    """Those that there are, once `count` have been kept."""
    wait_until(
        lambda: counted(client, "kept") == count, lambda: client.get("/metrics").text, patience_s=30, pause_s=0.01
    )
    found: list[dict[str, Any]] = client.get(PATH, params=params).json()["disagreements"]
    return found


@pytest.mark.parametrize("model", ["digits", "shapes", "outlines"])
def test_what_a_comparison_disagreed_about_is_kept_with_both_answers(start: Start, fakes: Fakes, model: str) -> None:
    fakes["tf"].offset = 41  # of digits, another class
    client = start()
    answer = compare(client, model, WIDE, **{"x-request-id": "mine"}).json()
    (listed,) = kept(client, 1)
    one = client.get(f"{PATH}/{listed['id']}").json()
    assert (one["request_id"], one["model"], one["image"]) == ("mine", model, 0)
    assert one["agreement"] == answer["agreement"]
    for side in one["answers"]:
        given = answer["runtimes"][side["runtime"]]
        assert side["predictions"] == given["results"][0]["predictions"]
        assert (side["version"], side["timing_ms"]) == (given["version"], given["timing_ms"])
    bare = [{key: value for key, value in each.items() if key != "mask"} for each in one["answers"][0]["predictions"]]
    assert listed["answers"][0]["predictions"] == bare


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_what_a_shadow_disagreed_about_is_kept_too(start: Start, accept: str) -> None:
    client = start()
    policy = {"policy": "shadow", "primary": "torch", "shadow": "tf"}
    assert client.put("/v1/models/outlines/routing", json=policy).status_code == 200
    client.post("/v1/models/outlines/predict", files={"image": WIDE}, headers={"accept": accept})
    (listed,) = kept(client, 1)
    assert [side["runtime"] for side in listed["answers"]] == ["torch", "tf"]
    assert client.get(f"{PATH}/{listed['id']}/picture").content == WIDE


def test_what_both_agree_about_is_not_kept(start: Start, fakes: Fakes) -> None:
    client = start()
    fakes["tf"].offset = 0
    compare(client, "shapes", WIDE)
    fakes["tf"].offset = 40
    compare(client, "shapes", WIDE)
    assert len(kept(client, 1)) == 1


def test_by_default_none_is_kept(start: Start, tmp_path: Path) -> None:
    client = start(disagreements={})
    assert compare(client, "shapes", WIDE).json()["agreement"]["agree"] is False
    assert client.get(PATH).json() == {"disagreements": []}
    assert counted(client, "kept") + counted(client, "dropped") == 0


def test_the_picture_comes_back_byte_by_byte_and_as_nothing_else(start: Start) -> None:
    client = start()
    photo = encode(plain(100, (128, 64)), "JPEG")
    compare(client, "shapes", photo)
    (listed,) = kept(client, 1)
    answer = client.get(f"{PATH}/{listed['id']}/picture")
    assert answer.content == photo
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == f'attachment; filename="disagreement-{listed["id"]}.jpeg"'


@pytest.mark.parametrize("model", ["digits", "shapes", "outlines"])
def test_it_is_drawn_as_the_comparison_was(start: Start, fakes: Fakes, model: str) -> None:
    fakes["tf"].offset = 41
    client = start()
    drawn = compare(client, model, WIDE, accept="image/png").content
    (listed,) = kept(client, 1)
    again = client.get(f"{PATH}/{listed['id']}", headers={"accept": "image/png"})
    assert again.headers["content-type"] == "image/png"
    first, second = (np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in (drawn, again.content))
    assert np.array_equal(first, second)
    if model != "digits":
        halves = np.array_split(second, 2, axis=1)
        assert all((half == colour_of(1)).all(axis=2).any() for half in halves)


def test_pages_of_one_model_newest_first(start: Start) -> None:
    client = start()
    for model in ("shapes", "outlines", "shapes"):
        compare(client, model, WIDE)
    found = kept(client, 3)
    assert [each["model"] for each in found] == ["shapes", "outlines", "shapes"]
    assert kept(client, 3, limit=1) == found[:1]
    assert kept(client, 3, before=found[0]["id"]) == found[1:]
    assert kept(client, 3, model="outlines") == found[1:2]


def test_those_of_a_model_can_be_removed(start: Start) -> None:
    client = start()
    compare(client, "shapes", WIDE)
    compare(client, "outlines", WIDE)
    kept(client, 2)
    assert client.delete(PATH, params={"model": "shapes"}).json() == {"removed": 1}
    assert [each["model"] for each in kept(client, 2)] == ["outlines"]
    assert client.delete(PATH).json() == {"removed": 1}
    assert kept(client, 2) == []


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/7"), ("GET", "/7/picture")])
def test_nothing_is_told_or_removed_without_the_admin_key(start: Start, method: str, path: str) -> None:
    client = start()
    del client.headers["authorization"]
    answer = client.request(method, PATH + path)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("path", ["/7", "/7/picture"])
@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_one_that_is_not_kept_is_404(start: Start, path: str, accept: str) -> None:
    answer = start().get(PATH + path, headers={"accept": accept})
    assert (answer.status_code, answer.json()["code"]) == (404, "disagreement_not_found")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "before=0", "model=%00", "colour=red"])
def test_parameters_that_cannot_be_meant_are_422(start: Start, query: str) -> None:
    answer = start().get(f"{PATH}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


def test_a_locked_database_delays_no_answer_and_what_does_not_fit_is_dropped(start: Start, tmp_path: Path) -> None:
    client = start(limits={"max_images": 32})
    compare(client, "shapes", WIDE)
    kept(client, 1)
    with closing(sqlite3.connect(tmp_path / "tandem.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = compare(client, "shapes", *[WIDE] * 32).json()
        assert (answer["agreement"]["images"], answer["agreement"]["agree"]) == (32, False)
        assert counted(client, "kept") == 1
        assert counted(client, "dropped") >= 24  # 8 may wait
        other.execute("ROLLBACK")
    compare(client, "shapes", WIDE)
    wait_until(
        lambda: counted(client, "kept") + counted(client, "dropped") == 34,
        lambda: client.get("/metrics").text,
        patience_s=30,
        pause_s=0.01,
    )
    assert len(client.get(PATH).json()["disagreements"]) == counted(client, "kept") > 1


def test_a_shadows_upload_counts_as_memory_it_holds(start: Start) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    upload = encode(Image.fromarray(noise))
    tensor = 64 * 64 * 3
    policy = {"policy": "shadow", "primary": "torch", "shadow": "tf", "control_rate": 0}
    client = start(shadow={"max_bytes": tensor + len(upload) - 1})
    assert client.put("/v1/models/shapes/routing", json=policy).status_code == 200
    client.post("/v1/models/shapes/predict", files={"image": upload})
    dropped = 'tandem_shadow_dropped_total{model="shapes",reason="memory_full"} 1.0'
    # The shadow's turn comes after the answer has gone out.
    wait_until(
        lambda: dropped in client.get("/metrics").text.splitlines(), lambda: client.get("/metrics").text, pause_s=0.01
    )
