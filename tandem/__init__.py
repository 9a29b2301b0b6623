"""The command line, and the supervisor of the stack that runs on one machine.

`bootstrap`, `environments`, `preflight`, `processes` and `undertaker` also run before or beside `.venv`: they import
the standard library only.
"""
