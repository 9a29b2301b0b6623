"""Fixtures of the tests on a real stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.stack import Stack

Put = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        yield client


@pytest.fixture
def put(stack: Stack, client: httpx.Client) -> Iterator[Put]:
    """Sets the policy of `digits`; afterwards torch answers again."""
    headers = {"authorization": f"Bearer {(stack.var / 'admin.key').read_text().strip()}"}

    def put(policy: dict[str, Any]) -> dict[str, Any]:
        url = "/v1/models/digits/routing"
        answer: dict[str, Any] = client.put(url, json=policy, headers=headers).raise_for_status().json()
        return answer

    yield put
    put({"policy": "fixed", "target": "torch"})
