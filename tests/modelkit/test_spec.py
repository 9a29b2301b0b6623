"""model.yaml: read, written, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modelkit.spec import InvalidPackage, Tolerances, read, write
from tests.support.packages import digits_spec


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    write(digits_spec(), tmp_path)
    assert read(tmp_path) == digits_spec()


def test_a_package_that_says_nothing_of_agreement_has_the_usual_tolerances(tmp_path: Path) -> None:
    write(digits_spec(), tmp_path)
    path = tmp_path / "model.yaml"
    said = yaml.safe_load(path.read_text())
    del said["agreement"]
    path.write_text(yaml.safe_dump(said))
    assert read(tmp_path).agreement == Tolerances()


def test_a_package_that_says_nothing_of_its_precision_is_in_fp32(tmp_path: Path) -> None:
    write(digits_spec(), tmp_path)
    path = tmp_path / "model.yaml"
    said = yaml.safe_load(path.read_text())
    del said["precision"]
    path.write_text(yaml.safe_dump(said))
    assert read(tmp_path).precision == "fp32"


def test_a_folder_without_model_yaml_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match=r"model\.yaml is missing"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("name", "Not A Name", id="name-with-spaces"),
        pytest.param("version", 0, id="version-zero"),
        pytest.param("task", "translate", id="unknown-task"),
        pytest.param("labels", [], id="no-labels"),
        pytest.param("input", {"height": -1, "width": 32}, id="negative-height"),
        pytest.param("outputs", {"scores": {"shape": [10], "meaning": "guess"}}, id="unknown-meaning"),
        pytest.param("precision", "bf16", id="parity-of-another-precision"),
        pytest.param("agreement", {"iou": 0}, id="no-overlap-needed"),
        pytest.param("colour", "red", id="unknown-field"),
    ],
)
def test_an_invalid_field_is_refused_by_file_and_name(tmp_path: Path, field: str, value: object) -> None:
    write(digits_spec(), tmp_path)
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {field: value}))
    with pytest.raises(InvalidPackage, match=field) as refusal:
        read(tmp_path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("text", ["", "- a list", "{unclosed: ["], ids=["empty", "list", "not-yaml"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(InvalidPackage, match=r"not a valid model\.yaml"):
        read(tmp_path)
