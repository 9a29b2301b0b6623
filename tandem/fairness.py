"""Where the two runtimes are given different things. docs/fairness.md says what they should have alike, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import httpx
import yaml
from pydantic import BaseModel, TypeAdapter

from gateway.settings import Settings, unfilled_batches
from modelkit import batching
from modelkit.batching import Batching
from tandem.stack import host_and_port
from torch_worker.tuning import available_cpus


class Registered(BaseModel):
    """What TorchServe says of a model that it serves; its names."""

    modelName: str  # noqa: N815
    modelVersion: str  # noqa: N815
    batchSize: int  # noqa: N815
    maxBatchDelay: int  # noqa: N815
    minWorkers: int  # noqa: N815


def terms(settings: Settings) -> str:
    """What both are given, in a few words."""
    batches = Batching.of(settings)
    threads = settings.workers.threads or available_cpus()
    wait = f"a wait of up to {batches.batch_timeout_micros} µs (TorchServe: {batches.max_batch_delay_ms} ms)"
    return f"batches of up to {batches.max_batch_size} pictures, {wait}, {threads} CPU threads for each runtime"


def differences(settings: Settings, served: list[Registered]) -> Iterator[str]:
    """A sentence for each difference, with what to do. `served` is what a running TorchServe has, empty without one."""
    torch, tf = settings.torch, settings.tf
    for field in ("max_inflight", "max_queue", "device"):
        one, other = getattr(torch, field), getattr(tf, field)
        if one != other:
            yield (
                f"TANDEM_TORCH__{field.upper()} is {one or 'not set'} and TANDEM_TF__{field.upper()} is"
                f" {other or 'not set'}: set both alike."
            )
    batches = Batching.of(settings)
    if torch.workers not in (0, batches.num_batch_threads):
        yield (
            f"TANDEM_TORCH__WORKERS has TorchServe compute {torch.workers} batches of a model at once, TensorFlow"
            f" Serving {batches.num_batch_threads}: set TANDEM_WORKERS__REPLICAS in its place, for both."
        )
    yield from unfilled_batches(settings)
    view = Batching.read(settings.serving)
    yield from _in_view(settings, batches, view)
    for model in served:
        if (model.batchSize, model.maxBatchDelay) != (view.max_batch_size, view.max_batch_delay_ms):
            yield (
                f"{model.modelName} {model.modelVersion}: TorchServe runs batches of {model.batchSize} and waits"
                f" {model.maxBatchDelay} ms; {batching.path(settings.serving)} says {view.max_batch_size} and"
                f" {view.max_batch_delay_ms} ms: start the stack again."
            )


def _in_view(settings: Settings, wanted: Batching, view: Batching) -> Iterator[str]:
    """Batches in the workers' view that are not those of the settings."""
    if not batching.path(settings.serving).exists():
        return  # nothing is built yet
    if view != wanted:
        yield (
            f"{batching.path(settings.serving)} was made with other settings than this environment's"
            " (TANDEM_WORKERS__…, TANDEM_TF__MAX_INFLIGHT): start the stack again with them, or set here what it has."
        )
    for archive in sorted((settings.serving / "torch").glob("*.mar")):
        try:
            has = _in_archive(archive)
        except (OSError, BadZipFile, KeyError, ValueError, yaml.YAMLError) as error:
            yield f"{archive} cannot be read ({error}): delete it and run `make up`, which makes it anew."
            continue
        if has != (view.max_batch_size, view.max_batch_delay_ms):
            yield (
                f"{archive.stem}: its archive has batches of {has[0]}, waits {has[1]} ms; TensorFlow Serving's"
                f" file says {view.max_batch_size} and {view.max_batch_delay_ms} ms: start the stack again."
            )


def _in_archive(archive: Path) -> tuple[int, int]:
    with ZipFile(archive) as opened:
        config = yaml.safe_load(opened.read("model-config.yaml"))
    return int(config["batchSize"]), int(config["maxBatchDelay"])


def registered(settings: Settings) -> list[Registered]:
    """What the TorchServe of the running stack says of its models. Raises httpx.HTTPError."""
    host, _ = host_and_port("TANDEM_TORCH__ADDRESS", settings.torch.address)
    url = f"http://{host}:{settings.torch.http_management_port}/models"
    with httpx.Client(timeout=2, trust_env=False) as client:
        names = {each["modelName"] for each in client.get(url).raise_for_status().json()["models"]}
        described = [client.get(f"{url}/{name}/all").raise_for_status().content for name in sorted(names)]
    return [model for each in described for model in TypeAdapter(list[Registered]).validate_json(each)]
