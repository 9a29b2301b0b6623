from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.torch_worker.sample import MakePackage
from torch_worker.archive import Archive, InvalidArchive, build_archive, read_archive


def test_an_archive_is_named_after_its_model_and_version(make_package: MakePackage, tmp_path: Path) -> None:
    target = build_archive(make_package(version=7), tmp_path / "serving")
    assert target == tmp_path / "serving" / "mean-7.mar"
    assert read_archive(target) == Archive("mean-7.mar", "mean", "7", picture_bytes=192, answer_bytes=32)


def test_an_archive_holds_the_package_the_handler_and_the_batching(make_package: MakePackage, tmp_path: Path) -> None:
    package = make_package()
    with zipfile.ZipFile(build_archive(package, tmp_path, batch_size=16, max_batch_delay_ms=3)) as archive:
        assert archive.read("model.pt") == (package / "torch" / "model.pt").read_bytes()
        assert archive.read("model.yaml") == (package / "model.yaml").read_bytes()
        assert b"def handle(" in archive.read("handler.py")
        config = yaml.safe_load(archive.read("model-config.yaml"))
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert (config["batchSize"], config["maxBatchDelay"]) == (16, 3)
    assert manifest["model"]["modelVersion"] == "1"


def test_a_compiled_module_is_packed_in_the_place_of_the_other(make_package: MakePackage, tmp_path: Path) -> None:
    package = make_package()
    (package / "torch" / "model.pt2").write_bytes(b"compiled")
    target = build_archive(package, tmp_path)
    read_archive(target)
    with zipfile.ZipFile(target) as archive:
        assert archive.read("model.pt2") == b"compiled"
        assert "model.pt" not in archive.namelist()
        assert json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["serializedFile"] == "model.pt2"


def test_the_number_of_workers_is_left_to_the_launcher(make_package: MakePackage, tmp_path: Path) -> None:
    """TorchServe prefers what an archive says to default_workers_per_model."""
    with zipfile.ZipFile(build_archive(make_package(), tmp_path)) as archive:
        assert not {"minWorkers", "maxWorkers"} & set(yaml.safe_load(archive.read("model-config.yaml")))


def test_a_worker_that_keeps_dying_is_tried_for_weeks_within_torchserves_int(
    make_package: MakePackage, tmp_path: Path
) -> None:
    with zipfile.ZipFile(build_archive(make_package(), tmp_path)) as archive:
        seconds = yaml.safe_load(archive.read("model-config.yaml"))["maxRetryTimeoutInSec"]
    assert 14 * 86400 < seconds < 2**31 / 1000


def test_the_same_package_gives_the_same_bytes(make_package: MakePackage, tmp_path: Path) -> None:
    package = make_package()
    first = build_archive(package, tmp_path / "a").read_bytes()
    assert build_archive(package, tmp_path / "b").read_bytes() == first


def test_a_failed_build_leaves_the_archive_that_was_there(make_package: MakePackage, tmp_path: Path) -> None:
    package = make_package()
    before = build_archive(package, tmp_path).read_bytes()
    (package / "torch" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError):
        build_archive(package, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mean-1.mar"]
    assert (tmp_path / "mean-1.mar").read_bytes() == before


def rewritten(source: Path, target: Path, *, without: str = "", manifest: bytes | None = None) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name == "MAR-INF/MANIFEST.json" and manifest is not None:
                new.writestr(name, manifest)
            elif name != without:
                new.writestr(name, old.read(name))
    return target


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            {"manifest": b"{"}, "its manifest or its model.yaml is missing or incomplete", id="manifest is not JSON"
        ),
        pytest.param(
            {"manifest": b"[]"}, "its manifest or its model.yaml is missing or incomplete", id="manifest is a list"
        ),
        pytest.param(
            {"manifest": b'{"model": {}}'},
            "its manifest or its model.yaml is missing or incomplete",
            id="manifest is empty",
        ),
        pytest.param(
            {"without": "MAR-INF/MANIFEST.json"}, "its manifest or its model.yaml is missing", id="no manifest"
        ),
        pytest.param({"without": "model.yaml"}, "no item named 'model.yaml'", id="no description"),
        pytest.param({"without": "handler.py"}, "no item named 'handler.py'", id="no handler"),
        pytest.param({"without": "model.pt"}, "no item named 'model.pt'", id="no model"),
    ],
)
def test_an_incomplete_archive_is_recognised(
    make_package: MakePackage, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    whole = build_archive(make_package(), tmp_path / "whole")
    with pytest.raises(InvalidArchive, match=reason):
        read_archive(rewritten(whole, tmp_path / "mean-1.mar", **change))


def test_a_damaged_archive_is_recognised(make_package: MakePackage, tmp_path: Path) -> None:
    target = build_archive(make_package(), tmp_path)
    content = bytearray(target.read_bytes())
    content[content.index(b"def handle(")] ^= 1
    target.write_bytes(content)
    with pytest.raises(InvalidArchive, match=r"handler\.py in it is damaged"):
        read_archive(target)


def test_a_cut_off_archive_is_recognised(make_package: MakePackage, tmp_path: Path) -> None:
    target = build_archive(make_package(), tmp_path)
    target.write_bytes(target.read_bytes()[:5000])
    with pytest.raises(InvalidArchive, match="it is not a readable zip file"):
        read_archive(target)


def test_an_archive_under_another_name_is_refused(make_package: MakePackage, tmp_path: Path) -> None:
    """It would be served as something else than its file says, beside or instead of the right one."""
    renamed = build_archive(make_package(), tmp_path).rename(tmp_path / "mean-2.mar")
    with pytest.raises(InvalidArchive, match="it holds mean version 1"):
        read_archive(renamed)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch_worker.archive", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_what_it_built(make_package: MakePackage, tmp_path: Path) -> None:
    done = command("--package", make_package(), "--serving", tmp_path)
    assert done.stdout == f"{tmp_path / 'mean-1.mar'}\n"


def test_the_command_says_in_one_line_that_a_folder_is_no_package(tmp_path: Path) -> None:
    done = command("--package", tmp_path, "--serving", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"torch_worker.archive: {tmp_path} is not a model package: ")
    assert done.stderr.count("\n") == 1
