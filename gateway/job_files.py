"""Jobs as files next to the model store: every gateway process on that store sees them, and one at a time runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import structlog

from modelkit.files import write_whole

_log = structlog.get_logger(__name__)

KEPT = 20
_LINES = 200
_ATTEMPTS = 10
_ID = re.compile(r"[0-9a-f]{32}")
_LOST = "The gateway process that ran it ended. Start it again."


@dataclass
class Job:
    what: Literal["add", "verify"]
    model: str
    id: str = field(default_factory=lambda: uuid4().hex)
    state: Literal["running", "done", "failed"] = "running"
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    """Progress, oldest first."""
    result: Any = None
    """What it led to: of an addition, the package's model.yaml; of a proof, the parity record."""
    error: str | None = None
    """Why it failed."""


class Turn:
    """The right to run a job. It ends with whoever holds `descriptor`, however that ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        os.close(self.descriptor)


class JobFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take_turn(self, job: Job) -> Turn | None:
        """None while another job runs. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # perhaps by somebody who only looks whether it is held
                time.sleep(0.001)
        else:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, job.id.encode(), 0)
        self._forget_old()
        return Turn(descriptor)

    def running(self) -> Job | None:
        """The one that runs now, at whichever process."""
        with suppress(OSError):
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return self._read(os.pread(descriptor, 64, 0).decode())
            finally:
                os.close(descriptor)
        return None

    def find(self, job_id: str) -> Job | None:
        """The job as it was written last; failed, if the process that ran it is gone."""
        running = self.running()
        job = self._read(job_id)  # after that: what has ended meanwhile has been written
        if job is not None and job.state == "running" and (running is None or running.id != job_id):
            job.state, job.error = "failed", _LOST
        return job

    def write(self, job: Job) -> None:
        """A disk that is full keeps others from seeing how far it is; the job goes on."""
        try:
            write_whole(self._file(job.id), json.dumps(asdict(job) | {"lines": list(job.lines)}))
        except OSError as error:
            _log.warning("job_not_written", job=job.id, reason=str(error))

    @property
    def _lock(self) -> Path:
        return self._folder / "lock"

    def _file(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"

    def _read(self, job_id: str) -> Job | None:
        if not _ID.fullmatch(job_id):
            return None
        try:
            told = json.loads(self._file(job_id).read_text())
        except FileNotFoundError:
            return None
        return Job(**told | {"lines": deque(told["lines"], _LINES)})

    def _forget_old(self) -> None:
        files = sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in [*files[: 1 - KEPT], *self._folder.glob(".*.aside")]:  # and what a killed process left half written
            file.unlink(missing_ok=True)
