"""What the request log costs: `python -m loadtests.bench_log`.

The process records rows at a steady rate, as the gateway does, into a new SQLite file that is full from the start, so
that as many are trimmed as come. Its CPU time is that of the event loop's part and of the writing thread together; that
of the same loop without a log is taken off. Prints the share of a core and the bytes of the file for each row.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry
from sqlalchemy import insert

from gateway.database import make_tables, open_engine
from gateway.metrics import Metrics
from gateway.recording import RequestLog
from gateway.request_log import TABLE, Origin, Row
from gateway.settings import RequestLogSettings

_STEP_S = 0.01


def a_row(number: int) -> Row:
    """A shadow that was answered: the row with the most in it."""
    seconds = {"receive": 7e-4, "decode": 1e-3, "preprocess": 3e-4, "queue": 1e-5, "rpc": 4e-3, "postprocess": 1e-4}
    row = Row(
        origin=Origin(f"{number:032x}", time.time(), "shadow", number * 9_176_263_829_041 % 2**63, 1, 1),
        model="digits",
        version=1,
        runtime="tf",
        role="shadow",
        cold=False,
        outcome="ok",
        images=1,
        seconds=seconds,  # type: ignore[arg-type]
    )
    return row.with_agreement([(True, 1e-7)])


def busy_s(rate: int, seconds: float, each: Callable[[int], object]) -> float:
    """CPU seconds of this process while `each` is called at `rate`."""
    begin_s, cpu_s, done = time.perf_counter(), time.process_time(), 0
    while (elapsed_s := time.perf_counter() - begin_s) < seconds:
        while done < elapsed_s * rate:
            each(done)
            done += 1
        time.sleep(_STEP_S)
    return time.process_time() - cpu_s


def fill(url: str, rows: int) -> None:
    engine = open_engine(url)
    make_tables(engine)
    with engine.begin() as connection:
        for start in range(0, rows, 10_000):
            values = [a_row(number).values() for number in range(start, min(rows, start + 10_000))]
            connection.execute(insert(TABLE), values)
    engine.dispose()


def run(rate: int, seconds: float, kept: int) -> float:
    """The share of a core."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "bench.db"
        url = f"sqlite:///{file}"
        fill(url, kept)
        metrics = Metrics(CollectorRegistry())
        idle_s = busy_s(rate, seconds, lambda _: None)
        log = RequestLog(RequestLogSettings(max_rows=kept), url, metrics=metrics)
        log.start()
        cost_s = busy_s(rate, seconds, lambda number: log.record(a_row(number))) - idle_s
        log.close()
        written = metrics.registry.get_sample_value("tandem_log_rows_total") or 0
        share = cost_s / seconds
        print(  # noqa: T201
            f"{written / seconds:.0f} rows/s, {kept} kept: {100 * share:.1f} % of a core, "
            f"{1e6 * cost_s / written:.0f} µs a row; {file.stat().st_size / kept:.0f} bytes a row"
        )
        return share


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000, help="rows a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each of two measurements")
    parser.add_argument("--kept", type=int, default=200_000, help="rows in the full log")
    parser.add_argument("--most", type=float, default=0.05, help="share of a core above which the exit status is 1")
    arguments = parser.parse_args()
    sys.exit(run(arguments.rate, arguments.seconds, arguments.kept) > arguments.most)
