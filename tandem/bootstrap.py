"""What `make` calls, with the system's Python, before any environment exists: `python3 -m tandem.bootstrap`.

This file itself must be readable by any Python, so that one that is too old hears so in one line.
"""

import sys

OLDEST = (3, 11)
NEWEST = (3, 13)  # TensorFlow 2.21 has no wheel for a later one

if not OLDEST <= sys.version_info[:2] <= NEWEST:
    sys.exit(
        "Tandem needs Python {}.{} to {}.{} and {} is {}.{}: name another: make PYTHON=python3.11".format(
            *(OLDEST + NEWEST + (sys.executable,) + sys.version_info[:2])
        )
    )

from tandem.environments import main  # noqa: E402  (not before the check)

sys.exit(main(sys.argv[1:]))
