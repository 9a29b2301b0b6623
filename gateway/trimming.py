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
    first, last = connection.execute(select(func.min(TABLE.c.id), func.max(TABLE.c.id))).one()
    if first is None:
        return False
    end = first + _AT_ONCE
    too_many = min(last - bounds.max_rows + 1, end)
    oldest = (TABLE.c.id < end) & (TABLE.c.time < now - bounds.max_age_s)
    if too_many > first:
        oldest = (TABLE.c.id < too_many) | oldest
    return connection.execute(delete(TABLE).where(oldest)).rowcount > 0
