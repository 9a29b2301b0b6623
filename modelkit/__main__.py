"""`python -m modelkit build`: the bundled models' packages, and the view of them that the workers read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modelkit import children, lifecycle, package, serving, spec
from modelkit import store as stored
from modelkit.bundled import BUNDLED
from modelkit.files import locked
from modelkit.parity import ParityFailure


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build(store: Path, view: Path) -> None:
    """Bring the packages of the bundled models up to date, and the serving view of every package in the store.

    To be run while no worker runs: what was removed counts as unloaded. Raises StepFailed or ParityFailure.
    """
    for version in stored.retired(store):
        lifecycle.forget(store, version)
    with locked(store):
        for recipe in BUNDLED:
            folder = store / recipe.name / str(recipe.version)
            if not package.is_current(recipe, folder):
                package.build(recipe, folder, say)
        models = stored.models(store)
        serving.clean(models, view)
        for name, numbers in models.items():
            for folder in (store / name / str(number) for number in numbers):
                try:
                    made = stored.read(folder)
                except spec.InvalidPackage as error:
                    say(f"left out: {error}")
                    continue
                serving.update_torch(made, folder, view, say)
                serving.update_tf(made, folder, view, say)
        serving.update_models_config(view)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modelkit")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="build the bundled models' packages and the workers' view of them")
    command.add_argument("--store", type=Path, default=Path("var/store"), help="where packages are kept")
    command.add_argument("--serving", type=Path, default=Path("var/serving"), help="what the workers read")
    arguments = parser.parse_args()
    children.end_on_sigterm()
    try:
        build(arguments.store.resolve(), arguments.serving.resolve())
    except (children.StepFailed, ParityFailure) as error:
        sys.exit(f"modelkit: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
