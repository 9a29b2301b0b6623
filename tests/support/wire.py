"""Whether two definitions of a protobuf interface are the same on the wire."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


def messages_of(file: object) -> Iterator[Descriptor]:
    """Every message that a compiled `.proto` module declares, nested ones too, without the entries of maps."""

    def walk(descriptor: Descriptor) -> Iterator[Descriptor]:
        if not descriptor.GetOptions().map_entry:
            yield descriptor
        for nested in descriptor.nested_types:
            yield from walk(nested)

    for descriptor in file.DESCRIPTOR.message_types_by_name.values():  # type: ignore[attr-defined]
        yield from walk(descriptor)


def assert_fields_match(own: Descriptor, official: Descriptor) -> None:
    """Each field of `own` is in `official` with the same name, number, type and cardinality, and maybe others."""
    for field in own.fields:
        other = official.fields_by_number.get(field.number)
        assert other is not None, f"{official.full_name} has no field {field.number} ({field.name})"
        assert _wire_form(field) == _wire_form(other), f"{own.full_name}.{field.name}"
        if field.enum_type is not None and other.enum_type is not None:
            numbers = {value.number: value.name for value in other.enum_type.values}
            for value in field.enum_type.values:
                assert numbers.get(value.number) == value.name


def _wire_form(field: FieldDescriptor) -> tuple[object, ...]:
    # An enum and an int32 are the same varint; TensorFlow Serving's StatusProto is the one place that needs it.
    kind = FieldDescriptor.TYPE_INT32 if field.type == FieldDescriptor.TYPE_ENUM else field.type
    oneof = field.containing_oneof
    return field.name, field.number, kind, field.is_repeated, field.is_packed, oneof is not None and oneof.name


def filled(descriptor: Descriptor, depth: int = 4) -> Message:
    """A message with every field set, recursively; of a oneof the last member stands."""
    message = GetMessageClass(descriptor)()
    if depth == 0:
        return message
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(message, field, depth)
        elif field.is_repeated:
            values = [_value(field, depth), _value(field, depth)]
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(filled(field.message_type, depth - 1))
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, _value(field, depth))
    return message


def _fill_map(message: Message, field: FieldDescriptor, depth: int) -> None:
    assert field.message_type is not None
    value = field.message_type.fields_by_name["value"]
    entries = getattr(message, field.name)
    for key in ("a", "b"):
        if value.message_type is None:
            entries[key] = _value(value, depth)
        else:
            entries[key].CopyFrom(filled(value.message_type, depth - 1))


def _value(field: FieldDescriptor, depth: int) -> object:
    if field.message_type is not None:
        return filled(field.message_type, depth - 1)
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.type == FieldDescriptor.TYPE_STRING:
        return f"text {field.number}"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"bytes \x00\xff"
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return 0.5 + field.number
    return field.number


def assert_same_bytes(own: Descriptor, official: Descriptor) -> None:
    """What one side writes with every field set, the other reads, understands whole, and writes as the same bytes."""
    ours = filled(own).SerializeToString(deterministic=True)
    theirs = GetMessageClass(official).FromString(ours)
    assert theirs.SerializeToString(deterministic=True) == ours
    theirs.DiscardUnknownFields()
    assert theirs.SerializeToString(deterministic=True) == ours, f"{official.full_name} did not know every field"
    assert GetMessageClass(own).FromString(ours).SerializeToString(deterministic=True) == ours


def paths_of(service: ServiceDescriptor, *, without: frozenset[str] = frozenset()) -> dict[str, tuple[str, str]]:
    """The methods of a service: their paths, and the names of the messages they take and return, without packages."""
    return {
        f"/{service.full_name}/{method.name}": (method.input_type.name, method.output_type.name)
        for method in service.methods
        if method.name not in without
    }
