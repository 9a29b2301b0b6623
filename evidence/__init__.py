"""From the request log to a comparison: rows in, a document out. Runs in a process of its own, with `comparison`.

The gateway imports `evidence.document` and `evidence.exchange` only: it has neither numpy's nor scipy's weight.
"""
