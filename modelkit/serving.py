"""The view of the model store that the workers read, generated from the packages.

<serving>/torch/<name>-<version>.mar
<serving>/tf/<name>/<version>/          a SavedModel
<serving>/tf/models.config, batching.config
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from modelkit import batching, children
from modelkit.batching import Batching
from modelkit.children import ROOT
from modelkit.exported import Say
from modelkit.files import digest, replaced, tree, write_whole
from modelkit.spec import ModelSpec


def update_torch(spec: ModelSpec, package: Path, serving: Path, say: Say) -> None:
    """Make the archive of `package`, unless the one there was made of it by this worker code for batches like those of
    the view. Raises StepFailed."""
    archive = serving / "torch" / f"{spec.name}-{spec.version}.mar"
    made_of_file = archive.with_name(f".{archive.stem}.made-of")
    batches = Batching.read(serving)
    options = (f"--batch-size={batches.max_batch_size}", f"--max-batch-delay-ms={batches.max_batch_delay_ms}")
    sources = digest([package / "model.yaml"], package), digest((ROOT / "torch_worker").glob("*.py"), ROOT)
    made_of = f"{' '.join((*sources, *options))}\n"
    if archive.exists() and made_of_file.exists() and made_of_file.read_text() == made_of:
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    say(f"{spec.name}: packing {archive}")
    children.run("torch", "torch_worker.archive", f"--package={package}", f"--serving={archive.parent}", *options)
    _write(made_of_file, made_of)


def update_tf(spec: ModelSpec, package: Path, serving: Path, say: Say) -> None:
    """Make the SavedModel folder of `package` unless it holds the same files."""
    folder = serving / "tf" / spec.name / str(spec.version)
    if folder.is_dir() and digest(tree(folder), folder) == spec.artifacts["tf"].sha256:
        return
    say(f"{spec.name}: putting the SavedModel into {folder}")
    with replaced(folder) as new:
        shutil.copytree(package / "tf", new, copy_function=_link, dirs_exist_ok=True)


def update_models_config(view: Path) -> None:
    """Write TensorFlow Serving's list of the models in the view, all versions of each. Paths in it are absolute."""
    folder = (view / "tf").resolve()
    names = sorted({path.parent.name for path in folder.glob("[!.]*/[0-9]*")})
    entries = "".join(
        "  config {\n"
        f"    name: {json.dumps(name)}\n"
        f"    base_path: {json.dumps(str(folder / name))}\n"
        '    model_platform: "tensorflow"\n'
        "    model_version_policy { all {} }\n"
        "  }\n"
        for name in names
    )
    _write(folder / "models.config", f"model_config_list {{\n{entries}}}\n")


def update_batching(batches: Batching, view: Path) -> None:
    """Write how the workers are to join pictures into batches. The archives made before it have what was there then."""
    _write(batching.path(view), batches.text)


def clean(models: Mapping[str, Collection[int]], view: Path) -> None:
    """Remove what is in the view and not among `models`, the versions by name; also what a killed process left.

    What a worker may look for goes by one rename each. Only for the process that holds the lock of the store.
    """
    kept = {f"{name}-{number}" for name, numbers in models.items() for number in numbers}
    for path in (view / "torch").glob("*"):
        if path.name not in {f"{stem}.mar" for stem in kept} | {f".{stem}.made-of" for stem in kept}:
            path.unlink()
    for path in sorted((view / "tf").glob("*/*")):  # hidden ones first: the name of the folder moved aside is free
        if not (path.name.isdecimal() and int(path.name) in models.get(path.parent.name, ())):
            aside = path.with_name(f".{path.name.lstrip('.')}.gone")
            path.rename(aside)
            shutil.rmtree(aside)
    if not (view / "tf").is_dir():
        return
    update_models_config(view)  # before a folder goes that it names
    for path in (view / "tf").iterdir():
        if path.is_dir() and path.name not in models:
            path.rmdir()
        elif path.name.startswith("."):
            path.unlink()


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system of the view is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write(path: Path, text: str) -> None:
    if not (path.exists() and path.read_text() == text):
        write_whole(path, text)
