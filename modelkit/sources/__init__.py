"""One module for each kind of source: what a user has → a network for both runtimes and what is known about it.

Each runs as `python -m modelkit.sources.<kind> --request FILE --work FOLDER`, in the environment that can read the
source, and writes `network.json` (see modelkit/network.py). Standard library only in what they share: `common`.
"""
