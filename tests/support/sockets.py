"""HTTP by hand, for what a client library does not send."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.support.stack import ROOT

PICTURE = (ROOT / "models/digits/samples/7.png").read_bytes()
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """A connection to a gateway."""

    def __init__(self, client: httpx.Client) -> None:
        url = client.base_url
        self.socket = socket.create_connection((url.host, url.port), _PATIENCE_S)
        self._read = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> Reply:
        """The next answer. Raises EOFError for the end of the connection."""
        line = self._read.readline()
        if not line:
            raise EOFError
        headers = {}
        while (header := self._read.readline().strip()) != b"":
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Reply(int(line.split()[1]), headers, self._read.read(int(headers.get("content-length", 0))))

    @property
    def ended(self) -> bool:
        """Whether the connection ends now, or in time; a reset is an end."""
        try:
            return self._read.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._read.close()
        self.socket.close()


@contextmanager
def connected(client: httpx.Client) -> Iterator[Raw]:
    raw = Raw(client)
    try:
        yield raw
    finally:
        raw.close()


def upload(picture: bytes = PICTURE, *headers: str, length: int | None = None) -> bytes:
    """The request that asks for the digit of `picture`."""
    lines = [
        "POST /v1/models/digits/predict HTTP/1.1",
        "Host: gateway",
        "Content-Type: image/png",
        f"Content-Length: {len(picture) if length is None else length}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + picture
