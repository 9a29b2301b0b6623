"""The Dockerfiles fit the repository: what they copy is there, reaches the builder and is all that the code imports."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.stack import GIVEN_BACK

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted(path for path in ROOT.glob("*/Dockerfile"))
every_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)


def copied(dockerfile: Path) -> list[str]:
    """Paths in the repository that go into some stage of the image."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def stage_with_the_code(dockerfile: Path) -> str:
    """The stage that says as whom to run; others may stand on it."""
    (found,) = (stage for stage in dockerfile.read_text().split("\nFROM ") if "\nUSER " in stage)
    return found


def test_there_is_an_image_for_every_role() -> None:
    roles = {"gateway", "loadtests", "modelkit", "tf_worker", "torch_worker"}
    assert {path.parent.name for path in DOCKERFILES} == roles


@every_dockerfile
def test_what_is_copied_exists_and_is_not_kept_from_the_builder(dockerfile: Path) -> None:
    paths = copied(dockerfile)
    assert paths
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for path in paths:
        assert (ROOT / path).exists(), path
        assert any(path == each or path.startswith(f"{each}/") for each in allowed), path


def file_of(module: str) -> Path | None:
    """The file of a module of ours; None for somebody else's."""
    path = ROOT / module.replace(".", "/")
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def named_in(source: Path) -> Iterator[str]:
    """Modules that a file imports, or that it names in a string to have them run or imported."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"\w+(\.\w+)+", str(node.value)):
            yield str(node.value)


def entries(dockerfile: Path) -> list[str]:
    """The modules that the images of a Dockerfile run: its targets may run different ones."""
    text = dockerfile.read_text()
    if locustfile := re.search(r'^ENTRYPOINT \["locust", "--locustfile", "([\w/]+)\.py"\]$', text, re.MULTILINE):
        return [locustfile[1].replace("/", ".")]
    found = re.findall(r'^ENTRYPOINT \["python", "-m", "([\w.]+)"', text, re.MULTILINE)
    assert len(found) == text.count("\nENTRYPOINT ")
    return [module if "." in module else f"{module}.__main__" for module in found]


@every_dockerfile
def test_modules_of_ours_that_the_image_runs_are_in_it(dockerfile: Path) -> None:
    there = [ROOT / path for path in copied(dockerfile)]
    todo = [start for module in entries(dockerfile) if (start := file_of(module))]
    assert len(todo) == len(entries(dockerfile))
    seen = set(todo)
    while todo:
        source = todo.pop()
        assert any(source.is_relative_to(path) for path in there), source.relative_to(ROOT)
        new = {found for name in named_in(source) if (found := file_of(name))} - seen
        todo += new
        seen |= new


def test_the_image_for_load_tests_has_the_pictures_of_every_bundled_model() -> None:
    samples = {str(path.relative_to(ROOT)) for path in ROOT.glob("models/*/samples")}
    assert samples
    assert samples <= set(copied(ROOT / "loadtests" / "Dockerfile"))


def test_the_gateway_gives_memory_back_in_docker_as_in_the_embedded_stack() -> None:
    text = (ROOT / "gateway" / "Dockerfile").read_text()
    assert dict(re.findall(r"\b(MALLOC_\w+)=(\d+)", text)) == GIVEN_BACK


@every_dockerfile
def test_code_is_copied_after_everything_that_is_slow(dockerfile: Path) -> None:
    code = re.split(r"^COPY (?!--from)", stage_with_the_code(dockerfile), maxsplit=1, flags=re.MULTILINE)[1]
    assert "\nRUN " not in code
    assert "\nCOPY --from" not in code


@every_dockerfile
def test_the_image_does_not_run_as_root(dockerfile: Path) -> None:
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", stage_with_the_code(dockerfile), re.MULTILINE)


@every_dockerfile
def test_the_base_image_is_pinned(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages == {"python:3.11-slim-bookworm"}


@every_dockerfile
def test_installed_groups_of_dependencies_exist(dockerfile: Path) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for name in re.findall(r"\['dependency-groups'\]\['([\w-]+)'\]", dockerfile.read_text()):
        assert all(isinstance(each, str) for each in groups[name]), name
