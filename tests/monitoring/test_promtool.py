"""Prometheus's own checks of the repository's configuration and rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.prometheus import MONITORING, promtool

RULE_TESTS = sorted((MONITORING / "tests").glob("*.yml"))


@pytest.mark.parametrize("file", ["prometheus.yml", "prometheus-embedded.yml"])
def test_prometheus_accepts_the_configuration_and_the_rules_that_it_names(file: str) -> None:
    run = promtool("check", "config", "--lint=all", "--lint-fatal", file)
    assert run.returncode == 0, run.stderr
    for rules in (MONITORING / "rules").glob("*.yml"):
        assert f"rules/{rules.name}" in run.stdout


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_unit_tests_say(path: Path) -> None:
    run = promtool("test", "rules", str(path))
    assert run.returncode == 0, run.stdout + run.stderr


def test_promtool_fails_where_a_rule_does_something_else(tmp_path: Path) -> None:
    text = (MONITORING / "tests" / "down.yml").read_text().replace("../rules", str(MONITORING / "rules"))
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(text.replace("No gateway answers", "No gateway at all answers"))
    assert promtool("test", "rules", str(wrong)).returncode != 0
