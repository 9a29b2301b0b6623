"""`predict` and `compare` through HTTP, over fakes that answer at once."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from gateway.errors import RuntimeFailed
from gateway.http.answers import PredictAnswer
from gateway.runtimes.base import ModelRef
from tests.conftest import Fakes, StartGateway
from tests.support.pictures import encode, plain

PREDICT = "/v1/models/digits/predict"
COMPARE = "/v1/models/digits/compare"


def multipart(*values: int) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{value}.png", encode(plain(value)), "image/png")) for value in values]


def labels(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [result["predictions"][0]["label"] for result in answer.json()["results"]]


def test_a_multipart_form_with_several_pictures_gives_their_results_in_order(client: httpx.Client) -> None:
    assert labels(client.post(PREDICT, files=multipart(7, 3, 9, 3))) == ["7", "3", "9", "3"]


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "image/x-whatever"])
def test_a_raw_body_is_read_by_its_content_not_its_declared_type(client: httpx.Client, content_type: str) -> None:
    answer = client.post(PREDICT, content=encode(plain(4)), headers={"content-type": content_type})
    assert labels(answer) == ["4"]


def test_a_json_body_carries_base64_pictures(client: httpx.Client) -> None:
    images = [{"b64": base64.b64encode(encode(plain(value))).decode()} for value in (5, 6)]
    assert labels(client.post(PREDICT, json={"images": images})) == ["5", "6"]


def test_the_answer_names_model_version_runtime_and_the_original_size(client: httpx.Client) -> None:
    picture = encode(plain(7, size=(64, 48)))
    answer = client.post(PREDICT, files={"image": picture}, params={"runtime": "tf"}).json()
    assert (answer["model"], answer["version"], answer["runtime"]) == ("digits", "2", "tf")
    assert answer["results"][0]["image"] == {"width": 64, "height": 48}
    assert answer["results"][0]["predictions"][0] == {"class_id": 7, "label": "7", "score": 0.91}


@pytest.mark.parametrize(("asked", "called"), [("auto", "torch"), ("torch", "torch"), ("tf", "tf")])
def test_the_runtime_asked_for_and_only_that_one_is_called(
    client: httpx.Client, fakes: Fakes, asked: str, called: str
) -> None:
    client.post(PREDICT, files=multipart(1), params={"runtime": asked})
    assert {name for name, fake in fakes.items() if fake.seen} == {called}


@pytest.mark.parametrize(("asked", "sent"), [(None, 2), (1, 1), (2, 2)])
def test_workers_are_always_sent_an_explicit_version(
    client: httpx.Client, fakes: Fakes, asked: int | None, sent: int
) -> None:
    client.post(PREDICT, files=multipart(1), params={} if asked is None else {"version": asked})
    assert fakes["torch"].seen == [ModelRef("digits", sent)]


def test_top_k_and_min_score_bound_the_predictions(client: httpx.Client) -> None:
    def count(**params: float) -> int:
        return len(client.post(PREDICT, files=multipart(1), params=params).json()["results"][0]["predictions"])

    assert count() == 5
    assert count(top_k=3) == 3
    assert count(top_k=1000) == 10
    assert count(min_score=0.5) == 1
    assert count(min_score=1) == 0


def test_the_stages_add_up_to_the_total(client: httpx.Client) -> None:
    timing = client.post(PREDICT, files=multipart(1, 2, 3)).json()["timing_ms"]
    assert list(timing) == ["receive", "decode", "preprocess", "queue", "rpc", "postprocess", "total"]
    assert sum(timing.values()) - timing["total"] == pytest.approx(timing["total"], rel=0.05)


def test_server_timing_names_every_stage_and_serialize(client: httpx.Client) -> None:
    header = client.post(PREDICT, files=multipart(1)).headers["server-timing"]
    names = [part.split(";")[0] for part in header.split(", ")]
    assert names == ["receive", "decode", "preprocess", "queue", "rpc", "postprocess", "serialize", "total"]


def test_the_worker_says_its_part_of_rpc_beside_the_stages(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].queue_s, fakes["torch"].inference_s, fakes["torch"].batch = 0.00125, 0.0045, 8
    answer = client.post(PREDICT, files=multipart(1, 2)).json()
    assert answer["worker"] == {"queue_ms": 1.25, "inference_ms": 4.5, "batch_size": 8}
    assert list(answer["timing_ms"]) == ["receive", "decode", "preprocess", "queue", "rpc", "postprocess", "total"]


@pytest.mark.parametrize(
    ("said", "answered"),
    [({"inference_s": 0.002}, {"inference_ms": 2.0}), ({"batch": 3}, {"batch_size": 3}), ({}, None)],
    ids=["inference alone", "batch alone", "nothing"],
)
def test_what_the_worker_does_not_say_is_not_in_the_answer(
    client: httpx.Client, fakes: Fakes, said: dict[str, Any], answered: dict[str, Any] | None
) -> None:
    for name, value in said.items():
        setattr(fakes["torch"], name, value)
    answer = client.post(PREDICT, files=multipart(1)).json()
    assert ("worker" in answer, answer.get("worker")) == (answered is not None, answered)


def test_server_timing_has_the_workers_part_after_the_stages(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].queue_s, fakes["torch"].inference_s = 0.00125, 0.0045
    header = client.post(PREDICT, files=multipart(1)).headers["server-timing"]
    assert ", worker-queue;dur=1.250, worker-inference;dur=4.500, total;dur=" in header
    fakes["torch"].queue_s = None
    header = client.post(PREDICT, files=multipart(1)).headers["server-timing"]
    assert "worker-queue" not in header
    assert ", worker-inference;dur=4.500, total;dur=" in header


def test_compare_has_each_workers_part_in_its_own_entry(client: httpx.Client, fakes: Fakes) -> None:
    fakes["torch"].queue_s, fakes["torch"].inference_s, fakes["torch"].batch = 0.001, 0.004, 2
    answer = client.post(COMPARE, files=multipart(1))
    runtimes = answer.json()["runtimes"]
    assert runtimes["torch"]["worker"] == {"queue_ms": 1.0, "inference_ms": 4.0, "batch_size": 2}
    assert "worker" not in runtimes["tf"]
    assert "worker" not in answer.headers["server-timing"]  # whose would it be


def test_a_valid_request_id_is_kept_and_any_other_is_replaced(client: httpx.Client) -> None:
    def given(request_id: str) -> tuple[str, str]:
        answer = client.post(PREDICT, files=multipart(1), headers={"x-request-id": request_id})
        return answer.headers["x-request-id"], answer.json()["request_id"]

    assert given("order-17/a") == ("order-17/a", "order-17/a")
    header, body = given('a" b')
    assert header == body != 'a" b'


def test_compare_answers_from_both_and_says_that_they_agree(client: httpx.Client) -> None:
    answer = client.post(COMPARE, files=multipart(7, 2)).json()
    assert set(answer["runtimes"]) == {"torch", "tf"}
    for runtime in answer["runtimes"].values():
        assert [result["predictions"][0]["label"] for result in runtime["results"]] == ["7", "2"]
        timing = runtime["timing_ms"]
        assert sum(timing.values()) - timing["total"] == pytest.approx(timing["total"], rel=0.05)
    assert answer["agreement"] == {
        "agree": True,
        "images": 2,
        "same_top1": 2,
        "top_k": 5,
        "mean_top_k_overlap": 1.0,
        "min_top_k_overlap": 1.0,
        "max_score_difference": 0.0,
    }


@pytest.mark.parametrize(
    ("targets", "answered"),
    [
        ("torch,tf", {"torch": ("torch", "2"), "tf": ("tf", "2")}),
        ("torch@1,torch", {"torch@1": ("torch", "1"), "torch": ("torch", "2")}),
        ("tf,tf", {"tf": ("tf", "2"), "tf again": ("tf", "2")}),
    ],
)
def test_any_two_targets_can_be_compared_also_one_with_itself(
    client: httpx.Client, fakes: Fakes, targets: str, answered: dict[str, tuple[str, str]]
) -> None:
    answer = client.post(COMPARE, files=multipart(7), params={"targets": targets}).json()
    assert {name: (part["runtime"], part["version"]) for name, part in answer["runtimes"].items()} == answered
    assert answer["agreement"]["agree"] is True
    asked = {(name, str(model.version)) for name, fake in fakes.items() for model in fake.seen}
    assert asked == set(answered.values())


@pytest.mark.parametrize(
    ("targets", "status", "says"),
    [
        ("torch", 422, "name two targets with a comma between them"),
        ("torch,tf,tf", 422, "name two targets with a comma between them"),
        ("torch,onnx", 422, "'onnx' is no target. Targets are torch and tf"),
        ("torch,tf@9", 404, "9"),
    ],
)
def test_targets_that_are_none_are_refused_with_what_to_write(
    client: httpx.Client, targets: str, status: int, says: str
) -> None:
    answer = client.post(COMPARE, files=multipart(7), params={"targets": targets})
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text


def test_compare_says_how_far_the_two_disagree(client: httpx.Client, fakes: Fakes) -> None:
    fakes["tf"].offset = 1
    agreement = client.post(COMPARE, files=multipart(7)).json()["agreement"]
    assert (agreement["agree"], agreement["same_top1"]) == (False, 0)
    assert agreement["max_score_difference"] == pytest.approx(0.9)


@pytest.mark.parametrize("failing", ["torch", "tf"])
def test_one_runtime_failing_does_not_hide_the_others_answer(client: httpx.Client, fakes: Fakes, failing: str) -> None:
    fakes[failing].error = RuntimeFailed("It broke.")  # type: ignore[index]
    answer = client.post(COMPARE, files=multipart(7))
    assert answer.status_code == 200
    entries = answer.json()["runtimes"]
    assert entries.pop(failing)["error"]["code"] == "runtime_failed"
    (other,) = entries.values()
    assert other["results"][0]["predictions"][0]["label"] == "7"
    assert answer.json()["agreement"] is None


def test_metrics_count_what_was_answered_refused_and_compared(client: httpx.Client, fakes: Fakes) -> None:
    client.post(PREDICT, files=multipart(1, 2), params={"runtime": "tf"})
    client.post(PREDICT, content=b"no picture", headers={"content-type": "image/png"})
    client.post(COMPARE, files=multipart(1))
    fakes["torch"].error = RuntimeFailed("It broke.")
    client.post(PREDICT, files=multipart(1), params={"runtime": "torch"})
    lines = client.get("/metrics").text.splitlines()

    tf = 'model="digits",runtime="tf",version="2"'
    assert f"tandem_images_total{{{tf}}} 3.0" in lines
    labels = 'model="digits",outcome="{}",role="{}",runtime="{}",version="2"'
    for outcome, role, runtime in [
        ("ok", "primary", "tf"),
        ("ok", "compare", "tf"),
        ("ok", "compare", "torch"),
        ("runtime_failed", "primary", "torch"),
    ]:
        assert f"tandem_requests_total{{{labels.format(outcome, role, runtime)}}} 1.0" in lines
    assert 'tandem_rejected_total{reason="unsupported_image"} 1.0' in lines
    assert 'tandem_agreement_total{model="digits",outcome="agree"} 1.0' in lines
    assert 'tandem_inflight{runtime="tf"} 0.0' in lines
    stages = 'tandem_stage_seconds_count{{model="digits",role="compare",runtime="{}",stage="{}",version="2"}} 1.0'
    for runtime, stage in [("none", "decode"), ("torch", "rpc"), ("tf", "rpc")]:
        assert stages.format(runtime, stage) in lines


def test_the_api_describes_itself(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    predict = paths["/v1/models/{model}/predict"]["post"]
    assert {"multipart/form-data", "image/*", "application/json"} == set(predict["requestBody"]["content"])
    assert {each["name"] for each in predict["parameters"]} == {
        "model", "runtime", "version", "top_k", "min_score", "timeout_ms", "X-Tandem-Key"
    }  # fmt: skip
    assert predict["requestBody"]["content"]["application/json"]["schema"]["properties"]["images"]["maxItems"] == 16
    assert "application/json" in predict["responses"]["200"]["content"]
    assert set(paths) == {
        "/v1/models", "/v1/models/{model}", "/v1/models/{model}/predict", "/v1/models/{model}/compare",
        "/v1/models/{model}/default", "/v1/models/{model}/routing", "/v1/models/{model}/versions/{version}",
        "/v1/models/{model}/scale", "/v1/models/{model}/verify", "/v1/jobs/{job}", "/v1/disagreements",
        "/v1/comparison", "/v1/disagreements/{number}", "/v1/disagreements/{number}/picture",
        "/v1/settings", "/livez", "/readyz", "/metrics",
    }  # fmt: skip
    assert client.get("/docs").status_code == 200


def test_a_gateway_without_any_model_starts_and_says_so(start_gateway: StartGateway, tmp_path: object) -> None:
    (tmp_path / "store").mkdir()  # type: ignore[operator]
    client = start_gateway()
    assert client.get("/v1/models").json() == {"models": []}
    assert client.get("/readyz").status_code == 503
    assert client.post(PREDICT, files=multipart(1)).json()["code"] == "model_not_found"


def test_the_described_examples_are_answers(client: httpx.Client) -> None:
    answer = client.get("/openapi.json").json()["paths"]["/v1/models/{model}/predict"]["post"]["responses"]["200"]
    examples = answer["content"]["application/json"]["examples"]
    assert set(examples) == {"classes", "boxes", "failover"}
    for example in examples.values():
        described = PredictAnswer.model_validate(example["value"], extra="forbid")
        assert described.model_dump(mode="json", exclude_unset=True) == example["value"]
