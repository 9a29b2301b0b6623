"""Long work on the model store, done by `modelkit` in a process of its own: additions and proofs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from gateway.errors import Conflict, JobNotFound
from gateway.job_files import KEPT, Job, JobFiles, Turn
from modelkit import children

_GRACE_S = 5.0
_LONGEST_LINE = 1 << 24
_ROOT = Path(__file__).resolve().parents[1]


class Jobs:
    """One at a time: a conversion takes the machine's cores from the workers as it is."""

    def __init__(self, store: Path, view: Path, files: JobFiles) -> None:
        """`files`: of all gateway processes that work on this store."""
        self._places = (f"--store={store.resolve()}", f"--serving={view.resolve()}")
        self._files = files
        self._running: asyncio.Task[None] | None = None

    def start(self, what: Literal["add", "verify"], model: str, request: Mapping[str, Any]) -> Job:
        """Start `python -m modelkit what` with `request`. Raises Conflict while another one runs."""
        if what == "add" and not children.python("torch").exists():
            raise Conflict(
                "This gateway's machine has no environments to convert models in. Run `tandem models add` where"
                " they are, on the same store; in the Docker stack: `docker compose run --rm models add`."
            )
        job = Job(what, model)
        if (turn := self._files.take_turn(job)) is None:
            other = self._files.running()
            under_way = "Another job" if other is None else f"{other.what} of {other.model}"
            where = "" if other is None else f" (GET /v1/jobs/{other.id})"
            raise Conflict(f"{under_way} is under way{where}. Try again after it.")
        self._files.write(job)
        self._running = asyncio.create_task(self._run(job, request, turn))
        return job

    def find(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        if (job := self._files.find(job_id)) is None:
            raise JobNotFound(f"There is no job {job_id!r}; the last {KEPT} are kept.")
        return job

    async def close(self) -> None:
        """End what runs."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self, job: Job, request: Mapping[str, Any], turn: Turn) -> None:
        try:
            await self._run_with(job, request, turn)
        finally:
            if job.state == "running":
                job.state, job.error = "failed", "The gateway was stopped. Start it again."
            self._files.write(job)
            turn.close()

    async def _run_with(self, job: Job, request: Mapping[str, Any], turn: Turn) -> None:
        with tempfile.TemporaryDirectory(prefix="tandem-job-") as folder:
            file = Path(folder) / "request.json"
            file.write_text(json.dumps(request))
            try:
                command = [sys.executable, "-m", "modelkit", job.what, f"--request={file}"]
                await self._execute(job, command, turn)
            except Exception as error:
                job.state, job.error = "failed", f"It could not be run: {error}"
                raise

    async def _execute(self, job: Job, command: Sequence[str], turn: Turn) -> None:
        child = await asyncio.create_subprocess_exec(
            *command,
            *self._places,
            cwd=_ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            pass_fds=[turn.descriptor],  # should this process be killed, nothing else starts before that one has ended
        )
        assert child.stdout is not None  # noqa: S101  (both are pipes)
        assert child.stderr is not None  # noqa: S101
        said = asyncio.create_task(child.stderr.read())
        try:
            async for line in child.stdout:
                job.lines.append(line.decode(errors="replace").rstrip())
                self._files.write(job)
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
