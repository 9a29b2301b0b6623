"""Every setting of Tandem, one frozen tree.

Each is read from the environment: `TANDEM_` and the path to the field, levels joined by two underscores
(`TANDEM_TORCH__ADDRESS=10.0.0.5:7070`). The supervisor reads the same tree, so that one variable moves both ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_serializer, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelkit.spec import Precision, RuntimeName

Port = int
_PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")
"""In a URL."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class HttpSettings(_Section):
    host: str = "127.0.0.1"
    """Address the gateway listens on. `0.0.0.0` opens it to other machines."""
    port: Port = Field(8000, ge=0, le=65535)
    """Port the gateway listens on."""
    tls_certificate: str = ""
    """File of the gateway's certificate (PEM), with those that lead to its root; with it HTTP is HTTPS."""
    tls_key: str = Field("", validate_default=True)
    """File of that certificate's key (PEM). Both are read again when they change."""
    header_timeout_s: float = Field(10.0, gt=0)
    """Longest time for a request's first line and headers to arrive, in seconds; then 408."""
    body_timeout_s: float = Field(30.0, gt=0)
    """Longest time for a request's body to arrive, in seconds; then 408."""
    keep_alive_s: float = Field(75.0, gt=0)
    """How long a connection may be idle between two requests, in seconds: longer than the load balancer's own limit."""
    max_connections: int = Field(2048, gt=0)
    """Most connections at once, to all gateway processes together; then 503."""
    drain_delay_s: float = Field(0.0, ge=0)
    """After SIGTERM, how long `/readyz` says 503 while requests are still taken: so that a load balancer notices."""
    drain_s: float = Field(10.0, gt=0)
    """Longest time after that for what was accepted to be answered, in seconds; then 503."""
    processes: int = Field(1, ge=1, le=64)
    """Gateway processes that share the port. What is bounded for all of them together is divided by their number."""

    @field_validator("tls_key")
    @classmethod
    def _with_certificate(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) != bool(info.data.get("tls_certificate")):
            raise ValueError("a certificate and its key belong together: set TLS_CERTIFICATE and TLS_KEY, or neither")
        return value

    @property
    def stop_s(self) -> float:
        """Longest that a gateway takes to end after SIGTERM, in seconds."""
        return self.drain_delay_s + self.drain_s + 5.0


class LimitSettings(_Section):
    max_upload_bytes: int = Field(20_000_000, gt=0)
    """Largest request body, in bytes, all images together; then 413."""
    max_pixels: int = Field(50_000_000, gt=0)
    """Largest picture, width × height, checked before it is decoded; then 413."""
    max_inflight_bytes: int = Field(200_000_000, gt=0)
    """Most bytes of uploads and input tensors that requests hold, in all gateway processes together; then 429."""
    max_inflight_pixels: int = Field(50_000_000, gt=0)
    """Most pixels of decoded pictures at once, in all gateway processes together; more wait up to their deadline."""
    max_images: int = Field(16, gt=0)
    """Most images in one request; then 422."""
    timeout_ms: int = Field(10_000, gt=0)
    """Deadline of a request that names none, in milliseconds."""
    max_timeout_ms: int = Field(60_000, gt=0)
    """Longest deadline a request may ask for, in milliseconds."""
    decode_threads: int = Field(0, ge=0)
    """Threads that decode, resize and draw pictures and make masks, in each gateway process; 0: one for each CPU."""


class KeySettings(_Section):
    file: str = ""
    """The file of API keys that `tandem keys` writes; empty: `keys.json` in `TANDEM_VAR`, if it is there."""
    required: bool = False
    """Whether `predict` and `read` need a key also while there is no file of keys."""


class RateLimitSettings(_Section):
    storage_url: str = Field("", pattern=r"^(rediss?://.+)?$")
    """Redis in which several gateways count a key's requests together, `redis://host:6379`; empty: each its own."""

    @field_serializer("storage_url")
    def _without_password(self, url: str) -> str:
        return _PASSWORD.sub("***", url)


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _checked(address: str) -> str:
    """Raises ValueError for what is not host:port, with an IPv6 address in brackets."""
    address = address.strip()
    if not re.fullmatch(r"([^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", address) or not (
        0 < int(address.rpartition(":")[2]) <= 65535
    ):
        raise ValueError(f"{address!r} is not host:port, e.g. 127.0.0.1:7070")
    return address


def _join(ip: str, port: str) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


class RuntimeSettings(_Section):
    admission: Literal["adaptive", "fixed"] = "adaptive"
    """Pictures at once: as measured best, from what fills the workers' batches to max_inflight; or always that."""
    max_inflight: int = Field(64, gt=0)
    """Most pictures at each worker of this runtime at once, from all gateway processes together."""
    max_queue: int = Field(256, ge=0)
    """Most requests waiting for places, of all gateway processes together; then 429."""


class WorkerSettings(RuntimeSettings):
    device: str = Field("", pattern=r"^[a-z0-9 ._-]{0,64}$")
    """What the workers run on, such as cpu, gpu or a GPU's name: where it differs, runtimes are not compared."""
    address: str
    tls_ca: str = ""
    """File of the certificates (PEM) that the workers' own must be signed by; with it the way to them is TLS."""
    tls_certificate: str = ""
    """File of the gateway's own certificate (PEM), for workers that ask for one (mutual TLS)."""
    tls_key: str = Field("", validate_default=True)
    """File of that certificate's key (PEM)."""
    tls_server_name: str = ""
    """Name that the workers' certificates must have; empty: the host of their address."""

    @field_validator("address")
    @classmethod
    def _all_host_and_port(cls, value: str) -> str:
        addresses = [_checked(address) for address in value.split(",")]
        if len(addresses) > len(set(addresses)):
            raise ValueError("an address is named twice")
        return ",".join(addresses)

    @field_validator("tls_certificate", "tls_key", "tls_server_name")
    @classmethod
    def _only_with_tls(cls, value: str, info: ValidationInfo) -> str:
        if value and not info.data.get("tls_ca"):
            raise ValueError("it is for TLS, and TLS_CA, which turns that on, is empty")
        if info.field_name == "tls_key" and bool(value) != bool(info.data.get("tls_certificate")):
            raise ValueError("a certificate and its key belong together: set TLS_CERTIFICATE and TLS_KEY, or neither")
        return value

    @property
    def host(self) -> str:
        """The address without its port."""
        return _host_and_port(self.address)[0]

    @property
    def entries(self) -> tuple[Self, ...]:
        """These settings once for each address that they name."""
        return tuple(self.model_copy(update={"address": address}) for address in self.address.split(","))

    def at(self, ip: str) -> Self:
        """These settings, of one address, for the worker at `ip`, one of the IP addresses that its host stands for."""
        return self.model_copy(
            update={
                "address": _join(ip, _host_and_port(self.address)[1]),
                "tls_server_name": self.tls_server_name or self.host,
            }
        )


class TorchSettings(WorkerSettings):
    address: str = "127.0.0.1:7070"
    """TorchServe's gRPC inference address, host:port, or several with commas; each IP address of a host is a worker."""
    management_address: str = Field(":7071", validate_default=True)
    """TorchServe's gRPC management address, host:port, as many as of the others; `:port` alone: at the same hosts."""
    http_port: Port = Field(8080, ge=1, le=65535)
    """TorchServe's HTTP inference port (embedded stack)."""
    http_management_port: Port = Field(8081, ge=1, le=65535)
    """TorchServe's HTTP management port (embedded stack)."""
    metrics_port: Port = Field(8082, ge=1, le=65535)
    """TorchServe's HTTP metrics port (embedded stack)."""
    workers: int = Field(0, ge=0)
    """Python worker processes for each model (embedded stack); 0: as `TANDEM_WORKERS__REPLICAS` says."""

    @field_validator("management_address")
    @classmethod
    def _one_for_each(cls, value: str, info: ValidationInfo) -> str:
        if "address" not in info.data:
            return value  # that one is refused already
        hosts = [_host_and_port(address)[0] for address in info.data["address"].split(",")]
        if re.fullmatch(r":\d+", value.strip()):
            return ",".join(_checked(_join(host, value.strip()[1:])) for host in hosts)
        addresses = [_checked(address) for address in value.split(",")]
        if len(addresses) != len(hosts):
            raise ValueError(
                f"it names {len(addresses)} and TANDEM_TORCH__ADDRESS {len(hosts)}: name as many, in the same order, or"
                " :port alone"
            )
        return ",".join(addresses)

    @property
    def entries(self) -> tuple[Self, ...]:
        each = zip(super().entries, self.management_address.split(","), strict=True)
        return tuple(entry.model_copy(update={"management_address": management}) for entry, management in each)

    def at(self, ip: str) -> Self:
        management_host, port = _host_and_port(self.management_address)
        moved = super().at(ip)
        if management_host != self.host:
            return moved
        return moved.model_copy(update={"management_address": _join(ip, port)})


class TfSettings(WorkerSettings):
    address: str = "127.0.0.1:8500"
    """TensorFlow Serving's gRPC address, host:port, or several with commas; each IP address of a host is a worker."""
    rest_port: Port = Field(8501, ge=1, le=65535)
    """TensorFlow Serving's HTTP port, with its metrics (embedded stack)."""


class WorkersSettings(_Section):
    """What both runtimes are given alike. docs/fairness.md says what each comes to on either side."""

    precision: Precision = "fp32"
    """Arithmetic of the packages that are built: fp32, bf16 or fp16. Packages that exist keep theirs."""
    threads: int = Field(0, ge=0)
    """CPU threads that a runtime's workers on one machine compute with, together; 0: one for each CPU."""
    max_batch_size: int = Field(8, ge=1, le=1024)
    """Most pictures in a worker's batch."""
    batch_timeout_us: int = Field(0, ge=0, le=10_000_000)
    """How long a picture may wait for others to make a batch, in microseconds. TorchServe's least is 1000."""
    replicas: int = Field(0, ge=0)
    """Batches of a model that a runtime computes at once; 0: one for each GPU, or as measured best on CPUs."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the embedded stack puts both runtimes; auto: on the GPU if both can compute there, else on the CPU."""

    @property
    def batches_at_once(self) -> int:
        """Batches to be kept full: where nothing is said one is computed while the other's requests are read and
        answered."""
        return self.replicas or 2

    @property
    def least_inflight(self) -> int:
        """Pictures at a worker that keep its batches full: for each replica one is computed, and one waits."""
        return 2 * self.max_batch_size * self.batches_at_once


class ShadowSettings(_Section):
    max_inflight: int = Field(8, gt=0)
    """Most pictures of shadow requests at the workers at once; they take no places of other requests."""
    max_queue: int = Field(64, ge=0)
    """Most shadow requests waiting for places; more are dropped."""
    max_bytes: int = Field(64_000_000, gt=0)
    """Most bytes of input tensors, and of uploads to keep, that shadow requests hold; more are dropped."""
    timeout_ms: int = Field(10_000, gt=0)
    """Longest wait of a shadow request, in milliseconds, and then its deadline."""


class DisagreementSettings(_Section):
    max_count: int = Field(0, ge=0, le=10_000)
    """Most pictures about which two answers differ that are kept in the database, with both answers; 0: none."""
    max_bytes: int = Field(100_000_000, gt=0)
    """Most bytes of them; the oldest go first."""


class RequestLogSettings(_Section):
    enabled: bool = True
    """Whether each inference is written to the request log."""
    max_rows: int = Field(1_000_000, gt=0)
    """Most rows that are kept; the oldest go first."""
    max_age_h: float = Field(168.0, gt=0)
    """Longest that a row is kept, in hours."""
    buffer_rows: int = Field(10_000, gt=0)
    """Most rows that wait to be written, in each gateway process; more are dropped."""


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is written."""
    format: Literal["json", "console"] = "json"
    """One JSON object a line, or coloured text for people."""


class TracingSettings(_Section):
    endpoint: str = Field("", pattern=r"^(https?://[^/\s]+/?)?$")
    """Collector that traces are sent to by OTLP over gRPC, `http://host:4317`; empty: no tracing."""
    sample_ratio: float = Field(1.0, ge=0, le=1)
    """Share of requests that are traced, 0 to 1; a client that sends a `traceparent` has decided for its own."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TANDEM_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    var: Path = Path("var")
    """Folder of what a stack keeps: store, serving view, database, logs, key. Relative to the working directory."""
    default_runtime: RuntimeName = "torch"
    """The runtime that answers `runtime=auto` for a model without a policy."""
    database_url: str = Field("", pattern=r"^((sqlite:///|postgresql(\+psycopg)?://).+)?$")
    """Where policies and request log are: `sqlite:///path` or `postgresql://…`; empty: `tandem.db` in `TANDEM_VAR`."""
    warm_up_requests: int = Field(500, ge=0)
    """Black pictures that a model version is shown, for at most 3 s, before it is called ready; 0: none."""
    http: HttpSettings = HttpSettings()
    limits: LimitSettings = LimitSettings()
    keys: KeySettings = KeySettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
    torch: TorchSettings = TorchSettings()
    tf: TfSettings = TfSettings()
    workers: WorkersSettings = WorkersSettings()
    shadow: ShadowSettings = ShadowSettings()
    disagreements: DisagreementSettings = DisagreementSettings()
    request_log: RequestLogSettings = RequestLogSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @field_serializer("database_url")
    def _without_password(self, url: str) -> str:
        return _PASSWORD.sub("***", url)

    def share(self, total: int) -> int:
        """Of what all gateway processes may have together, the part of this one: at least 1."""
        return max(1, -(-total // self.http.processes))

    @property
    def runtimes(self) -> dict[RuntimeName, RuntimeSettings]:
        """The settings of each runtime, by its name."""
        return {"torch": self.torch, "tf": self.tf}

    @property
    def store(self) -> Path:
        """The model store: `<store>/<name>/<version>/model.yaml` and the artifacts."""
        return self.var / "store"

    @property
    def serving(self) -> Path:
        """The view the workers read, generated from the store: `torch/` and `tf/`."""
        return self.var / "serving"

    @property
    def database(self) -> str:
        """Where the database is, as an SQLAlchemy URL."""
        url = self.database_url or f"sqlite:///{self.var / 'tandem.db'}"
        return re.sub(r"^postgresql://", "postgresql+psycopg://", url)

    @property
    def jobs(self) -> Path:
        """Additions and proofs that this gateway's processes have started."""
        return self.var / "jobs"

    @property
    def logs(self) -> Path:
        """One log file for each process of the embedded stack."""
        return self.var / "logs"

    @property
    def admin_key_file(self) -> Path:
        """The admin key, made at the first start, readable by its owner only."""
        return self.var / "admin.key"

    @property
    def keys_file(self) -> Path:
        """The API keys; there need be none."""
        return Path(self.keys.file) if self.keys.file else self.var / "keys.json"


def unfilled_batches(settings: Settings) -> Iterator[str]:
    """A sentence for each runtime at which too few pictures are admitted at once to keep its batches full."""
    workers = settings.workers
    needed = workers.least_inflight
    for name, runtime in settings.runtimes.items():
        if runtime.max_inflight < needed:
            yield (
                f"TANDEM_{name.upper()}__MAX_INFLIGHT: {runtime.max_inflight} pictures at once do not keep batches of"
                f" {workers.max_batch_size} full; set it to {needed} or more, or lower TANDEM_WORKERS__MAX_BATCH_SIZE."
            )


class InvalidSettings(Exception):
    """The environment holds a setting that is not valid. The message is one line that names each."""


def read_settings(*, processes: int | None = None) -> Settings:
    """The settings in the environment; `processes` of the gateway where it is given. Raises InvalidSettings."""
    try:
        # What is given here is merged with what the environment says of the same section.
        return Settings() if processes is None else Settings(http={"processes": processes})
    except ValidationError as error:
        lines = [
            f"TANDEM_{'__'.join(map(str, each['loc'])).upper()}: {each['msg'].removeprefix('Value error, ')}; "
            f"it is {_PASSWORD.sub('***', repr(each['input']))}."
            for each in error.errors()
        ]
        raise InvalidSettings(" ".join(lines)) from None
