"""What every answer tells browsers."""

from __future__ import annotations

import httpx
import pytest


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


def test_the_page_of_the_api_may_load_what_it_names_and_nothing_else(client: httpx.Client) -> None:
    answer = client.get("/docs")
    policy = dict(part.split(maxsplit=1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "https://cdn.jsdelivr.net/npm/swagger-ui-dist" in answer.text
    assert "https://cdn.jsdelivr.net" in policy["script-src"]
    assert "https://cdn.jsdelivr.net" in policy["style-src"]
