"""TLS to the workers, against a real gRPC server with certificates made here."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import psutil
import pytest
import trustme
from prometheus_client import CollectorRegistry

from gateway.app import create_app
from gateway.deadline import Deadline
from gateway.errors import RuntimeUnavailable
from gateway.metrics import Metrics
from gateway.runtimes.base import ModelRef, Output
from gateway.runtimes.opening import open_runtimes
from gateway.settings import InvalidSettings, Settings
from tests.fakes.proxy import AnyMethod
from tests.support.packages import digits_spec
from tests.support.replies import reply, right
from tests.support.stack import free_ports

pytestmark = pytest.mark.anyio

PICTURE = np.zeros((1, 32, 32, 3), np.uint8)
WORKER = "torch.example"


class Authority:
    """Makes certificates, and the files of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._ca = trustme.CA()
        self.ca, self.certificate, self.key = (folder / name for name in ("ca.pem", "gateway.pem", "gateway.key"))
        self._ca.cert_pem.write_to_path(self.ca)
        own = self._ca.issue_cert("gateway.example")
        own.cert_chain_pems[0].write_to_path(self.certificate)
        own.private_key_pem.write_to_path(self.key)

    def server(self, *names: str, mutual: bool = False) -> grpc.ServerCredentials:
        issued = self._ca.issue_cert(*names)
        pair = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
        return grpc.ssl_server_credentials([pair], self._ca.cert_pem.bytes() if mutual else None, mutual)


class Worker:
    """A server whose every answer is a good one of TorchServe's."""

    def __init__(self, credentials: grpc.ServerCredentials | None) -> None:
        (self.port,) = free_ports(1)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((AnyMethod(self._answer),))
        address = f"127.0.0.1:{self.port}"
        if credentials is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, credentials)

    async def _answer(self, path: str, request: bytes, timeout_s: float | None) -> bytes:
        return reply("torch", right(digits_spec()))

    async def __aenter__(self) -> Worker:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)


class Client:
    """The gateway's own way to the torch workers."""

    def __init__(self, worker: Worker, **files: object) -> None:
        address = f"127.0.0.1:{worker.port}"
        torch = {"address": address, "management_address": address} | {name: str(each) for name, each in files.items()}
        self._runtimes = open_runtimes(Settings(torch=torch), Metrics(CollectorRegistry()), lambda _: None)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        for runtime in self._runtimes.values():
            await runtime.close()

    async def infer(self) -> Output:
        return await self._runtimes["torch"].infer(ModelRef("digits", 1), PICTURE, deadline=Deadline.after_ms(5_000))

    async def look(self) -> None:
        """As the gateway does each second."""
        await self._runtimes["torch"].status(ModelRef("digits", 1), deadline=Deadline.after_ms(5_000))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


async def test_a_worker_whose_certificate_is_signed_by_ours_is_asked(authority: Authority) -> None:
    async with Worker(authority.server("127.0.0.1")) as worker, Client(worker, tls_ca=authority.ca) as client:
        assert (await client.infer()).tensors["scores"].shape == (1, 10)


async def test_another_ones_certificate_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    async with (
        Worker(Authority(tmp_path / "theirs").server("127.0.0.1")) as worker,
        Client(worker, tls_ca=authority.ca) as client,
    ):
        with pytest.raises(RuntimeUnavailable):
            await client.infer()


async def test_a_worker_without_tls_is_sent_nothing_where_tls_is_set(authority: Authority) -> None:
    async with Worker(None) as worker, Client(worker, tls_ca=authority.ca) as client:
        with pytest.raises(RuntimeUnavailable):
            await client.infer()


@pytest.mark.parametrize("own", [True, False], ids=["with one", "without"])
async def test_a_worker_that_asks_for_a_certificate_takes_ours_and_nobody_without(
    authority: Authority, own: bool
) -> None:
    files = {"tls_certificate": authority.certificate, "tls_key": authority.key} if own else {}
    async with (
        Worker(authority.server("127.0.0.1", mutual=True)) as worker,
        Client(worker, tls_ca=authority.ca, **files) as client,
    ):
        if own:
            assert await client.infer()
        else:
            with pytest.raises(RuntimeUnavailable):
                await client.infer()


@pytest.mark.parametrize("named", [True, False], ids=["that name", "its address"])
async def test_the_name_in_the_certificate_is_the_one_that_is_set(authority: Authority, named: bool) -> None:
    files = {"tls_ca": authority.ca} | ({"tls_server_name": WORKER} if named else {})
    async with Worker(authority.server(WORKER)) as worker, Client(worker, **files) as client:
        if named:
            assert await client.infer()
        else:
            with pytest.raises(RuntimeUnavailable):
                await client.infer()


async def test_files_that_change_are_read_again_and_broken_ones_leave_what_there_is(
    authority: Authority, tmp_path: Path
) -> None:
    next_one = Authority(tmp_path / "next")
    async with Worker(next_one.server("127.0.0.1")) as worker, Client(worker, tls_ca=authority.ca) as client:
        with pytest.raises(RuntimeUnavailable):
            await client.infer()
        authority.ca.write_bytes(next_one.ca.read_bytes())
        await client.look()
        assert await client.infer()
        authority.ca.write_text("half of a cert")
        await client.look()
        assert await client.infer()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({"tls_ca": "gone.pem"}, "TANDEM_TORCH__TLS_CA: .*gone.pem cannot be read", id="no file"),
        pytest.param({"tls_ca": "text.pem"}, "TANDEM_TORCH__TLS_CA: .*holds no certificate", id="no certificate"),
        pytest.param(
            {"tls_certificate": "gateway.pem", "tls_key": "other.key"},
            "TANDEM_TORCH__TLS_KEY: .*is not the key of",
            id="another key",
        ),
        pytest.param(
            {"tls_certificate": "gateway.pem", "tls_key": "text.pem"},
            "TANDEM_TORCH__TLS_KEY: .*is not, without a password",
            id="no key",
        ),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start_with_its_name(
    authority: Authority, tmp_path: Path, files: dict[str, str], said: str
) -> None:
    folder = authority.ca.parent
    (folder / "text.pem").write_text("This is none.")
    (folder / "other.key").write_bytes(Authority(tmp_path / "other").key.read_bytes())
    torch = {"tls_ca": "ca.pem"} | files
    with pytest.raises(InvalidSettings, match=said):
        create_app(Settings(var=tmp_path, torch={name: str(folder / file) for name, file in torch.items()}))


async def test_a_connection_on_which_nobody_acknowledges_anything_is_given_up_after_three_seconds(
    authority: Authority,
) -> None:
    async with Worker(authority.server("127.0.0.1")) as worker, Client(worker, tls_ca=authority.ca) as client:
        await client.infer()
        (fd,) = {
            each.fd for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == worker.port
        }
        with socket.fromfd(fd, socket.AF_INET6, socket.SOCK_STREAM) as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
