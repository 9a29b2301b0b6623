"""The kept pictures about which the two targets of a report differ."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from evidence.document import Comparison
from tandem.client import Client, Json, Refused
from tandem.tables import said_in_short

MOST = 200


@dataclass(frozen=True)
class Kept:
    """One of them."""

    id: int
    time: str
    request_id: str
    said: tuple[str, str]
    """By the first target, and by the second."""
    drawing: str | None
    """The picture twice, with both answers, as a data URI."""


def read_kept(client: Client, comparison: Comparison, pictures: int) -> Sequence[Kept]:
    """The newest since the comparison's start, the first `pictures` of them drawn; none without the admin key.

    Raises NotReachable.
    """
    try:
        found = client.disagreements(comparison.model, MOST)
    except Refused:
        return []
    targets = [(each.runtime, str(each.version)) for each in comparison.runtimes.values()]
    kept: list[Kept] = []
    for each in found:
        if datetime.fromisoformat(each["time"]).timestamp() < comparison.since:
            continue
        sides = [((side["runtime"], side["version"]), side) for side in each["answers"]]
        if [target for target, _ in sides] == targets[::-1]:
            sides.reverse()
        if [target for target, _ in sides] == targets:
            drawing = _drawn(client, each) if len(kept) < pictures else None
            kept.append(_kept(each, [side for _, side in sides], drawing))
    return kept


def _kept(disagreement: Json, sides: Sequence[Json], drawing: str | None) -> Kept:
    first, second = (said_in_short(side["predictions"]) for side in sides)
    when = datetime.fromisoformat(disagreement["time"]).astimezone(UTC)
    return Kept(disagreement["id"], f"{when:%Y-%m-%d %H:%M:%S}", disagreement["request_id"], (first, second), drawing)


def _drawn(client: Client, disagreement: Json) -> str | None:
    try:
        png = client.draw_disagreement(disagreement["id"])
    except Refused:  # it has gone since it was listed
        return None
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
