"""Adding a model to the running stack, as docs/docker.md says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.compose.conftest import Running
from tests.support.stack import ROOT
from tests.support.waiting import wait_until

SAMPLES = ROOT / "models" / "digits" / "samples"
PNG = {"Content-Type": "image/png"}
MAKE_NETWORK = """
import sys, torch
torch.manual_seed(7)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 7 * 7, 4)
)
torch.jit.trace(network.eval(), torch.zeros(1, 3, 32, 32)).save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def files(running: Running, figures: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a TorchScript file of random weights and its labels, which the containers' user can read."""
    figures.append(f"models: built in {running.compose.build('models'):.0f} s")
    folder = tmp_path_factory.mktemp("files")
    python = ROOT / ".venv-torch" / "bin" / "python"
    subprocess.run([python, "-c", MAKE_NETWORK, folder / "network.torchscript"], check=True, capture_output=True)
    (folder / "labels.txt").write_text("north\neast\nsouth\nwest\n")
    folder.chmod(0o755)
    return folder


def test_a_model_added_by_a_container_is_served_by_both_runtimes(running: Running, files: Path) -> None:
    running.compose.run(
        "run", "--rm", "-T", "--volume", f"{files}:/files:ro", "models", "add", "/files/network.torchscript",
        "--name", "directions", "--labels", "/files/labels.txt", "--size", "32x32", "--pixels", "0..1",
        "--activation", "softmax",
        timeout_s=900,
    )  # fmt: skip
    wait_until(lambda: "directions" in states(running), lambda: states(running))
    wait_until(running.compose.ready, lambda: states(running))
    picture = (SAMPLES / "7.png").read_bytes()
    answer = httpx.post(f"{running.gateway}/v1/models/directions/compare", content=picture, headers=PNG, timeout=30)
    assert answer.json()["agreement"]["agree"], answer.text
    listed = running.compose.run("run", "--rm", "-T", "models", "list", "--json")
    assert '"directions"' in listed
    proof = running.compose.run("run", "--rm", "-T", "models", "verify", "directions", "--json")
    assert json.loads(proof)["passed"]
    running.compose.run("run", "--rm", "-T", "models", "remove", "directions")
    wait_until(lambda: "directions" not in states(running), lambda: states(running))


def states(running: Running) -> dict[str, object]:
    return dict(httpx.get(f"{running.gateway}/readyz", timeout=30).json()["models"])


def test_the_gateways_own_container_says_where_to_add_models(running: Running) -> None:
    key = running.compose.execute("gateway", "cat", "/var/lib/tandem/admin.key").strip()
    answer = httpx.post(
        f"{running.gateway}/v1/models",
        json={"name": "directions", "source": "/files/network.torchscript"},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    assert answer.status_code == 409
    assert "models add" in answer.json()["detail"]
