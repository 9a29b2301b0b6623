"""A real Prometheus with the repository's configuration and rules. As a command: installs Debian's if there is none."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support import debian
from tests.support.stack import HOST, ROOT, free_ports

MONITORING = ROOT / "monitoring"
PROGRAMS = ("prometheus", "promtool")
_PATIENCE_S = 60


def installed() -> bool:
    return all(map(shutil.which, PROGRAMS))


def install() -> None:
    """Make sure that there is one. Ends the process with what to do where it cannot be had."""
    debian.install(PROGRAMS, ("prometheus",))


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)


def configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    """monitoring/prometheus.yml with `targets`, an address for each job, in the place of names in DNS.

    A job that is found through DNS and not in `targets` has no target, as in Docker when its service does not run.
    """
    found: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    found["rule_files"] = [str(MONITORING / pattern) for pattern in found["rule_files"]]
    for job in found["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        if "authorization" in job:
            job["authorization"] = {"credentials_file": str(MONITORING / job["authorization"]["credentials_file"])}
        name = job["job_name"]
        job["static_configs"] = [{"targets": [targets[name]]}] if name in targets else []
    return found


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[str]:
    """Run Prometheus over `targets`, with its files in `folder`; its URL, which answers. Ended with the block.

    Raises RuntimeError with what it wrote when it ends early or does not answer.
    """
    (port,) = free_ports(1)
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(yaml.safe_dump(configuration({"prometheus": f"{HOST}:{port}", **targets}), sort_keys=False))
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    url = f"http://{HOST}:{port}"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            until_s = time.monotonic() + _PATIENCE_S
            while not _ready(url):
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError(f"prometheus does not answer at {url}:\n{log.read_text()}")
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    install()
