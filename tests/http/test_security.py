"""What every answer tells browsers."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.conftest import StartGateway


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/metrics", 200), ("/v1/models", 200), ("/nothing", 404), ("/v1/models/digits/predict", 405)],
)
def test_every_answer_is_kept_from_caches_frames_and_guesses_errors_too(
    client: httpx.Client, path: str, status: int
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert {name: answer.headers.get_list(name) for name in EXPECTED} == {name: [it] for name, it in EXPECTED.items()}
    assert "strict-transport-security" not in answer.headers


EXPECTED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_of_the_api_load_all_from_the_gateway_and_may_load_nothing_else(
    start_gateway: StartGateway, page: str
) -> None:
    client = start_gateway(keys={"required": True})
    answer = client.get(page)
    policy = dict(part.split(maxsplit=1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "http" not in answer.headers["content-security-policy"]
    loaded = re.findall(r'(?:<script|<link|<img)[^>]* (?:src|href)="([^"]+)"', answer.text)
    assert {path.rpartition(".")[2] for path in loaded} >= {"js", "png"}
    for path in loaded:
        assert path.startswith("/"), path
        assert client.get(path).status_code == 200, path
    assert "/openapi.json" in answer.text


def test_what_the_pages_load_is_only_read(client: httpx.Client) -> None:
    answer = client.post("/static-offline-docs/swagger-ui.css")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
