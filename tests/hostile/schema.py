"""schemathesis over the description of the API, against the real application over fakes.

`python -m tests.hostile.schema --minutes 10` (`make fuzz-api`) is the long form, another one each time;
`test_schema.py` the short one, always the same.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway import log
from gateway.app import create_app
from gateway.errors import DeadlineExceeded, RuntimeFailed, RuntimeUnavailable
from gateway.settings import DisagreementSettings, LogSettings, Settings
from modelkit.spec import RuntimeName
from tests.fakes.runtimes import FakeRuntime
from tests.support.packages import detector_spec, digits_spec, segmenter_spec, write_packages
from tests.support.serving import served
from tests.support.stack import ROOT

_CONFIG = Path(__file__).with_name("schemathesis.toml")
_EXPECTED = {False: ["504"], True: ["502", "503", "504"]}
"""Of a gateway that is well, and of one whose runtimes fail. A deadline may be too short for any: it is chosen, too."""
_TO_BE_DELETED = ("unwanted", "superfluous")


@dataclass(frozen=True)
class Gateway:
    url: str
    folder: Path
    failing: bool


@contextmanager
def serving(folder: Path, *, failing: bool) -> Iterator[Gateway]:
    """A gateway with a model of each task, and some that may be deleted. `failing`: both runtimes fail in every way."""
    write_packages(folder / "store", digits_spec(1), digits_spec(2), detector_spec(), segmenter_spec())
    for name in _TO_BE_DELETED:
        write_packages(
            folder / "store", *(segmenter_spec().model_copy(update={"name": name, "version": n}) for n in (1, 2, 3))
        )
    # They disagree, so that there are disagreements to ask for.
    runtimes: dict[RuntimeName, FakeRuntime] = {"torch": FakeRuntime("torch"), "tf": FakeRuntime("tf", offset=1)}
    if failing:
        for number, runtime in enumerate(runtimes.values()):
            _let_fail(runtime, number)
    settings = Settings(var=folder, warm_up_requests=0, disagreements=DisagreementSettings(max_count=1000))
    with served(create_app(settings, runtimes)) as url:
        yield Gateway(url, folder, failing)


def _let_fail(runtime: FakeRuntime, first: int) -> None:
    """Every call in another way, from that one on."""
    faults = [None, RuntimeUnavailable("It is away."), RuntimeFailed("It broke."), DeadlineExceeded("It is late.")]
    turns = itertools.islice(itertools.cycle(faults), first, None)

    def turn() -> None:
        runtime.error = next(turns)

    runtime.called = turn


def schemathesis(gateway: Gateway, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it. Its output has each failure, with a curl line that repeats it."""
    config = gateway.folder / "schemathesis.toml"
    statuses = ["2xx", "3xx", "4xx", *_EXPECTED[gateway.failing]]
    config.write_text(f"{_CONFIG.read_text()}not_a_server_error.expected-statuses = {statuses}\n")
    key = (gateway.folder / "admin.key").read_text().strip()
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{gateway.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {key}", "--continue-on-failure", "--no-color", *options),
    ]
    # In the folder, since it leaves a cache where it runs; its hooks are found by the path.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command,
        cwd=gateway.folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="for each of two gateways; by default 10")
    minutes = parser.parse_args().minutes
    log.configure(LogSettings(level="error"))
    failed = 0
    for failing in (False, True):
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder), failing=failing) as gateway:
            ran = schemathesis(gateway, "--max-time", str(round(minutes * 60)))
        print(ran.stdout)  # noqa: T201
        failed |= ran.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
