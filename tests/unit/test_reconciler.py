"""How the workers are kept to what the store holds, over fake runtimes and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.catalogue import Catalogue
from gateway.errors import RuntimeFailed, RuntimeUnavailable
from gateway.health import Health
from gateway.reconciler import LONGEST_PAUSE_S, OTHERS_NOTICE_S, Reconciler
from gateway.runtimes.base import ModelRef, ModelStatus
from modelkit import lifecycle
from modelkit import store as stored
from modelkit.spec import RuntimeName
from tests.fakes.runtimes import FakeRuntime
from tests.support.clock import Clock
from tests.support.packages import write_store

pytestmark = pytest.mark.anyio

ABSENT = ModelStatus("absent", "It does not have it.")
ONE, TWO = ModelRef("digits", 1), ModelRef("digits", 2)


async def until(condition: Callable[[], bool]) -> None:
    """Let the reconciler run until it holds."""
    while not condition():  # noqa: ASYNC110  what runs has no event to wait for
        await asyncio.sleep(0.001)


class Scene:
    """A store with versions 1 and 2 of digits, two fake runtimes, and a reconciler whose steps the test calls."""

    def __init__(self, folder: Path, fakes: dict[RuntimeName, FakeRuntime]) -> None:
        self.store, self.view = folder / "store", folder / "serving"
        write_store(self.store, 1, 2)
        self.fakes, self.torch, self.tf = fakes, fakes["torch"], fakes["tf"]
        self.clock = Clock()
        self.catalogue = Catalogue(self.store)
        self.health = Health(fakes, warm_up_requests=0)
        self.reconciler = Reconciler(
            self.catalogue,
            self.health,
            fakes,
            store=self.store,
            view=self.view,
            interval_s=0.01,
            clock=self.clock,
        )

    async def attend(self, model: ModelRef, *runtimes: FakeRuntime) -> None:
        for runtime in runtimes or self.fakes.values():
            await self.reconciler.attend(runtime, self.catalogue.specs[model])

    def state(self, runtime: FakeRuntime, model: ModelRef) -> str:
        return self.health.status(runtime.name, model).state

    async def retire(self, version: int) -> None:
        lifecycle.retire(self.store, "digits", version)
        await self.catalogue.refresh()
        await self.reconciler.finish_retirements()


@pytest.fixture
def scene(tmp_path: Path, fakes: dict[RuntimeName, FakeRuntime]) -> Scene:
    return Scene(tmp_path, fakes)


async def test_what_a_worker_does_not_have_is_loaded_once(scene: Scene) -> None:
    scene.torch.statuses[TWO] = ABSENT
    for _ in range(3):
        await scene.attend(TWO)
    assert (scene.torch.loads, scene.tf.loads) == ([TWO], [])
    assert scene.state(scene.torch, TWO) == "ready"


async def test_a_load_that_fails_says_why_and_is_tried_again_with_growing_pauses(scene: Scene) -> None:
    scene.torch.statuses[TWO] = ABSENT
    scene.torch.load_error = RuntimeFailed("It is damaged.")
    tried_at = []
    for _ in range(300):
        before = len(scene.torch.loads)
        await scene.attend(TWO, scene.torch)
        if len(scene.torch.loads) > before:
            tried_at.append(scene.clock.now_s - 1000)
        scene.clock.now_s += 1
    assert scene.health.status("torch", TWO) == ModelStatus("failed", "It is damaged.")
    assert tried_at[:7] == [0, 1, 3, 7, 15, 31, 63]
    assert tried_at[8] - tried_at[7] == LONGEST_PAUSE_S


async def test_a_worker_that_loads_in_the_end_is_ready_and_the_next_absence_is_answered_at_once(scene: Scene) -> None:
    scene.torch.statuses[TWO] = ABSENT
    scene.torch.load_error = RuntimeUnavailable("Not in the view yet.")
    await scene.attend(TWO, scene.torch)
    scene.torch.load_error = None
    scene.clock.now_s += 1
    await scene.attend(TWO, scene.torch)
    await scene.attend(TWO, scene.torch)
    assert scene.state(scene.torch, TWO) == "ready"
    scene.torch.statuses[TWO] = ABSENT
    await scene.attend(TWO, scene.torch)
    assert len(scene.torch.loads) == 3


async def test_one_version_at_a_time_is_loaded_on_a_runtime(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = 0, 0

    async def load(model: ModelRef, *, deadline: object) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1

    monkeypatch.setattr(scene.torch, "load", load)
    scene.torch.status_now = ABSENT
    await asyncio.gather(scene.attend(ONE, scene.torch), scene.attend(TWO, scene.torch))
    assert most == 1


async def test_the_default_moves_when_both_runtimes_are_ready_and_stays_when_one_goes_down(scene: Scene) -> None:
    scene.tf.statuses[TWO] = ModelStatus("loading", "It is loading.")
    await scene.attend(ONE)
    await scene.attend(TWO)
    assert scene.catalogue.default("digits") == 1
    scene.tf.statuses[TWO] = ModelStatus("ready")
    await scene.attend(TWO)
    assert scene.catalogue.default("digits") == 2
    scene.tf.status_now = scene.tf.statuses[TWO] = ModelStatus("unavailable", "It is down.")
    await scene.attend(TWO)
    assert scene.catalogue.default("digits") == 2


async def test_a_version_that_fails_on_one_runtime_does_not_become_the_default(scene: Scene) -> None:
    scene.torch.statuses[TWO] = ModelStatus("failed", "It is not a model.")
    await scene.attend(ONE)
    await scene.attend(TWO)
    assert (scene.catalogue.default("digits"), scene.catalogue.wanted("digits")) == (1, 2)


async def test_a_removed_version_is_unloaded_once_others_have_noticed_and_its_requests_are_answered(
    scene: Scene,
) -> None:
    spec = scene.catalogue.find("digits", 1)
    with scene.catalogue.using(spec):
        await scene.retire(1)
        scene.clock.now_s += OTHERS_NOTICE_S + 1
        await scene.reconciler.finish_retirements()
        assert scene.torch.unloads == []
    await scene.reconciler.finish_retirements()
    assert scene.torch.unloads == scene.tf.unloads == [ONE]
    assert stored.retired(scene.store) == {}


async def test_a_removed_version_stays_loaded_until_other_gateways_have_noticed(scene: Scene) -> None:
    await scene.retire(1)
    scene.clock.now_s += OTHERS_NOTICE_S - 0.1
    await scene.reconciler.finish_retirements()
    assert scene.torch.unloads == []


async def test_an_unload_that_fails_is_not_forgotten_and_tried_again(scene: Scene) -> None:
    scene.tf.load_error = RuntimeUnavailable("It is down.")
    await scene.retire(1)
    scene.clock.now_s += OTHERS_NOTICE_S
    await scene.reconciler.finish_retirements()
    await scene.reconciler.finish_retirements()
    assert scene.tf.unloads == [ONE]
    assert set(stored.retired(scene.store)) == {("digits", 1)}
    scene.tf.load_error = None
    scene.clock.now_s += 1
    await scene.reconciler.finish_retirements()
    assert stored.retired(scene.store) == {}


async def test_another_process_finishes_what_this_one_began(scene: Scene, tmp_path: Path) -> None:
    """A gateway that is killed: the next one has never served the version, and unloads it all the same."""
    await scene.retire(1)
    catalogue = Catalogue(scene.store)
    later = Reconciler(catalogue, scene.health, scene.fakes, store=scene.store, view=scene.view, clock=scene.clock)
    await later.finish_retirements()
    scene.clock.now_s += OTHERS_NOTICE_S
    await later.finish_retirements()
    assert scene.torch.unloads == [ONE]
    assert stored.retired(scene.store) == {}


async def test_what_comes_and_goes_is_followed_by_itself(scene: Scene) -> None:
    three = ModelRef("digits", 3)
    scene.torch.statuses[three] = ABSENT
    running = asyncio.create_task(scene.reconciler.run())
    async with asyncio.timeout(30):
        await until(lambda: scene.catalogue.settled("digits") == 2)
        write_store(scene.store, 3)
        await until(lambda: scene.catalogue.settled("digits") == 3)
        assert scene.torch.loads == [three]
        lifecycle.retire(scene.store, "digits", 1)
        await until(lambda: ONE not in scene.catalogue.specs)
        await until(lambda: scene.state(scene.torch, ONE) == "unavailable")  # it is not asked about any more
    running.cancel()
    await asyncio.wait({running})
