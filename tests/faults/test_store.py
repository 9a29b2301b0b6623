"""A process that dies, or finds the disk full, while it changes the store: what is served stays as it was."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelkit import lifecycle
from modelkit import store as stored
from modelkit.children import ROOT
from modelkit.files import tree
from tests.support.packages import add_artifacts, digits_spec

MOST_STEPS = 100


class Scene:
    """A store with versions 1 and 2 of digits, 1 the default, their view, and a package of version 3 to publish."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.view = folder, folder / "store", folder / "view"
        self.package = self.store / ".staging-test"

    def prepare(self) -> None:
        self.store.mkdir(parents=True)
        for version in (1, 2):
            made = self.folder / "made"
            made.mkdir()
            add_artifacts(digits_spec(version), made)
            lifecycle.publish(made, self.store, self.view, lambda _: None)
        lifecycle.set_default(self.store, "digits", 1)
        self.package.mkdir()
        add_artifacts(digits_spec(3), self.package)

    def run(self, *what: str, die_at_step: int = 0, largest_file: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.faults.dying", str(die_at_step), str(largest_file), *what]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def publish(self, **how: int) -> subprocess.CompletedProcess[str]:
        return self.run("publish", str(self.package), str(self.store), str(self.view), **how)

    def remove(self, **how: int) -> subprocess.CompletedProcess[str]:
        return self.run("remove", str(self.store), str(self.view), **how)

    def files(self, *versions: int) -> dict[str, bytes]:
        """What is served of these versions, in the store and in the view."""
        wanted = [self.store / "digits" / "default"]
        for version in versions:
            wanted += tree(self.store / "digits" / str(version))
            wanted += tree(self.view / "tf" / "digits" / str(version))
            wanted.append(self.view / "torch" / f"digits-{version}.mar")
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in wanted}

    def everything(self) -> set[str]:
        paths = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return {path for path in paths if not path.startswith(("store/.lock", "store/.retired", "store/.staging-test"))}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene") / "scene"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_TORCH_PYTHON", sys.executable)
        Scene(folder).prepare()
    return folder


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    return copy_of(template, tmp_path / "scene")


def copy_of(template: Path, folder: Path) -> Scene:
    """The scene again; its list of models still names the first folder, until it is next written."""
    shutil.copytree(template, folder)
    return Scene(folder)


def test_a_publish_killed_at_any_step_leaves_what_is_served_and_the_next_one_finishes(
    template: Path, tmp_path: Path
) -> None:
    for step in range(1, MOST_STEPS):
        scene = copy_of(template, tmp_path / str(step))
        before = scene.files(1, 2)
        ended = scene.publish(die_at_step=step).returncode
        assert scene.files(1, 2) == before, step
        assert stored.models(scene.store) == {"digits": [1, 2] if ended else [1, 2, 3]}, step
        if not ended:
            break
        assert ended == -signal.SIGKILL
        assert 'name: "digits"' in (scene.view / "tf" / "models.config").read_text()
        assert scene.publish().returncode == 0, step
        assert stored.read(scene.store / "digits" / "3").version == 3
        assert not [path for path in scene.everything() if "aside" in path or ".mar." in path or "gone" in path], step
    assert 10 < step < MOST_STEPS


def test_a_removal_killed_at_any_step_is_done_or_not_and_the_rest_goes_next_time(
    template: Path, tmp_path: Path
) -> None:
    for step in range(1, MOST_STEPS):
        scene = copy_of(template, tmp_path / str(step))
        before, whole = scene.files(1), scene.files(2)
        ended = scene.remove(die_at_step=step).returncode
        assert scene.files(1) == before, step
        if 2 in stored.models(scene.store)["digits"]:
            assert scene.files(2) == whole
            assert scene.remove().returncode == 0
        if not ended:
            break
        lifecycle.clean_view(scene.store, scene.view, *stored.retired(scene.store))
        assert not [path for path in scene.everything() if "digits-2" in path or "digits/2" in path or "gone" in path]
        assert stored.models(scene.store) == {"digits": [1]}
    assert 5 < step < MOST_STEPS


def test_a_publish_on_a_full_disk_says_so_and_leaves_everything_as_it_was(scene: Scene) -> None:
    before, names = scene.files(1, 2), scene.everything()
    refused = scene.publish(largest_file=10_000)
    assert refused.returncode == 1
    assert "OSError" in refused.stderr
    assert (scene.files(1, 2), scene.everything()) == (before, names)
    assert (scene.package / "model.yaml").exists()
    assert scene.publish().returncode == 0


def test_a_default_that_cannot_be_written_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, text: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        lifecycle.set_default(scene.store, "digits", 2)
    assert stored.wanted_default(scene.store / "digits", [1, 2]) == 1
