"""Planted faults: an artifact that is nearly the other one is refused, with a report that says where and how far."""

from __future__ import annotations

import json
import re

import pytest

from tests.sources.conftest import Workplace, make

PAIR = "tandem models add --torch pair.torchscript --labels numbers --activation none --samples scans"


@pytest.mark.parametrize("fault", ["flatten", "colours", "mean", "resize"])
def test_a_faulty_conversion_is_refused_and_nothing_is_added(workplace: Workplace, fault: str) -> None:
    make("tf", "tf_pair.py", workplace.folder / "digits.npz", workplace.folder / fault, fault)
    done = workplace.run(f"{PAIR} --name {fault} --tf {fault}")
    assert done.returncode == 1
    assert f"The two artifacts of {fault} are not the same model" in done.stderr
    report = re.search(r"output scores: greatest difference (\S+) \(on (.+?)\), which is (\S+) of its", done.stderr)
    assert report is not None, done.stderr
    assert float(report[3]) > 0.001
    assert "--allow-mismatch" in done.stderr
    assert not (workplace.stack.var / "store" / fault).exists()
    with workplace.client as client:
        assert client.get(f"/v1/models/{fault}").status_code == 404


def test_a_mismatch_that_is_allowed_is_marked_wherever_the_model_is_listed(workplace: Workplace) -> None:
    make("tf", "tf_pair.py", workplace.folder / "digits.npz", workplace.folder / "mean", "mean")
    done = workplace.run(f"{PAIR} --name odd --tf mean --allow-mismatch")
    assert done.returncode == 0, done.stderr
    assert "do not agree" in done.stdout
    assert "mismatch" in next(line for line in workplace.run("tandem models list").stdout.splitlines() if "odd" in line)
    with workplace.client as client:
        assert client.get("/v1/models/odd").json()["versions"][0]["mismatch_allowed"] is True
    verified = workplace.run("tandem models verify odd")
    assert verified.returncode == 1
    assert "over the tolerance" in verified.stdout


def test_a_proof_by_random_weights_is_said_to_prove_little(workplace: Workplace) -> None:
    """MobileNetV2's random weights answer every picture alike."""
    tolerances = "--agreement top_k=3 --agreement max_score_difference=0.01"
    done = workplace.run(
        f"tandem models add keras:MobileNetV2 --name untrained --weights none --labels numbers {tolerances}"
    )
    assert done.returncode == 0, done.stderr
    assert "This proves little" in done.stderr
    shown = workplace.run("tandem models show untrained --json")
    version = json.loads(shown.stdout)["versions"][0]
    assert (version["agreement"]["top_k"], version["agreement"]["max_score_difference"]) == (3, 0.01)
    record = version["parity"]["fp32"]
    assert record["passed"]
    assert record["distinct"] < 5
    assert "This proves little" in workplace.run("tandem models verify untrained").stdout


@pytest.mark.parametrize(
    ("command", "said"),
    [
        pytest.param("digits.pt2 --name x", "give --size HEIGHTxWIDTH", id="no-size"),
        pytest.param("digits.pt2 --name x --size 24x24", "give --mean and --std", id="no-normalisation"),
        pytest.param("digits.pt2 --name x --size 24x24 --mean 0.5", "give --labels FILE", id="no-labels"),
        pytest.param("digits.pt2 --name x --size 30x30 --mean 0.5 --labels numbers", "Is --size right?", id="size"),
        pytest.param(
            "digits.pt2 --name x --size 24x24 --mean 0.5 --labels classes.txt",
            "40 labels, and the model has 10",
            id="labels",
        ),
        pytest.param("digits.pt --name x", "name what builds the network as well", id="weights-alone"),
        pytest.param("my_models:nothing --name x --size 24x24", "has no attribute 'nothing'", id="no-factory"),
        pytest.param("torchvision:fasterrcnn_resnet50_fpn --name x", "its graph filters boxes", id="detector"),
        pytest.param("torchvision:resnet5000 --name x", "does not exist", id="unknown"),
        pytest.param("keras:ResNet5000 --name x", "has no 'ResNet5000'", id="unknown-keras"),
        pytest.param("scans.npz --name x", "not a source that Tandem knows", id="unknown-kind"),
        pytest.param("nowhere.onnx --name x", "cannot be read as ONNX", id="no-file"),
        pytest.param("model.keras --name x --size 30x30", "leave --size out", id="fixed-size"),
    ],
)
def test_what_is_missing_or_wrong_is_named_with_the_option_to_give(
    workplace: Workplace, command: str, said: str
) -> None:
    done = workplace.run(f"tandem models add {command}")
    assert done.returncode == 1, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_pickled_code_is_not_run_unless_it_is_trusted(workplace: Workplace) -> None:
    make("convert", "evil.py", workplace.folder)
    command = "tandem models add my_models:build --weights evil.pt --size 24x24 --mean 0.5 --labels numbers --name evil"
    done = workplace.run(command)
    assert done.returncode == 1
    assert "--trust" in done.stderr
    assert not (workplace.folder / "it-ran").exists()
    workplace.run(f"{command} --trust")
    assert (workplace.folder / "it-ran").exists()
