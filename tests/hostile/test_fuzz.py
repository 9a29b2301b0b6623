"""A few thousand mutants; `python -m tests.hostile.fuzz` gives more. And whether the fuzzer finds faults."""

from __future__ import annotations

import pytest

from tests.hostile.fuzz import Found, chance_of, fuzz
from tests.hostile.planted import made
from tests.hostile.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_no_mutant_is_a_fault(target: str) -> None:
    found = fuzz(target, 4000, jobs=2)
    assert found.faults == []
    assert found.counts.total() == 4000


@pytest.mark.parametrize(
    ("planted", "how"),
    [
        ("raising", "KeyError: 'three' (planted.py"),
        ("crashing", "SIGSEGV"),
        ("hanging", "takes too long"),
        ("swallowing", "MemoryError"),
    ],
)
def test_a_planted_fault_is_found_and_the_rest_goes_on(planted: str, how: str) -> None:
    found = fuzz(f"tests.hostile.planted:{planted}", 40)
    faulty = [number for number in range(40) if made(chance_of(0, number))[1] == b"\3"]
    assert [number for number, _ in found.faults] == faulty
    assert faulty
    assert all(each.startswith(how) for _, each in found.faults)


def test_what_is_sound_has_no_fault_and_every_mutant_is_counted() -> None:
    assert fuzz("tests.hostile.planted:sound", 40, jobs=3) == Found({"planted: fine": 40}, [], pytest.approx(0, abs=1))  # type: ignore[arg-type]


def test_another_seed_gives_other_mutants_and_the_same_one_the_same() -> None:
    make = TARGETS["pictures"]().make
    assert make(chance_of(1, 7)) == make(chance_of(1, 7)) != make(chance_of(2, 7))
