"""`python -m evidence`: the process that computes comparisons for a gateway.

The first line of its standard input is the database's URL, which may hold a password, as a JSON string; each further
line is a question, and is answered by one line. It ends with its input, also in the midst of a question: so none
outlives its gateway.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sqlite3
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Final, TextIO

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from evidence.comparing import compare
from evidence.exchange import Answer, Question

_NICENESS: Final = 10
"""Requests come first."""
_BUSY_S: Final = 5


def main() -> None:
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the gateway says when to end
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(sys.stdin, lines), daemon=True).start()
    engine = open_engine(json.loads(lines.get()))
    while True:
        sys.stdout.write(answer(engine, lines.get()).model_dump_json() + "\n")
        sys.stdout.flush()


def open_engine(url: str) -> Engine:
    """The database, to read; of SQLite an absolute path. Raises ImportError where its driver is not installed."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        # Read-only: a reader must not make an empty file where there is none.
        file = f"{Path(parsed.database or '').as_uri()}?mode=ro"
        return create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(file, timeout=_BUSY_S, uri=True), poolclass=NullPool
        )
    return create_engine(parsed, pool_pre_ping=True)


def answer(engine: Engine, line: str) -> Answer:
    question = Question.model_validate_json(line)
    try:
        with engine.connect() as connection:
            found = compare(
                connection,
                question.model,
                question.a,
                question.b,
                since=question.since,
                until=time.time(),
                environment=question.environment,
            )
        return Answer(comparison=found)
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        engine.dispose()
        return Answer(database_error=str(error))
    except Exception:  # a fault of ours: this process goes on, and the gateway's log has it
        return Answer(error=traceback.format_exc())


def _follow(source: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in source:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
