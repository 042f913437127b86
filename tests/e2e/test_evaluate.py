"""`groundswell evaluate` on a simulated file: table, JSON, a self-contained report, one line for each mistake."""

import json
import re
from pathlib import Path

import pytest

from streams import cli


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four days of a small town."""
    file = tmp_path_factory.mktemp("town") / "town.jsonl"
    assert cli.run(["simulate", "--out", str(file), "--users", "300", "--communities", "4", "--days", "24"]) == 0
    return file


QUICK = ["--seeds", "1", "--epochs", "1", "--snapshots", "3"]


def test_it_judges_prints_and_reports(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first line names the winner; JSON and HTML hold the same; the page loads nothing from elsewhere."""
    report = tmp_path / "report.html"
    assert cli.run(["evaluate", str(town), *QUICK, "--html", str(report), "--ablate", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [row["name"] for row in found["scorers"]][-2:] == ["GATv2", "blend"]
    assert found["wins"] == ("NOT" not in found["verdict"])
    assert found["worth"][0]["left out"] == "nothing"
    assert len(found["worth"]) == 8
    assert found["live"]["posts"] > 20
    assert "persons" not in found
    assert "step" in printed.err
    html = report.read_text()
    assert found["verdict"].split(":")[0] in html
    assert html.count("<svg") >= 4
    assert not re.search(r"(src|href)\s*=|url\(|<script|<link|@import", html)


def test_an_artifact_is_judged_as_it_is(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --model nothing but the baselines is trained, and the table names that model; two origins, two tables."""
    out = tmp_path / "artifact"
    assert cli.run(["train", str(town), "--out", str(out), "--snapshots", "3", "--epochs", "1", "--json"]) == 0
    version = json.loads(capsys.readouterr().out)["model"]
    words = ["--model", str(out), "--no-prequential", "--origin", "0.6", "--origin", "0.7"]
    assert cli.run(["evaluate", str(town), *words, *QUICK]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("The model ")
    assert printed.count(f"model {version}") == 2


def test_it_says_what_is_missing(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file, no post, no closed horizon and a strange origin are one line each, exit code 1."""
    file = tmp_path / "short.jsonl"
    file.write_text('{"type":"create","time":1000000,"user":"a","content":"c"}\n')
    for words, message in (
        ([str(tmp_path / "none.jsonl")], "no such file"),
        ([str(file)], "no horizon"),
        ([str(town), "--from", "2030-01-01"], "no posts"),
        (["--alerts", str(town), "--from", "2030-01-01"], "nothing to evaluate"),
        ([str(town), "--origin", "1.5"], "between 0 and 1"),
        ([str(town), "--until", "2001-01-01"], "no events"),
    ):
        assert cli.run(["evaluate", *words]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error


def test_alerts_are_judged(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped rule, baselines and random in one table, the same in JSON and on a self-contained page."""
    report = tmp_path / "alerts.html"
    assert cli.run(["evaluate", "--alerts", str(town), "--html", str(report)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("The shipped rule ")
    assert "random candidates" in printed
    assert cli.run(["evaluate", "--alerts", str(town), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rules = {row["rule"]: row for row in found["rules"]}
    assert list(rules)[:2] == ["shipped", "decayed counter, W/16"]
    assert len(rules) == 7
    assert 0 < rules["shipped"]["alerts"] <= 3 * found["steps"]
    assert rules["shipped"]["recall"]["value"] >= rules["random authors"]["recall"]["value"]
    assert found["verdict"] in printed
    html = report.read_text()
    assert found["verdict"] in html
    assert html.count("<svg") == 1
    assert "growth ratio" in html
    assert not re.search(r"(src|href)\s*=|url\(|<script|<link|@import", html)
