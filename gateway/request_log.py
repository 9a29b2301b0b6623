"""The request log: one row for each inference, the evidence that a comparison rests on."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, SmallInteger, String, Table

from gateway.database import METADATA

DROPPED = "dropped"
"""Outcome of an inference that was never sent: a shadow there was no room for."""

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
    Index("inferences_model_time", "model", "time"),
    Index("inferences_time", "time"),
)
"""Seconds unless said otherwise.

`time`: Unix time at which the request arrived. `pair`: a random number that the rows of one request share which asked
two targets about the same tensors; null where one was asked. `side`: 0 for the primary, and for the first target that
a `compare` names; 1 for the shadow, and for the second. `called`: 0 for whoever was called first, 1 for the other.
`policy`: how the target was chosen: the policy's name, `named` where the request named its runtime, `compare`.
`cold`: whether the target had just become ready. `outcome`: `ok`, `cancelled`, `dropped`, or the code of the error.
`images`: pictures of the request. `batch`: pictures in the worker's batch, the largest of the request's, where the
worker says so. `receive_s` to `postprocess_s`: the stages, null where one was not reached; `total_s` adds them up, and
is the time until it failed where it did. On the row of side 1, where both answered: `compared` pictures, on how many of
them both said the same (`agreeing`), and the greatest difference of a score.
"""
