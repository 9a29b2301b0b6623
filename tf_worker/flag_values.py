"""What may stand behind a flag. Each raises ArgumentTypeError with what was expected."""

from __future__ import annotations

import argparse
from pathlib import Path


def boolean(text: str) -> bool:
    if text in ("true", "false"):
        return text == "true"
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def integer(text: str) -> int:
    if text.removeprefix("-").isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")


def natural_number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")


def positive(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")


def fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if 0 <= number <= 1:
        return number
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")


def port(text: str) -> int:
    if text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, or 0 for none, got {text!r}")


def path(text: str) -> Path | None:
    return Path(text) if text else None  # `--file=` is the same as no flag, as with the real server


def texts(text: str) -> tuple[str, ...]:
    return tuple(item for item in text.split(",") if item)


def channel_arguments(text: str) -> dict[str, int | str]:
    """Numbers as numbers, the rest as text: gRPC knows no other types."""
    arguments: dict[str, int | str] = {}
    for item in texts(text):
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise argparse.ArgumentTypeError(f"expected key=value,key=value, got {item!r}")
        arguments[key] = int(value) if value.removeprefix("-").isdecimal() else value
    return arguments
