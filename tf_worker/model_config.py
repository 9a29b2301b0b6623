"""Which versions of which models to serve: ModelServerConfig, and what the base paths hold."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from tf_worker import text_proto
from tf_worker.errors import Code, ServingError, StartError
from tf_worker.flags import Flags

log = logging.getLogger(__name__)

PLATFORM = "tensorflow"
_VERSION = re.compile(r"[0-9]+")  # not \d, which is more than the digits that the real server reads


def from_flags(flags: Flags) -> Any:
    """The ModelServerConfig to start with. Raises StartError."""
    config = model_server_config_pb2.ModelServerConfig()
    if flags.model_config_file is not None:
        text_proto.read(flags.model_config_file, config)
    else:
        config.model_config_list.config.add(
            name=flags.model_name, base_path=flags.model_base_path, model_platform=PLATFORM
        )
    try:
        validate(config)
    except ServingError as error:
        raise StartError(f"{flags.model_config_file or '--model_base_path'}: {error.message}") from error
    return config


def validate(config: Any) -> None:
    """Raises ServingError, with the real server's codes and messages, for a configuration that cannot be served."""
    kind = config.WhichOneof("config")
    if kind != "model_config_list":
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "ServerModelConfig type not supported by HandleReloadConfigRequest."
            " Only ModelConfigList is currently supported",
        )
    names: set[str] = set()
    for model in config.model_config_list.config:
        if not model.name:
            raise ServingError(Code.INVALID_ARGUMENT, "a model of the config list has no name")
        if model.name in names:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Illegal to list model {model.name} multiple times in config list"
            )
        names.add(model.name)
        if not model.base_path.startswith("/"):
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}",
            )
        _check_platform(model)


def _check_platform(model: Any) -> None:
    platform = model.model_platform
    if model.model_type:
        log.warning("Deprecated ModelServerConfig::model_type field used. Prefer ModelServerConfig::model_platform.")
        if platform:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "Illegal setting both ModelServerConfig::model_type (deprecated) and"
                f" ModelServerConfig::model_platform, model name is {model.name}",
            )
        if model.model_type != model_server_config_pb2.TENSORFLOW:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"ModelServerConfig::model_type choice {model.model_type} not supported."
            )
        return
    if not platform:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) "
            f"nor ModelServerConfig::model_platform, model name is {model.name}",
        )
    if platform != PLATFORM:
        raise ServingError(Code.INVALID_ARGUMENT, f"Model {model.name} requests unsupported platform {platform}")


def versions_to_serve(model: Any) -> dict[int, Path]:
    """The version folders under the model's base path that its policy asks for. Raises OSError: no base path."""
    children = [child for child in sorted(Path(model.base_path).iterdir()) if _VERSION.fullmatch(child.name)]
    found = {int(child.name): child for child in children if int(child.name) < 2**63}
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return found
        case "specific":
            return {version: found[version] for version in policy.specific.versions if version in found}
        case _:
            newest = sorted(found, reverse=True)[: max(policy.latest.num_versions, 1)]
            return {version: found[version] for version in newest}
