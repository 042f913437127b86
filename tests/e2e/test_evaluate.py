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


def test_table_json_and_report_agree(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first line names the winner, JSON and HTML agree, and the page loads nothing from elsewhere."""
    report = tmp_path / "report.html"
    assert cli.run(["evaluate", str(town), *QUICK, "--html", str(report), "--ablate", "--json"]) == 0
    printed = capsys.readouterr()
    report_json = json.loads(printed.out)
    assert [row["name"] for row in report_json["scorers"]][-2:] == ["GATv2", "blend"]
    assert report_json["wins"] == ("NOT" not in report_json["verdict"])
    assert report_json["worth"][0]["left out"] == "nothing"
    assert len(report_json["worth"]) == 8
    assert report_json["live"]["posts"] > 20
    assert "persons" not in report_json
    assert "step" in printed.err
    html = report.read_text()
    assert report_json["verdict"].split(":")[0] in html
    assert html.count("<svg") >= 4
    assert not re.search(r"(src|href)\s*=|url\(|<script|<link|@import", html)


def test_a_given_artifact_is_evaluated(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --model only the baselines are trained, and the table names the model; two origins give two tables."""
    out = tmp_path / "artifact"
    assert cli.run(["train", str(town), "--out", str(out), "--snapshots", "3", "--epochs", "1", "--json"]) == 0
    version = json.loads(capsys.readouterr().out)["model"]
    words = ["--model", str(out), "--no-prequential", "--origin", "0.6", "--origin", "0.7"]
    assert cli.run(["evaluate", str(town), *words, *QUICK]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("The model ")
    assert printed.count(f"model {version}") == 2


def test_errors_are_one_line_each(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file, no post, no closed horizon and an invalid origin are one line each, exit code 1."""
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


def test_alerts_are_evaluated(town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the shipped rule, baselines and random draws; JSON and the self-contained page agree."""
    report = tmp_path / "alerts.html"
    assert cli.run(["evaluate", "--alerts", str(town), "--html", str(report)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("The shipped rule ")
    assert "random candidates" in printed
    assert cli.run(["evaluate", "--alerts", str(town), "--json"]) == 0
    report_json = json.loads(capsys.readouterr().out)
    rules = {row["rule"]: row for row in report_json["rules"]}
    assert list(rules)[:2] == ["shipped", "decayed counter, W/16"]
    assert len(rules) == 7
    assert 0 < rules["shipped"]["alerts"] <= 3 * report_json["steps"]
    assert rules["shipped"]["recall"]["value"] >= rules["random authors"]["recall"]["value"]
    assert report_json["verdict"] in printed
    html = report.read_text()
    assert report_json["verdict"] in html
    assert html.count("<svg") == 1
    assert "growth ratio" in html
    assert not re.search(r"(src|href)\s*=|url\(|<script|<link|@import", html)
