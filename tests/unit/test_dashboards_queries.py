"""The queries of the dashboards are asked with the variables that Grafana would put in."""

from __future__ import annotations

import pytest

from tests.support.dashboards import Query, Series, fault, interpolated, queries


def asked(expression: str, **values: str) -> str:
    return interpolated(Query("comparison", "a panel", expression), {"model": "digits", **values})


def test_all_runtimes_are_what_the_variable_says_and_one_is_itself() -> None:
    assert asked('up{job=~"$runtime|none"}') == 'up{job=~".*|none"}'
    assert asked('up{job=~"${runtime:regex}"}', runtime="tf") == 'up{job=~"tf"}'
    assert asked('up{job=~"$runtime"}', runtime="t.f") == r'up{job=~"t\\.f"}'


def test_a_variable_of_one_value_is_quoted_for_a_string() -> None:
    assert asked('up{job="$model"}', model='a"b\\') == r'up{job="a\"b\\"}'


def test_times_follow_the_scrape_interval() -> None:
    assert asked("rate(a[$__rate_interval]) + rate(b[$__interval]) + rate(c[${__range}])") == (
        "rate(a[20s]) + rate(b[5s]) + rate(c[60s])"
    )


def test_a_variable_that_no_dashboard_has_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"\$version"):
        asked("up{version='$version'}")
    with pytest.raises(LookupError, match=r"\$model has no All"):
        interpolated(Query("comparison", "a panel", "up"), {})


@pytest.mark.parametrize("query", [pytest.param(each, id=f"{each.where} {n}") for n, each in enumerate(queries())])
def test_no_variable_is_left_in_any_query(query: Query) -> None:
    assert "$" not in interpolated(query, {"model": "digits"})


def test_nothing_and_nan_at_the_right_edge_are_faults_and_a_gap_before_is_not() -> None:
    assert fault([]) == "no series"
    assert fault([Series({"a": "b"}, [1.0, float("nan")])]) == "NaN of {'a': 'b'}"
    assert fault([Series({}, [float("nan"), 0.0]), Series({"job": "tf"}, [])]) is None
