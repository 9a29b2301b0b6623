"""`tandem up`: the embedded stack in the foreground, from the checks to the last process's end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

from gateway.settings import Settings, unfilled_batches
from tandem import devices, stack, undertaker
from tandem.preflight import Problem, check_memory, check_ports
from tandem.processes import adopt_orphans, tail
from tandem.stack import Readiness, RuntimeState
from tandem.supervisor import Ended, Supervisor, rotate

NEWS_EVERY_S = 5.0
"""Longest silence while something is awaited."""
POLL_S = 0.25
PATIENCE_S = 120.0
"""When the stack counts as up although a runtime is not ready. It is still awaited after that, less often."""
UNNOTICED_S = 2.0
"""For how long the gateway may not have noticed that a worker ended."""
SAME_REQUEST_S = 1.0
"""Signals that come this close are one request to stop: make, a terminal and `timeout` each send their own."""
LARGEST_LOG = 64 << 20
"""Bytes after which a log is moved to `<name>.log.1`."""
LOG_CHECK_EVERY_S = 30.0


def up() -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP. Raises Problem if it cannot be started."""
    settings = stack.read_settings()
    endpoints = list(stack.endpoints(settings))
    stack.check_environments()
    with only_one(settings):
        check_ports(endpoints)
        check_memory()
        for log in settings.logs.glob("*.log"):
            if not log.name.startswith("install-"):
                rotate(log)
        asyncio.run(Stack(settings).run())


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the lock of this `var`. It vanishes with this process, however that ends. Raises Problem."""
    path = stack.lock_file(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise Problem(f"{error.filename}: {error.strerror}; TANDEM_VAR names the folder.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Problem(
                f"A stack is already running in {settings.var}: {file.read().strip()}. End it, or set TANDEM_VAR to"
                " another folder and other ports, see docs/running.md."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, {stack.gateway_url(settings)}")
        file.flush()
        yield


class Stack:
    """One run of the embedded stack."""

    def __init__(self, settings: Settings, console: Console | None = None) -> None:
        self._settings = settings
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._supervisor = Supervisor(self._on_end)
        self._mark = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._environ = {**os.environ, undertaker.VARIABLE: self._mark}
        self._shown: dict[tuple[str, str], str] = {}
        self._ended = asyncio.Event()
        self._stop_asked_at: float | None = None

    async def run(self) -> None:
        """Start everything, keep it running until a signal comes, end everything. Raises Problem."""
        work = asyncio.create_task(self._work())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, work)
        adopt_orphans()
        with self._undertaker():
            try:
                await work
            except asyncio.CancelledError:
                pass
            finally:
                # The gateway first: it still answers what it has begun.
                await self._supervisor.stop("gateway")
                await self._supervisor.stop("torch", "tf")
                undertaker.kill_marked(self._mark)
        reap_adopted()
        self._say("", f"Stopped after {time.monotonic() - self._began:.0f} s. Nothing is left running.")

    async def _work(self) -> None:
        await self._choose_device()
        for line in unfilled_batches(self._settings):
            self._say("gateway", line, "bold yellow")
        await self._build()
        for service in stack.services(self._settings, self._environ):
            self._supervisor.keep(service)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._bound_logs())

    async def _choose_device(self) -> None:
        choice = await devices.choose(self._settings, self._environ)
        self._say("workers", choice.said, "" if choice.as_found else "bold yellow")
        self._environ |= choice.environ(self._settings)

    def _on_signal(self, work: asyncio.Task[None]) -> None:
        now = time.monotonic()
        if self._stop_asked_at is None:
            self._stop_asked_at = now
            self._say("", "Stopping; once more to kill at once.")
            work.cancel()
        elif now - self._stop_asked_at > SAME_REQUEST_S:
            self._supervisor.hurry()

    @contextmanager
    def _undertaker(self) -> Iterator[None]:
        """A process that ends the stack's processes if this one is killed."""
        with subprocess.Popen(
            [sys.executable, "-I", "-S", undertaker.__file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ):
            yield

    async def _build(self) -> None:
        service = stack.build(self._settings, self._environ)
        began = time.monotonic()
        building = asyncio.create_task(self._supervisor.run_once(service))
        try:
            while not (await asyncio.wait({building}, timeout=NEWS_EVERY_S))[0]:
                self._say("models", tail(service.log, 1) or "being built")
        finally:
            building.cancel()
            await asyncio.wait({building})
        if building.result() != 0:
            raise Problem(
                f"{tail(service.log)}\n\nThe model packages could not be built; all of it is in {service.log}"
            )
        self._say("models", f"built and up to date after {time.monotonic() - began:.1f} s")

    def _on_end(self, ended: Ended) -> None:
        name = ended.service.name
        again = f"starts again in {ended.again_in_s:g} s"
        self._say(name, f"{ended.how}; {again}; log: {_relative(ended.service.log)}", "bold yellow")
        self._shown = {key: state for key, state in self._shown.items() if key[0] != name and name != "gateway"}
        self._ended.set()

    async def _watch(self) -> None:
        """Report what becomes of each model on each runtime: at the start, when a process has ended, when models come,
        go or change their default."""
        async with httpx.AsyncClient(timeout=2, trust_env=False, verify=False) as client:  # noqa: S501  its own gateway
            readiness = await self._until_settled(client, patience_s=PATIENCE_S)
            self._greet(readiness)
            while True:
                if readiness and readiness.is_settled:
                    with suppress(TimeoutError):  # models come and go without an end of a process
                        await asyncio.wait_for(self._ended.wait(), NEWS_EVERY_S)
                if self._ended.is_set():
                    self._ended.clear()
                    await asyncio.sleep(UNNOTICED_S)
                readiness = await self._until_settled(client)

    async def _until_settled(self, client: httpx.AsyncClient, patience_s: float | None = None) -> Readiness | None:
        """Ask until nothing changes any more. With a patience: no longer than that, and say what is awaited."""
        began = last_news = time.monotonic()
        while True:
            readiness = await stack.ask_readiness(client, stack.gateway_url(self._settings))
            now = time.monotonic()
            if self._show(readiness):
                last_news = now
            if readiness and readiness.is_settled:
                return readiness
            if patience_s is not None:
                if now - began > patience_s:
                    return readiness
                if now - last_news > NEWS_EVERY_S:
                    self._say("", f"waiting for {', '.join(name for name, _ in _awaited(readiness))}")
                    last_news = now
            await asyncio.sleep(POLL_S)

    def _show(self, readiness: Readiness | None) -> bool:
        """Say what is new in it. Returns whether there was anything."""
        if readiness is None:
            return False
        news = {("gateway", ""): "answers"}
        for model, runtimes in readiness.models.items():
            for runtime, state in runtimes.items():
                if state.state == "ready":
                    news[runtime, model] = f"{_called(model, state)} is ready"
                elif state.state == "failed":
                    news[runtime, model] = f"{_called(model, state)} cannot be served: {state.reason}"
        for model, runtimes in readiness.wanted.items():
            for runtime, state in runtimes.items():
                if state.state == "failed":
                    news[runtime, model] = f"{_called(model, state)} cannot become the default: {state.reason}"
        gone = {model for _, model in self._shown} - {"", *readiness.models}
        for model in sorted(gone):
            self._say("gateway", f"{model} is not served any more")
        self._shown = {key: text for key, text in self._shown.items() if key[1] not in gone}
        changed = {key: text for key, text in news.items() if self._shown.get(key) != text}
        for (name, _), text in changed.items():
            self._say(name, text, "bold yellow" if "cannot" in text else "green")
        self._shown |= changed
        return bool(changed or gone)

    def _greet(self, readiness: Readiness | None) -> None:
        url = stack.gateway_url(self._settings)
        if readiness is None:
            self._say("", f"The gateway does not answer at {url} yet; it is still awaited.", "bold yellow")
        elif readiness.is_settled:
            self._say("", f"Tandem is up: {url}", "bold green")
        else:
            without = ", ".join(f"{name} ({reason})" for name, reason in _awaited(readiness))
            self._say("", f"Tandem is up: {url}, still without {without}", "bold yellow")
        image = _relative(stack.ROOT / "models" / "digits" / "samples" / "7.png")
        logs = _relative(self._settings.logs)
        self._print(
            f"\n  curl -F image=@{image} '{url}/v1/models/digits/predict?runtime=torch'\n"
            f"  .venv/bin/tandem compare --model digits {image}\n\n"
            f"  API {url}/docs · metrics {url}/metrics · logs {logs}/{{torch,tf,gateway}}.log · Ctrl-C ends all\n"
        )

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_EVERY_S)
            for service in stack.services(self._settings, self._environ):
                rotate(service.log, LARGEST_LOG)

    def _say(self, name: str, text: str, style: str = "") -> None:
        line = Text(f"{time.monotonic() - self._began:>6.1f} s  ")
        line.append(f"{name:<9}" if name else "", "bold")
        line.append(text, style)
        self._print(line)

    def _print(self, what: Text | str) -> None:
        # Who reads it may be gone: no reason to end, nor to end in disorder. rich makes SystemExit of a broken pipe.
        with suppress(OSError, SystemExit):
            self._console.print(what, markup=False)


def _awaited(readiness: Readiness | None) -> list[tuple[str, str]]:
    """What is not ready yet, and why."""
    if readiness is None:
        return [("the gateway", "no answer")]
    return [
        (f"{model} on {runtime}", state.reason or state.state)
        for model, runtimes in readiness.models.items()
        for runtime, state in runtimes.items()
        if not state.is_settled
    ]


def _called(model: str, state: RuntimeState) -> str:
    return model if state.version is None else f"{model} version {state.version}"


def reap_adopted() -> None:
    """Take note of the end of orphans that this process adopted, so that none stays as a zombie."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _relative(path: Path) -> str:
    """The shorter way to say it, from the working directory."""
    return min(os.path.relpath(path), str(path), key=len)
