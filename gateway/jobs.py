"""Long work on the model store, done by `modelkit` in a process of its own: additions and proofs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.errors import Conflict, JobNotFound
from modelkit import children

_KEPT = 20
_LINES = 200
_GRACE_S = 5.0
_LONGEST_LINE = 1 << 24
_ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Job:
    what: Literal["add", "verify"]
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: Literal["running", "done", "failed"] = "running"
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    """Progress, oldest first."""
    result: Any = None
    """What it led to: of an addition, the package's model.yaml; of a proof, the parity record."""
    error: str | None = None
    """Why it failed."""


class Jobs:
    """One at a time: a conversion takes the machine's cores from the workers as it is."""

    def __init__(self, store: Path, view: Path) -> None:
        self._places = (f"--store={store.resolve()}", f"--serving={view.resolve()}")
        self._jobs: dict[str, Job] = {}
        self._running: asyncio.Task[None] | None = None

    def start(self, what: Literal["add", "verify"], model: str, request: Mapping[str, Any]) -> Job:
        """Start `python -m modelkit what` with `request`. Raises Conflict while another one runs."""
        if self._running is not None and not self._running.done():
            other = next(job for job in reversed(self._jobs.values()) if job.state == "running")
            raise Conflict(f"{other.what} of {other.model} is under way (GET /v1/jobs/{other.id}). Try again after it.")
        if what == "add" and not children.python("torch").exists():
            raise Conflict(
                "This gateway's machine has no environments to convert models in. Run `tandem models add` where"
                " they are, on the same store; in the Docker stack: `docker compose run --rm models add`."
            )
        job = Job(what, model)
        self._jobs[job.id] = job
        while len(self._jobs) > _KEPT:
            del self._jobs[next(iter(self._jobs))]
        self._running = asyncio.create_task(self._run(job, request))
        return job

    def find(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        if (job := self._jobs.get(job_id)) is None:
            raise JobNotFound(f"There is no job {job_id!r}; the last {_KEPT} of this gateway process are kept.")
        return job

    async def close(self) -> None:
        """End what runs."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self, job: Job, request: Mapping[str, Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="tandem-job-") as folder:
            file = Path(folder) / "request.json"
            file.write_text(json.dumps(request))
            try:
                await self._execute(job, [sys.executable, "-m", "modelkit", job.what, f"--request={file}"])
            except Exception as error:
                job.state, job.error = "failed", f"It could not be run: {error}"
                raise

    async def _execute(self, job: Job, command: Sequence[str]) -> None:
        child = await asyncio.create_subprocess_exec(
            *command,
            *self._places,
            cwd=_ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        assert child.stdout is not None  # noqa: S101  (both are pipes)
        assert child.stderr is not None  # noqa: S101
        said = asyncio.create_task(child.stderr.read())
        try:
            async for line in child.stdout:
                job.lines.append(line.decode(errors="replace").rstrip())
            code = await child.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await child.wait()
            raise
        if code == 0:
            job.result, job.state = json.loads(job.lines.pop()), "done"
        else:
            job.error, job.state = (await said).decode(errors="replace").strip() or f"It ended with {code}.", "failed"
