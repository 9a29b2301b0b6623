"""A running stand-in, asked through the official stubs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from tests.tf_worker import saved_models
from tests.tf_worker.conftest import MAX_BATCH_SIZE, MODELS, Server, refusal, request

X = np.array([[1, 2, 3]], np.float32)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def test_it_says_at_the_start_that_it_is_a_stand_in(server: Server) -> None:
    assert "this is a stand-in for TensorFlow Serving's tensorflow_model_server" in server.log


def test_predict_answers_from_the_newest_version(server: Server) -> None:
    response = server.prediction.Predict(request("scale", x=X), timeout=30)
    assert (response.model_spec.name, response.model_spec.version.value) == ("scale", 2)
    assert response.model_spec.signature_name == "serving_default"
    assert tf.make_ndarray(response.outputs["scaled"]).tolist() == [[10, 20, 30]]
    assert tf.make_ndarray(response.outputs["total"]).tolist() == [60]


def test_predict_answers_from_the_version_and_the_signature_that_were_asked_for(server: Server) -> None:
    message = request("scale", x=X[:, :2])
    message.model_spec.version.value = 1
    message.model_spec.signature_name = "any_width"
    response = server.prediction.Predict(message, timeout=30)
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, "any_width")
    assert tf.make_ndarray(response.outputs["scaled"]).tolist() == [[2, 4]]


def test_numbers_come_back_in_the_typed_field(server: Server) -> None:
    scaled = server.prediction.Predict(request("scale", x=X), timeout=30).outputs["scaled"]
    assert list(scaled.float_val) == [10, 20, 30]
    assert not scaled.tensor_content
    assert [dim.size for dim in scaled.tensor_shape.dim] == [1, 3]


def test_strings_integers_booleans_and_halves_come_back_in_theirs(server: Server) -> None:
    outputs = server.prediction.Predict(request("words", word=[b"ant", b"horse"]), timeout=30).outputs
    assert list(outputs["upper"].string_val) == [b"ANT", b"HORSE"]
    assert list(outputs["length"].int_val) == [3, 5]
    assert list(outputs["long"].bool_val) == [False, True]
    assert outputs["half"].half_val
    assert tf.make_ndarray(outputs["half"]).tolist() == [1.5, 2.5]


@pytest.mark.parametrize("name", saved_models.TYPES)
def test_each_type_travels_through_a_graph_and_back(server: Server, name: str) -> None:
    dtype = saved_models.TYPES[name]
    numbers = np.array([0, 1, 1])
    message = request("types")
    message.model_spec.signature_name = name
    if dtype == tf.string:
        message.inputs["x"].CopyFrom(tf.make_tensor_proto([b"a", b"\xff\x00", b""]))
    else:
        numpy_dtype = np.dtype(dtype.as_numpy_dtype)
        values = numbers.astype(numpy_dtype[0]) if numpy_dtype.names else numbers.astype(numpy_dtype)
        message.inputs["x"].dtype = dtype.as_datatype_enum
        message.inputs["x"].tensor_shape.dim.add(size=3)
        message.inputs["x"].tensor_content = values.tobytes()
    answer = server.prediction.Predict(message, timeout=30).outputs["x"]
    assert answer.dtype == dtype.as_datatype_enum
    sent, received = (tf.io.parse_tensor(t.SerializeToString(), dtype).numpy() for t in (message.inputs["x"], answer))
    assert received.tolist() == sent.tolist()
    assert not answer.tensor_content


def test_no_rows_get_no_rows_and_a_nan_stays_its_senders(server: Server) -> None:
    assert server.predict("scale", x=np.ones((0, 3), np.float32))["scaled"].shape == (0, 3)
    calls = [
        server.prediction.Predict.future(request("scale", x=np.full((1, 3), value, np.float32)), timeout=60)
        for value in [1.0, np.nan] * 8
    ]
    totals = [float(tf.make_ndarray(call.result().outputs["total"])[0]) for call in calls]
    assert totals[::2] == [30] * 8
    assert np.isnan(totals[1::2]).all()


def test_the_output_filter_leaves_the_other_outputs_out(server: Server) -> None:
    message = request("scale", x=X)
    message.output_filter.append("total")
    assert set(server.prediction.Predict(message, timeout=30).outputs) == {"total"}


def change(name: str, **values: Any) -> Callable[[Any], None]:
    """Set fields of the model_spec, or add to the output_filter."""

    def apply(message: Any) -> None:
        if name == "output_filter":
            message.output_filter.extend(values["aliases"])
        elif name == "inputs":
            for alias in values.get("remove", ()):
                del message.inputs[alias]
            for alias, value in values.get("add", {}).items():
                message.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
        elif name == "no_spec":
            message.ClearField("model_spec")
        elif name == "version":
            message.model_spec.version.value = values["value"]
        else:
            setattr(message.model_spec, name, values["value"])

    return apply


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        pytest.param(change("no_spec"), INVALID, "Missing ModelSpec", id="no-spec"),
        pytest.param(change("name", value=""), INVALID, "ModelSpec has no name specified.", id="no-name"),
        pytest.param(
            change("name", value="x"),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(x)",
            id="unknown-model",
        ),
        pytest.param(
            change("version", value=7),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(scale, 7)",
            id="unknown-version",
        ),
        pytest.param(
            change("version_label", value="live"), INVALID, "Unrecognized servable version label: live", id="label"
        ),
        pytest.param(
            change("signature_name", value="nope"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "nope" not found.',
            id="unknown-signature",
        ),
        pytest.param(
            change("inputs", remove=["x"]),
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
            id="missing-input",
        ),
        pytest.param(
            change("inputs", add={"y": X, "a": X}),
            INVALID,
            "input size does not match signature: 3!=1 len({a,x,y}) != len({x})."
            " Sent extra: {a,y}. Missing but required: {}.",
            id="extra-inputs",
        ),
        pytest.param(
            change("inputs", remove=["x"], add={"y": X}),
            INVALID,
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value"
            " provided. Inputs expected to be in the request {y}, or default input alias set: ",
            id="other-input",
        ),
        pytest.param(
            change("inputs", add={"x": X.astype(np.float64)}),
            INVALID,
            "Type mismatch: actual float64 vs. expect float32 for input x",
            id="type",
        ),
        pytest.param(
            change("inputs", add={"x": X[:, :2]}),
            INVALID,
            "Shape mismatch: input x has shape [1,2], the signature expects [-1,3]",
            id="shape",
        ),
        pytest.param(
            change("output_filter", aliases=["nope"]),
            INVALID,
            "output tensor alias not found in signature: nope Outputs expected to be in the set {scaled,total}.",
            id="unknown-output",
        ),
        pytest.param(
            change("output_filter", aliases=["total", "total"]),
            INVALID,
            "duplicate output tensor alias: total",
            id="output-twice",
        ),
        pytest.param(
            change("inputs", add={"x": np.ones((MAX_BATCH_SIZE + 1, 3), np.float32)}),
            INVALID,
            "Task size 5 is larger than maximum input batch size 4",
            id="too-many-rows",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_the_real_servers_code_and_words(
    server: Server, spoil: Callable[[Any], None], code: grpc.StatusCode, message: str
) -> None:
    wrong = request("scale", x=X)
    spoil(wrong)
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(wrong, timeout=30)
    assert refusal(caught.value) == (code, message)


def test_an_error_of_the_graph_has_tensorflows_own_code_and_message(server: Server) -> None:
    with pytest.raises(grpc.RpcError, match="a 255") as caught:
        server.predict("choosy", image=np.full((1, 2, 2, 3), 255, np.uint8))
    assert refusal(caught.value)[0] is INVALID


def test_wrong_and_failing_requests_spoil_none_of_those_beside_them(server: Server) -> None:
    def picture(value: int, width: int = 2) -> Any:
        return request("choosy", image=np.full((1, 2, width, 3), value, np.uint8))

    good = [n for n in range(60) if n % 5]
    calls = {
        n: server.prediction.Predict.future(
            picture(n) if n in good else picture(255) if n % 2 else picture(n, width=5), timeout=60
        )
        for n in range(60)
    }
    assert {n: int(tf.make_ndarray(calls[n].result().outputs["image"])[0, 0, 0, 0]) for n in good} == {
        n: n for n in good
    }
    assert all(call.code() is INVALID for n, call in calls.items() if n not in good)


def test_a_message_far_over_grpcs_default_limit_goes_both_ways(server: Server) -> None:
    message = request("scale", x=np.ones((MAX_BATCH_SIZE, 600_000), np.float32))
    message.model_spec.signature_name = "any_width"
    answer = server.prediction.Predict(message, timeout=60)
    assert answer.ByteSize() > 9_000_000


def test_metadata_is_the_signatures_of_the_saved_model(server: Server) -> None:
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "scale"
    answer = server.prediction.GetModelMetadata(message, timeout=30)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("scale", 2)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "any_width"} <= set(signatures.signature_def)
    assert signatures.signature_def["serving_default"].inputs["x"].dtype == tf.float32.as_datatype_enum


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param([], "GetModelMetadataRequest must specify at least one metadata_field", id="none"),
        pytest.param(["weights"], "Metadata field weights is not supported", id="unknown"),
    ],
)
def test_other_metadata_is_an_invalid_argument(server: Server, fields: list[str], message: str) -> None:
    wrong = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    wrong.model_spec.name = "scale"
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.GetModelMetadata(wrong, timeout=30)
    assert refusal(caught.value) == (INVALID, message)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("Classify", classification_pb2.ClassificationRequest()),
        ("Regress", regression_pb2.RegressionRequest()),
        ("MultiInference", inference_pb2.MultiInferenceRequest()),
    ],
)
def test_methods_the_stand_in_lacks_are_unimplemented_by_name(server: Server, method: str, message: Any) -> None:
    with pytest.raises(grpc.RpcError, match=f"{method} is not part of this stand-in") as caught:
        getattr(server.prediction, method)(message, timeout=30)
    assert refusal(caught.value)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_version_that_did_not_load_is_reported_and_the_others_serve(server: Server) -> None:
    states = server.states("half_broken")
    assert states[1] == ("AVAILABLE", 0, "")
    assert states[2][:2] == ("END", tf.errors.DATA_LOSS)
    assert states[3][:2] == ("END", tf.errors.NOT_FOUND)
    assert "Could not find SavedModel .pb or .pbtxt at supplied export directory path" in states[3][2]
    assert server.predict("half_broken", x=X)["scaled"].tolist() == [[3, 6, 9]]


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        pytest.param("x", None, "Could not find any versions of model x", id="model"),
        pytest.param("scale", 7, "Could not find version 7 of model scale", id="version"),
    ],
)
def test_the_state_of_what_was_never_there_is_not_found(
    server: Server, model: str, version: int | None, message: str
) -> None:
    wanted = get_model_status_pb2.GetModelStatusRequest()
    wanted.model_spec.name = model
    if version is not None:
        wanted.model_spec.version.value = version
    with pytest.raises(grpc.RpcError) as caught:
        server.models.GetModelStatus(wanted, timeout=30)
    assert refusal(caught.value) == (grpc.StatusCode.NOT_FOUND, message)


def test_a_reload_serves_another_configuration_and_a_bad_one_changes_nothing(
    server: Server, model_folder: Path
) -> None:
    def reload(models: dict[str, str], label: str) -> Any:
        message = model_management_pb2.ReloadConfigRequest()
        for name, folder in models.items():
            config = message.config.model_config_list.config.add(
                name=name, base_path=str(model_folder / folder), model_platform="tensorflow"
            )
            config.model_version_policy.all.SetInParent()
            if label and name == "scale":
                config.version_labels[label] = 1
        return server.models.HandleReloadConfigRequest(message, timeout=60)

    same = {name: name for name in MODELS}
    reload({**same, "twin": "scale"}, label="live")
    labelled = request("scale", x=X)
    labelled.model_spec.version_label = "live"
    assert server.prediction.Predict(labelled, timeout=30).model_spec.version.value == 1
    assert server.predict("twin", x=X)["scaled"].tolist() == [[10, 20, 30]]

    with pytest.raises(grpc.RpcError, match="to have an absolute path"):
        server.models.HandleReloadConfigRequest(
            model_management_pb2.ReloadConfigRequest(
                config={"model_config_list": {"config": [{"name": "twin", "base_path": "x"}]}}
            ),
            timeout=30,
        )
    assert server.predict("twin", x=X)["scaled"].tolist() == [[10, 20, 30]]

    reload(same, label="")
    while any(state != "END" for state, _, _ in server.states("twin").values()):
        pass  # its older version may still have been loading
    with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(twin\)"):
        server.predict("twin", x=X)


def test_a_nan_is_a_number_like_others(server: Server) -> None:
    scaled = server.predict("scale", x=[[np.nan, 1, np.inf]])["scaled"]
    assert np.array_equal(scaled, [[np.nan, 10, np.inf]], equal_nan=True)


def test_no_rows_in_are_no_rows_out(server: Server) -> None:
    outputs = server.predict("scale", x=np.zeros((0, 3), np.float32))
    assert {name: array.shape for name, array in outputs.items()} == {"scaled": (0, 3), "total": (0,)}


def test_there_is_no_health_service_unless_its_flag_says_so(server: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert refusal(caught.value)[0] is grpc.StatusCode.UNIMPLEMENTED
