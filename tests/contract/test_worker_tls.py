"""The gateway's TLS with that of the real servers: TorchServe's own, and the TensorFlow server's, which is mutual."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from tandem.stack import python
from tests.support.stack import HOST, ROOT, Stack, free_ports
from tests.support.waiting import wait_until

SAMPLE = ROOT / "models/digits/samples/7.png"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """`ca`, and for the workers and the gateway a certificate and its key."""
    folder, ca = tmp_path_factory.mktemp("tls"), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for who in ("worker", "gateway"):
        issued = ca.issue_cert(HOST, "localhost")
        issued.cert_chain_pems[0].write_to_path(folder / f"{who}.pem")
        issued.private_key_pem.write_to_path(folder / f"{who}.sec1")
        # Java reads PKCS 8 only.
        convert = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", f"{who}.sec1", "-out", f"{who}.key"]
        subprocess.run(convert, cwd=folder, check=True)
    return {path.name: path for path in folder.iterdir()}


@contextmanager
def running(command: list[str], environment: Mapping[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        output.open("wb") as file,
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def test_both_runtimes_answer_over_tls(stack: Stack, files: Mapping[str, Path], tmp_path: Path) -> None:
    http, torch, management, tf, *unused = map(str, free_ports(7))
    serving = stack.var / "serving"
    tls = {
        "server_key": files["worker.key"].read_text(),
        "server_cert": files["worker.pem"].read_text(),
        "custom_ca": files["ca.pem"].read_text(),
    }
    ssl = "".join(f"{name}: {json.dumps(text)}\n" for name, text in tls.items()) + "client_verify: true\n"
    (tmp_path / "ssl.config").write_text(ssl)
    commands = {
        "torch": [
            *(str(python("torch")), "-m", "torch_worker"),
            *("--serving", str(serving / "torch"), "--work-dir", str(tmp_path / "t")),
            *("--grpc-port", torch, "--grpc-management-port", management),
            *("--http-port", unused[0], "--http-management-port", unused[1], "--metrics-port", unused[2]),
            *("--certificate", str(files["worker.pem"]), "--key", str(files["worker.key"])),
        ],
        "tf": [
            *(str(python("tf")), "-m", "tf_worker.server", "--port", tf),
            *("--model_config_file", str(serving / "tf" / "models.config")),
            *("--ssl_config_file", str(tmp_path / "ssl.config")),
        ],
        "gateway": [str(python()), "-m", "gateway"],
    }
    settings = {
        "TANDEM_VAR": str(tmp_path),
        "TANDEM_HTTP__PORT": http,
        "TANDEM_TORCH__ADDRESS": f"{HOST}:{torch}",
        "TANDEM_TORCH__MANAGEMENT_ADDRESS": f"{HOST}:{management}",
        "TANDEM_TORCH__TLS_CA": str(files["ca.pem"]),
        "TANDEM_TF__ADDRESS": f"{HOST}:{tf}",
        "TANDEM_TF__TLS_CA": str(files["ca.pem"]),
        "TANDEM_TF__TLS_CERTIFICATE": str(files["gateway.pem"]),
        "TANDEM_TF__TLS_KEY": str(files["gateway.key"]),
        "TANDEM_WARM_UP_REQUESTS": "0",
    }
    for name in ("store", "serving"):
        (tmp_path / name).symlink_to(stack.var / name)
    outputs = {name: tmp_path / f"{name}.log" for name in commands}
    with ExitStack() as held:
        processes = {
            name: held.enter_context(running(command, os.environ | settings, outputs[name]))
            for name, command in commands.items()
        }
        client = held.enter_context(httpx.Client(base_url=f"http://{HOST}:{http}", timeout=30))

        def answers() -> bool:
            assert not [name for name, process in processes.items() if process.poll() is not None]
            try:
                return all(predict(client, runtime) == "7" for runtime in ("torch", "tf"))
            except httpx.TransportError:
                return False

        wait_until(answers, lambda: [output.read_text()[-2000:] for output in outputs.values()], patience_s=120)


def predict(client: httpx.Client, runtime: str) -> str | None:
    path, headers = f"/v1/models/digits/predict?runtime={runtime}", {"content-type": "image/png"}
    answer = client.post(path, content=SAMPLE.read_bytes(), headers=headers)
    if not answer.is_success:
        return None
    label: str = answer.json()["results"][0]["predictions"][0]["label"]
    return label
