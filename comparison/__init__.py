"""The statistics of a comparison of two targets: arrays in, a verdict out. No gateway, no database.

What it needs comes with the extra `comparison` of the package; the gateway never imports it.
`docs/comparison-statistics.md` says what is computed, and how far simulations bear it out.
"""
