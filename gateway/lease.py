"""A lease in the database: of all gateway processes, one at a time holds it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from sqlalchemy import Column, Connection, Float, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.database import METADATA, Database

LEASE_S = 10.0
"""Whoever does not renew it for so long has lost it."""

TABLE = Table(
    "leases",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Float(53), nullable=False),
)
"""`until`: Unix time. Hosts whose clocks differ by more than LEASE_S may both hold it."""


class Lease:
    """It tells who should do the work. That it is not done twice is for the work itself to ensure: a process that was
    stopped in the middle of it does not know that its lease has ended."""

    def __init__(self, database: Database, name: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._name = name
        self._clock = clock
        self._holder = uuid.uuid4().hex

    async def take(self) -> bool:
        """Take or renew it; whether this process holds it now. Raises DatabaseUnavailable."""
        return await self._database.run(self._take)

    async def give_back(self) -> None:
        """So that another one need not wait for its end. Raises DatabaseUnavailable."""
        await self._database.run(self._give_back)

    def _take(self, connection: Connection) -> bool:
        now = self._clock()
        values = {"holder": self._holder, "until": now + LEASE_S}
        free = (TABLE.c.name == self._name) & ((TABLE.c.holder == self._holder) | (TABLE.c.until < now))
        if connection.execute(update(TABLE).where(free).values(values)).rowcount:
            return True
        if connection.scalar(select(TABLE.c.name).where(TABLE.c.name == self._name)) is not None:
            return False
        try:
            with connection.begin_nested():
                connection.execute(insert(TABLE).values(name=self._name, **values))
        except IntegrityError:  # somebody else's first lease, at the same moment
            return False
        return True

    def _give_back(self, connection: Connection) -> None:
        ours = (TABLE.c.name == self._name) & (TABLE.c.holder == self._holder)
        connection.execute(update(TABLE).where(ours).values(until=0.0))
