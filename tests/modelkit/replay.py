"""Whether a TorchScript artifact, replayed and read by torch.export, says the same: `python replay.py ARTIFACT SIDE`.

In the torch worker's environment. The batch must stay free.
"""

from __future__ import annotations

import sys

import torch

from modelkit.compiled import exported


def main(artifact: str, side: str) -> None:
    torch.manual_seed(0)  # other noise may have two candidates that are equal but for rounding, which change places
    module = torch.jit.load(artifact).eval()
    pictures = torch.randint(0, 256, (5, int(side), int(side), 3), dtype=torch.uint8)
    with torch.no_grad():
        program = exported(module, pictures[:2])
        for batch in (pictures, pictures[:1]):
            wanted, found = module(batch), program.module()(batch)
            assert set(found) == set(wanted)
            for name in wanted:
                torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    main(*sys.argv[1:])
