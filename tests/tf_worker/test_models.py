"""Which versions are loaded when, and looked up as what, with loads that the test decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any, cast

import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from tf_worker.errors import Code, ServingError
from tf_worker.models import Models
from tf_worker.servable import Servable
from tf_worker.versions import State
from tf_worker.workers import ThreadWorkers


class FakeServable:
    closed = False

    def close(self) -> None:
        self.closed = True


class InlineWorkers:
    """Does everything at once, in the caller's thread, but what is for later: that the test does."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []
        self.has_started = False

    def load(self, job: Callable[[], None]) -> None:
        job()

    def unload(self, job: Callable[[], None]) -> None:
        job()

    def load_later(self, job: Callable[[], None]) -> None:
        self.later.append(job)

    def started(self) -> None:
        self.has_started = True


class Host:
    """Models over a folder; versions in `bad` do not load. `during_load` is called in each load, once set."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.loads: list[tuple[str, int]] = []
        self.bad: set[tuple[str, int]] = set()
        self.ready_after: list[list[tuple[str, int]]] = []
        self.workers = InlineWorkers()
        self.servables: list[FakeServable] = []
        self.during_load: Callable[[], None] = lambda: None
        self.models = Models(
            self._load,
            options.get("workers", self.workers),
            load_retries=options.get("load_retries", 0),
            labels_before_versions=options.get("labels_before_versions", False),
            on_ready=lambda: self.ready_after.append(list(self.loads)),
        )

    def _load(self, name: str, version: int, path: Path) -> Servable:
        assert path == self.folder / name / str(version)
        self.loads.append((name, version))
        self.during_load()
        if (name, version) in self.bad:
            raise ServingError(Code.DATA_LOSS, "no model")
        self.servables.append(FakeServable())
        return cast(Servable, self.servables[-1])

    def add(self, name: str, *versions: int) -> None:
        for version in versions:
            (self.folder / name / str(version)).mkdir(parents=True)

    def remove(self, name: str, version: int) -> None:
        (self.folder / name / str(version)).rmdir()

    def config(self, **models: str) -> Any:
        """Model name = its policy and labels in text format."""
        entries = "".join(
            f'config {{ name: "{name}" base_path: "{self.folder / name}" model_platform: "tensorflow" {rest} }}'
            for name, rest in models.items()
        )
        return text_format.Parse(f"model_config_list {{ {entries} }}", model_server_config_pb2.ModelServerConfig())

    def states(self, name: str) -> dict[int, State]:
        return {number: version.state for number, version in sorted(self.models.versions(name).items())}

    def find(self, name: str, **choice: Any) -> int:
        """The version that a request would get."""
        with self.models.use(spec(name, **choice)) as (version, _):
            return version


def spec(name: str, version: int | None = None, label: str | None = None) -> Any:
    message = model_pb2.ModelSpec(name=name)
    if version is not None:
        message.version.value = version
    if label is not None:
        message.version_label = label
    return message


def _ignore(_: object) -> None:
    """For a call whose result is of no interest where a Callable[[], None] is asked for."""


ALL = "model_version_policy { all {} }"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        pytest.param("", [10], id="default-is-the-latest"),
        pytest.param("model_version_policy { latest { num_versions: 2 } }", [3, 10], id="latest-two"),
        pytest.param("model_version_policy { specific { versions: 2 versions: 10 versions: 77 } }", [2, 10], id="some"),
        pytest.param(ALL, [2, 3, 10], id="all"),
    ],
)
def test_the_policy_says_which_version_folders_are_served(host: Host, policy: str, served: list[int]) -> None:
    host.add("m", 2, 3, 10)
    for name in ("notes", "-1", "1.5", "٣", str(2**63)):
        (host.folder / "m" / name).mkdir()
    host.models.reload(host.config(m=policy))
    assert host.states("m") == dict.fromkeys(served, State.AVAILABLE)
    assert host.find("m") == 10


def test_the_newest_version_of_every_model_is_loaded_before_any_older_one(host: Host) -> None:
    host.add("a", 1, 2, 3)
    host.add("b", 1)
    host.models.reload(host.config(a=ALL, b=ALL))
    assert host.loads == [("a", 3), ("b", 1), ("a", 2), ("a", 1)]
    assert host.ready_after == [[("a", 3), ("b", 1)]]
    assert host.workers.has_started


def test_a_version_that_fails_to_load_ends_with_the_reason_and_the_others_serve(host: Host) -> None:
    host.add("m", 1, 2)
    host.add("other", 1)
    host.bad = {("m", 2)}
    host.models.reload(host.config(m=ALL, other=""))
    assert host.states("m") == {1: State.AVAILABLE, 2: State.END}
    error = host.models.versions("m")[2].error
    assert error is not None
    assert (error.code, error.message) == (Code.DATA_LOSS, "no model")
    assert (host.find("m"), host.find("other")) == (1, 1)


@pytest.mark.parametrize("breaks", ["base path is missing", "every version fails"])
def test_a_model_that_is_not_there_leaves_the_others_served_and_is_reported(host: Host, breaks: str) -> None:
    host.add("good", 1)
    if breaks == "every version fails":
        host.add("bad", 1)
        host.bad = {("bad", 1)}
    with pytest.raises(ServingError, match=r"1 model\(s\) did not become available: \{\{name: bad") as caught:
        host.models.reload(host.config(bad="", good=""))
    assert caught.value.code is Code.UNKNOWN
    assert host.find("good") == 1
    assert len(host.ready_after) == 1


@pytest.mark.parametrize(
    ("wanted", "code", "message"),
    [
        pytest.param(spec(""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified.", id="no-name"),
        pytest.param(spec("x"), Code.NOT_FOUND, "Servable not found for request: Latest(x)", id="model"),
        pytest.param(
            spec("m", version=7), Code.NOT_FOUND, "Servable not found for request: Specific(m, 7)", id="version"
        ),
        pytest.param(
            spec("m", label="live"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: live", id="label"
        ),
    ],
)
def test_what_is_not_served_is_refused_as_the_real_server_does(
    host: Host, wanted: Any, code: Code, message: str
) -> None:
    host.add("m", 1)
    host.models.reload(host.config(m=""))
    with pytest.raises(ServingError) as caught, host.models.use(wanted):
        pass
    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_version_that_appears_is_loaded_and_one_that_disappears_is_unloaded(host: Host) -> None:
    host.add("m", 1)
    host.models.reload(host.config(m=ALL))
    host.add("m", 2)
    host.models.follow_file_system()
    assert host.find("m") == 2
    host.remove("m", 1)
    host.models.follow_file_system()
    assert host.states("m") == {1: State.END, 2: State.AVAILABLE}
    assert host.models.versions("m")[1].error is None


def test_the_old_version_stays_until_its_successor_has_loaded(host: Host) -> None:
    host.add("m", 1)
    host.models.reload(host.config(m=""))
    host.add("m", 2)
    host.bad = {("m", 2)}
    host.models.follow_file_system()
    assert host.states("m") == {1: State.AVAILABLE, 2: State.END}
    host.bad.clear()
    host.models.follow_file_system()
    host.models.reload(host.config(m=""))
    assert host.find("m") == 1, "neither a look nor a reload tries again what has failed for good"
    host.remove("m", 2)
    host.models.follow_file_system()
    host.add("m", 2)
    host.models.follow_file_system()
    assert host.states("m") == {1: State.END, 2: State.AVAILABLE}


def test_while_no_wanted_version_is_there_only_the_highest_of_the_others_stays(host: Host) -> None:
    host.add("m", 1, 2)
    host.models.reload(host.config(m=ALL))
    host.add("m", 3)
    host.bad = {("m", 3)}
    host.models.reload(host.config(m=""))
    assert host.states("m") == {1: State.END, 2: State.AVAILABLE, 3: State.END}


def test_a_failed_load_is_tried_again_so_often_and_holds_nothing_up(tmp_path: Path) -> None:
    host = Host(tmp_path, load_retries=2)
    host.add("bad", 1)
    host.add("good", 1)
    host.bad = {("bad", 1)}
    with pytest.raises(ServingError, match="did not become available"):
        host.models.reload(host.config(bad="", good=""))
    assert (host.find("good"), host.loads) == (1, [("bad", 1), ("good", 1)])
    assert host.models.versions("bad")[1].error is not None, "the reason is told between two tries"
    host.workers.later.pop()()
    host.workers.later.pop()()
    assert host.loads == [("bad", 1), ("good", 1), ("bad", 1), ("bad", 1)]
    assert host.workers.later == []
    assert host.states("bad") == {1: State.END}


def test_a_load_that_succeeds_at_a_further_try_is_served(tmp_path: Path) -> None:
    host = Host(tmp_path, load_retries=5)
    host.add("m", 1)
    host.bad = {("m", 1)}
    with pytest.raises(ServingError, match="did not become available"):
        host.models.reload(host.config(m=""))
    host.bad.clear()
    host.workers.later.pop()()
    assert host.find("m") == 1
    assert host.models.versions("m")[1].error is None


def test_a_version_that_has_gone_is_not_tried_again(tmp_path: Path) -> None:
    host = Host(tmp_path, load_retries=5)
    host.add("m", 1, 2)
    host.bad = {("m", 2)}
    host.models.reload(host.config(m=ALL))
    host.remove("m", 2)
    host.models.follow_file_system()
    host.workers.later.pop()()
    assert host.loads == [("m", 2), ("m", 1)]
    assert host.states("m") == {1: State.AVAILABLE, 2: State.END}


def test_a_version_that_goes_while_it_loads_is_not_served(host: Host) -> None:
    host.add("m", 1)
    host.models.reload(host.config(m=ALL))
    host.add("m", 2)

    def go() -> None:
        host.remove("m", 2)
        host.models.follow_file_system()

    host.during_load = go
    host.models.follow_file_system()
    assert host.states("m") == {1: State.AVAILABLE, 2: State.END}
    error = host.models.versions("m")[2].error
    assert error is not None
    assert (error.code, error.message) == (Code.CANCELLED, "Loading of servable cancelled")
    assert [servable.closed for servable in host.servables] == [False, True]


def test_a_version_that_is_wanted_again_while_a_request_still_uses_it_is_loaded_again_after_it(host: Host) -> None:
    host.add("m", 1)
    host.add("other", 1)
    host.models.reload(host.config(m="", other=""))
    with host.models.use(spec("m")):
        host.models.reload(host.config(other=""))
        host.add("m", 2)
        host.models.reload(host.config(m=ALL, other=""))
        assert host.states("m") == {1: State.UNLOADING, 2: State.AVAILABLE}
    assert host.states("m") == {1: State.AVAILABLE, 2: State.AVAILABLE}
    assert [servable.closed for servable in host.servables] == [True, False, False, False]


def test_models_are_loaded_at_the_same_time_at_the_start_and_later_as_many_as_was_asked_for(tmp_path: Path) -> None:
    host = Host(tmp_path, workers=ThreadWorkers(load_threads=2, unload_threads=0, retry_interval_s=60))
    both_load = Barrier(2, timeout=30)
    host.during_load = lambda: _ignore(both_load.wait())
    host.add("a", 1)
    host.add("b", 1)
    host.models.reload(host.config(a="", b=""))
    assert (host.find("a"), host.find("b")) == (1, 1)
    host.add("c", 1)
    host.add("d", 1)
    host.models.reload(host.config(a="", b="", c="", d=""))
    assert (host.find("c"), host.find("d")) == (1, 1)


def test_a_base_path_that_cannot_be_read_unloads_nothing(host: Host) -> None:
    host.add("m", 1)
    host.models.reload(host.config(m=""))
    host.remove("m", 1)
    (host.folder / "m").rmdir()
    host.models.follow_file_system()
    assert host.find("m") == 1


def test_a_version_in_use_is_closed_after_its_last_request(host: Host) -> None:
    host.add("m", 1)
    host.models.reload(host.config(m=""))
    with host.models.use(spec("m")) as (_, servable):
        host.models.reload(host.config())
        assert host.states("m") == {1: State.UNLOADING}
        assert not cast(FakeServable, servable).closed
        with pytest.raises(ServingError, match="not found"):
            host.find("m")
    assert cast(FakeServable, servable).closed
    assert host.states("m") == {1: State.END}


def test_a_reload_that_is_not_valid_changes_nothing(host: Host) -> None:
    host.add("m", 1)
    host.models.reload(host.config(m=""))
    config = host.config(n="", other="")
    config.model_config_list.config[1].name = "n"
    with pytest.raises(ServingError, match="Illegal to list model n multiple times"):
        host.models.reload(config)
    with pytest.raises(ServingError, match="Request to assign label to version 9 of model m, which is not"):
        host.models.reload(host.config(m='version_labels { key: "live" value: 9 }'))
    assert host.states("m") == {1: State.AVAILABLE}
    assert host.find("m") == 1


def test_a_label_names_a_version_that_is_available(host: Host) -> None:
    host.add("m", 1, 2)
    host.models.reload(host.config(m=ALL))
    host.models.reload(host.config(m=ALL + 'version_labels { key: "live" value: 1 }'))
    assert host.find("m", label="live") == 1
    host.models.reload(host.config(m=ALL + 'version_labels { key: "live" value: 2 }'))
    assert host.find("m", label="live") == 2


def test_a_label_in_the_first_configuration_needs_the_flag_for_it(tmp_path: Path) -> None:
    label = 'version_labels { key: "live" value: 1 }'
    strict, lenient = Host(tmp_path), Host(tmp_path, labels_before_versions=True)
    strict.add("m", 1)
    with pytest.raises(ServingError, match="not currently available") as caught:
        strict.models.reload(strict.config(m=label))
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert strict.ready_after == []
    lenient.models.reload(lenient.config(m=label))
    assert lenient.find("m", label="live") == 1
