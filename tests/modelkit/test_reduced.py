"""Which operations of a graph are computed in 16 bits."""

from __future__ import annotations

import pytest

from modelkit.reduced import Operation, reducible


def chosen(*operations: str) -> list[str]:
    """The names of those in 16 bits. Each of `operations` is `name kind reads…`."""
    names = [each.split()[0] for each in operations]
    graph = [Operation(kind, {names.index(each) for each in reads}) for _, kind, *reads in map(str.split, operations)]
    return [names[place] for place in sorted(reducible(graph, working={"conv"}, passing={"relu", "add", "reshape"}))]


def test_work_and_what_is_between_are_chosen_but_for_the_last_work_and_what_leads_to_it() -> None:
    network = ("scaling mul", "first conv scaling", "active relu first", "second conv active", "more relu second")
    assert chosen(*network, "head conv more", "scores softmax head") == ["first", "active", "second"]


def test_all_branches_that_end_at_work_are_chosen() -> None:
    graph = ("a conv", "b relu a", "c conv b", "sum add b c", "d conv sum", "last conv d")
    assert chosen(*graph) == ["a", "b", "c", "sum", "d"]


def test_what_is_not_known_and_what_follows_it_stay_in_32_bits() -> None:
    graph = ("a conv", "b softmax a", "c reshape b", "d conv c", "last conv d")
    assert chosen(*graph) == ["a", "d"]


def test_boxes_after_the_last_work_stay_in_32_bits() -> None:
    assert chosen("a conv", "b conv a", "boxes add b", "more reshape boxes") == ["a"]


@pytest.mark.parametrize("graph", [("image mul",), ("image mul", "scores conv image")], ids=["no-work", "only-a-head"])
def test_nothing_is_chosen_where_there_is_nothing_to_gain(graph: tuple[str, ...]) -> None:
    assert chosen(*graph) == []
