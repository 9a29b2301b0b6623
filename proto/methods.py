"""The workers' gRPC methods under their official paths.

A stub generated from our `.proto` files would call `/tandem.wire.…`; the servers answer to the official names only.
`tests/` holds this table equal to the services of the `.proto` files and to the servers' own definitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from proto import tensorflow_serving_pb2 as tfs
from proto import torchserve_inference_pb2 as inference
from proto import torchserve_management_pb2 as management

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class UnaryMethod(Generic[Request, Response]):
    """One request, one response."""

    path: str
    request: type[Request]
    response: type[Response]


_INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
PING = UnaryMethod(f"{_INFERENCE}/Ping", Empty, inference.TorchServeHealthResponse)
PREDICTIONS = UnaryMethod(f"{_INFERENCE}/Predictions", inference.PredictionsRequest, inference.PredictionResponse)

_MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService"
DESCRIBE_MODEL = UnaryMethod(
    f"{_MANAGEMENT}/DescribeModel", management.DescribeModelRequest, management.ManagementResponse
)
LIST_MODELS = UnaryMethod(f"{_MANAGEMENT}/ListModels", management.ListModelsRequest, management.ManagementResponse)
REGISTER_MODEL = UnaryMethod(
    f"{_MANAGEMENT}/RegisterModel", management.RegisterModelRequest, management.ManagementResponse
)
SCALE_WORKER = UnaryMethod(f"{_MANAGEMENT}/ScaleWorker", management.ScaleWorkerRequest, management.ManagementResponse)
SET_DEFAULT = UnaryMethod(f"{_MANAGEMENT}/SetDefault", management.SetDefaultRequest, management.ManagementResponse)
UNREGISTER_MODEL = UnaryMethod(
    f"{_MANAGEMENT}/UnregisterModel", management.UnregisterModelRequest, management.ManagementResponse
)

_PREDICTION = "/tensorflow.serving.PredictionService"
PREDICT = UnaryMethod(f"{_PREDICTION}/Predict", tfs.PredictRequest, tfs.PredictResponse)
GET_MODEL_METADATA = UnaryMethod(
    f"{_PREDICTION}/GetModelMetadata", tfs.GetModelMetadataRequest, tfs.GetModelMetadataResponse
)

_MODEL = "/tensorflow.serving.ModelService"
GET_MODEL_STATUS = UnaryMethod(f"{_MODEL}/GetModelStatus", tfs.GetModelStatusRequest, tfs.GetModelStatusResponse)
HANDLE_RELOAD_CONFIG = UnaryMethod(
    f"{_MODEL}/HandleReloadConfigRequest", tfs.ReloadConfigRequest, tfs.ReloadConfigResponse
)

UNARY_METHODS = (
    PING,
    PREDICTIONS,
    DESCRIBE_MODEL,
    LIST_MODELS,
    REGISTER_MODEL,
    SCALE_WORKER,
    SET_DEFAULT,
    UNREGISTER_MODEL,
    PREDICT,
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    HANDLE_RELOAD_CONFIG,
)
