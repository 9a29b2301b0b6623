"""A fuzzer that is guided by what code its mutants reach, on the decoder: `make fuzz`, or
`python -m tests.hostile.guided --seconds 300`.

The mutants are those of `tests.hostile.mutations` and libFuzzer's own in turn; those that reach something new become
seeds. It ends with an error at the first fault, at a picture that takes five seconds, and at 2 GB; the picture is
saved.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from pathlib import Path

try:
    import atheris
except ModuleNotFoundError:
    sys.exit("atheris is not installed. `make fuzz` installs and runs it.")

with atheris.instrument_imports(include=["gateway.images", "PIL"]):
    from tests.hostile import targets

from tests.hostile.mutations import mutant
from tests.hostile.seeds import pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--save", type=Path, default=Path("var/fuzz"), help="folder for seeds and for what it finds")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    corpus = options.save / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = list(pictures().values())
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    run = targets.TARGETS["pictures"]().run

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            changed: bytes = atheris.Mutate(data, most)
            return changed
        chance = random.Random(seed)  # noqa: S311  not for secrets
        return mutant([data, chance.choice(seeds)], chance)[:most]

    limits = ["-timeout=5", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]
    arguments = [f"-max_total_time={options.seconds}", f"-artifact_prefix={options.save}/", *limits]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
