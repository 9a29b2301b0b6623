"""TLS to the workers: the files that the settings name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from gateway.file_stamp import FileStamp, file_stamp
from gateway.settings import InvalidSettings, Settings, WorkerSettings
from modelkit.spec import RuntimeName

Stamp = tuple[FileStamp, ...]
"""What tells one content of the files from the next."""


@dataclass(frozen=True)
class Tls:
    credentials: grpc.ChannelCredentials
    server_name: str
    """That the worker's certificate must have; empty: the host that is called."""


def check(settings: Settings) -> None:
    """Raises InvalidSettings for a file that cannot be used."""
    read("torch", settings.torch)
    read("tf", settings.tf)


def read(runtime: RuntimeName, settings: WorkerSettings) -> Tls | None:
    """What the files hold now; None without TLS. Raises InvalidSettings for one that cannot be used."""
    if not settings.tls_ca:
        return None
    ca, certificate, key = (
        _bytes(runtime, name, getattr(settings, name)) for name in ("tls_ca", "tls_certificate", "tls_key")
    )
    # gRPC takes any bytes, and then fails at each connection with words that do not name the file.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(settings.tls_ca)
    except ssl.SSLError:
        raise _invalid(runtime, "tls_ca", f"{settings.tls_ca} holds no certificate in PEM form") from None
    if certificate:
        try:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=lambda: b"")
        except ssl.SSLError as error:
            what = (
                "is not the key of" if error.reason == "KEY_VALUES_MISMATCH" else "is not, without a password, one of"
            )
            said = f"{settings.tls_key} {what} the certificate {settings.tls_certificate}, both in PEM form"
            raise _invalid(runtime, "tls_key", said) from None
    return Tls(grpc.ssl_channel_credentials(ca, key or None, certificate or None), settings.tls_server_name)


def stamp(settings: WorkerSettings) -> Stamp:
    """Another one when a file has changed."""
    if not settings.tls_ca:
        return ()
    return tuple(file_stamp(path) for path in (settings.tls_ca, settings.tls_certificate, settings.tls_key) if path)


def _bytes(runtime: RuntimeName, name: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _invalid(runtime, name, f"{path} cannot be read: {error.strerror}") from None


def _invalid(runtime: RuntimeName, name: str, said: str) -> InvalidSettings:
    return InvalidSettings(f"TANDEM_{runtime.upper()}__{name.upper()}: {said}.")
