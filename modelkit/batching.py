"""How both runtimes join pictures into batches: one set of settings, and what it comes to on either side.

It is kept in the serving view, as the file that TensorFlow Serving reads. So a model that is added later gets what the
running workers have, whatever the environment of the command that adds it says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gateway.settings import Settings


@dataclass(frozen=True)
class Batching:
    max_batch_size: int
    """Most pictures in a batch."""
    batch_timeout_micros: int
    """Longest wait of a picture for others, in microseconds, while the worker could compute it."""
    num_batch_threads: int
    """Batches that TensorFlow Serving computes at once, all models together."""
    max_enqueued_batches: int
    """Batches that wait in TensorFlow Serving, for each signature of each version; then UNAVAILABLE."""

    @classmethod
    def of(cls, settings: Settings) -> Batching:
        """What the settings say."""
        workers = settings.workers
        at_once = settings.tf.max_inflight + settings.shadow.max_inflight
        return cls(
            workers.max_batch_size,
            workers.batch_timeout_us,
            workers.batches_at_once,
            -(-2 * at_once // workers.max_batch_size),
        )

    @classmethod
    def read(cls, view: Path) -> Batching:
        """What the serving view has; the defaults where it has none yet."""
        try:
            text = path(view).read_text()
        except FileNotFoundError:
            return cls.of(Settings.model_construct())
        return cls(
            **{name: int(value) for name, value in re.findall(r"^(\w+) \{ value: (\d+) \}$", text, re.MULTILINE)}
        )

    @property
    def max_batch_delay_ms(self) -> int:
        """The timeout for TorchServe, which counts in milliseconds from 1: it reads 0 as "not set"."""
        return max(1, -(-self.batch_timeout_micros // 1000))

    @property
    def text(self) -> str:
        """A BatchingParameters message in text format."""
        return f"""\
# BatchingParameters, made by `modelkit build` of the settings TANDEM_WORKERS__…; read by tensorflow_model_server and
# its stand-in alike. docs/fairness.md says what TorchServe is given.

# The gateway sends each picture as a request of its own: no request has more rows than this.
max_batch_size {{ value: {self.max_batch_size} }}

# With 0 a request never waits while a thread is free. Batches form from what queues up while all threads are busy,
# which is when they are of use.
batch_timeout_micros {{ value: {self.batch_timeout_micros} }}

# Batches computed at once.
num_batch_threads {{ value: {self.num_batch_threads} }}

# For each signature of each version; a full queue answers UNAVAILABLE. Room for twice what the gateway sends at once
# (TANDEM_TF__MAX_INFLIGHT and TANDEM_SHADOW__MAX_INFLIGHT), so that its own admission, which answers with Retry-After,
# decides first.
max_enqueued_batches {{ value: {self.max_enqueued_batches} }}
"""


def path(view: Path) -> Path:
    return view / "tf" / "batching.config"
