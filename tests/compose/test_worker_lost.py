"""A worker killed under load, with the policy failover: no request fails."""

from __future__ import annotations

from collections import Counter

import httpx

from tests.compose.conftest import Running
from tests.compose.requests import steady_requests
from tests.support.compose import docker
from tests.support.waiting import wait_until

USERS = 8


def set_policy(running: Running, policy: dict[str, object]) -> None:
    key = running.compose.execute("gateway", "cat", "/var/lib/tandem/admin.key").strip()
    httpx.put(
        f"{running.gateway}/v1/models/digits/routing",
        json=policy,
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    ).raise_for_status()


def replicas(running: Running) -> float:
    """Torch workers that the gateway knows."""
    lines = httpx.get(f"{running.gateway}/metrics", timeout=30).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith('tandem_replicas{runtime="torch"}'))


def test_one_of_two_torch_workers_killed_under_load_fails_no_request(running: Running, figures: list[str]) -> None:
    compose = running.compose
    compose.run("up", "--detach", "--no-recreate", "--scale", "torch_worker=2", "torch_worker")
    compose.await_healthy("torch_worker", 2)
    wait_until(lambda: replicas(running) == 2, lambda: compose.logs("gateway"))
    set_policy(running, {"policy": "failover", "targets": ["torch", "tf"]})
    # The stand-in for a machine that is gone: after `docker kill` no restart policy applies.
    victim = compose.containers("torch_worker")[0]["Id"]

    with steady_requests(running, "auto", users=USERS) as answers:
        wait_until(lambda: len(answers) > 200, lambda: answers)
        docker("kill", victim)
        killed_after = len(answers)
        wait_until(lambda: replicas(running) == 1, lambda: compose.logs("gateway"))
        later = len(answers) + 500
        wait_until(lambda: len(answers) > later, lambda: answers)
        docker("start", victim)
        compose.await_healthy("torch_worker", 2)
        wait_until(lambda: replicas(running) == 2, lambda: compose.logs("gateway"))

    by_whom = Counter(answer.json().get("runtime", answer.text) for answer in answers)
    figures.append(
        f"one of two torch workers killed under {USERS} users: {len(answers)} requests, {len(answers) - killed_after}"
        f" since then, answered by {dict(by_whom)}"
    )
    assert Counter(answer.status_code for answer in answers) == {200: len(answers)}
    assert by_whom["torch"] > by_whom["tf"], "the other torch worker had nothing to do"
    set_policy(running, {"policy": "fixed", "target": "torch"})
    compose.run("up", "--detach", "--no-recreate", "--scale", "torch_worker=1", "torch_worker")
    wait_until(lambda: len(compose.containers("torch_worker")) == 1, lambda: compose.containers("torch_worker"))
