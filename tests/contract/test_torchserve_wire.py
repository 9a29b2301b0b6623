"""Our TorchServe protos against those inside TorchServe's own jar."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_tools import protoc

from proto import methods, torchserve_inference_pb2, torchserve_management_pb2
from tests.support.wire import assert_fields_match, assert_same_bytes, messages_of, paths_of

OFFICIAL = "org.pytorch.serve.grpc"
OWN = "tandem.wire.torchserve"
STREAMING = frozenset({"StreamPredictions", "StreamPredictions2"})  # not in methods.py: the gateway does not stream
MESSAGES = [
    pytest.param(descriptor, id=descriptor.full_name.removeprefix(f"{OWN}."))
    for module in (torchserve_inference_pb2, torchserve_management_pb2)
    for descriptor in messages_of(module)
]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> DescriptorPool:
    """The definitions in the jar of the installed TorchServe, compiled."""
    (jar,) = Path(__file__).parents[2].glob(".venv-torch/lib/python3*/site-packages/ts/frontend/model-server.jar")
    folder = tmp_path_factory.mktemp("torchserve-protos")
    with zipfile.ZipFile(jar) as archive:
        for name in ("inference.proto", "management.proto", "google/rpc/status.proto"):
            archive.extract(name, folder)
    out = folder / "official.bin"
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{folder}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *arguments, "inference.proto", "management.proto"]) == 0
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return pool


def official_name(own: Descriptor) -> str:
    # The one message that is not TorchServe's own.
    return "google.rpc.Status" if own.name == "Status" else own.full_name.replace(OWN, OFFICIAL)


@pytest.mark.parametrize("own", MESSAGES)
def test_each_message_has_the_official_fields(official: DescriptorPool, own: Descriptor) -> None:
    theirs = official.FindMessageTypeByName(official_name(own))
    assert_fields_match(own, theirs)
    assert {field.number for field in theirs.fields} == {field.number for field in own.fields}


@pytest.mark.parametrize("own", MESSAGES)
def test_each_message_has_the_official_bytes(official: DescriptorPool, own: Descriptor) -> None:
    assert_same_bytes(own, official.FindMessageTypeByName(official_name(own)))


@pytest.mark.parametrize(
    ("module", "service"),
    [
        pytest.param(torchserve_inference_pb2, "inference.InferenceAPIsService", id="inference"),
        pytest.param(torchserve_management_pb2, "management.ManagementAPIsService", id="management"),
    ],
)
def test_each_service_has_the_official_methods_and_the_table_their_paths(
    official: DescriptorPool, module: object, service: str
) -> None:
    theirs = paths_of(official.FindServiceByName(f"{OFFICIAL}.{service}"))
    (own,) = module.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined]
    assert {path.replace(OWN, OFFICIAL): types for path, types in paths_of(own).items()} == theirs
    table = {
        method.path: (method.request.DESCRIPTOR.name, method.response.DESCRIPTOR.name)
        for method in methods.UNARY_METHODS
        if method.path.startswith(f"/{OFFICIAL}.{service}/")
    }
    assert table == {path: types for path, types in theirs.items() if path.rpartition("/")[2] not in STREAMING}
