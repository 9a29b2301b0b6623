"""Requests to the running stack."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from tests.compose.conftest import Running
from tests.support.stack import ROOT

_SEVEN = (ROOT / "models" / "digits" / "samples" / "7.png").read_bytes()


def predict(running: Running, runtime: str) -> httpx.Response:
    return httpx.post(
        f"{running.gateway}/v1/models/digits/predict",
        params={"runtime": runtime},
        content=_SEVEN,
        headers={"Content-Type": "image/png"},
        timeout=30,
    )


@contextmanager
def steady_requests(running: Running, runtime: str, *, users: int = 1) -> Iterator[list[httpx.Response]]:
    """Requests of each user one after the other, from a thread of its own, for the block; the answers so far."""
    answers: list[httpx.Response] = []
    end = threading.Event()

    def ask() -> None:
        while not end.is_set():
            answers.append(predict(running, runtime))

    with ExitStack() as threads:
        for _ in range(users):
            thread = threading.Thread(target=ask)
            thread.start()
            threads.callback(thread.join)
        threads.callback(end.set)
        yield answers
