"""Uploads pictures as fast as the answers come. One kind of user for each runtime: locust's table compares them.

locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --headless -u 8 -r 8 -t 20s
locust -f loadtests/locustfile.py --host … TorchUser TfUser        only these kinds of user
locust -f loadtests/locustfile.py --host … --class-picker          choose them, and a shape, in the web interface
locust -f loadtests/locustfile.py --host … --headless -u 40 -r 10 --shape step

docs/load-tests.md tells more.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner

# locust imports this file by its path, from whatever folder it is started in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests.metrics import serve_metrics
from loadtests.options import add_options
from loadtests.pictures import NoPictures, find
from loadtests.shapes import SHAPES, SpikeShape, SteadyShape, StepShape
from loadtests.summary import show, summarise, write
from loadtests.users import AutoUser, CompareUser, TfUser, TorchUser, Uploader

__all__ = [
    "AutoUser",
    "CompareUser",
    "SpikeShape",
    "SteadyShape",
    "StepShape",
    "TfUser",
    "TorchUser",
]  # locust's to find

log = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: LocustArgumentParser, **_: Any) -> None:
    add_options(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    # locust takes the first shape that it finds for the one that is wanted.
    environment.shape_class = None
    options = environment.parsed_options
    if options is None or isinstance(environment.runner, WorkerRunner):
        return  # a worker gets its options from the master, at the start of a run
    serve_metrics(environment)
    try:
        find(Path(options.images), options.model)
        if options.shape != "none":
            shape = SHAPES[options.shape]()
            shape.runner = environment.runner
            environment.shape_class = shape
            if options.headless or options.autostart:
                shape.check(options)
            elif options.class_picker:
                log.warning(
                    "The shape that the web interface's class picker sends counts, not --shape %s", options.shape
                )
    except (NoPictures, ValueError) as error:
        sys.exit(str(error))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def sum_up(environment: Environment, **_: Any) -> None:
    """After the workers' last reports: locust calls the listeners of this event in reverse, and its own came later."""
    if environment.parsed_options is None or isinstance(environment.runner, WorkerRunner):
        return
    if isinstance(environment.runner, MasterRunner):
        # locust counts them in its exit code and shows them in the web interface alone.
        for each in environment.runner.exceptions.values():
            log.error("%s: %s", ", ".join(sorted(each["nodes"])), each["msg"])
    # Now, not at the end: locust's --json-file empties the table.
    summary = summarise(environment.stats)
    if environment.parsed_options.summary_json:
        write(summary, Path(environment.parsed_options.summary_json))
    # At the end: below locust's own tables.
    events.quit.add_listener(lambda **_: show(summary))  # type: ignore[no-untyped-call]


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def load_pictures(environment: Environment, **_: Any) -> None:
    """In every process that has users, for each run: the web interface may have changed the options."""
    options = environment.parsed_options
    if options is None:
        return
    try:
        Uploader.pictures = find(Path(options.images), options.model)
    except NoPictures as error:
        if not isinstance(environment.runner, WorkerRunner):
            raise StopTest(str(error)) from error
        # Only by this event does the master hear of it, and does its run fail.
        log.error(error)
        environment.events.user_error.fire(user_instance=None, exception=error, tb=error.__traceback__)  # type: ignore[no-untyped-call]
        environment.process_exit_code = 1
        environment.runner.quit()
