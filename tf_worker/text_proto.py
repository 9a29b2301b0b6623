"""Configuration files in protobuf text format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
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


Field = tuple[int, str]
"""A field's number, and its type: `string`, `bool`, `int64`, another message of the same definition, or one of
`google.protobuf`'s wrappers by its full name; `repeated` before it, if it is."""


def define(messages: Mapping[str, Mapping[str, Field]], name: str) -> Any:
    """An empty message of tensorflow.serving that the tensorflow-serving-api package lacks, with these fields.

    It is in a pool of its own: the real definition may be in the default one.
    """
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {"string": kinds.TYPE_STRING, "bool": kinds.TYPE_BOOL, "int64": kinds.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(
        name=f"tandem/{name}.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for message, fields in messages.items():
        definition = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            *repeated, kind = kind.split()
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = definition.field.add(name=field, number=number, label=label)
            if kind in scalars:
                added.type = scalars[kind]
            else:
                added.type = kinds.TYPE_MESSAGE
                added.type_name = f".{kind}" if "." in kind else f".tensorflow.serving.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))()
