"""Every metric of the gateway, one class. `docs/metrics.md` describes them; a test holds the two equal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.runtimes.base import Output
from gateway.spans import Exemplar
from gateway.stages import BEFORE_ROUTING, Stage
from modelkit.spec import RUNTIME_NAMES

# From 0.5 ms, what a small model takes, to 30 s, what only a deadline ends.
_LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
_LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_SCORE_BUCKETS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)

ShadowDrop = Literal["queue_full", "memory_full", "expired", "no_version", "other_input"]
"""Why a request was not shadowed: too many shadows wait, their tensors take too much memory, it has waited too long, a
target's version is gone, or the shadow's version takes another input."""

HedgeOutcome = Literal["won", "lost", "failed"]
"""Whether the hedge answered first, the first target did, or the hedge failed."""

HedgeRefusal = Literal["budget", "not_ready", "busy"]
"""Why a request that was late was not hedged: too many were lately, or the other runtime is not ready,
or has no place."""

LogDrop = Literal["buffer_full", "not_written", "stopped"]
"""Why a row is not in the request log: too many wait, the database refused it or may have it, the gateway stops."""

Ejection = Literal["failed", "hung", "slow", "errors"]
"""Why a worker gets no requests: it could not be reached several times in a row, it says nothing, it takes several
times what the others take, or it has failed on several pictures in a row and the others have not."""

NO_RUNTIME = "none"
"""The label `runtime` of the stages before one is chosen."""


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        # One more series for each counter and histogram, which nothing reads. The library has no switch but this one.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self.shared = values.ValueClass._multiprocess
        """Whether several processes have one /metrics: exemplars are then not kept."""
        self.exposed = CollectorRegistry() if self.shared else registry
        """What is said at /metrics: of all processes together."""
        if self.shared:
            MultiProcessCollector(self.exposed)  # type: ignore[no-untyped-call]
        self.requests = Counter(
            "tandem_requests",
            "Inference requests, by how they ended: ok, cancelled, or the code of the error.",
            ("model", "version", "runtime", "role", "outcome"),
            registry=registry,
        )
        self.images = Counter("tandem_images", "Pictures answered.", ("model", "version", "runtime"), registry=registry)
        self.stage_seconds = Histogram(
            "tandem_stage_seconds",
            "Time a request spent in each stage.",
            ("model", "version", "runtime", "role", "stage"),
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.request_seconds = Histogram(
            "tandem_request_seconds",
            "Time of an answered request, from its first byte to the answer's last stage.",
            ("model", "version", "runtime", "role"),
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.worker_seconds = Histogram(
            "tandem_worker_seconds",
            "What a worker says of a picture's part of rpc: queue, inference.",
            ("model", "version", "runtime", "role", "part"),
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.inflight = Gauge(
            "tandem_inflight",
            "Pictures at the runtime now, but for shadows.",
            ("runtime",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.admission_limit = Gauge(
            "tandem_admission_limit",
            "Pictures that may be at the runtime now, but for shadows.",
            ("runtime",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.queue_depth = Gauge(
            "tandem_queue_depth",
            "Requests waiting for places at the runtime now.",
            ("runtime",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.inflight_bytes = Gauge(
            "tandem_inflight_bytes",
            "Bytes of uploads and of input tensors that requests hold now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.inflight_pixels = Gauge(
            "tandem_inflight_pixels",
            "Pixels of decoded pictures that requests hold now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.decoding = Gauge(
            "tandem_decoding",
            "Requests whose pictures are decoded now, or next.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.decode_queue_depth = Gauge(
            "tandem_decode_queue_depth",
            "Requests that wait for their pictures to be decoded.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.replicas = Gauge(
            "tandem_replicas",
            "Workers of the runtime that the gateway knows now.",
            ("runtime",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.replicas_usable = Gauge(
            "tandem_replicas_usable",
            "Workers of the runtime that get requests now: they have a model, answer, and are not ejected.",
            ("runtime",),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.replica_ejections = Counter(
            "tandem_replica_ejections",
            "Times that a worker was left out, by why: failed, hung, slow, errors.",
            ("runtime", "reason"),
            registry=registry,
        )
        self.breaker_state = Gauge(
            "tandem_breaker_state",
            "State of the runtime's circuits, the worst of all workers and models: 0 closed, 1 half open, 2 open.",
            ("runtime",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.rejected = Counter(
            "tandem_rejected",
            "Requests refused before they reached a runtime, by the code of the error.",
            ("reason",),
            registry=registry,
        )
        self.rate_limited = Counter(
            "tandem_rate_limited",
            "Requests refused because of their key's rate, by the key's name.",
            ("key",),
            registry=registry,
        )
        self.rates_not_shared = Counter(
            "tandem_rates_not_shared",
            "Requests of keys with a rate that this gateway counted alone, since Redis was away.",
            registry=registry,
        )
        self.keys_not_read = Gauge(
            "tandem_keys_not_read",
            "Files of keys that are broken or gone now: the keys that were read last stay in force.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.failovers = Counter(
            "tandem_failovers",
            "Requests of which a second runtime was asked because the first one had failed.",
            ("from", "to"),
            registry=registry,
        )
        self.hedges = Counter(
            "tandem_hedges",
            "Requests of which a second runtime was asked because the first one was late: won, lost, failed.",
            ("from", "to", "outcome"),
            registry=registry,
        )
        self.hedges_refused = Counter(
            "tandem_hedges_refused",
            "Requests that were late and were not hedged, by why.",
            ("from", "reason"),
            registry=registry,
        )
        # All at once: of a series that appears with its first count, Prometheus sees no increase.
        for name, other in permutations(RUNTIME_NAMES, 2):
            self.failovers.labels(name, other)
            for outcome in get_args(HedgeOutcome):
                self.hedges.labels(name, other, outcome)
            for refusal in get_args(HedgeRefusal):
                self.hedges_refused.labels(name, refusal)
        self.agreement = Counter(
            "tandem_agreement",
            "Pictures answered twice, by whether both answers say the same: agree, disagree.",
            ("model", "outcome"),
            registry=registry,
        )
        self.score_difference = Histogram(
            "tandem_score_difference",
            "Greatest difference of a class' or a matched detection's score between two answers, for one picture.",
            ("model",),
            buckets=_SCORE_BUCKETS,
            registry=registry,
        )
        self.shadow_inflight = Gauge(
            "tandem_shadow_inflight",
            "Pictures of shadows at the workers now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.shadow_queue_depth = Gauge(
            "tandem_shadow_queue_depth",
            "Shadows waiting for places now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.shadow_dropped = Counter(
            "tandem_shadow_dropped",
            "Requests that were to be shadowed and were not, by why.",
            ("model", "reason"),
            registry=registry,
        )
        self.canary_share = Gauge(
            "tandem_canary_share",
            "Share of the requests that the new target of the model's canary answers.",
            ("model",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.canary_decisions = Counter(
            "tandem_canary_decisions",
            "Moves of canaries that this gateway made: promote, roll_back.",
            ("model", "action"),
            registry=registry,
        )
        self.disagreements = Counter(
            "tandem_disagreements",
            "Pictures about which two answers differ that were to be kept, by whether they were: kept, dropped.",
            ("model", "outcome"),
            registry=registry,
        )
        self.log_rows = Counter("tandem_log_rows", "Rows written to the request log.", registry=registry)
        self.log_rows_dropped = Counter(
            "tandem_log_rows_dropped",
            "Rows that are missing in the request log, by why.",
            ("reason",),
            registry=registry,
        )
        # All at once: of a series that appears with its first count, Prometheus sees no increase.
        for reason in get_args(LogDrop):
            self.log_rows_dropped.labels(reason)
        self.log_buffer_rows = Gauge(
            "tandem_log_buffer_rows",
            "Rows that wait to be written to the request log, as of the last attempt.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.connections = Gauge(
            "tandem_connections",
            "Clients' connections that are open now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.tasks = Gauge(
            "tandem_tasks",
            "Tasks of the event loop that have not ended: a few always, and those of the requests under way.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.event_loop_lag = Histogram(
            "tandem_event_loop_lag_seconds",
            "How late the event loop came to what was due, tried twice a second.",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        # As the library's own collector names them, which several processes with one /metrics cannot have.
        self.resident_memory = Gauge(
            "process_resident_memory_bytes",
            "Memory of the process that is in RAM.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.open_fds = Gauge(
            "process_open_fds",
            "Open file descriptors: files, and sockets of clients and workers.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.build_info = Gauge(
            "tandem_build_info",
            "Always 1; the version is a label.",
            ("version",),
            multiprocess_mode="max",
            registry=registry,
        )

    def replica_ejections_of(self, runtime: str) -> dict[Ejection, Counter]:
        """By reason, all at once: of a series that appears with its first count, Prometheus sees no increase."""
        return {reason: self.replica_ejections.labels(runtime, reason) for reason in get_args(Ejection)}

    def drop_shadow(self, model: str, reason: ShadowDrop) -> None:
        # All at once: of a series that appears with its first count, Prometheus sees no increase.
        counters = {each: self.shadow_dropped.labels(model, each) for each in get_args(ShadowDrop)}
        counters[reason].inc()

    def observe_stages(
        self,
        seconds: Mapping[Stage, float],
        *,
        model: str,
        version: str,
        runtime: str,
        role: str,
        exemplar: Exemplar | None,
    ) -> None:
        """Record stages of one request: those before routing with NO_RUNTIME, the others with their runtime."""
        for stage, value in seconds.items():
            if (stage in BEFORE_ROUTING) == (runtime == NO_RUNTIME):
                self.stage_seconds.labels(model, version, runtime, role, stage).observe(value, exemplar)

    def observe_worker(self, output: Output, *, model: str, version: str, runtime: str, role: str) -> None:
        """Record what the worker says of one picture."""
        if output.queue_s is not None:
            self.worker_seconds.labels(model, version, runtime, role, "queue").observe(output.queue_s)
        if output.inference_s is not None:
            self.worker_seconds.labels(model, version, runtime, role, "inference").observe(output.inference_s)
