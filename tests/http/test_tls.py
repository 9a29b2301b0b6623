"""HTTPS by the gateway itself. A real process, certificates made here."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509

from tests.support.gateway import Gateway, running_gateway
from tests.support.sockets import PICTURE, connected
from tests.support.stack import HOST
from tests.support.waiting import wait_until


class Authority:
    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.certificate, self.key = folder / "own.pem", folder / "own.key"
        self.trust = ssl.create_default_context()
        self._ca.configure_trust(self.trust)
        self.issue()

    @property
    def settings(self) -> dict[str, str]:
        return {"TANDEM_HTTP__TLS_CERTIFICATE": str(self.certificate), "TANDEM_HTTP__TLS_KEY": str(self.key)}

    def issue(self) -> int:
        """A new certificate, in the files; its number."""
        issued = self._ca.issue_cert(HOST)
        issued.private_key_pem.write_to_path(self.key)
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).serial_number

    def number_of(self, gateway: Gateway) -> int:
        """That of the certificate which the gateway shows now."""
        url = gateway.client.base_url
        assert url.port is not None
        with self.trust.wrap_socket(socket.create_connection((url.host, url.port)), server_hostname=HOST) as connection:
            shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def predict(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/models/digits/predict", content=PICTURE, headers={"content-type": "image/png"})


def test_requests_are_answered_over_tls_and_browsers_are_told_to_stay_with_it(
    tmp_path: Path, authority: Authority
) -> None:
    with running_gateway(tmp_path, **authority.settings) as gateway:
        with httpx.Client(base_url=gateway.client.base_url, verify=authority.trust) as client:
            answer = predict(client)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        # Who speaks no TLS, or says nothing, is in nobody's way.
        with connected(gateway.client) as plain, connected(gateway.client):
            plain.send(b"GET /livez HTTP/1.1\r\nHost: g\r\n\r\n")
            assert plain.ended
            assert predict(gateway.client).status_code == 200
        gateway.process.terminate()
        assert gateway.process.wait(30) == -signal.SIGTERM
        assert "Traceback" not in gateway.output.read_text()


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not(
    tmp_path: Path, authority: Authority
) -> None:
    with running_gateway(tmp_path, **authority.settings) as gateway:
        before = authority.number_of(gateway)
        authority.key.write_text("no key")
        wait_until(
            lambda: "certificate_not_taken" in gateway.output.read_text(), gateway.output.read_text, patience_s=30
        )
        assert authority.number_of(gateway) == before
        renewed = authority.issue()
        wait_until(
            lambda: authority.number_of(gateway) == renewed, gateway.output.read_text, patience_s=30, pause_s=0.1
        )
        assert predict(gateway.client).status_code == 200  # over the connection that was there before


def test_a_certificate_that_cannot_be_used_ends_the_start_and_names_the_settings(
    tmp_path: Path, authority: Authority
) -> None:
    trustme.CA().issue_cert(HOST).private_key_pem.write_to_path(authority.key)
    with pytest.raises(RuntimeError, match="TANDEM_HTTP__TLS_KEY: key values mismatch"):  # noqa: SIM117
        with running_gateway(tmp_path, **authority.settings):
            pass
    authority.key.unlink()
    with pytest.raises(RuntimeError, match="TANDEM_HTTP__TLS_KEY: No such file"):  # noqa: SIM117
        with running_gateway(tmp_path, **authority.settings):
            pass
