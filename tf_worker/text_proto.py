"""Configuration files in protobuf text format."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from tf_worker.errors import StartError

M = TypeVar("M", bound=Message)


def read(path: Path, message: M) -> M:
    """Fill `message` from the file. Raises StartError, one line with the path and the place in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise StartError(f"cannot read {path}: {reason}") from error
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        place = " ".join(str(error).split())
        raise StartError(f"cannot parse {path} as {message.DESCRIPTOR.full_name}, line:column {place}") from error
