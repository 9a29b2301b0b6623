"""The bytes of a request's pictures → tensors, in threads of which each request waits for its turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial

from gateway import spans
from gateway.admission import Admission
from gateway.errors import TooManyImages
from gateway.images.decode import decode
from gateway.images.geometry import Geometry
from gateway.images.preprocess import fit
from gateway.inference import Picture, Question, Role
from gateway.metrics import NO_RUNTIME, Metrics
from gateway.settings import Settings
from gateway.stages import StageClock
from gateway.threads import Threads


class Preparation:
    def __init__(self, settings: Settings, *, keep_uploads: Callable[[], bool], metrics: Metrics) -> None:
        """`keep_uploads`: whether the pictures' files are needed later."""
        self._limits = settings.limits
        self._keep_uploads = keep_uploads
        self._metrics = metrics
        threads = settings.limits.decode_threads or os.cpu_count() or 1
        self.threads = Threads(threads, "pictures")
        # Each thread finds a next one when it is done with one. More than that would wait where nobody can call them
        # back, and before the later stages of requests that are nearly answered.
        self._turns = Admission(
            "their pictures to be decoded",
            max_inflight=2 * threads,
            max_queue=sum(settings.share(limit.max_queue) for limit in settings.runtimes.values()),
            inflight=metrics.decoding,
            waiting=metrics.decode_queue_depth,
        )

    async def pictures(
        self, question: Question, images: Sequence[bytes], clock: StageClock, *, role: Role, then_s: float
    ) -> list[Picture]:
        """`then_s`: what the request needs afterwards. Raises TooManyImages, UnsupportedImage, InvalidImage,
        ImageTooLarge, Overloaded, DeadlineExceeded."""
        spec, limits = question.spec, self._limits
        if len(images) > limits.max_images:
            raise TooManyImages(
                f"{len(images)} images in one request; at most {limits.max_images}. Send several requests."
            )
        work = partial(_to_pictures, images, question, limits.max_pixels, self._keep_uploads())
        async with self._turns.places(1, question.deadline, then_s=then_s):
            pictures, preprocess_s = await self.threads.run(question.deadline, work)
        # The wait for a free decoding thread counts as decoding.
        clock.lap("decode", of_it=("preprocess", preprocess_s))
        self._metrics.observe_stages(
            clock.seconds,
            model=spec.name,
            version=str(spec.version),
            runtime=NO_RUNTIME,
            role=role,
            exemplar=spans.exemplar(),
        )
        return pictures

    def close(self) -> None:
        self.threads.close()


def _to_pictures(
    images: Sequence[bytes], question: Question, max_pixels: int, keep_uploads: bool
) -> tuple[list[Picture], float]:
    """The pictures, and the seconds of it that were preprocessing. Raises DeadlineExceeded between two of them.

    One picture after the other, so that no more than one of a request is in memory in full size, but for those to keep.
    """
    spec, pictures, preprocess_s = question.spec.input, [], 0.0
    for data in images:
        question.deadline.remaining_s()
        image = decode(data, max_pixels=max_pixels)
        start_s = time.perf_counter()
        geometry = Geometry.of(image.size, spec)
        tensor = fit(image, spec, geometry)
        preprocess_s += time.perf_counter() - start_s
        kept = image if question.keep_originals else None
        pictures.append(Picture(geometry, tensor, kept, data if keep_uploads else None))
    return pictures, preprocess_s
