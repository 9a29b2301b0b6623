"""What a load test of Tandem can be told beyond locust's own options."""

from __future__ import annotations

from argparse import ArgumentTypeError

from locust.argument_parser import LocustArgumentParser
from locust.util.timespan import parse_timespan

from loadtests.pictures import MODELS
from loadtests.shapes import SHAPES


def add_options(parser: LocustArgumentParser) -> None:
    """Each is also read from TANDEM_LOAD_…."""
    tandem = parser.add_argument_group("Tandem")
    shapes = parser.add_argument_group("Load shapes", "How many users there are when; -u is their greatest number.")
    tandem.add_argument(
        "--summary-json",
        metavar="FILE",
        env_var="TANDEM_LOAD_SUMMARY_JSON",
        help="Where to write the summary by runtime at the end.",
    )
    tandem.add_argument(
        "--api-key",
        metavar="KEY",
        env_var="TANDEM_API_KEY",
        help="The key to send, where the gateway requires one. Better as a variable: others see a command's options.",
    )
    # Not in the web interface: --class-picker has a place of its own for it there.
    shapes.add_argument(
        "--shape",
        env_var="TANDEM_LOAD_SHAPE",
        choices=["none", *SHAPES],
        default="none",
        help="steady: -u users for -t. step: more and more up to -u. spike: few, suddenly -u, few again. -t ends a "
        "shape early or holds its last number of users longer. In the web interface, --class-picker offers them.",
    )
    in_web_interface = [
        tandem.add_argument("--model", env_var="TANDEM_LOAD_MODEL", default="digits", help="The model to ask."),
        tandem.add_argument(
            "--images",
            metavar="FOLDER",
            env_var="TANDEM_LOAD_IMAGES",
            default=str(MODELS),
            help="Folder of the pictures to upload, or one with a folder MODEL/samples for each model. The bundled "
            "models' sample pictures by default.",
        ),
    ]
    for name, kind, default, text in (
        ("step-users", _users, 4, "step: users that each step adds."),
        ("step-time", _seconds, 30, "step: seconds for which each lasts (also 30s, 2m)."),
        ("base-users", _users, 1, "spike: users before and after it."),
        ("spike-after", _seconds, 60, "spike: seconds before it, and after it (also 30s, 2m)."),
        ("spike-time", _seconds, 30, "spike: seconds for which it lasts (also 30s, 2m)."),
    ):
        variable = f"TANDEM_LOAD_{name.replace('-', '_').upper()}"
        help_text = f"{text} Default: {default}."
        in_web_interface.append(
            shapes.add_argument(f"--{name}", env_var=variable, type=kind, default=default, help=help_text)
        )
    for action in in_web_interface:
        action.include_in_web_ui = True


def _users(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be a whole number of users, at least 1, not {text!r}")
    return int(text)


def _seconds(text: str) -> int:
    try:
        seconds = parse_timespan(text)
    except ValueError:
        seconds = 0
    if seconds < 1:
        raise ArgumentTypeError(f"must be a time of at least a second, like 30, 30s, 2m or 1h30m, not {text!r}")
    return seconds
