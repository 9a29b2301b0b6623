"""`python -m modelkit build`: the bundled models' packages, and the view of them that the workers read."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from gateway import log
from gateway.settings import InvalidSettings, Settings, read_settings
from modelkit import add, children, lifecycle, package, parity, samples, serving, spec, verify
from modelkit import store as stored
from modelkit.batching import Batching
from modelkit.bundled import BUNDLED
from modelkit.files import locked
from modelkit.parity import ParityFailure
from modelkit.request import AddRequest, VerifyRequest


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build(store: Path, view: Path, settings: Settings) -> None:
    """Bring the packages of the bundled models up to date, in the precision of the settings, and the serving view of
    every package in the store.

    What was removed, and workers may still have loaded, stays in the view: the gateway takes it out.

    Raises StepFailed or ParityFailure.
    """
    precision = settings.workers.precision
    lifecycle.clean_view(store, view)
    with locked(store):
        serving.update_batching(Batching.of(settings), view)
        for recipe in BUNDLED:
            folder = store / recipe.name / str(recipe.version)
            if not package.is_current(recipe, folder, precision):
                package.build(recipe, folder, say, precision)
        models = stored.models(store)
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


def add_model(request: Path, store: Path, view: Path) -> None:
    """Add the model that the file `request` asks for; the last line is the package's model.yaml as JSON."""
    made = add.add(AddRequest.model_validate_json(request.read_text()), store, view, say)
    say(made.model_dump_json())


def verify_model(request: Path, store: Path) -> None:
    """Repeat the proof that the file `request` asks for; the last line is the parity record as JSON."""
    wanted = VerifyRequest.model_validate_json(request.read_text())
    made = stored.read(store / wanted.name / str(wanted.version))
    record = asyncio.run(verify.against_workers(made, read_settings(), wanted.samples))
    say(parity.report(record))
    say(record.model_dump_json())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modelkit")
    commands = parser.add_subparsers(required=True, dest="command")
    build_command = commands.add_parser("build", help="build the bundled models' packages, and the workers' view")
    add_command = commands.add_parser("add", help="add the model that a request (JSON) asks for")
    add_command.add_argument("--request", type=Path, required=True, help="modelkit/request.py says what it holds")
    verify_command = commands.add_parser("verify", help="repeat the proof of a model against the running workers")
    verify_command.add_argument("--request", type=Path, required=True, help="name, version and samples (JSON)")
    for command in (build_command, add_command, verify_command):
        command.add_argument("--store", type=Path, default=Path("var/store"), help="where packages are kept")
        command.add_argument("--serving", type=Path, default=Path("var/serving"), help="what the workers read")
    arguments = parser.parse_args()
    children.end_on_sigterm()
    log.only_faults()
    store, view = arguments.store.resolve(), arguments.serving.resolve()
    try:
        match arguments.command:
            case "build":
                build(store, view, read_settings())
            case "add":
                add_model(arguments.request, store, view)
            case _:
                verify_model(arguments.request, store)
    except (
        children.StepFailed,
        children.StepRefused,
        ParityFailure,
        InvalidSettings,
        add.Refused,
        verify.CannotVerify,
        samples.NoSamples,
    ) as error:
        sys.exit(f"modelkit: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
