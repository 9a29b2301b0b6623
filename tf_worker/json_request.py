"""A REST request's JSON as a PredictRequest: `instances`, rows, or `inputs`, columns.

Codes and messages are those of TensorFlow Serving's util/json_tensor.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from math import prod
from typing import Any

from tf_worker import json_document
from tf_worker.errors import ServingError
from tf_worker.json_tensor import Dense, even, invalid, is_object, uneven


class Format(Enum):
    ROWS = "instances"
    COLUMNS = "inputs"


def fill(body: bytes, request: Any, inputs_of: Callable[[str], Mapping[str, Any]]) -> Format:
    """Fill the PredictRequest with the body's signature name and tensors.

    `inputs_of` gives the `TensorInfo` of each input of a signature. Raises ServingError.
    """
    document = json_document.parse(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        what = "not formatted correctly. 'signature_name' key must be a string value."
        raise json_document.misshapen(document, what)
    request.model_spec.signature_name = json_document.to_bytes(name).decode(errors="replace")
    infos = inputs_of(request.model_spec.signature_name)
    if not infos:
        raise invalid(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    dtypes = {alias: info.dtype for alias, info in sorted(infos.items())}
    form = _format(document)
    try:
        tensors = (_rows if form is Format.ROWS else _columns)(document[form.value], dtypes)
    except RecursionError as error:
        raise invalid("JSON Parse error: The document is nested too deeply.") from error
    for alias, dense in tensors.items():
        dense.write(dtypes[alias], request.inputs[alias])
    return form


def _format(document: dict[str, Any]) -> Format:
    if "instances" not in document:
        if "inputs" not in document:
            raise invalid("Missing 'inputs' or 'instances' key")
        return Format.COLUMNS
    if "inputs" in document:
        what = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise json_document.misshapen(document, what)
    if not isinstance(document["instances"], list):
        raise json_document.misshapen(document, "Expecting 'instances' to be an list/array")
    if not document["instances"]:
        raise json_document.misshapen(document, "No values in 'instances' array")
    return Format.ROWS


def _rows(instances: list[Any], dtypes: Mapping[str, int]) -> dict[str, Dense]:
    named = is_object(instances[0])
    if not isinstance(instances[0], dict) and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per"
            " tensorinfo_map"
        )
    if named and all(is_object(item) and item.keys() == dtypes.keys() for item in instances):
        columns = {alias: [item[alias] for item in instances] for alias in dtypes}
    else:
        columns = {} if named else {next(iter(dtypes)): instances}
    tensors = {alias: even(column, dtypes[alias]) for alias, column in columns.items()}
    found = {alias: dense for alias, dense in tensors.items() if dense is not None}
    return found if found and len(found) == len(tensors) else _uneven_rows(instances, dtypes, named)


def _uneven_rows(instances: list[Any], dtypes: Mapping[str, int], named: bool) -> dict[str, Dense]:
    tensors: dict[str, Dense] = {}
    for position, item in enumerate(instances):
        if named != is_object(item):
            kinds = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {kinds} at item {position} of input list")
        for alias, value in item.items() if named else [(next(iter(dtypes)), item)]:
            try:
                _add_row(value, alias, dtypes, tensors)
            except ServingError as error:
                place = f" key: {alias}" if named else ""
                raise invalid(
                    f"Failed to process element: {position}{place} of 'instances' list."
                    f" Error: {error.code.name}: {error.message}"
                ) from error
        if named and item.keys() != dtypes.keys():
            raise invalid(
                f"Failed to process element: {position} of 'instances' list. JSON object: {json_document.show(item)}"
                f" keys must be equal to: {','.join(dtypes)}"
            )
    for dense in tensors.values():
        dense.shape.insert(0, len(instances))
    return tensors


def _add_row(value: Any, alias: str, dtypes: Mapping[str, int], tensors: dict[str, Dense]) -> None:
    if alias not in dtypes:
        raise invalid(f"JSON object: does not have named input: {alias}")
    row = uneven(value, dtypes[alias])
    tensor = tensors.setdefault(alias, Dense(row.shape))
    sizes = [prod(shape) for shape in (tensor.shape, row.shape)]
    if sizes[0] != sizes[1]:
        raise invalid(f"Expecting tensor size: {sizes[0]} but got: {sizes[1]}")
    if tensor.shape != row.shape:
        raise invalid(f"Expecting shape {_show(tensor.shape)} but got: {_show(row.shape)}")
    tensor.leaves += row.leaves


def _columns(inputs: Any, dtypes: Mapping[str, int]) -> dict[str, Dense]:
    if not is_object(inputs):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per"
                " tensorinfo_map"
            )
        inputs = {next(iter(dtypes)): inputs}
    for alias in dtypes:
        if alias not in inputs:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
    return {alias: even(inputs[alias], dtype) or uneven(inputs[alias], dtype) for alias, dtype in dtypes.items()}


def _show(shape: Sequence[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
