"""What one gateway process writes of its jobs, another reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.job_files import KEPT, Job, JobFiles


@pytest.fixture
def here(tmp_path: Path) -> JobFiles:
    return JobFiles(tmp_path / "jobs")


@pytest.fixture
def there(tmp_path: Path) -> JobFiles:
    """Another process'."""
    return JobFiles(tmp_path / "jobs")


def test_another_process_sees_how_far_a_job_is_and_what_it_led_to(here: JobFiles, there: JobFiles) -> None:
    job = Job("verify", "digits")
    turn = here.take_turn(job)
    assert turn is not None
    job.lines.append("asking torch")
    here.write(job)
    assert there.find(job.id) == job
    assert there.running() == job
    job.state, job.result = "done", {"passed": True}
    here.write(job)
    turn.close()
    assert there.find(job.id) == job
    assert there.running() is None


def test_a_second_job_waits_for_the_end_of_the_first_wherever_that_runs(here: JobFiles, there: JobFiles) -> None:
    first, second = Job("verify", "digits"), Job("add", "flowers")
    turn = here.take_turn(first)
    assert turn is not None
    assert there.take_turn(second) is None
    assert here.take_turn(second) is None
    turn.close()
    assert there.take_turn(second) is not None


def test_a_job_whose_process_was_killed_has_failed_also_while_another_one_runs(here: JobFiles, there: JobFiles) -> None:
    lost = Job("add", "flowers")
    turn = here.take_turn(lost)
    assert turn is not None
    here.write(lost)
    turn.close()  # as the kernel does
    found = there.find(lost.id)
    assert found is not None
    assert (found.state, found.error) == ("failed", "The gateway process that ran it ended. Start it again.")
    there.take_turn(Job("add", "birds"))
    found = here.find(lost.id)
    assert found is not None
    assert found.state == "failed"


def test_the_oldest_are_forgotten_and_so_is_what_a_killed_process_left_half_written(
    here: JobFiles, tmp_path: Path
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / ".half.json.aside").write_text("{")
    jobs = [Job("verify", "digits") for _ in range(KEPT + 5)]
    for job in jobs:
        turn = here.take_turn(job)
        assert turn is not None
        here.write(job)
        turn.close()
    assert len(list((tmp_path / "jobs").glob("*.json"))) == KEPT
    assert here.find(jobs[-1].id) is not None
    assert not list((tmp_path / "jobs").glob(".*"))


@pytest.mark.parametrize("name", ["nothing", "../admin", "0" * 31, "lock", ""])
def test_a_name_that_is_no_job_is_not_found_and_reads_no_other_file(here: JobFiles, tmp_path: Path, name: str) -> None:
    (tmp_path / "admin.json").write_text("{}")
    assert here.find(name) is None
