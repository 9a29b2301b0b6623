"""Compile the `.proto` files of this folder: `python -m proto.compile`, or `--check` that they are up to date.

The compiled modules are committed, so that serving needs no compiler; grpcio-tools is pinned in constraints.txt, so
that everyone makes the same bytes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
ROOT = HERE.parent


def compile_into(out: Path) -> None:
    """Write `proto/*_pb2.py` and `.pyi` under the folder `out`. Raises RuntimeError where protoc refuses."""
    sources = sorted(path.relative_to(ROOT).as_posix() for path in HERE.glob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}", *sources])
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")


def stale() -> list[str]:
    """Names of the compiled modules that differ from what the `.proto` files give now."""
    with tempfile.TemporaryDirectory() as folder:
        compile_into(Path(folder))
        fresh = {path.name: path.read_bytes() for path in (Path(folder) / "proto").iterdir()}
    kept = {path.name: path.read_bytes() for path in HERE.glob("*_pb2.py*")}
    return sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if names := stale():
            sys.exit(f"out of date: {', '.join(names)}. Run `make proto` and commit.")
    else:
        compile_into(ROOT)
