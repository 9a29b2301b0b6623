"""The bytes of a request's pictures → tensors, in threads of which each request waits for its turn."""

from __future__ import annotations

import os
from collections.abc import Callable

from gateway import spans
from gateway.admission import Admission
from gateway.decoding import Decoding
from gateway.errors import TooManyImages
from gateway.inference import Picture, Question, Role
from gateway.metrics import NO_RUNTIME, Metrics
from gateway.pixels import Pixels
from gateway.settings import Settings
from gateway.stages import StageClock
from gateway.threads import Threads
from gateway.upload import Upload


class Preparation:
    def __init__(self, settings: Settings, *, keep_uploads: Callable[[], bool], metrics: Metrics) -> None:
        """`keep_uploads`: whether the pictures' files are needed later."""
        self._limits = settings.limits
        self._keep_uploads = keep_uploads
        self._metrics = metrics
        threads = settings.limits.decode_threads or os.cpu_count() or 1
        self.threads = Threads(threads, "pictures")
        self._pixels = Pixels(settings.share(settings.limits.max_inflight_pixels), metrics.inflight_pixels)
        # Each thread finds a next one when it is done with one. More than that would wait where nobody can call them
        # back, and before the later stages of requests that are nearly answered.
        self._turns = Admission(
            "their pictures to be decoded",
            most=lambda: 2 * threads,
            max_queue=sum(settings.share(limit.max_queue) for limit in settings.runtimes.values()),
            inflight=metrics.decoding,
            waiting=metrics.decode_queue_depth,
        )

    @property
    def busy(self) -> bool:
        """Whether a picture that came now would have to wait for its turn."""
        return self._turns.busy

    def check(self, question: Question, *, then_s: float) -> None:
        """Refuse at once what would wait too long for its turn. Raises Overloaded, DeadlineExceeded."""
        self._turns.check(1, question.deadline, then_s=then_s)

    async def pictures(
        self, question: Question, upload: Upload, clock: StageClock, *, role: Role, then_s: float
    ) -> list[Picture]:
        """The upload's, whose files are then let go. `then_s`: what the request needs afterwards.

        Raises TooManyImages, UnsupportedImage, InvalidImage, ImageTooLarge, Overloaded, DeadlineExceeded."""
        spec, limits, images = question.spec, self._limits, upload.images
        if len(images) > limits.max_images:
            raise TooManyImages(
                f"{len(images)} images in one request; at most {limits.max_images}. Send several requests."
            )
        files = upload.held
        upload.take(len(images) * spec.input.height * spec.input.width * 3)
        keep_files = self._keep_uploads()
        work = Decoding(images, question, self._pixels, max_pixels=limits.max_pixels, keep_files=keep_files)
        upload.at_end.callback(work.close)
        async with self._turns.places(1, question.deadline, then_s=then_s):
            await self.threads.run(question.deadline, work.run)
            while work.lacks:
                work.granted(await self._pixels.wait_for(work.lacks, question.deadline))
                await self.threads.run(question.deadline, work.run)
        if not keep_files:
            images.clear()
            upload.give_back(files)
        # The wait for a free decoding thread counts as decoding.
        clock.lap("decode", of_it=("preprocess", work.preprocess_s))
        self._metrics.observe_stages(
            clock.seconds,
            model=spec.name,
            version=str(spec.version),
            runtime=NO_RUNTIME,
            role=role,
            exemplar=spans.exemplar(),
        )
        return work.pictures

    def close(self) -> None:
        self.threads.close()
