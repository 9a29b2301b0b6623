"""The statistics of a comparison, computed in a process of their own: this one has no room for them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import make_url

from evidence.document import Comparison, Target
from evidence.exchange import Answer, Question
from gateway.errors import DatabaseUnavailable, StatisticsUnavailable

_log = structlog.get_logger(__name__)
_MODULE = "evidence.__main__"
_ROOT = Path(__file__).resolve().parents[1]
_LONGEST_ANSWER = 1 << 24
_SAID_BYTES = 4096
_GRACE_S = 2.0

Environment = Callable[[str, Target, Target], Mapping[str, Any]]
"""What is known of two targets of a model besides their requests."""


class Statistics:
    """One question at a time, in a child that is started by the first one and ended when none comes."""

    def __init__(
        self,
        database_url: str,
        environment: Environment,
        *,
        patience_s: float = 60.0,
        idle_s: float = 60.0,
        same_s: float = 2.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience_s`: longest wait for an answer, and for those before it. `idle_s`: how long the child is kept.
        `same_s`: how long an answer is given again to the same question."""
        self._url = _absolute(database_url)
        self._environment = environment
        self._patience_s = patience_s
        self._idle_s = idle_s
        self._same_s = same_s
        self._now = now
        self._turn = asyncio.Lock()
        self._child: _Child | None = None
        self._idle: asyncio.Task[None] | None = None
        self._last: tuple[Question, float, Comparison] | None = None

    async def compare(self, model: str, a: Target, b: Target, *, since: float) -> Comparison:
        """Raises DatabaseUnavailable, StatisticsUnavailable."""
        question = Question(model=model, a=a, b=b, since=since, environment=dict(self._environment(model, a, b)))
        try:
            async with asyncio.timeout(self._patience_s):
                async with self._turn:
                    return await self._answer(question)
        except TimeoutError:
            raise StatisticsUnavailable(
                f"The statistics took longer than {self._patience_s:g} s. Ask again, or for a shorter window."
            ) from None

    async def close(self) -> None:
        """End the child."""
        if self._idle is not None:
            self._idle.cancel()
            await asyncio.wait([self._idle])
        await self._end()

    async def _answer(self, question: Question) -> Comparison:
        if self._last is not None:
            asked, at, comparison = self._last
            if asked == question and self._now() - at < self._same_s:
                return comparison
        if self._idle is not None:
            self._idle.cancel()
        try:
            answer = await self._ask(question)
        except BaseException:  # whatever the child still says would be taken for the answer to the next question
            await self._end()
            raise
        self._idle = asyncio.create_task(self._end_when_idle())
        if answer.comparison is not None:
            self._last = question, self._now(), answer.comparison
            return answer.comparison
        if answer.database_error is not None:
            raise DatabaseUnavailable(
                "The request log cannot be read now: the gateway's log says why. Try again later."
            ) from RuntimeError(answer.database_error)
        _log.error("statistics_failed", model=question.model, reason=answer.error)
        raise StatisticsUnavailable(
            "A fault in the statistics. The gateway's log has the cause (statistics_failed); report it."
        )

    async def _ask(self, question: Question) -> Answer:
        if self._child is None:
            self._child = await _Child.start(self._url)
        return await self._child.ask(question.model_dump_json())

    async def _end_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        async with self._turn:
            await self._end()

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


class _Child:
    """One run of `python -m evidence`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, url: str) -> _Child:
        """Raises StatisticsUnavailable."""
        if missing := [name for name in ("scipy", "comparison") if importlib.util.find_spec(name) is None]:
            raise StatisticsUnavailable(
                f"This gateway lacks its extra `comparison`: {' and '.join(missing)} cannot be imported. "
                "Install it into the gateway's environment: python -m pip install 'tandem-serving[comparison]'"
            )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", _MODULE),
                cwd=_ROOT,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_ANSWER,
            )
        except OSError as error:  # no memory, or no process to be had
            raise StatisticsUnavailable("The statistics' process could not be started now. Try again later.") from error
        child = cls(process)
        child._write(json.dumps(url))
        return child

    async def ask(self, line: str) -> Answer:
        """Raises StatisticsUnavailable."""
        assert self._process.stdin is not None  # noqa: S101  (both are pipes)
        assert self._process.stdout is not None  # noqa: S101
        self._write(line)
        with suppress(ConnectionError):
            await self._process.stdin.drain()
        try:
            return Answer.model_validate_json(await self._process.stdout.readline())
        except (ValidationError, ValueError) as error:
            code = await self._process.wait() if self._process.stdout.at_eof() else None
            said = (await self._said).decode(errors="replace") if code is not None else str(error)
            _log.error("statistics_died", exit_status=code, said=said)
            raise StatisticsUnavailable(
                "The statistics' process died. Ask again: it is started anew. The log says why (statistics_died)."
            ) from None

    async def end(self) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()  # it ends with its input
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._said

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(f"{line}\n".encode())

    async def _listen(self) -> bytes:
        """The last of what it says on its standard error."""
        assert self._process.stderr is not None  # noqa: S101
        said = b""
        while more := await self._process.stderr.read(_SAID_BYTES):
            said = (said + more)[-_SAID_BYTES:]
        return said


def _absolute(url: str) -> str:
    """The child has another working directory."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        parsed = parsed.set(database=str(Path(parsed.database).resolve()))
    return parsed.render_as_string(hide_password=False)
