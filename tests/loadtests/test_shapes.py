"""Load that changes while a test runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.loadtests.conftest import Seen
from tests.support.locust import ROOT, headless, web

OPTIONS = {
    "num_users": 10, "spawn_rate": 2.0, "run_time": None,
    "step_users": 4, "step_time": 30, "base_users": 1, "spike_after": 60, "spike_time": 20,
}  # fmt: skip
FOREVER = float("inf")
STEPS = [[30, 4, 2.0], [60, 8, 2.0], [90, 10, 2.0]]
SPIKE = [[60, 1, 2.0], [80, 10, 10], [140, 1, 10]]

_ASK = """
import json, sys
from argparse import Namespace
from loadtests.shapes import SHAPES
for name, options in json.load(sys.stdin):
    try:
        print(json.dumps(SHAPES[name]().check(Namespace(**options))))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def plans() -> list[object]:
    """What the shapes make of each case, or say of it; in one other process, for locust patches the one it is in."""
    asked = json.dumps([(shape, {**OPTIONS, **changed}) for shape, changed, _ in CASES.values()])
    run = subprocess.run(
        [sys.executable, "-c", _ASK], cwd=ROOT, input=asked, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


CASES: dict[str, tuple[str, dict[str, object], object]] = {
    "steady-without-an-end": ("steady", {}, [[FOREVER, 10, 2.0]]),
    "steady": ("steady", {"run_time": 90}, [[90, 10, 2.0]]),
    "step": ("step", {}, STEPS),
    "step-in-one": ("step", {"step_users": 50}, [[30, 10, 2.0]]),
    "step-that-ends-early": ("step", {"run_time": 45}, [STEPS[0], [45, 8, 2.0]]),
    "step-that-ends-with-a-step": ("step", {"run_time": 60}, STEPS[:2]),
    "step-that-holds-the-last": ("step", {"run_time": 600}, [*STEPS[:2], [600, 10, 2.0]]),
    "spike": ("spike", {}, SPIKE),
    "spike-that-ends-early": ("spike", {"run_time": 70}, [SPIKE[0], [70, 10, 10]]),
    "no-users": ("steady", {"num_users": None}, "a shape needs the greatest number of users: -u, at least 1"),
    "step-too-steep": (
        "step",
        {"spawn_rate": 0.1},
        "4 more users take 40 s at -r 0.1, a step 30 s: raise -r or --step-time",
    ),
    "step-of-nobody": ("step", {"step_users": 0}, "--step-users and --step-time must be at least 1"),
    "spike-of-no-time": (
        "spike",
        {"spike_time": 0},
        "--base-users, --spike-after and --spike-time must be at least 1",
    ),
    "spike-below-its-base": ("spike", {"base_users": 10}, "--base-users 10 is not below the spike's -u 10"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_shape_is_made_of_the_options(case: str, plans: list[object]) -> None:
    assert plans[list(CASES).index(case)] == CASES[case][2]


@pytest.mark.parametrize(
    ("shape", "options", "numbers"),
    [
        ("steady", ["-t", "2s"], [2]),
        ("step", ["--step-users", "1", "--step-time", "2s"], [1, 2]),
        ("spike", ["--spike-after", "2s", "--spike-time", "2"], [1, 2, 1]),
    ],
    ids=["steady", "step", "spike"],
)
def test_locust_follows_a_shape_to_its_end(
    shape: str, options: list[str], numbers: list[int], gateway_url: str
) -> None:
    run = headless("--host", gateway_url, "-u", "2", "-r", "2", "--shape", shape, *options)
    assert run.returncode == 0, run.stderr
    assert [int(each) for each in re.findall(r"All users spawned: .*\((\d+) total users\)", run.stderr)] == numbers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "round"], "argument --shape: invalid choice: 'round' (choose from 'none', 'steady', "),
        (["--step-users", "few"], "argument --step-users: must be a whole number of users, at least 1, not 'few'"),
        (["--spike-time", "0s"], "argument --spike-time: must be a time of at least a second, like 30, 30s, 2m"),
        (["--shape", "spike", "-u", "1"], "--base-users 1 is not below the spike's -u 1"),
    ],
    ids=["shape", "users", "time", "together"],
)
def test_wrong_values_are_one_clear_line(options: list[str], message: str) -> None:
    run = headless("--host", "http://127.0.0.1:9", *options)
    assert run.returncode != 0
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_the_web_interface_offers_the_shapes_and_says_what_is_wrong(canned: Seen) -> None:
    form = {"user_count": "2", "spawn_rate": "2", "host": canned.url, "run_time": "2s", "user_classes": "AutoUser"}
    with web("--class-picker") as locust:
        locust.await_state("ready")
        wrong = locust.client.post("/swarm", data=form | {"shape_class": "SpikeShape", "base_users": "2"})
        assert "--base-users 2 is not below the spike's -u 2" in wrong.text
        locust.await_state("stopped")
        assert not canned.paths

        right = locust.client.post("/swarm", data=form | {"shape_class": "SteadyShape", "model": "shapes"})
        assert right.json()["message"] == "Swarming started using shape class 'SteadyShape'"
        locust.await_users(2)
        locust.await_users(0)
    assert set(canned.paths) == {"/v1/models/shapes/predict"}
