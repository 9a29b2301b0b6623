"""Keeps the models to what configuration and file system say, from the first configuration on."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from threading import Thread

from tensorflow_serving.config import model_server_config_pb2

from tf_worker import text_proto
from tf_worker.errors import ServingError, StartError
from tf_worker.models import Models

log = logging.getLogger(__name__)


def follow_config_file(models: Models, file: Path, poll_s: int) -> None:
    """From now on serve what the file says, read again so often. One with a mistake is logged, and changes nothing."""

    def follow() -> None:
        while True:
            time.sleep(poll_s)
            reload_from(models, file)

    Thread(target=follow, name="config-file", daemon=True).start()


def reload_from(models: Models, file: Path) -> None:
    """Serve what the file says; log why not."""
    try:
        config = text_proto.read(file, model_server_config_pb2.ModelServerConfig())
    except StartError as error:
        log.error("Failed to read ModelServerConfig file: %s", error)
        return
    if config.WhichOneof("config") is None:
        log.info("%s is empty: taking no action", file)
        return
    try:
        models.reload(config)
    except ServingError as error:
        log.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error.message)
    except Exception:
        log.exception("reloading %s failed", file)


def follow_file_system(models: Models, poll_s: int) -> None:
    """Look for versions that have come or gone every so many seconds, for ever; 0: never."""
    while poll_s:
        time.sleep(poll_s)
        try:
            models.follow_file_system()
        except Exception:
            log.exception("looking for new versions failed")
