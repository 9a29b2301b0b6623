"""`python -m tandem`: the command line."""

from tandem.cli import app

app(prog_name="tandem")
