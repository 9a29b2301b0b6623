"""What an answer comes as."""

from __future__ import annotations

import pytest

from gateway.errors import NotAcceptable
from gateway.http.accept import choose

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], "application/json", id="no header"),
        pytest.param([""], "application/json", id="empty header"),
        pytest.param(["*/*"], "application/json", id="anything"),
        pytest.param(["application/*"], "application/json", id="any application type"),
        pytest.param(["image/png"], "image/png", id="PNG"),
        pytest.param(["IMAGE/JPEG"], "image/jpeg", id="case does not matter"),
        pytest.param(["image/*"], "image/png", id="any picture"),
        pytest.param([BROWSER], "application/json", id="what a browser sends"),
        pytest.param(["application/json;q=0.5, image/jpeg"], "image/jpeg", id="the better quality"),
        pytest.param(["image/png;q=0.2, image/jpeg; q=0.8"], "image/jpeg", id="spaces around"),
        pytest.param(["image/*, image/png;q=0.1"], "image/jpeg", id="the more exact range counts"),
        pytest.param(["*/*, application/json;q=0"], "image/png", id="anything else"),
        pytest.param(["text/html", "image/jpeg"], "image/jpeg", id="two headers"),
        pytest.param(["image/png;q=high, image/jpeg;q=0.1"], "image/jpeg", id="a quality that is no number"),
        pytest.param(["image/png, image/jpeg, application/json"], "application/json", id="of equals the first of ours"),
    ],
)
def test_the_type_wanted_most_is_chosen(headers: list[str], expected: str) -> None:
    assert choose(headers) == expected


@pytest.mark.parametrize("header", ["text/html", "image/webp, image/avif", "*/*;q=0", "image/png;q=0", "nonsense"])
def test_what_cannot_be_made_is_refused_with_what_can(header: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json, image/png or image/jpeg, not as"):
        choose([header])
