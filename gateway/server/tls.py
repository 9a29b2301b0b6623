"""The gateway's own certificate, which is renewed while it runs."""

from __future__ import annotations

import ssl

import structlog

from gateway.file_stamp import FileStamp, file_stamp
from gateway.settings import HttpSettings, InvalidSettings

_log = structlog.get_logger(__name__)


class Certificate:
    def __init__(self, certificate: str, key: str) -> None:
        """The files' names. Raises InvalidSettings for what cannot be used."""
        self._certificate = certificate
        self._key = key
        self._tried = self._stamp()
        try:
            self.context = self._load()
        except (OSError, ssl.SSLError) as error:
            raise InvalidSettings(
                f"TANDEM_HTTP__TLS_CERTIFICATE, TANDEM_HTTP__TLS_KEY: {_said(error)}. Name a certificate, with those "
                "that lead to its root, and its key without a password, both as PEM."
            ) from None

    @classmethod
    def of(cls, settings: HttpSettings) -> Certificate | None:
        """None: no TLS. Raises InvalidSettings."""
        return cls(settings.tls_certificate, settings.tls_key) if settings.tls_certificate else None

    def refresh(self) -> None:
        """Take over files that have changed, for connections from now on. What cannot be used leaves the old ones."""
        stamp = self._stamp()
        if stamp == self._tried:
            return
        self._tried = stamp
        try:
            self.context = self._load()
        except (OSError, ssl.SSLError) as error:  # perhaps only one of the two is there yet
            _log.error("certificate_not_taken", reason=_said(error), detail="The one before it stays in use.")
        else:
            _log.info("certificate_taken")

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _stamp(self) -> tuple[FileStamp, FileStamp]:
        return file_stamp(self._certificate), file_stamp(self._key)


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)
