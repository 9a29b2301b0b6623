"""Disagreements: which are kept, how many, and what becomes of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from gateway import disagreement_table
from gateway.agreement import ClassAgreement
from gateway.database import Database
from gateway.deadline import Deadline
from gateway.disagreement_table import Side
from gateway.disagreements import WAITING, WAITING_BYTES, Disagreements
from gateway.errors import DisagreementNotFound
from gateway.inference import Answer, Picture, Question
from gateway.metrics import Metrics
from gateway.request_log import Origin
from gateway.settings import DisagreementSettings
from gateway.stages import StageClock
from gateway.tasks.base import Limits
from gateway.tasks.classify import Classification
from gateway.tasks.table import TASKS
from modelkit.spec import RuntimeName
from tests.support.packages import digits_spec
from tests.unit.test_tasks import WHOLE, classify

pytestmark = pytest.mark.anyio

TENSOR = np.zeros((1, 32, 32, 3), np.uint8)


class Keeper:
    """Disagreements in a database of the test's own."""

    def __init__(self, database: Database, **settings: int) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.disagreements = Disagreements(
            DisagreementSettings.model_validate({"max_count": 100} | settings), database, metrics=self.metrics
        )
        self.offered = 0

    def offer(self, *uploads: bytes, model: str = "digits", agreeing: bool = False) -> None:
        """Pictures of one request that torch takes for a 0 and tf for a 1."""
        spec = digits_spec().model_copy(update={"name": model})
        question = Question(spec, Limits(2, 0), Deadline.after_ms(60_000), origin=Origin("r1", 0.0, "compare"))

        def answer(runtime: RuntimeName, *scores: float) -> Answer:
            pictures = [Picture(WHOLE, TENSOR, kept=None, data=upload) for upload in uploads]
            return Answer(spec, runtime, pictures, [classify(*scores, most=2)] * len(uploads), StageClock())

        first, second = answer("torch", 0.9, 0.1), answer("tf", 0.9 if agreeing else 0.2, 0.5)
        compared = TASKS["classify"].compare(first.found, second.found, spec.agreement)
        self.disagreements.offer(question, first, second, compared)
        self.offered += 0 if agreeing else len(uploads)

    def counted(self, outcome: str, model: str = "digits") -> float:
        labels = {"model": model, "outcome": outcome}
        return self.metrics.registry.get_sample_value("tandem_disagreements_total", labels) or 0

    async def write(self) -> None:
        """Until all that was offered is kept or dropped."""
        async with asyncio.timeout(60):
            while self.counted("kept") + self.counted("dropped") < self.offered:
                await self.disagreements.write_one()

    async def pictures(self) -> list[bytes]:
        """Newest first."""
        newest = await self.disagreements.newest(None, limit=100, before=None)
        return [await self.disagreements.picture(each.id) for each in newest]


@asynccontextmanager
async def keeping(folder: Path, **settings: int) -> AsyncIterator[Keeper]:
    with closing(Database(f"sqlite:///{folder / 'tandem.db'}")) as database:
        yield Keeper(database, **settings)


async def test_both_answers_and_the_picture_are_kept_as_they_came(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        keeper.offer(b"one")
        await keeper.write()
        (kept,) = await keeper.disagreements.newest(None, limit=10, before=None)
        assert kept == await keeper.disagreements.find(kept.id)
        assert (kept.model, kept.task, kept.request_id, kept.image) == ("digits", "classify", "r1", 0)
        assert kept.answers == [
            Side(
                runtime=runtime,
                version="1",
                predictions=[Classification(class_id, str(class_id), score) for class_id, score in said],
                timing_ms={"total": 0.0},
            )
            for runtime, said in {"torch": [(0, 0.9), (1, 0.1)], "tf": [(1, 0.5), (0, 0.2)]}.items()
        ]
        assert isinstance(kept.agreement, ClassAgreement)
        assert (kept.agreement.same_top1, kept.agreement.images) == (0, 1)
        assert kept.agreement.max_score_difference == pytest.approx(0.7)
        assert await keeper.pictures() == [b"one"]


async def test_of_a_request_only_the_pictures_are_kept_about_which_the_answers_differ(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        keeper.offer(b"the same", agreeing=True)
        keeper.offer(b"first", b"second")
        await keeper.write()
        assert await keeper.pictures() == [b"second", b"first"]
        assert [each.image for each in await keeper.disagreements.newest(None, limit=9, before=None)] == [1, 0]


async def test_beyond_the_number_to_keep_the_oldest_go(tmp_path: Path) -> None:
    async with keeping(tmp_path, max_count=3) as keeper:
        for number in range(5):
            keeper.offer(str(number).encode())
        await keeper.write()
        assert await keeper.pictures() == [b"4", b"3", b"2"]
        assert (keeper.counted("kept"), keeper.counted("dropped")) == (5, 0)


async def test_beyond_the_bytes_to_keep_the_oldest_go_and_what_is_larger_alone_is_dropped(tmp_path: Path) -> None:
    async with keeping(tmp_path, max_bytes=5000) as keeper:
        for upload in (b"a" * 1000, b"b" * 1000, b"c" * 2500, b"d" * 6000):
            keeper.offer(upload)
        await keeper.write()
        assert [each[:1] for each in await keeper.pictures()] == [b"c", b"b"]
        assert (keeper.counted("kept"), keeper.counted("dropped")) == (3, 1)


async def test_none_is_kept_by_default(tmp_path: Path) -> None:
    async with keeping(tmp_path, max_count=DisagreementSettings().max_count) as keeper:
        assert not keeper.disagreements.wanted
        keeper.offer(b"private")
        assert keeper.counted("kept") + keeper.counted("dropped") == 0
        assert await keeper.pictures() == []


@pytest.mark.parametrize(
    ("upload", "waiting"), [(b"small", WAITING), (b"x" * (WAITING_BYTES // 3), 3)], ids=["by number", "by bytes"]
)
async def test_only_so_many_wait_to_be_written_and_the_rest_is_dropped(
    tmp_path: Path, upload: bytes, waiting: int
) -> None:
    async with keeping(tmp_path, max_bytes=10 * WAITING_BYTES) as keeper:
        keeper.offer(*[upload] * (WAITING + 5))
        assert keeper.counted("dropped") == WAITING + 5 - waiting
        await keeper.write()
        assert keeper.counted("kept") == waiting
        keeper.offer(*[upload] * waiting)  # there is room again
        await keeper.write()
        assert keeper.counted("kept") == 2 * waiting


async def test_while_the_database_is_away_they_are_dropped_and_kept_again_once_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with keeping(folder) as keeper:
        with capture_logs() as logs:
            keeper.offer(b"one", b"two")
            await keeper.write()
        assert keeper.counted("dropped") == 2
        assert [line["event"] for line in logs] == ["disagreements_not_kept"]
        folder.mkdir()
        keeper.offer(b"three")
        await keeper.write()
        assert await keeper.pictures() == [b"three"]


async def test_a_fault_of_ours_drops_one_and_keeps_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(tmp_path) as keeper:
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(disagreement_table, "write", None)
            keeper.offer(b"one")
            await keeper.write()
        assert [line["event"] for line in logs] == ["disagreement_not_kept"]
        keeper.offer(b"two")
        await keeper.write()
        assert await keeper.pictures() == [b"two"]


async def test_pages_and_models_can_be_asked_for_and_removed(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        for model in ("digits", "others", "digits"):
            keeper.offer(b"x", model=model)
        keeper.offered = 2  # of digits
        await keeper.write()
        newest = await keeper.disagreements.newest(None, limit=2, before=None)
        assert [each.model for each in newest] == ["digits", "others"]
        (oldest,) = await keeper.disagreements.newest(None, limit=2, before=newest[-1].id)
        assert (oldest.model, oldest.id) == ("digits", 1)
        assert len(await keeper.disagreements.newest("digits", limit=9, before=None)) == 2
        assert await keeper.disagreements.clear("digits") == 2
        assert [each.model for each in await keeper.disagreements.newest(None, limit=9, before=None)] == ["others"]
        assert await keeper.disagreements.clear(None) == 1
        for missing in (keeper.disagreements.find(1), keeper.disagreements.picture(1)):
            with pytest.raises(DisagreementNotFound, match="No disagreement 1 is kept"):
                await missing


async def test_a_number_names_one_disagreement_for_ever(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        keeper.offer(b"one")
        await keeper.write()
        await keeper.disagreements.clear(None)
        keeper.offer(b"two")
        await keeper.write()
        (kept,) = await keeper.disagreements.newest(None, limit=9, before=None)
        assert kept.id == 2
