"""JSON to tensors and back: what TensorFlow Serving's REST API makes of each value."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from tf_worker import json_request
from tf_worker.errors import Code, ServingError
from tf_worker.json_answer import predict_answer
from tf_worker.json_request import Format
from tf_worker.tensors import decode, encode, shape_of


def read(text: str, **inputs: Any) -> dict[str, Any]:
    """The arrays of a request to a signature with these inputs."""
    request = predict_pb2.PredictRequest()
    infos = {name: meta_graph_pb2.TensorInfo(dtype=dtype.as_datatype_enum) for name, dtype in inputs.items()}
    json_request.fill(text.encode(errors="surrogateescape"), request, lambda _: infos)
    return {name: decode(name, tensor, shape_of(name, tensor)) for name, tensor in request.inputs.items()}


def write(form: Format, **outputs: Any) -> str:
    message = predict_pb2.PredictResponse()
    for name, value in outputs.items():
        array = np.asarray(value)
        encode(array.astype(object) if array.dtype.kind == "S" else array, message.outputs[name])
    return predict_answer(message.outputs, form)


DTYPES = [
    tf.float32, tf.float64, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint32, tf.uint64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("text", ['{"instances": [[1, 2], [3, 100]]}', '{"inputs": {"x": [[1, 2], [3, 100]]}}'])
def test_numbers_become_the_signatures_type(dtype: Any, text: str) -> None:
    array = read(text, x=dtype)["x"]
    assert array.dtype == dtype.as_numpy_dtype
    assert array.tolist() == [[1, 2], [3, 100]]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        pytest.param("[true, false]", tf.bool, [True, False], id="booleans"),
        pytest.param("[1, 0.5, 1e3]", tf.float32, [1, 0.5, 1000], id="whole-numbers-among-decimals"),
        pytest.param("1435774380", tf.float32, 1435774336.0, id="rounded"),
        pytest.param("[1e300, -1e300]", tf.float32, [np.inf, -np.inf], id="too-large-for-its-type"),
        pytest.param("[300, -1]", tf.uint8, [44, 255], id="wrapped-around"),
        pytest.param("18446744073709551615", tf.uint64, 2**64 - 1, id="largest"),
        pytest.param('["a", {"b64": "/wA="}, {"b64": "YQ"}]', tf.string, [b"a", b"\xff\x00", b"a"], id="strings"),
        pytest.param('"\udcff"', tf.string, b"\xff", id="a-byte-that-is-no-text"),
        pytest.param('{"b64": ""}', tf.string, b"", id="no-bytes"),
        pytest.param("7", tf.int32, 7, id="a-scalar"),
        pytest.param("[[], []]", tf.float32, [[], []], id="nothing"),
    ],
)
def test_a_value_is_read(value: str, dtype: Any, expected: Any) -> None:
    assert read(f'{{"inputs": {value}}}', x=dtype)["x"].tolist() == expected


def test_an_object_of_named_values_is_a_row_of_each_input() -> None:
    text = '{"instances": [{"a": [1, 2], "b": "x"}, {"b": {"b64": "eQ=="}, "a": [3, 4]}]}'
    arrays = read(text, a=tf.int32, b=tf.string)
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [[1, 2], [3, 4]], "b": [b"x", b"y"]}


def test_space_before_and_anything_after_the_document_do_not_matter() -> None:
    assert read('\ufeff \n{"inputs": [1]} and so on', x=tf.int32)["x"].tolist() == [1]


ONE, TWO = {"x": tf.float32}, {"x": tf.float32, "y": tf.int32}
PARSE = "JSON Parse error: "


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        pytest.param("", ONE, f"{PARSE}The document is empty", id="empty"),
        pytest.param("  ", ONE, f"{PARSE}The document is empty. at offset: 2", id="space"),
        pytest.param('{"ä": nul}', ONE, f"{PARSE}Invalid value. at offset: 7", id="value"),
        pytest.param('{"x" 1}', ONE, f"{PARSE}Missing a colon after a name of object member. at offset: 5", id="colon"),
        pytest.param("{x: 1}", ONE, f"{PARSE}Missing a name for object member. at offset: 1", id="name"),
        pytest.param(
            '{"inputs": [1 2]}', ONE, f"{PARSE}Missing a comma or a closing bracket. at offset: 14", id="comma"
        ),
        pytest.param('{"inputs', ONE, f"{PARSE}Missing a closing quotation mark in string. at offset: 1", id="quote"),
        pytest.param(
            '{"inputs": "\\q"}', ONE, f"{PARSE}Invalid escape character in string. at offset: 12", id="escape"
        ),
        pytest.param(
            '{"inputs": 1' + "0" * 5000 + "}", ONE, f"{PARSE}Number too big to be stored in double.", id="digits"
        ),
        pytest.param(
            '{"inputs": 1' + "0" * 400 + "}", ONE, f"{PARSE}Number too big to be stored in double.", id="double"
        ),
        pytest.param(
            '{"inputs": "\\ud800"}',
            {"x": tf.string},
            f"{PARSE}The surrogate pair in string is invalid.",
            id="surrogate",
        ),
        pytest.param("[1]", ONE, "JSON Value: [1] Is not object", id="list"),
        pytest.param("{}", ONE, "Missing 'inputs' or 'instances' key", id="nothing"),
        pytest.param('{"inputs": 1}', {}, "Failed to get input map for signature: DEFAULT", id="no-inputs"),
        pytest.param(
            '{"instances": 1}',
            ONE,
            "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
            id="no-list",
        ),
        pytest.param(
            '{"instances": []}',
            ONE,
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
            id="no-rows",
        ),
        pytest.param(
            '{"instances": [1], "inputs": [2]}',
            ONE,
            'JSON Value: {\n    "instances": [1],\n    "inputs": [2]\n} Not formatted correctly expecting only one of'
            " 'inputs' or 'instances' keys to exist ",
            id="both",
        ),
        pytest.param(
            '{"signature_name": 5}',
            ONE,
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly.'
            " 'signature_name' key must be a string value.",
            id="signature",
        ),
        pytest.param(
            '{"inputs": "a"}', ONE, 'JSON Value: "a" Type: String is not of expected type: float', id="string"
        ),
        pytest.param('{"inputs": true}', ONE, "JSON Value: true Type: True is not of expected type: float", id="true"),
        pytest.param(
            '{"inputs": [null]}', ONE, "JSON Value: null Type: Null is not of expected type: float", id="null"
        ),
        pytest.param(
            '{"inputs": 1.0}',
            {"x": tf.int32},
            "JSON Value: 1.0 Type: Number is not of expected type: int32",
            id="decimal",
        ),
        pytest.param(
            '{"inputs": NaN}', {"x": tf.int32}, "JSON Value: NaN Type: Number is not of expected type: int32", id="nan"
        ),
        pytest.param(
            '{"inputs": 2147483648}',
            {"x": tf.uint8},
            "JSON Value: 2147483648 Type: Number is not of expected type: uint8",
            id="range",
        ),
        pytest.param(
            '{"inputs": {"b64": "YQ=="}}',
            ONE,
            'JSON Value: {\n    "b64": "YQ=="\n} Type: Object is not of expected type: float',
            id="bytes",
        ),
        pytest.param('{"inputs": {"b64": "Y!"}}', {"x": tf.string}, "Unable to base64 decode", id="base64"),
        pytest.param(
            '{"inputs": [{"b64": 1}]}',
            {"x": tf.string},
            'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data',
            id="base64-number",
        ),
        pytest.param(
            '{"inputs": [[1, 2], [3]]}',
            ONE,
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
            id="uneven",
        ),
        pytest.param('{"inputs": [1, [2]]}', ONE, "Encountered list at unexpected level: 1 expected < 1", id="deeper"),
        pytest.param(
            '{"inputs": [[1], 2]}',
            ONE,
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
            id="shallower",
        ),
        pytest.param(
            '{"inputs": 1}',
            TWO,
            "inputs is a plain value/list, but expecting an object"
            " as multiple input tensors required as per tensorinfo_map",
            id="unnamed",
        ),
        pytest.param('{"inputs": {"x": 1}}', TWO, "Missing named input: y in 'inputs' object.", id="one-missing"),
        pytest.param(
            '{"instances": [1]}',
            TWO,
            "instances is a plain list, but expecting list of objects"
            " as multiple input tensors required as per tensorinfo_map",
            id="unnamed-rows",
        ),
        pytest.param(
            '{"instances": [{"x": 1}]}',
            TWO,
            "Failed to process element: 0 of 'instances' list."
            ' JSON object: {\n    "x": 1\n} keys must be equal to: x,y',
            id="row-lacks-one",
        ),
        pytest.param(
            '{"instances": [{"z": 1}]}',
            TWO,
            "Failed to process element: 0 key: z of 'instances' list."
            " Error: INVALID_ARGUMENT: JSON object: does not have named input: z",
            id="row-of-another",
        ),
        pytest.param(
            '{"instances": [{"x": 1}, 2]}',
            ONE,
            "Expecting object but got list at item 1 of input list",
            id="then-a-value",
        ),
        pytest.param(
            '{"instances": [1, {"x": 1}]}',
            ONE,
            "Expecting value/list but got object at item 1 of input list",
            id="then-an-object",
        ),
        pytest.param(
            '{"instances": [[1, 2], [3]]}',
            ONE,
            "Failed to process element: 1 of 'instances' list."
            " Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1",
            id="row-size",
        ),
        pytest.param(
            '{"instances": [[1, 2], [[1, 2]]]}',
            ONE,
            "Failed to process element: 1 of 'instances' list."
            " Error: INVALID_ARGUMENT: Expecting shape [2] but got: [1,2]",
            id="row-shape",
        ),
    ],
)
def test_a_wrong_document_is_refused_with_the_real_servers_words(
    text: str, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ServingError) as caught:
        read(text, **inputs)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


def test_a_type_that_json_has_no_numbers_for_is_unimplemented() -> None:
    with pytest.raises(ServingError, match="Conversion of JSON Value: 1 to type: half") as caught:
        read('{"inputs": [1]}', x=tf.float16)
    assert caught.value.code is Code.UNIMPLEMENTED


def test_a_document_nested_without_end_is_refused() -> None:
    with pytest.raises(ServingError, match="nested too deeply"):
        read('{"inputs": ' + "[" * 100_000, x=tf.float32)


def test_an_error_shows_no_more_than_the_beginning_of_a_long_value() -> None:
    with pytest.raises(ServingError) as caught:
        read(json.dumps([1] * 10_000), x=tf.float32)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2, "0.2"), (1.0, "1.0"), (9_000_000.0, "9e+06"), (1 / 3, "0.333333343"), (-0.0, "-0.0"), (3e-5, "3e-05"),
        (123456.0, "123456.0"), (16777216.0, "16777216.0"), (float("nan"), "NaN"), (float("-inf"), "-Infinity"),
    ],
)  # fmt: skip
def test_a_float_has_as_few_digits_as_bring_it_back(value: float, text: str) -> None:
    assert write(Format.COLUMNS, y=np.float32(value)) == f'{{\n    "outputs": {text}\n}}'


def test_a_double_that_six_digits_do_not_hold_has_seventeen() -> None:
    assert json.loads(write(Format.COLUMNS, y=np.float64(1 / 3)))["outputs"] == 1 / 3


def test_rows_are_on_one_line_each() -> None:
    assert write(Format.ROWS, y=np.array([[1, 2], [3, 4]], np.int32)) == (
        '{\n    "predictions": [[1, 2], [3, 4]\n    ]\n}'
    )
    assert write(Format.ROWS, a=np.array([True]), b=np.array([[2.0]])) == (
        '{\n    "predictions": [\n        {\n            "a": true,\n            "b": [2.0]\n        }\n    ]\n}'
    )


def test_columns_are_indented() -> None:
    assert write(Format.COLUMNS, y=np.array([[1], [2]])) == json.dumps({"outputs": [[1], [2]]}, indent=4)
    both = write(Format.COLUMNS, a=np.array([1]), b=np.array([], np.int32))
    assert both == json.dumps({"outputs": {"a": [1], "b": []}}, indent=4)


def test_no_rows_are_an_empty_list() -> None:
    assert json.loads(write(Format.ROWS, y=np.zeros((0, 3)))) == {"predictions": []}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        pytest.param({}, "Cannot convert empty tensor map to JSON", id="none"),
        pytest.param({"y": 1}, "Tensor name: y has no shape information ", id="scalar"),
        pytest.param({"a": [1], "b": [1, 2]}, "Tensor name: b has inconsistent batch size: 2 expecting: 1", id="rows"),
        pytest.param(
            {"y": np.ones(1, np.complex64)}, "Failed to write JSON value for tensor type: complex64", id="type"
        ),
    ],
)
def test_what_has_no_rows_cannot_be_answered_in_rows(outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ServingError) as caught:
        write(Format.ROWS, **outputs)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


def test_text_that_is_no_utf_8_goes_out_as_it_is() -> None:
    assert '"a\udcff\\n"' in write(Format.COLUMNS, y=np.array(b"a\xff\n"))
