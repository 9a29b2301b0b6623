"""A model's tolerances, changed while it is served."""

from __future__ import annotations

from pathlib import Path

import httpx

from modelkit.spec import Tolerances, read, write
from tests.conftest import Fakes
from tests.support.pictures import encode, plain
from tests.support.waiting import wait_until


def test_a_tolerance_changed_in_the_store_holds_without_a_restart(
    client: httpx.Client, fakes: Fakes, tmp_path: Path
) -> None:
    def agrees() -> bool:
        answer = client.post("/v1/models/shapes/compare", files={"image": encode(plain(100))})
        agree: bool = answer.json()["agreement"]["agree"]
        return agree

    fakes["tf"].offset = 4  # an IoU of 16 / 20
    assert agrees()
    package = tmp_path / "store" / "shapes" / "1"
    write(read(package).model_copy(update={"agreement": Tolerances(iou=0.9)}), package)
    wait_until(lambda: not agrees(), lambda: "it still agrees", patience_s=30, pause_s=0.05)
    shown = client.get("/v1/models/shapes").json()["versions"][0]["agreement"]
    assert shown == Tolerances(iou=0.9).model_dump()
