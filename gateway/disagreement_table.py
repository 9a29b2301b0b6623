"""One disagreement: a picture and what two answers said of it, as it is kept in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    or_,
    select,
)

from gateway.agreement import BoxAgreement, ClassAgreement, MaskAgreement
from gateway.database import METADATA
from gateway.settings import DisagreementSettings
from gateway.tasks.base import Found
from gateway.tasks.classify import Classification
from gateway.tasks.detect import Detection
from gateway.tasks.segment import Segmentation
from gateway.tasks.table import TASKS
from modelkit.spec import ModelSpec, RuntimeName, Task

TABLE = Table(
    "disagreements",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", Float(53), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("model", String(64), nullable=False),
    Column("task", String(16), nullable=False),
    Column("image", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("agreement", Text, nullable=False),
    Column("answers", Text, nullable=False),
    Column("picture", LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # the number of one that is gone names no other
)
"""`time`: Unix time. `bytes`: of picture and answers. It stands before them, so that adding up reads neither."""

_ALL_BUT_THE_PICTURE = [column for column in TABLE.columns if column.name != "picture"]


class Side(BaseModel):
    """One of the two answers."""

    model_config = ConfigDict(frozen=True)

    runtime: RuntimeName
    version: str
    predictions: list[Segmentation] | list[Detection] | list[Classification]
    """As the model's task is, best first."""
    timing_ms: dict[str, float]
    """Milliseconds of each stage of its request, and their `total`."""


class Disagreement(BaseModel):
    """What two answers said of a picture; the picture itself is asked for apart."""

    model_config = ConfigDict(frozen=True)

    id: int
    time: datetime
    request_id: str
    model: str
    task: Task
    image: int
    """Which of its request's pictures it is, from 0."""
    agreement: MaskAgreement | BoxAgreement | ClassAgreement
    """Of this picture, as the model's task is."""
    answers: list[Side]
    """Two: the primary's and its shadow's, or those of a `compare`."""


@dataclass(frozen=True)
class Said:
    """What one answer says of the picture."""

    runtime: RuntimeName
    version: int
    timing_ms: dict[str, float]
    found: Found


@dataclass(frozen=True)
class Seen:
    """A disagreement as it comes from a request."""

    time: float
    """Unix time."""
    request_id: str
    spec: ModelSpec
    """Whose tolerances it is beyond."""
    image: int
    picture: bytes
    """As it was uploaded."""
    first: Said
    second: Said


_SIDES = TypeAdapter(list[Side])
_AGREEMENT: TypeAdapter[Any] = TypeAdapter(MaskAgreement | BoxAgreement | ClassAgreement)


def write(seen: Seen, limits: DisagreementSettings, connection: Connection) -> bool:
    """Keep it, and let the oldest go that are too many. False where it alone is more than may be kept."""
    spec = seen.spec
    agreement, _ = TASKS[spec.task].compare([seen.first.found], [seen.second.found], spec.agreement)
    answers = _SIDES.dump_json([_side(seen.first), _side(seen.second)]).decode()
    size = len(seen.picture) + len(answers)
    if size > limits.max_bytes:
        return False
    connection.execute(
        insert(TABLE).values(
            time=seen.time,
            request_id=seen.request_id,
            model=spec.name,
            task=spec.task,
            image=seen.image,
            bytes=size,
            agreement=_AGREEMENT.dump_json(agreement).decode(),
            answers=answers,
            picture=seen.picture,
        )
    )
    newest_first = TABLE.c.id.desc()
    ranked = select(
        TABLE.c.id,
        func.row_number().over(order_by=newest_first).label("place"),
        func.sum(TABLE.c.bytes).over(order_by=newest_first).label("bytes"),
    ).subquery()
    too_many = or_(ranked.c.place > limits.max_count, ranked.c.bytes > limits.max_bytes)
    newest_to_go = select(func.max(ranked.c.id)).where(too_many).scalar_subquery()
    connection.execute(delete(TABLE).where(TABLE.c.id <= newest_to_go))
    return True


def newest(model: str | None, limit: int, before: int | None, connection: Connection) -> list[Disagreement]:
    """At most `limit`, newest first, without masks; of all models or one; with an id below `before`."""
    query = select(*_ALL_BUT_THE_PICTURE).order_by(TABLE.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(TABLE.c.model == model)
    if before is not None:
        query = query.where(TABLE.c.id < before)
    return [_without_masks(_read(row)) for row in connection.execute(query)]


def find(number: int, connection: Connection) -> Disagreement | None:
    row = connection.execute(select(*_ALL_BUT_THE_PICTURE).where(TABLE.c.id == number)).one_or_none()
    return None if row is None else _read(row)


def find_picture(number: int, connection: Connection) -> bytes | None:
    """As it was uploaded."""
    picture: bytes | None = connection.scalar(select(TABLE.c.picture).where(TABLE.c.id == number))
    return picture


def clear(model: str | None, connection: Connection) -> int:
    """Remove those of a model, or all; how many they were."""
    query = delete(TABLE) if model is None else delete(TABLE).where(TABLE.c.model == model)
    return connection.execute(query).rowcount


def _side(said: Said) -> Side:
    return Side.model_validate(
        {
            "runtime": said.runtime,
            "version": str(said.version),
            "predictions": said.found.predictions,
            "timing_ms": said.timing_ms,
        }
    )


def _read(row: Row[Any]) -> Disagreement:
    return Disagreement(
        id=row.id,
        time=datetime.fromtimestamp(row.time, UTC),
        request_id=row.request_id,
        model=row.model,
        task=row.task,
        image=row.image,
        agreement=_AGREEMENT.validate_json(row.agreement),
        answers=_SIDES.validate_json(row.answers),
    )


def _without_masks(disagreement: Disagreement) -> Disagreement:
    sides = [
        side.model_copy(update={"predictions": [_without_mask(each) for each in side.predictions]})
        for side in disagreement.answers
    ]
    return disagreement.model_copy(update={"answers": sides})


def _without_mask(each: Segmentation | Detection | Classification) -> Detection | Classification:
    if isinstance(each, Segmentation):
        return Detection(each.class_id, each.label, each.score, each.box)
    return each
