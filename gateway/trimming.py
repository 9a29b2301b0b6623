"""The bounds of the request log, kept by small deletes, so that nobody waits long behind one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from gateway.request_log import TABLE

_AT_ONCE = 2000


@dataclass(frozen=True)
class Bounds:
    max_rows: int
    max_age_s: float


def trim(connection: Connection, bounds: Bounds, *, now: float) -> bool:
    """Delete some of the rows that are too many or too old by the Unix time `now`. Whether there may be more.

    Ids stand in for counting and for the order of time: an age is some seconds too long where requests overlap, and
    ids that a database left out count as rows.
    """
    # Two queries: SQLite looks up a least or a greatest id, and reads the whole table for both together.
    first, last = (connection.scalar(select(end(TABLE.c.id))) for end in (func.min, func.max))
    if first is None:
        return False
    too_many = TABLE.c.id <= last - bounds.max_rows
    too_old = TABLE.c.time < now - bounds.max_age_s
    gone = connection.execute(delete(TABLE).where(TABLE.c.id < first + _AT_ONCE, too_many | too_old))
    return gone.rowcount > 0
