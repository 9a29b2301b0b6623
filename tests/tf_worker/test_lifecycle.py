"""Versions and configurations that come and go under a running stand-in, seen through the official stubs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import model_management_pb2

from tests.tf_worker import saved_models
from tests.tf_worker.conftest import Server, refusal, request, run_server
from tf_worker.errors import Code

X = np.array([[1, 2, 3]], np.float32)


def wait_until(condition: Callable[[], bool]) -> None:
    """Asks again and again; each time is a call to the server, so there is no need to sleep."""
    while not condition():
        pass


def config_of(folder: Path, **models: str) -> str:
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" {rest} }}'
        for name, rest in models.items()
    )
    return f"model_config_list {{ {entries} }}"


def put(saved: Path, version: Path) -> None:
    """A version folder as it should come: whole, by a rename."""
    shutil.copytree(saved, version.parent / "arriving")
    (version.parent / "arriving").rename(version)


def state(server: Server, model: str, version: int) -> str:
    return server.states(model).get(version, ("", 0, ""))[0]


def test_an_old_version_is_unloaded_once_its_successor_is_there_and_no_request_uses_it(tmp_path: Path) -> None:
    saved_models.save(saved_models.Waits(), tmp_path / "m" / "1")
    flags = ("--model_name=m", f"--model_base_path={tmp_path / 'm'}")
    with run_server(tmp_path, *flags) as server:
        assert state(server, "m", 1) == "AVAILABLE"
        under_way = server.prediction.Predict.future(request("m", pattern=str(tmp_path / "go*")), timeout=120)
        server.states("m")  # on the same connection, so it is answered after the other has been accepted
        put(tmp_path / "m" / "1", tmp_path / "m" / "2")
        wait_until(lambda: state(server, "m", 1) == "UNLOADING")
        assert state(server, "m", 2) == "AVAILABLE"
        assert not under_way.done()
        answer = server.prediction.Predict(request("m", pattern=str(tmp_path)), timeout=30)
        assert answer.model_spec.version.value == 2
        old = request("m", pattern=str(tmp_path))
        old.model_spec.version.value = 1
        with pytest.raises(grpc.RpcError, match="not found"):
            server.prediction.Predict(old, timeout=30)

        (tmp_path / "go").touch()
        assert under_way.result().model_spec.version.value == 1
        wait_until(lambda: server.states("m") == {1: ("END", 0, ""), 2: ("AVAILABLE", 0, "")})


def test_a_load_that_failed_is_tried_again_until_it_succeeds(model_folder: Path, tmp_path: Path) -> None:
    saved_models.save_scale(tmp_path / "m" / "1", 2.0)
    (tmp_path / "m" / "2").mkdir()
    flags = (
        f"--model_config_file={tmp_path / 'models.config'}",
        "--load_retry_interval_micros=-1",
        "--max_num_load_retries=1000000",
    )
    (tmp_path / "models.config").write_text(config_of(tmp_path, m="model_version_policy { all {} }"))
    with run_server(tmp_path, *flags) as server:
        wait_until(lambda: server.states("m")[2][1] == Code.NOT_FOUND and state(server, "m", 1) == "AVAILABLE")
        assert server.predict("m", x=X)["scaled"].tolist() == [[2, 4, 6]]
        shutil.copytree(model_folder / "scale" / "1" / "variables", tmp_path / "m" / "2" / "variables")
        shutil.copy(model_folder / "scale" / "2" / "saved_model.pb", tmp_path / "m" / "2")
        wait_until(lambda: state(server, "m", 2) == "AVAILABLE")


def test_a_load_is_tried_no_more_often_than_asked(tmp_path: Path) -> None:
    saved_models.save_scale(tmp_path / "m" / "1", 2.0)
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "models.config").write_text(config_of(tmp_path, m="model_version_policy { all {} }"))
    flags = (
        f"--model_config_file={tmp_path / 'models.config'}",
        "--load_retry_interval_micros=-1",
        "--max_num_load_retries=2",
    )
    with run_server(tmp_path, *flags) as server:
        server.states("m")
        wait_until(lambda: server.log.count("version 2 of model m did not load: NOT_FOUND") == 3)
        put(tmp_path / "m" / "1", tmp_path / "m" / "3")
        wait_until(lambda: state(server, "m", 3) == "AVAILABLE")
        assert server.log.count("version 2 of model m did not load") == 3
        assert server.states("m")[2][:2] == ("END", Code.NOT_FOUND)


def test_the_models_file_is_followed_and_one_with_a_mistake_changes_nothing(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(config_of(model_folder, scale=""))
    flags = (f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1")
    with run_server(tmp_path, *flags) as server:
        assert server.states("scale") == {2: ("AVAILABLE", 0, "")}
        file.write_text("model_config_list { config { nam: 'x' } }")
        wait_until(lambda: "Failed to read ModelServerConfig file: cannot parse" in server.log)
        file.write_text(config_of(model_folder, scale='version_labels { key: "live" value: 77 }'))
        wait_until(lambda: "assign label to version 77 of model scale" in server.log)
        file.write_text("")
        wait_until(lambda: "is empty: taking no action" in server.log)
        assert server.states("scale") == {2: ("AVAILABLE", 0, "")}
        policy = "model_version_policy { specific { versions: 1 } }"
        file.write_text(config_of(model_folder, words="", scale=policy))
        wait_until(lambda: state(server, "scale", 2) == "END")
        assert server.predict("scale", x=X)["scaled"].tolist() == [[2, 4, 6]]
        assert server.predict("words", word=[b"a"])["upper"].tolist() == [b"A"]


def test_a_model_that_is_left_out_is_unloaded_and_comes_back_with_the_next_configuration(
    model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "models.config").write_text(config_of(model_folder, scale="", words=""))

    def reload(server: Server, *names: str) -> None:
        message = model_management_pb2.ReloadConfigRequest()
        for name in names:
            message.config.model_config_list.config.add(
                name=name, base_path=str(model_folder / name), model_platform="tensorflow"
            )
        server.models.HandleReloadConfigRequest(message, timeout=60)

    with run_server(tmp_path, f"--model_config_file={tmp_path / 'models.config'}") as server:
        assert state(server, "words", 1) == "AVAILABLE"
        reload(server, "scale")
        assert state(server, "words", 1) == "END"
        reload(server, "scale", "words")
        assert server.predict("words", word=[b"a"])["upper"].tolist() == [b"A"]


def test_each_version_has_its_own_batching_and_warm_up(model_folder: Path, tmp_path: Path) -> None:
    for version in (1, 2, 3):
        shutil.copytree(model_folder / "scale" / "1", tmp_path / "m" / str(version))
    (tmp_path / "m" / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    (tmp_path / "m" / "2" / "batching_params.pbtxt").write_text(
        "max_batch_size { value: 100 } enable_large_batch_splitting { value: true }"
        " max_execution_batch_size { value: 2 }"
    )
    (tmp_path / "m" / "3" / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "m" / "3" / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(b"\xff\xff")
    (tmp_path / "models.config").write_text(config_of(tmp_path, m="model_version_policy { all {} }"))
    flags = (
        f"--model_config_file={tmp_path / 'models.config'}",
        "--enable_batching",
        "--enable_per_model_batching_parameters",
        "--max_num_load_retries=0",
    )
    with run_server(tmp_path, *flags) as server:
        wait_until(lambda: all(name in ("AVAILABLE", "END") for name, _, _ in server.states("m").values()))
        assert server.states("m")[3][:2] == ("END", Code.INVALID_ARGUMENT)
        five = request("m", x=np.ones((5, 3), np.float32))
        assert len(server.prediction.Predict(five, timeout=30).outputs["total"].float_val) == 5
        five.model_spec.version.value = 1
        with pytest.raises(grpc.RpcError) as caught:
            server.prediction.Predict(five, timeout=30)
        assert refusal(caught.value) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "Task size 5 is larger than maximum input batch size 2",
        )
