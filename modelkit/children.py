"""Running a step in another environment: as a child process that never outlives its parent's wish."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

from modelkit.sources.common import REFUSAL
from torch_worker import tuning

ROOT = Path(__file__).resolve().parents[1]
"""The repository: workers' code is run from here."""
EnvironmentName = Literal["torch", "tf", "convert", "ultralytics"]
"""The workers' environments, and those of the conversion tools, which are made when they are first needed."""
_GRACE_S = 5.0
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
_ENVIRONMENT: dict[EnvironmentName, dict[str, str]] = {
    # As in a worker: forms are timed there.
    "torch": {"KERAS_BACKEND": "torch", **tuning.KEPT_MEMORY, **tuning.SHORT_SPIN},
    "tf": {"KERAS_BACKEND": "tensorflow", **tuning.KEPT_MEMORY, **_QUIET},
    "convert": _QUIET,
    "ultralytics": {},
}
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}  # what is made here is made on the CPU, the same on every machine


class StepFailed(Exception):
    """A child process failed. The message holds the end of what it wrote."""


class StepRefused(Exception):
    """A child process refused its source. The message says why, and what to do."""


def python(environment: EnvironmentName) -> Path:
    """The interpreter of an environment: TANDEM_TORCH_PYTHON, TANDEM_TF_PYTHON, …, or the one that `make` fills."""
    given = os.environ.get(f"TANDEM_{environment.upper()}_PYTHON")
    return Path(given) if given else ROOT / f".venv-{environment}" / "bin" / "python"


def run(environment: EnvironmentName, module: str, *arguments: str) -> None:
    """Run `python -m module arguments…` in an environment and wait. Its output is seen if it fails.


    Raises StepFailed. When this process is interrupted, the child and what it started end first.
    To be called from the main thread.
    """
    interpreter = python(environment)
    child: subprocess.Popen[bytes] | None = None
    try:
        with _interruptions_held_back():
            # A session of its own: Ctrl-C reaches this process only, which then ends all of the child's.
            child = subprocess.Popen(
                [interpreter, "-m", module, *arguments],
                cwd=ROOT,
                env={**os.environ, **_ENVIRONMENT[environment], **_NO_GPU},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        output, _ = child.communicate()
    except OSError as error:
        raise StepFailed(
            f"{interpreter} cannot be run ({error.strerror}): fill the environment with `make`, "
            f"or name another interpreter with TANDEM_{environment.upper()}_PYTHON"
        ) from error
    except BaseException:
        if child is not None:
            _end(child)
        raise
    if child.returncode:
        tail = "\n".join(output.decode(errors="replace").splitlines()[-30:])
        raise StepFailed(f"{interpreter} -m {module} ended with {child.returncode}:\n{tail}")


def run_refusable(environment: EnvironmentName, module: str, work: Path, *arguments: str) -> None:
    """`run` a step that may end by `sources.common.refuse`, in the folder `work`. Raises StepRefused, StepFailed."""
    try:
        run(environment, module, *arguments)
    except StepFailed:
        if (refusal := work / REFUSAL).exists():
            raise StepRefused(refusal.read_text()) from None
        raise


def end_on_sigterm() -> None:
    """From now on SIGTERM ends this process by an exception, as Ctrl-C does: children are ended, folders cleared."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


@contextmanager
def _interruptions_held_back() -> Iterator[None]:
    """SIGTERM and SIGINT that arrive in the block are handled at its end: never between a fork and knowing of it."""
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: arrived.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in arrived:
            signal.raise_signal(late)


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(_GRACE_S)
            return
        except ProcessLookupError:
            child.wait()
            return
        except subprocess.TimeoutExpired:
            continue
