"""What a gateway says when it starts."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway import running_gateway


def test_too_few_pictures_at_once_for_the_batches_are_a_warning_for_each_runtime(tmp_path: Path) -> None:
    with running_gateway(tmp_path, TANDEM_WORKERS__MAX_BATCH_SIZE="64") as gateway:
        said = gateway.output.read_text()
    assert said.count("batches_not_full") == 2
    assert "TANDEM_TF__MAX_INFLIGHT: 64 pictures at once do not keep batches of 64 full; set it to 256" in said
