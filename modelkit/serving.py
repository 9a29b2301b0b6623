"""The view of the model store that the workers read, generated from the packages.

<serving>/torch/<name>-<version>.mar
<serving>/tf/<name>/<version>/          a SavedModel
<serving>/tf/models.config
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from modelkit import children
from modelkit.children import ROOT
from modelkit.exported import Say
from modelkit.files import digest, replaced, tree
from modelkit.spec import ModelSpec


def update_torch(spec: ModelSpec, package: Path, serving: Path, say: Say) -> None:
    """Make the archive of `package`, unless the one there was made of it by this worker code. Raises StepFailed."""
    archive = serving / "torch" / f"{spec.name}-{spec.version}.mar"
    made_of_file = archive.with_name(f".{archive.stem}.made-of")
    made_of = f"{digest([package / 'model.yaml'], package)} {digest((ROOT / 'torch_worker').glob('*.py'), ROOT)}\n"
    if archive.exists() and made_of_file.exists() and made_of_file.read_text() == made_of:
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    say(f"{spec.name}: packing {archive}")
    children.run("torch", "torch_worker.archive", f"--package={package}", f"--serving={archive.parent}")
    _write(made_of_file, made_of)


def update_tf(spec: ModelSpec, package: Path, serving: Path, say: Say) -> None:
    """Make the SavedModel folder of `package` unless it holds the same files."""
    folder = serving / "tf" / spec.name / str(spec.version)
    if folder.is_dir() and digest(tree(folder), folder) == spec.artifacts["tf"].sha256:
        return
    say(f"{spec.name}: putting the SavedModel into {folder}")
    with replaced(folder) as new:
        shutil.copytree(package / "tf", new, copy_function=_link, dirs_exist_ok=True)


def update_models_config(names: Iterable[str], serving: Path) -> None:
    """Write TensorFlow Serving's list of models, every version of each to be loaded. Paths in it are absolute."""
    folder = (serving / "tf").resolve()
    entries = "".join(
        "  config {\n"
        f"    name: {json.dumps(name)}\n"
        f"    base_path: {json.dumps(str(folder / name))}\n"
        '    model_platform: "tensorflow"\n'
        "    model_version_policy { all {} }\n"
        "  }\n"
        for name in sorted(set(names))
    )
    _write(folder / "models.config", f"model_config_list {{\n{entries}}}\n")


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system of the view is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text(text)
    aside.replace(path)
