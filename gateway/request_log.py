"""The request log: one row for each inference, the evidence that a comparison rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, SmallInteger, String, Table

from gateway.database import METADATA
from gateway.stages import Stage
from gateway.worker_times import UNKNOWN, WorkerTimes
from modelkit.spec import RuntimeName

DROPPED = "dropped"
"""Outcome of an inference that was never sent: a shadow there was no room for, or that was given up before."""

OVERTAKEN = "overtaken"
"""Outcome of an inference that was given up because another one of the same request had answered: at least so slow."""

TABLE = Table(
    "inferences",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("pair", BigInteger),
    Column("side", SmallInteger, nullable=False),
    Column("called", SmallInteger, nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("runtime", String(16), nullable=False),
    Column("role", String(16), nullable=False),
    Column("policy", String(16), nullable=False),
    Column("cold", Boolean, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("images", Integer, nullable=False),
    Column("batch", Integer),
    Column("receive_s", Float(24)),
    Column("decode_s", Float(24)),
    Column("preprocess_s", Float(24)),
    Column("queue_s", Float(24)),
    Column("rpc_s", Float(24)),
    Column("postprocess_s", Float(24)),
    Column("total_s", Float(24), nullable=False),
    Column("compared", Integer),
    Column("agreeing", Integer),
    Column("score_difference", Float(24)),
    Column("worker_queue_s", Float(24)),
    Column("worker_inference_s", Float(24)),
    Index("inferences_model_time", "model", "time"),
)
"""Seconds unless said otherwise.

`time`: Unix time at which the request arrived. `pair`: a random number that the rows of one request share which asked
two targets about the same tensors; null where one was asked. `side`: 0 for the primary, and for the first target that
a `compare` names; 1 for the shadow, and for the second. `called`: 0 for whoever was called first, 1 for the other.
`policy`: how the target was chosen: the policy's name, `named` where the request named its runtime, `compare`.
`cold`: whether the target had answered fewer than 50 requests of this gateway since it became ready. `outcome`: `ok`,
`cancelled`, `overtaken`, `dropped`, or the code of the error. `images`: pictures of the request. `batch`: pictures in
the worker's batch, the largest of the request's, where the worker says so. `receive_s` to `postprocess_s`: the stages,
null where one was not reached, and until it failed the one in which it did; `total_s` adds them up. On the row of
side 1, where both answered: `compared` pictures, on how many of them both said the same (`agreeing`), and the greatest
difference of a score. `worker_queue_s` and `worker_inference_s`: of `rpc_s`, how long the picture waited in the
worker and how long its batch was computed, the longest of the request's, where the worker says so.
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Of which request an inference is a part, and which part: the columns of these names."""

    request_id: str
    time: float
    policy: str
    pair: int | None = None
    side: int = 0
    called: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One inference, as it ended."""

    origin: Origin
    model: str
    version: int
    runtime: RuntimeName
    role: str
    cold: bool
    outcome: str
    images: int
    seconds: Mapping[Stage, float]
    """Of each stage that was reached."""
    worker: WorkerTimes = UNKNOWN
    compared: int | None = None
    agreeing: int | None = None
    score_difference: float | None = None

    def with_agreement(self, pictures: Sequence[tuple[bool, float]]) -> Row:
        """`pictures`: of each, whether both said the same, and the greatest difference of a score."""
        return replace(
            self,
            compared=len(pictures),
            agreeing=sum(same for same, _ in pictures),
            score_difference=max((difference for _, difference in pictures), default=None),
        )

    def values(self) -> dict[str, Any]:
        """By column, without the id, which the database gives."""
        origin, seconds, worker = self.origin, self.seconds, self.worker
        return {
            "time": origin.time,
            "request_id": origin.request_id,
            "pair": origin.pair,
            "side": origin.side,
            "called": origin.called,
            "model": self.model,
            "version": self.version,
            "runtime": self.runtime,
            "role": self.role,
            "policy": origin.policy,
            "cold": self.cold,
            "outcome": self.outcome,
            "images": self.images,
            "batch": worker.batch,
            "receive_s": seconds.get("receive"),
            "decode_s": seconds.get("decode"),
            "preprocess_s": seconds.get("preprocess"),
            "queue_s": seconds.get("queue"),
            "rpc_s": seconds.get("rpc"),
            "postprocess_s": seconds.get("postprocess"),
            "total_s": sum(seconds.values()),
            "compared": self.compared,
            "agreeing": self.agreeing,
            "score_difference": self.score_difference,
            "worker_queue_s": worker.queue_s,
            "worker_inference_s": worker.inference_s,
        }
