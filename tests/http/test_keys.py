"""Who may use which route."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from gateway import key_file
from gateway.key_file import Right, new_key
from tests.conftest import StartGateway
from tests.http.test_errors import GOOD, PNG, assert_problem
from tests.support.waiting import wait_until

PREDICT = "/v1/models/digits/predict"
ROUTES: dict[Right, list[tuple[str, str]]] = {
    "predict": [("POST", PREDICT), ("POST", "/v1/models/digits/compare")],
    "read": [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/digits"),
        ("GET", "/v1/models/digits/routing"),
        ("GET", "/v1/comparison?model=digits"),
        ("GET", "/metrics"),
    ],
    "admin": [
        ("GET", "/v1/settings"),
        ("PUT", "/v1/models/digits/routing"),
        ("PUT", "/v1/models/digits/default"),
        ("PUT", "/v1/models/digits/scale"),
        ("DELETE", "/v1/models/digits"),
        ("DELETE", "/v1/models/digits/versions/1"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/digits/verify"),
        ("GET", "/v1/jobs/1"),
        ("GET", "/v1/disagreements"),
        ("DELETE", "/v1/disagreements"),
        ("GET", "/v1/disagreements/1"),
        ("GET", "/v1/disagreements/1/picture"),
    ],
}
OPEN = ["/livez", "/readyz", "/docs", "/openapi.json"]
every_guarded = pytest.mark.parametrize(
    ("right", "method", "path"),
    [(right, *route) for right, routes in ROUTES.items() for route in routes],
    ids=lambda value: str(value),
)


def add_key(
    var: Path, *rights: Right, name: str = "shop", rate: str | None = None, expires: datetime | None = None
) -> dict[str, str]:
    """The headers of a request with a new key."""
    text, key = new_key(name, frozenset(rights), rate=rate, created=datetime.now(UTC), expires=expires)
    with key_file.changed(var / "keys.json") as keys:
        keys.append(key)
    return {"authorization": f"Bearer {text}"}


def test_every_route_is_guarded_or_open_on_purpose(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    guarded = {
        (method.upper(), path) for path, methods in described["paths"].items() for method, each in methods.items()
        if "security" in each
    }  # fmt: skip
    every = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert every - guarded == {("GET", "/livez"), ("GET", "/readyz")}
    assert len(guarded) == sum(map(len, ROUTES.values()))
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


@every_guarded
def test_without_a_key_nothing_is_done_once_keys_are_required(
    start_gateway: StartGateway, right: Right, method: str, path: str
) -> None:
    client = start_gateway(keys={"required": True})
    assert_problem(client.request(method, path), 401, "unauthenticated")


@every_guarded
def test_a_key_without_the_right_is_told_which_one_it_lacks(
    start_gateway: StartGateway, tmp_path: Path, right: Right, method: str, path: str
) -> None:
    headers = add_key(tmp_path, *(ROUTES.keys() - {right, "admin"}))
    answer = start_gateway().request(method, path, headers=headers)
    assert_problem(answer, 403, "forbidden")
    assert f"'shop' lacks the right '{right}'" in answer.json()["detail"]


def test_a_key_opens_what_it_has_the_right_to_and_admin_everything(start_gateway: StartGateway, tmp_path: Path) -> None:
    keys = [add_key(tmp_path, right) for right in ROUTES]
    client = start_gateway()
    keys.append({"authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"})

    def statuses(headers: dict[str, str]) -> list[int]:
        return [
            client.post(PREDICT, content=GOOD, headers=PNG | headers).status_code,
            client.get("/metrics", headers=headers).status_code,
            client.get("/v1/settings", headers=headers).status_code,
        ]

    assert [statuses(headers) for headers in keys] == [
        [200, 403, 403],
        [403, 200, 403],
        [200, 200, 200],
        [200, 200, 200],
    ]


@pytest.mark.parametrize("path", OPEN)
def test_health_and_the_description_of_the_api_are_open(start_gateway: StartGateway, path: str) -> None:
    assert start_gateway(keys={"required": True}).get(path).status_code == 200


def test_an_expired_key_opens_nothing(start_gateway: StartGateway, tmp_path: Path) -> None:
    headers = add_key(tmp_path, "predict", expires=datetime.now(UTC) - timedelta(seconds=1))
    answer = start_gateway().post(PREDICT, content=GOOD, headers=PNG | headers)
    assert_problem(answer, 401, "unauthenticated")
    assert "has expired" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", PREDICT), ("PUT", "/v1/models/digits/routing"), ("POST", "/v1/models")]
)
def test_the_answer_to_a_request_without_a_key_does_not_wait_for_its_body(
    start_gateway: StartGateway, method: str, path: str
) -> None:
    client = start_gateway(keys={"required": True})
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    address = urlsplit(str(client.base_url))
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 0), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_keys_come_and_go_while_the_gateway_runs(client: httpx.Client, tmp_path: Path) -> None:
    def status(headers: dict[str, str]) -> int:
        return client.post(PREDICT, content=GOOD, headers=PNG | headers).status_code

    assert status({}) == 200
    headers = add_key(tmp_path, "predict")
    wait_until(lambda: status({}) == 401, lambda: "still open")
    assert status(headers) == 200
    with key_file.changed(tmp_path / "keys.json") as keys:
        keys.clear()
    wait_until(lambda: status(headers) == 401, lambda: "still valid")


def test_a_key_that_asks_too_often_is_told_when_to_come_back(start_gateway: StartGateway, tmp_path: Path) -> None:
    headers = add_key(tmp_path, "predict", "read", rate="2/day")
    unlimited = add_key(tmp_path, "predict", "read", name="other")
    client = start_gateway()
    answers = [client.post(PREDICT, content=GOOD, headers=PNG | headers), client.get("/v1/models", headers=headers)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.headers["ratelimit-policy"] for answer in answers] == ['"shop";q=2;w=86400'] * 2
    assert [answer.headers["ratelimit"].partition(";t=")[0] for answer in answers] == ['"shop";r=1', '"shop";r=0']
    refused = client.post(PREDICT, content=GOOD, headers=PNG | headers)
    assert_problem(refused, 429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 86400
    assert refused.headers["ratelimit"].startswith('"shop";r=0;t=')
    other = client.get("/metrics", headers=unlimited)
    assert "ratelimit" not in other.headers
    assert 'tandem_rate_limited_total{key="shop"} 1.0' in other.text
    assert 'tandem_rejected_total{reason="rate_limited"} 1.0' in other.text


def test_the_keys_of_one_name_share_its_rate(start_gateway: StartGateway, tmp_path: Path) -> None:
    old, new = (add_key(tmp_path, "predict", rate="1/day") for _ in range(2))
    client = start_gateway()
    assert client.post(PREDICT, content=GOOD, headers=PNG | old).status_code == 200
    assert client.post(PREDICT, content=GOOD, headers=PNG | new).status_code == 429
