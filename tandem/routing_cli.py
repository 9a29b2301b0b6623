"""`tandem routing`: which target answers a model's requests, and which one shadows it.

For another gateway than the local stack's, changes need its admin key in TANDEM_API_KEY or --key-file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from tandem.client import Json
from tandem.keys import open_client
from tandem.models_cli import AsJson, Name, gateway_says
from tandem.terminal import EXIT_USAGE, Url, fail

routing = typer.Typer(no_args_is_help=True, help="How a model's requests are spread over targets: show, set.")

Rate = Annotated[
    float | None,
    typer.Option(
        "--rate", help="shadow, canary: share of the requests that the other target is asked about too, 0 to 1."
    ),
]
Control = Annotated[
    float | None,
    typer.Option("--control", help="shadow: share of those about which the primary is asked again as well, 0 to 1."),
]
Explore = Annotated[
    float | None,
    typer.Option("--explore", help="fastest: share of the requests that the slower targets answer, 0 to 1."),
]
Steps = Annotated[
    str | None,
    typer.Option("--steps", metavar="SHARES", help="canary: shares of the requests, such as 0.01,0.05,0.25,1."),
]
Hold = Annotated[float | None, typer.Option("--hold", help="canary: least seconds at each step.")]
MaxLatencyRatio = Annotated[
    float | None,
    typer.Option("--max-latency-ratio", help="canary: guard, latency of the new target over the old one's."),
]
FailOver = Annotated[
    bool, typer.Option("--failover", help="Have the other runtime answer where the chosen one fails, or hangs.")
]
HedgeAfter = Annotated[
    str | None,
    typer.Option(
        "--hedge",
        metavar="MS|auto",
        help="Ask the other runtime too about a request that is late: after so many milliseconds, or auto: after what "
        "95 % of the newest requests took.",
    ),
]
HedgeBudget = Annotated[
    float | None, typer.Option("--hedge-budget", help="Share of the requests that may be hedged, 0 to 1.")
]
MaxErrorRate = Annotated[float | None, typer.Option("--max-error-rate", help="canary: guard, 0 to 1.")]
MinAgreement = Annotated[
    float | None, typer.Option("--min-agreement", help="canary: guard, share of the pictures, 0 to 1.")
]


@routing.command()
def show(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """The policy that is in force."""
    with open_client(url) as client, gateway_says():
        _print(client.routing(name), as_json)


@routing.command("set")
def set_(
    name: Name,
    policy: Annotated[list[str], typer.Argument(metavar="POLICY...", help="As in the examples.")],
    rate: Rate = None,
    control: Control = None,
    explore: Explore = None,
    steps: Steps = None,
    hold: Hold = None,
    max_latency_ratio: MaxLatencyRatio = None,
    max_error_rate: MaxErrorRate = None,
    min_agreement: MinAgreement = None,
    failover: FailOver = False,
    hedge: HedgeAfter = None,
    hedge_budget: HedgeBudget = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Put a policy in force. A target is torch or tf, or either with a version: torch@2.

    tandem routing set digits torch

    tandem routing set digits weighted torch=0.9 tf@2=0.1

    tandem routing set digits shadow torch tf --rate 0.5

    tandem routing set digits fastest torch tf

    tandem routing set digits failover torch tf

    tandem routing set digits canary torch tf@2 --steps 0.01,0.05,0.25,1 --hold 600 --rate 0.1

    Each may have --hedge, and all but failover have --failover.
    """
    kind, arguments = (policy[0], policy[1:]) if policy[0] in _POLICIES else ("fixed", policy)
    given = {
        "--rate": rate, "--control": control, "--explore": explore, "--steps": steps, "--hold": hold,
        "--max-latency-ratio": max_latency_ratio, "--max-error-rate": max_error_rate, "--min-agreement": min_agreement,
    }  # fmt: skip
    for option in (name for name, value in given.items() if value is not None):
        if kind not in _OPTIONS[option]:
            fail(f"{option} goes with {' or '.join(_OPTIONS[option])}, not with {kind}.", EXIT_USAGE)
    if failover and kind == "failover":
        fail("The policy failover needs no --failover.", EXIT_USAGE)
    if hedge is None and hedge_budget is not None:
        fail("--hedge-budget goes with --hedge, such as --hedge auto.", EXIT_USAGE)
    wanted = {"policy": kind} | _POLICIES[kind](arguments)
    guards = _given(latency_ratio=max_latency_ratio, error_rate=max_error_rate, agreement=min_agreement)
    if kind == "canary" and rate == 0 and min_agreement is None:
        guards["agreement"] = None  # without samples there is none
    wanted |= _given(
        sample_rate=rate,
        control_rate=control,
        explore=explore,
        hold_s=hold,
        steps=_shares(steps),
        guards=guards or None,
        failover=failover or None,
        hedge=None if hedge is None else _given(after_ms=_after_ms(hedge), budget=hedge_budget),
    )
    with open_client(url) as client, gateway_says():
        _print(client.set_routing(name, wanted), as_json)


def _fixed(arguments: Sequence[str]) -> Json:
    if len(arguments) != 1:
        fail(
            "Name one target, `weighted TARGET=WEIGHT …`, `shadow PRIMARY SHADOW`, `fastest TARGET …`, "
            "`failover FIRST SECOND` or `canary FROM TO`.",
            EXIT_USAGE,
        )
    return {"target": arguments[0]}


def _weighted(arguments: Sequence[str]) -> Json:
    weights: dict[str, float] = {}
    for argument in arguments:
        target, _, weight = argument.partition("=")
        try:
            given = float(weight)
        except ValueError:
            fail(f"{argument!r} is no weight: write TARGET=WEIGHT, such as torch=0.9.", EXIT_USAGE)
        if target in weights:
            fail(f"{target} has two weights. Give it one.", EXIT_USAGE)
        weights[target] = given
    return {"weights": weights}


def _shadow(arguments: Sequence[str]) -> Json:
    if len(arguments) != 2:
        fail("Name two targets: `shadow PRIMARY SHADOW`, such as `shadow torch tf`.", EXIT_USAGE)
    return {"primary": arguments[0], "shadow": arguments[1]}


def _fastest(arguments: Sequence[str]) -> Json:
    if len(arguments) < 2:
        fail("Name at least two targets: `fastest TARGET …`, such as `fastest torch tf`.", EXIT_USAGE)
    return {"targets": arguments}


def _failover(arguments: Sequence[str]) -> Json:
    if len(arguments) != 2:
        fail("Name two targets: `failover FIRST SECOND`, such as `failover torch tf`.", EXIT_USAGE)
    return {"targets": arguments}


def _canary(arguments: Sequence[str]) -> Json:
    if len(arguments) != 2:
        fail("Name two targets: `canary FROM TO`, such as `canary torch tf@2`.", EXIT_USAGE)
    return {"from": arguments[0], "to": arguments[1]}


_POLICIES: dict[str, Callable[[Sequence[str]], Json]] = {
    "fixed": _fixed,
    "weighted": _weighted,
    "shadow": _shadow,
    "fastest": _fastest,
    "failover": _failover,
    "canary": _canary,
}
_OPTIONS = {"--rate": ("shadow", "canary"), "--control": ("shadow",), "--explore": ("fastest",)} | dict.fromkeys(
    ("--steps", "--hold", "--max-latency-ratio", "--max-error-rate", "--min-agreement"), ("canary",)
)
"""The policies that each belongs to."""


def _given(**options: object) -> Json:
    """Those that have a value: the others are the gateway's to choose."""
    return {name: value for name, value in options.items() if value is not None}


def _after_ms(text: str) -> float | None:
    """None: as the gateway has measured."""
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        fail(f"{text!r} is no time: write --hedge 50 for 50 milliseconds, or --hedge auto.", EXIT_USAGE)


def _shares(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(share) for share in text.split(",")]
    except ValueError:
        fail(f"{text!r} are no shares: write them with commas, such as 0.01,0.05,0.25,1.", EXIT_USAGE)


def _print(answer: Json, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    set_at = (
        f"set {answer['updated']}, revision {answer['revision']}" if answer["updated"] else "never set: the default"
    )
    typer.echo(f"{answer['model']}: {_sentence(answer)}{_options(answer)} ({set_at})")
    if answer["missing"]:
        gone = ", ".join(answer["missing"])
        typer.echo(f"Not there any more: {gone}. The default version answers instead, and shadows nothing.", err=True)
    if answer.get("progress"):
        typer.echo(f"  {answer['progress']['why']}")
    for event in answer["history"] or ():
        typer.echo(
            f"  {event['time']:.19} {event['action'].replace('_', ' ')}, step {event['step'] + 1}: {event['why']}"
        )


def _sentence(answer: Json) -> str:
    if answer["policy"] == "weighted":
        return "weighted, " + ", ".join(f"{target}={weight:g}" for target, weight in answer["weights"].items())
    if answer["policy"] == "shadow":
        rate = f"{answer['sample_rate']:.4g} of the requests"
        control = f"{answer['control_rate']:.4g} of these"
        return f"{answer['primary']} answers, {answer['shadow']} shadows {rate}, with a control for {control}"
    if answer["policy"] == "fastest":
        expected = ((target, answer["expected_ms"].get(target)) for target in answer["targets"])
        known = (f"{target} {'not known' if each is None else f'{each:.1f} ms'}" for target, each in expected)
        return f"the fastest answers ({', '.join(known)}), the others {answer['explore']:.4g} of the requests"
    if answer["policy"] == "failover":
        return "{} answers, where it fails {} does".format(*answer["targets"])
    if answer["policy"] == "canary":
        return f"canary from {answer['from']} to {answer['to']}, {_progress(answer)}"
    return f"{answer['target']} answers"


def _options(answer: Json) -> str:
    parts = ["; where it fails the other runtime does"] if answer.get("failover") else []
    if hedge := answer.get("hedge"):
        after = "what 95 % took" if hedge["after_ms"] is None else f"{hedge['after_ms']:g} ms"
        parts.append(f"; hedged after {after}, at most {hedge['budget']:.4g} of the requests")
    return "".join(parts)


def _progress(answer: Json) -> str:
    progress, steps = answer["progress"], answer["steps"]
    if progress is None:
        return "not begun"
    share = f"{answer['to']} answers {progress['share']:.4g} of the requests since {progress['since']}"
    if progress["state"] == "running":
        return f"step {progress['step'] + 1} of {len(steps)}: {share}"
    return f"{progress['state'].replace('_', ' ')}: {share}"
