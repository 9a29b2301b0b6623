"""`python -m torch_worker.gpu`: whether PyTorch can compute on a GPU here.

It writes a line of JSON: the GPUs' names, or a reason.
"""

from __future__ import annotations

import json
import sys

import torch


def main() -> None:
    gpus: list[str] = []
    reason = ""
    try:
        torch.cuda.init()  # says why there is none, which is_available() does not
        picture = torch.ones(1, 3, 8, 8, device="cuda")
        sums = torch.nn.functional.conv2d(picture, torch.ones(1, 3, 3, 3, device="cuda"))
        if not bool((sums == 27).all()):
            raise RuntimeError("its convolution of ones gives wrong sums")
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    except (AssertionError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    sys.stdout.write(f"{json.dumps({'gpus': gpus, 'reason': reason})}\n")


if __name__ == "__main__":
    main()
