"""The compose files fit the repository and the gateway's settings. No Docker engine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from gateway.settings import Settings, WorkersSettings
from modelkit import batching
from tests.support.locust import options
from torch_worker import tuning

ROOT = Path(__file__).resolve().parents[2]
CPU = ("docker-compose.yml",)
GPU = (*CPU, "docker-compose.gpu.yml")
EMBEDDED = (*CPU, "docker-compose.embedded.yml")
PUBLISHED = {"gateway", "grafana", "locust"}


def services(file: str) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load((ROOT / file).read_text())["services"])


def clients() -> Iterator[list[str]]:
    """Every kind of Compose on this machine."""
    if shutil.which("docker-compose"):
        yield ["docker-compose"]
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        yield ["docker", "compose"]


@pytest.mark.parametrize("files", [CPU, GPU, EMBEDDED], ids=["cpu", "gpu", "embedded"])
def test_compose_accepts_the_files(files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(clients())
    if not found:
        pytest.skip("neither docker-compose nor docker compose is on this machine")
    options = [option for file in files for option in ("-f", file)]
    for client in found:
        run = subprocess.run(
            [*client, *options, "--profile", "load", "--profile", "tracing", "config"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        assert "is not set" not in run.stderr


@pytest.mark.parametrize("file", GPU)
def test_every_image_is_pinned_to_a_full_version(file: str) -> None:
    images = {name: service["image"] for name, service in services(file).items() if "image" in service}
    assert images
    for name, image in images.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.-]+)?", image), f"{name}: {image}"


def test_both_variants_run_the_same_tensorflow_serving() -> None:
    cpu, gpu = (services(file)["tf_worker"]["image"] for file in GPU)
    assert gpu == f"{cpu}-gpu"


def test_the_other_files_change_services_that_exist_and_add_the_gpus_exporter() -> None:
    known = services("docker-compose.yml").keys()
    assert services("docker-compose.embedded.yml").keys() <= known
    assert services("docker-compose.gpu.yml").keys() - known == {"dcgm_exporter"}


def test_the_stand_in_is_started_as_the_official_image_is() -> None:
    official, standing_in = (services(file)["tf_worker"]["command"] for file in EMBEDDED)
    entry_point = ["--port=8500", "--rest_api_port=8501"]
    assert standing_in == ["--host=0.0.0.0", *entry_point, *official]


def test_the_stand_in_does_not_go_by_the_name_of_the_official_image() -> None:
    (standing_in,) = services("docker-compose.embedded.yml").values()
    assert "tensorflow" not in standing_in["image"]


def test_files_that_services_mount_and_build_from_exist() -> None:
    for name, service in services("docker-compose.yml").items():
        paths = [volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("./")]
        if "build" in service:
            paths.append(service["build"]["dockerfile"])
        for path in paths:
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_only_these_services_are_published_and_by_default_to_this_machine_alone() -> None:
    ports = {name: service["ports"] for name, service in services("docker-compose.yml").items() if "ports" in service}
    assert ports.keys() == PUBLISHED
    for published in ports.values():
        assert all(re.match(r"(\$\{TANDEM_BIND:-127\.0\.0\.1\}|127\.0\.0\.1):", port) for port in published)


def test_workers_are_on_no_network_but_the_internal_one() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert compose["networks"]["workers"]["internal"] is True
    for name in ("torch_worker", "tf_worker"):
        assert list(compose["services"][name]["networks"]) == ["workers"]


def test_every_service_is_confined_and_limited() -> None:
    exporter = {"dcgm_exporter": services("docker-compose.gpu.yml")["dcgm_exporter"]}
    for name, service in (services("docker-compose.yml") | exporter).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert service["restart"] in ("no", "unless-stopped"), name
        assert "healthcheck" in service or service["restart"] == "no", name


def test_both_workers_get_the_same_resources() -> None:
    torch, tf = (services("docker-compose.yml")[name]["deploy"] for name in ("torch_worker", "tf_worker"))
    assert torch == tf


KNOBS = {f"TANDEM_WORKERS__{name.upper()}" for name in WorkersSettings.model_fields.keys() - {"device"}}


@pytest.mark.parametrize("name", ["packages", "models", "torch_worker", "tf_worker", "gateway"])
def test_what_both_runtimes_are_given_alike_reaches_all_that_it_concerns(name: str) -> None:
    """As variables of the workers, too, though these do not read them: a change of one starts them anew."""
    assert services("docker-compose.yml")[name]["environment"].keys() >= KNOBS


def test_both_workers_compute_with_as_many_threads_as_they_have_cpus_by_default() -> None:
    compose = services("docker-compose.yml")
    threads = "${TANDEM_WORKERS__THREADS:-2}"
    assert f"--threads={threads}" in compose["torch_worker"]["command"]
    for pool in ("intra", "inter"):
        assert f"--tensorflow_{pool}_op_parallelism={threads}" in compose["tf_worker"]["command"]
    assert compose["gateway"]["environment"]["TANDEM_WORKERS__THREADS"] == threads
    assert compose["torch_worker"]["deploy"]["resources"]["limits"]["cpus"] == threads.replace("S__THREADS", "_CPUS")


def test_both_workers_batch_as_the_view_says_which_the_packages_are_made_with() -> None:
    compose = services("docker-compose.yml")
    view = Path(compose["packages"]["command"][-1])
    assert f"--batching_parameters_file={batching.path(view)}" in compose["tf_worker"]["command"]
    assert f"--serving={view / 'torch'}" in compose["torch_worker"]["command"]


def test_the_example_settings_show_the_defaults_of_what_both_runtimes_are_given() -> None:
    example = dict(re.findall(r"^#(TANDEM_WORKERS__\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert example.pop("TANDEM_WORKERS__THREADS") == "2"  # a worker's share, not all of the host
    defaults = {f"TANDEM_WORKERS__{name.upper()}": str(value) for name, value in WorkersSettings()}
    assert example == {name: defaults[name] for name in KNOBS - {"TANDEM_WORKERS__THREADS"}}


def test_the_collector_runs_only_in_its_profile_and_is_where_the_settings_and_grafana_look_for_it() -> None:
    compose = services("docker-compose.yml")
    assert compose["collector"]["profiles"] == ["tracing"]
    assert not [name for name, service in compose.items() if "collector" in service.get("depends_on", {})]
    config = yaml.safe_load((ROOT / "monitoring" / "jaeger.yml").read_text())
    listening = {
        config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2],
        config["extensions"]["jaeger_query"]["http"]["endpoint"].rpartition(":")[2],
        config["extensions"]["healthcheckv2"]["http"]["endpoint"].rpartition(":")[2],
    }
    sources = ROOT / "monitoring" / "grafana" / "provisioning" / "datasources"
    (jaeger,) = yaml.safe_load((sources / "jaeger.yml").read_text())["datasources"]
    (endpoint,) = re.findall(r"^#TANDEM_TRACING__ENDPOINT=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    probe = compose["collector"]["healthcheck"]["test"][-1]
    asked = [re.fullmatch(r"http://([\w.]+):(\d+)(/status)?", url) for url in (endpoint, jaeger["url"], probe)]
    assert [each and each[1] for each in asked] == ["collector", "collector", "127.0.0.1"]
    assert {each[2] for each in asked if each} == listening
    (prometheus,) = yaml.safe_load((sources / "prometheus.yml").read_text())["datasources"]
    (destination,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert destination == {"name": "trace_id", "datasourceUid": jaeger["uid"]}


def environment_names(section: type[BaseModel], prefix: str = "TANDEM_") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from environment_names(kind, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


def test_the_tensorflow_worker_keeps_its_memory_as_the_torch_worker_does() -> None:
    assert tuning.KEPT_MEMORY.items() <= services("docker-compose.yml")["tf_worker"]["environment"].items()


def test_the_gateways_environment_names_settings_that_exist() -> None:
    assert services("docker-compose.yml")["gateway"]["environment"].keys() <= set(environment_names(Settings))


def test_the_load_tests_environment_names_options_that_exist() -> None:
    load_options = {option.variable for option in options()}
    passed_on = set(services("docker-compose.yml")["locust"]["environment"])
    assert passed_on <= load_options
    assert passed_on >= {name for name in load_options if name.startswith("TANDEM_")} - {"TANDEM_LOAD_SUMMARY_JSON"}


def test_the_load_tests_example_settings_show_the_defaults() -> None:
    defaults = {option.variable: option.default for option in options()}
    example = (ROOT / ".env.example").read_text()
    shown = dict(re.findall(r"^#(TANDEM_LOAD_\w+)=(.*)$", example, re.MULTILINE))
    assert (ROOT / shown.pop("TANDEM_LOAD_IMAGES")).resolve() == Path(defaults["TANDEM_LOAD_IMAGES"])
    assert shown == {name: defaults[name] for name in shown}
    assert shown


def test_load_workers_are_what_their_master_is_and_find_it() -> None:
    compose = services("docker-compose.yml")
    master, worker = compose["locust"], compose["locust_worker"]
    alone = {"command", "depends_on", "environment", "healthcheck", "ports"}
    assert {name: value for name, value in master.items() if name not in alone} == {
        name: value for name, value in worker.items() if name not in alone
    }
    assert "--master" in master["command"]
    assert worker["command"] == ["--worker", "--master-host=locust"]
    assert worker["depends_on"] == {"locust": {"condition": "service_healthy"}}


def test_workers_are_addressed_by_names_that_the_network_knows() -> None:
    compose = services("docker-compose.yml")
    known = {
        alias: name
        for name in ("torch_worker", "tf_worker")
        for alias in compose[name]["networks"]["workers"]["aliases"]
    }
    environment = compose["gateway"]["environment"]
    assert known[environment["TANDEM_TORCH__ADDRESS"].split(":")[0]] == "torch_worker"
    assert known[environment["TANDEM_TORCH__MANAGEMENT_ADDRESS"].split(":")[0]] == "torch_worker"
    assert known[environment["TANDEM_TF__ADDRESS"].split(":")[0]] == "tf_worker"
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    everything = [service for file in GPU for service in services(file).items()]
    names = {name for name, _ in everything} | {
        alias
        for _, service in everything
        if isinstance(service.get("networks"), dict)
        for network in service["networks"].values()
        for alias in network["aliases"]
    }
    for job in scraped:
        for discovery in job.get("dns_sd_configs", []):
            assert set(discovery["names"]) <= names


def test_the_example_settings_are_the_variables_that_the_compose_files_read() -> None:
    text = "".join((ROOT / file).read_text() for file in (*GPU, *EMBEDDED))
    passed_on = services("docker-compose.yml")
    read = set(re.findall(r"\$\{(TANDEM_\w+)", text)) | {
        name
        for service in passed_on.values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    assert set(re.findall(r"^#((?:TANDEM|LOCUST)_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)) == read


def test_the_example_settings_show_the_defaults() -> None:
    text = "".join((ROOT / file).read_text() for file in GPU)
    defaults = dict(re.findall(r"\$\{(TANDEM_\w+):-([^}]*)\}", text))
    for name, value in re.findall(r"^#(TANDEM_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE):
        if name in defaults:
            assert value == defaults[name], name


def test_the_gateway_has_the_time_to_stop_that_it_may_take() -> None:
    grace = services(CPU[0])["gateway"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) >= Settings().http.stop_s
