"""The TLS file, the same that `tensorflow_model_server --ssl_config_file` reads: PEM texts, not paths of them.

`SSLConfig` is not among the messages of the tensorflow-serving-api package. Its field names, numbers and types are in
TensorFlow Serving's config/ssl_config.proto and restated here as facts.
"""

from __future__ import annotations

from pathlib import Path

import grpc

from tf_worker import text_proto
from tf_worker.errors import StartError

_MESSAGES = {
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    }
}


def read(path: Path) -> grpc.ServerCredentials:
    """The server's key and certificate; with `client_verify`, only clients with a certificate of `custom_ca` may call.

    Raises StartError for a file that cannot be read or lacks something.
    """
    config = text_proto.read(path, text_proto.define(_MESSAGES, "SSLConfig"))
    for field in ("server_key", "server_cert", *(["custom_ca"] if config.client_verify else [])):
        if not getattr(config, field).startswith("-----BEGIN"):
            raise StartError(f"{path}: {field} must be the PEM text itself, with \\n for its line ends")
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
