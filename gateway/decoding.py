"""The decoding of one request's pictures, in a thread, as far as there are pixels for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Lock

from PIL import Image

from gateway.images.decode import open_picture, pixels_of
from gateway.images.geometry import Geometry
from gateway.images.preprocess import fit
from gateway.inference import Picture, Question
from gateway.pixels import Pixels


class Decoding:
    """One picture after the other, so that no more than one of a request is in memory in full size.

    It holds the pixels of that one until it is a tensor; where the question keeps the original, until it is closed.
    """

    def __init__(
        self, images: Sequence[bytes], question: Question, pixels: Pixels, *, max_pixels: int, keep_files: bool
    ) -> None:
        self._files = list(reversed(images))
        self._question = question
        self._pixels = pixels
        self._max_pixels = max_pixels
        self._keep_files = keep_files
        self._opened: Image.Image | None = None
        self._held = 0
        self._lock = Lock()
        self._running = self._closed = False
        self.pictures: list[Picture] = []
        """Those that are done."""
        self.preprocess_s = 0.0
        self.lacks = 0
        """Pixels without which `run` could not go on; 0 when all pictures are done."""

    def granted(self, pixels: int) -> None:
        """So many were taken for it, instead of those that it lacks."""
        self._held = pixels

    def run(self) -> None:
        """Until all is done, or pixels are lacking. Raises UnsupportedImage, InvalidImage, ImageTooLarge,
        MemoryError, and DeadlineExceeded between two pictures."""
        with self._lock:
            if self._closed:
                return
            self._running = True
        try:
            while self._files:
                if not self._next():
                    return
            self.lacks = 0
        finally:
            with self._lock:
                self._running = False
                late = self._closed
            if late:
                self.close()

    def close(self) -> None:
        """Give the pixels back, once the thread is done with them: a thread cannot be stopped."""
        with self._lock:
            self._closed = True
            if self._running:
                return
        self._let_go()

    def _next(self) -> bool:
        """False where there are not enough pixels for the next picture."""
        self._question.deadline.remaining_s()
        if self._opened is None:
            self._opened = open_picture(self._files[-1], max_pixels=self._max_pixels)
        if not self._held:
            width, height = self._opened.size
            self.lacks = width * height
            self._held = self._pixels.take(self.lacks)
            if not self._held:
                return False
        data, opened, self._opened = self._files.pop(), self._opened, None
        image = pixels_of(opened)
        start_s = time.perf_counter()
        spec = self._question.spec.input
        geometry = Geometry.of(image.size, spec)
        tensor = fit(image, spec, geometry)
        self.preprocess_s += time.perf_counter() - start_s
        kept = image if self._question.keep_originals else None
        self.pictures.append(Picture(geometry, tensor, kept, data if self._keep_files else None))
        if kept is None:
            self._let_go()
        return True

    def _let_go(self) -> None:
        count, self._held = self._held, 0
        self._pixels.give_back(count)
