"""The gateway under a mixture of good and bad requests for a long time: nothing may grow, and nothing be left behind.

`python -m loadtests.soak` is the long form, on real workers; `tests/faults/test_soak.py` the short one, over the fakes.
"""
