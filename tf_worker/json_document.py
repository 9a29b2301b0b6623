"""JSON as TensorFlow Serving's REST API reads it, and how its errors show a value.

Facts from TensorFlow Serving's util/json_tensor.cc, which parses with RapidJSON: NaN and Infinity are numbers, what
follows the document is not looked at, bytes that are no UTF-8 pass through strings as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tf_worker.errors import Code, ServingError

_SHOWN = 256
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()
_REASONS = {
    "Expecting value": "Invalid value.",
    "Expecting property name": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting ',' delimiter": "Missing a comma or a closing bracket.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid control character": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
"""RapidJSON's words, by the beginning of those of Python's parser."""


def parse(body: bytes) -> dict[str, Any]:
    """The object that the body is. Raises ServingError INVALID_ARGUMENT."""
    if not body:
        raise _invalid("The document is empty")
    text = body.decode(errors="surrogateescape").removeprefix("\ufeff")
    start = len(text) - len(text.lstrip(_SPACE))
    if start == len(text):
        raise _invalid(f"The document is empty. at offset: {len(body)}")
    try:
        document, _ = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        reason = next((ours for theirs, ours in _REASONS.items() if error.msg.startswith(theirs)), error.msg)
        offset = len(text[: error.pos].encode(errors="surrogateescape"))
        raise _invalid(f"{reason} at offset: {offset}") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise _invalid("Number too big to be stored in double.") from error
    except RecursionError as error:
        raise _invalid("The document is nested too deeply.") from error
    if not isinstance(document, dict):
        raise misshapen(document, "Is not object")
    return document


def to_bytes(text: str) -> bytes:
    """A string of the document as it was sent. Raises ServingError INVALID_ARGUMENT."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise _invalid("The surrogate pair in string is invalid.") from error


def misshapen(value: Any, what: str) -> ServingError:
    """The error of a value that is not what it should be."""
    return ServingError(Code.INVALID_ARGUMENT, f"JSON Value: {show(value)} {what}")


def show(value: Any) -> str:
    """The beginning of the value's text, some 256 characters."""
    text = ""
    for token in _tokens(value, 0):
        if len(text) >= _SHOWN:
            break
        text += token
    return text


def kind(value: Any) -> str:
    """RapidJSON's name for the value's type."""
    match value:
        case None | bool():
            return {None: "Null", True: "True", False: "False"}[value]
        case dict():
            return "Object"
        case list():
            return "Array"
        case str():
            return "String"
        case _:
            return "Number"


def _tokens(value: Any, level: int) -> Iterator[str]:
    """Arrays on one line, an object's members on lines of their own."""
    if isinstance(value, list):
        yield "["
        for position, item in enumerate(value):
            if position:
                yield ", "
            yield from _tokens(item, level + 1)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for position, (name, item) in enumerate(value.items()):
            yield f"{',' if position else ''}\n{'    ' * (level + 1)}{json.dumps(name, ensure_ascii=False)}: "
            yield from _tokens(item, level + 1)
        yield f"\n{'    ' * level}}}" if value else "}"
    else:
        yield json.dumps(value, ensure_ascii=False)


def _invalid(reason: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, f"JSON Parse error: {reason}")
