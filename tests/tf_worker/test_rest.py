"""The REST API of a running stand-in, over real HTTP."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.tf_worker.conftest import MAX_BATCH_SIZE, Rest, Server, run_server

PREDICT = "/v1/models/scale:predict"
ROW = {"instances": [[1, 2, 3]]}
ROWS_ANSWER = {"predictions": [{"scaled": [10.0, 20.0, 30.0], "total": 60.0}]}


@pytest.fixture
def rest(server: Server) -> Rest:
    return server.rest


def test_rows_in_rows_out(rest: Rest) -> None:
    answer = rest.post(PREDICT, {"instances": [[1, 2, 3], [0, 0.5, -1]]})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {
        "predictions": [
            {"scaled": [10.0, 20.0, 30.0], "total": 60.0},
            {"scaled": [0.0, 5.0, -10.0], "total": -5.0},
        ]
    }


def test_columns_in_columns_out(rest: Rest) -> None:
    answer = rest.post(PREDICT, {"inputs": {"x": [[1, 2, 3], [4, 5, 6]]}})
    assert answer.json == {"outputs": {"scaled": [[10, 20, 30], [40, 50, 60]], "total": [60, 150]}}


def test_an_only_output_has_no_name(rest: Rest) -> None:
    named = {"signature_name": "any_width", "instances": [[1, 2], [3, 4]]}
    assert rest.post(PREDICT, named).json == {"predictions": [[10, 20], [30, 40]]}
    unnamed = {"signature_name": "any_width", "inputs": [[1, 2]]}
    assert rest.post(PREDICT, unnamed).json == {"outputs": [[10, 20]]}


def test_bytes_travel_as_base64_and_come_back_so_where_the_name_says_bytes(rest: Rest) -> None:
    rows = [{"word": {"b64": "/wA="}, "number": 1}, {"word": "a", "number": 2}]
    answer = rest.post("/v1/models/mixed:predict", {"instances": rows})
    assert answer.json == {
        "predictions": [{"echo_bytes": {"b64": "/wA="}, "twice": 2}, {"echo_bytes": {"b64": "YQ=="}, "twice": 4}]
    }


def test_nan_and_infinity_travel_both_ways(rest: Rest) -> None:
    answer = rest.post(PREDICT, '{"signature_name": "any_width", "instances": [[NaN, Infinity, -Infinity, 1]]}')
    assert answer.text == '{\n    "predictions": [[NaN, Infinity, -Infinity, 10.0]\n    ]\n}'


@pytest.mark.parametrize("which", ["", "/versions/1", "/labels/live"])
def test_the_path_says_which_version(rest: Rest, which: str) -> None:
    answer = rest.post(f"/v1/models/scale{which}:predict", ROW)
    if which == "/labels/live":
        assert (answer.status, answer.json) == (400, {"error": "Unrecognized servable version label: live"})
    else:
        assert answer.json["predictions"][0]["total"] == (12 if which else 60)


def test_a_picture_goes_as_lists_of_numbers(rest: Rest) -> None:
    picture = [[[n, n + 1, n + 2] for n in (0, 9)] for _ in range(2)]
    assert rest.post("/v1/models/choosy:predict", {"instances": [picture]}).json == {"predictions": [picture]}


@pytest.mark.parametrize("path", ["/v1/models/scale", "/v1/models/scale/versions/2"])
def test_the_status_is_that_of_the_versions(rest: Rest, path: str) -> None:
    answer = rest.get(path)
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    versions = ["2"] if "versions" in path else ["1", "2"]
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {"model_version_status": [{"version": version, **available} for version in versions]}


def test_the_status_says_why_a_version_did_not_load(rest: Rest) -> None:
    (status,) = rest.get("/v1/models/half_broken/versions/3").json["model_version_status"]
    assert (status["state"], status["status"]["error_code"]) == ("END", "NOT_FOUND")


def test_the_metadata_are_the_signatures(rest: Rest) -> None:
    answer = rest.get("/v1/models/scale/versions/1/metadata").json
    assert answer["model_spec"] == {"name": "scale", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["inputs"]["x"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}],
        "unknown_rank": False,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        pytest.param("POST", "/v1/models/x:predict", ROW, 404, "Servable not found for request: Latest(x)", id="model"),
        pytest.param(
            "POST",
            "/v1/models/scale/versions/7:predict",
            ROW,
            404,
            "Servable not found for request: Specific(scale, 7)",
            id="version",
        ),
        pytest.param(
            "POST",
            "/v1/models/scale/versions/99999999999999999999:predict",
            ROW,
            400,
            "Failed to convert version: 99999999999999999999 to numeric.",
            id="too-large-a-version",
        ),
        pytest.param(
            "POST",
            PREDICT,
            ROW | {"signature_name": "x"},
            400,
            'Serving signature name: "x" not found in signature def',
            id="signature",
        ),
        pytest.param("POST", PREDICT, None, 400, "JSON Parse error: The document is empty", id="no-body"),
        pytest.param(
            "POST",
            PREDICT,
            {"instances": [[1, 2]]},
            400,
            "Shape mismatch: input x has shape [1,2], the signature expects [-1,3]",
            id="shape",
        ),
        pytest.param(
            "POST",
            PREDICT,
            {"instances": [[1, 2, 3]] * (MAX_BATCH_SIZE + 1)},
            400,
            "Task size 5 is larger than maximum input batch size 4",
            id="too-many-rows",
        ),
        pytest.param(
            "POST",
            "/v1/models/words:predict",
            {"instances": ["ant"]},
            400,
            "Failed to write JSON value for tensor type: half",
            id="an-output-that-json-cannot-hold",
        ),
        pytest.param(
            "POST", "/v1/models/scale:train", ROW, 400, "Malformed request: POST /v1/models/scale:train", id="verb"
        ),
        pytest.param("POST", "/v1/models/scale", ROW, 400, "Malformed request: POST /v1/models/scale", id="no-verb"),
        pytest.param("PUT", PREDICT, ROW, 400, f"Malformed request: PUT {PREDICT}", id="method"),
        pytest.param("GET", PREDICT, None, 400, f"Malformed request: GET {PREDICT}", id="get"),
        pytest.param("GET", "/v1/models", None, 400, "Missing model name in request.", id="no-name"),
        pytest.param("GET", "/v1/models/x", None, 404, "Could not find any versions of model x", id="status"),
        pytest.param(
            "GET", "/v1/models/x/metadata", None, 404, "Servable not found for request: Latest(x)", id="metadata"
        ),
    ],
)
def test_a_wrong_request_is_refused_with_the_real_servers_status_and_words(
    rest: Rest, method: str, path: str, body: Any, status: int, message: str
) -> None:
    answer = rest.ask(method, path, None if body is None else json.dumps(body).encode())
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    assert answer.json == {"error": message}


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_what_the_stand_in_lacks_is_not_implemented(rest: Rest, verb: str) -> None:
    answer = rest.post(f"/v1/models/scale:{verb}", {"examples": [{"x": 1}]})
    assert answer.status == 501
    assert f"{verb.capitalize()} is not part of this stand-in" in answer.json["error"]


def test_an_error_of_the_graph_is_the_clients_and_spoils_nothing(rest: Rest) -> None:
    answer = rest.post("/v1/models/choosy:predict", {"instances": [[[[255] * 3] * 2] * 2]})
    assert answer.status == 400
    assert "a 255" in answer.json["error"]
    assert rest.post(PREDICT, ROW).json == ROWS_ANSWER


def test_a_name_in_the_path_may_be_percent_encoded(rest: Rest) -> None:
    assert rest.post("/v1/models/%73cale:predict", ROW).json == ROWS_ANSWER


def test_a_body_may_come_in_chunks_or_zipped(rest: Rest) -> None:
    text = json.dumps(ROW).encode()
    chunked = rest.ask("POST", PREDICT, iter([text[:5], text[5:]]), {"Transfer-Encoding": "chunked"})
    assert chunked.json == ROWS_ANSWER
    zipped = rest.ask("POST", PREDICT, gzip.compress(text), {"Content-Encoding": "gzip"})
    assert zipped.json == ROWS_ANSWER


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(json.dumps(ROW).encode())[:-4]], ids=["other", "cut off"])
def test_a_zipped_body_that_cannot_be_read_is_no_document(rest: Rest, body: bytes) -> None:
    answer = rest.ask("POST", PREDICT, body, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json) == (400, {"error": "JSON Parse error: The document is empty"})


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": "many"}, {"Content-Length": "-1"}, {"Transfer-Encoding": "chunked"}],
    ids=["no-number", "negative", "no-chunks"],
)
def test_a_length_that_is_none_is_a_bad_request_and_ends_the_connection(rest: Rest, headers: dict[str, str]) -> None:
    answer = rest.ask("POST", PREDICT, b"x\r\n", headers)
    assert (answer.status, answer.headers["Connection"]) == (400, "close")


def test_a_client_that_goes_before_its_body_has_come_harms_nobody(rest: Rest) -> None:
    with closing(rest.connect()) as connection:
        connection.putrequest("POST", PREDICT)
        connection.putheader("Content-Length", str(10**15))
        connection.endheaders(b"{")
    assert rest.post(PREDICT, ROW).json == ROWS_ANSWER


def test_a_body_of_many_megabytes_is_read(rest: Rest) -> None:
    answer = rest.post(PREDICT, json.dumps(ROW) + " " * 20_000_000)
    assert answer.json == ROWS_ANSWER


def test_a_connection_carries_one_request_after_the_other(rest: Rest) -> None:
    with closing(rest.connect()) as connection:
        for rows in (1, 2, 3):
            connection.request("POST", PREDICT, json.dumps({"instances": [[1, 2, 3]] * rows}))
            assert len(json.loads(connection.getresponse().read())["predictions"]) == rows


def test_without_its_flag_there_are_no_cors_headers(rest: Rest) -> None:
    assert "Access-Control-Allow-Origin" not in rest.post(PREDICT, ROW).headers


@pytest.fixture(scope="module")
def hurried(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One thread, a deadline, and CORS."""
    with run_server(
        tmp_path_factory.mktemp("hurried"),
        "--rest_api_num_threads=1",
        "--rest_api_timeout_in_ms=300",
        "--rest_api_enable_cors_support",
        "--model_name=slow",
        f"--model_base_path={model_folder / 'slow'}",
    ) as server:
        assert server.states("slow") == {1: ("AVAILABLE", 0, "")}
        yield server


def test_browsers_of_other_origins_are_let_in_if_its_flag_says_so(hurried: Server) -> None:
    asked = hurried.rest.ask("OPTIONS", "/v1/models/slow:predict", headers={"Origin": "https://example.org"})
    assert (asked.status, asked.text) == (200, "")
    assert asked.headers["Access-Control-Allow-Origin"] == "*"
    assert asked.headers["Access-Control-Allow-Methods"] == "POST, GET"
    assert hurried.rest.get("/v1/models/slow").headers["Access-Control-Allow-Headers"] == "Content-Type"
    assert hurried.rest.ask("OPTIONS", "/v1/models/slow").status == 400


def test_at_the_deadline_the_answer_is_504_and_what_waits_for_a_thread_has_it_too(hurried: Server) -> None:
    answer = hurried.rest.post("/v1/models/slow:predict", {"inputs": 2_000_000_000})
    assert (answer.status, answer.json) == (504, {"error": "Timed out waiting for notification"})
    assert hurried.rest.get("/v1/models/slow").status == 504  # the only thread still runs the first
