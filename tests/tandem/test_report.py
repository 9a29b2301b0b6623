"""`tandem report`, with a gateway over fakes whose log holds a planted difference."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner, Result

from comparison.process import Process
from evidence.comparing import compare
from evidence.document import Comparison
from tandem.cli import app
from tandem.report.charts import charts
from tandem.report.load import read_load
from tandem.report.rendering import html, markdown
from tandem.report.requirement import Requirement, State
from tests.conftest import Fakes, StartGateway
from tests.support.inferences import TF, TORCH, pairs, row, write, write_log
from tests.support.pictures import encode, plain
from tests.support.stack import free_ports
from tests.support.waiting import wait_until

START = 1_711_872_000.0


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """torch takes a fifth longer; of 2,000 pictures they disagree on 20."""
    rows = pairs(*Process(0.0, slowdown=1.2).draw(2_000, np.random.default_rng(3)), start=START)
    for each in rows[1::200]:
        each["agreeing"] = 0
    return compare_all(rows)


def compare_all(rows: list[dict[str, Any]], **environment: Any) -> Comparison:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        write(connection, rows)
        found = compare(connection, "digits", TORCH, TF, since=START, until=START + 300, environment=environment)
    engine.dispose()
    return found


@pytest.fixture
def local(start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """The local stack's gateway, whose log keeps rows as old as these."""
    client = start_gateway(request_log={"max_age_h": 1e6})
    a, b = Process(0.0, slowdown=1.2).draw(1_000, np.random.default_rng(3))
    rows = [each | {"version": 2} for each in pairs(a, b, start=START)]  # the gateway's default
    write_log(tmp_path / "tandem.db", rows)
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(client.base_url.port))
    return client


def tandem(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)


SINCE = ("--model", "digits", "--since", "2024-03-31T08:00:00Z")


def test_a_report_is_a_page_json_markdown_or_a_line(local: httpx.Client, tmp_path: Path) -> None:
    line = tandem(*SINCE)
    assert (line.exit_code, line.stderr) == (0, "")
    assert line.stdout.splitlines()[-1].startswith("tf is faster: ")
    answer = json.loads(tandem(*SINCE, "--json").stdout)
    assert (answer["faster"], answer["paired"]["n"]) == ("tf", 1000)
    page = tmp_path / "report.html"
    said = tandem(*SINCE, "--markdown", "--out", str(page))
    assert said.stdout.startswith("# digits: torch against tf\n\n**tf is faster: ")
    assert "<h1>digits: torch against tf</h1>" in page.read_text()


def test_kept_disagreements_are_listed_and_drawn_into_the_page(
    start_gateway: StartGateway, fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_gateway(disagreements={"max_count": 10})
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(client.base_url.port))
    fakes["tf"].offset = 1
    files = {"image": encode(plain(7))}
    for _ in range(3):
        client.post("/v1/models/digits/compare", files=files, headers={"x-request-id": "seen"}).raise_for_status()
    kept = 'tandem_disagreements_total{model="digits",outcome="kept"} 3.0'
    wait_until(lambda: kept in client.get("/metrics").text, lambda: client.get("/metrics").text, pause_s=0.05)
    page = tmp_path / "report.html"
    said = tandem("--model", "digits", "--out", str(page), "--pictures", "2", "--markdown")
    assert said.exit_code == 0, said.stderr
    assert len(re.findall(r"\| \d+ \| [-0-9: ]+ \| seen \| 7 0.9100 \| 8 0.9100 \|", said.stdout)) == 3
    assert page.read_text().count('<img src="data:image/png;base64,') == 2
    key = tmp_path / "admin.key"
    key.rename(tmp_path / "elsewhere")
    without = tandem("--model", "digits", "--markdown")
    assert (without.exit_code, "seen" in without.stdout) == (0, False)


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("required", "status", "says"),
    [
        (["ratio>=1.1", "agreement>=0.98"], 0, "ratio>=1.1 holds: 1."),
        (["ratio<=1.1"], 1, "ratio<=1.1 is broken: 1."),
        (["p95_ratio<=1.05"], 4, "p95_ratio<=1.05 is not known yet: too few effective samples: about 20,000"),
        (["p95_ratio<=1.05", "ratio<1"], 1, "ratio<1 is broken"),
    ],
    ids=["holds", "broken", "not known", "broken and not known"],
)
def test_requirements_are_an_exit_status(required: list[str], status: int, says: str) -> None:
    options = [each for requirement in required for each in ("--require", requirement)]
    result = tandem(*SINCE, *options)
    assert (result.exit_code, says in result.stdout) == (status, True)
    as_json = tandem(*SINCE, "--json", *options)
    assert (as_json.exit_code, says in as_json.stderr) == (status, True)
    assert json.loads(as_json.stdout)["faster"] == "tf"


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--require", "p95<=1"], "is no requirement. Write a figure"),
        (["--require", "ratio=1"], "is no requirement"),
        (["--require", "error_rate<=0.1"], "error_rate.TARGET"),
        (["--require", "ratio<=1.0.0"], "'1.0.0' is no number"),
        (["--require", "error_rate.onnx<=0.1"], "'onnx' is not compared here. There is torch and tf."),
        (["--json", "--markdown"], "give one of them"),
        (["--window", "1h"], "give one of them"),
        (["--price", "torch=1"], "only known from a load run"),
        (["--load", "none.json"], "none.json cannot be read"),
        (["--load", __file__], "no summary of a load run"),
        (["--pictures", "3"], "name its file with --out"),
        (["--out", "none/report.html"], "none/report.html cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_wrong_usage(arguments: list[str], says: str) -> None:
    result = tandem(*SINCE, *arguments)
    assert (result.exit_code, says in result.stderr) == (2, True)


@pytest.mark.usefixtures("local")
def test_what_the_gateway_refuses_is_said() -> None:
    result = tandem("--model", "digits", "--window", "soon")
    assert (result.exit_code, "Write a number and a unit" in result.stderr) == (1, True)


def test_without_a_gateway_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_VAR", str(tmp_path))
    monkeypatch.setenv("TANDEM_HTTP__PORT", str(free_ports(1)[0]))
    assert tandem("--model", "digits").exit_code == 3


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("ratio>1", State.HOLDS),
        ("ratio<=1.5", State.HOLDS),
        ("ratio<1", State.BROKEN),
        ("ratio>1.5", State.BROKEN),
        ("ratio<=1.2", State.UNKNOWN),
        ("ratio>=1.2", State.UNKNOWN),
        ("p50_ratio > 1", State.HOLDS),
        ("agreement>=0.95", State.HOLDS),
        ("agreement>=0.99", State.UNKNOWN),
        ("error_rate.tf<=0.01", State.HOLDS),
        ("error_rate.tf<=0", State.UNKNOWN),
        ("p50_ms.torch<=100", State.HOLDS),
        ("p50_ms.torch<=1e-3", State.BROKEN),
        ("p99_ms.torch<=100", State.UNKNOWN),
    ],
)
def test_a_requirement_is_judged_by_the_whole_interval(comparison: Comparison, text: str, state: State) -> None:
    assert Requirement.parse(text).judge(comparison).state is state


def test_an_interval_that_is_open_towards_the_limit_decides_nothing(comparison: Comparison) -> None:
    ratio = comparison.paired.ratio_any_looks.model_copy(update={"high": None})
    paired = comparison.paired.model_copy(update={"ratio_any_looks": ratio})
    opened = comparison.model_copy(update={"paired": paired})
    assert Requirement.parse("ratio<=100").judge(opened).state is State.UNKNOWN
    assert Requirement.parse("ratio>=1.1").judge(opened).state is State.HOLDS


def test_targets_that_must_not_be_compared_keep_no_requirement_about_their_ratio(comparison: Comparison) -> None:
    objected = comparison.model_copy(update={"objections": ("device differs",)})
    judged = Requirement.parse("ratio>1").judge(objected)
    assert str(judged) == "ratio>1 is not known yet: do not compare: device differs"
    assert Requirement.parse("agreement>=0.9").judge(objected).state is State.HOLDS


class Page(HTMLParser):
    """The elements of a page, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_is_whole_and_fetches_nothing(comparison: Comparison) -> None:
    text = html(comparison, [Requirement.parse("ratio<=1").judge(comparison)], [])
    page = Page(text)
    assert page.fetched == []
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    assert page.tags.count("svg") == 4
    for title in ("Requirements", "Between the two", "Each target", "Stages", "Agreement", "Environment"):
        assert f"<h2>{title}</h2>" in text
    assert text.index(comparison.verdict[:20]) < text.index("<h2>")


def test_where_a_worker_says_its_part_the_report_takes_rpc_apart() -> None:
    rows = pairs(np.full(400, 0.01), np.full(400, 0.02), start=START)
    assert "Where the time of rpc goes" not in markdown(compare_all(rows), [], [])
    for each in rows:
        if each["runtime"] == "torch":
            each.update(worker_queue_s=0.00125, worker_inference_s=0.0045)
    said = markdown(compare_all(rows), [], [])
    assert re.search(r"\| queue \| torch \| 1\.25 \| 1\.25 \(", said)
    assert re.search(r"\| transport \| torch \| 4\.25 \| 4\.25 \(", said)
    assert "| not known | tf | – | – | – |" in said


def test_what_others_have_named_cannot_be_markup(comparison: Comparison) -> None:
    bad = "<script>alert(1)</script> | x"
    named = comparison.model_copy(update={"environment": {"devices": {"torch": bad}}, "notes": (bad,)})
    assert "<script>" not in html(named, [], [])
    assert "&#124; x |" in markdown(named, [], [])


def test_a_load_run_and_prices_give_a_cost(comparison: Comparison, tmp_path: Path) -> None:
    figures = {"requests": 1000, "failures": 100, "requests_per_s": 100, "p50_ms": 9, "p95_ms": 19, "p99_ms": 29}
    file = tmp_path / "summary.json"
    file.write_text(json.dumps({"runtimes": {"torch": figures, "tf": figures}, "torch_to_tf": {}}))
    torch, tf = read_load(file, {"torch": 3.24})
    assert (torch.answered_per_s, tf.cost_per_million) == (90.0, None)
    assert torch.cost_per_million == pytest.approx(10.0)
    said = markdown(comparison, [], [torch, tf])
    assert "| torch | 1,000 | 100 | 90 | 9 | 19 | 29 | 3.24 | 10 |" in said
    assert "From a load run, not from the requests above" in said
    with pytest.raises(ValueError, match="onnx has a price and is not in"):
        read_load(file, {"onnx": 1.0})


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(time=START + 1, version=1)],
        [row(time=START + 1, outcome="deadline_exceeded", rpc_s=None)],
        pairs(np.full(400, 0.01), np.full(400, 0.01), start=START),
    ],
    ids=["nothing", "one request", "one time-out", "all alike"],
)
def test_little_to_show_is_a_page_too(rows: list[dict[str, Any]]) -> None:
    found = compare_all(rows or [row(model="shapes")])
    assert found.verdict in html(found, [], []).replace("&#39;", "'")
    assert len(list(charts(found))) <= 4


def test_points_of_a_chart_lie_within_it(comparison: Comparison) -> None:
    for chart in charts(comparison):
        points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]*)"', chart.svg)))
        assert all(0 <= float(x) <= 720 and 0 <= float(y) <= 240 for x, y in points)
