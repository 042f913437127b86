"""The evaluation of follower quality, end to end on a small stream, and what it shows of files."""

from __future__ import annotations

import pytest

from streams.commands import _evaluate_bots
from streams.errors import InputError
from tests.support.analysts import society


def test_a_small_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """Every account of the stream is evaluated, and the table has each rule and its opponents."""
    report = _evaluate_bots.on_streams(["strong"], users=400, days=12)
    (stream,) = report["streams"]
    assert stream["accounts"] > 390
    assert 0 < stream["bots"] < 120
    rankings = {row["name"]: row for row in stream["rankings"]}
    assert rankings["true influence"]["spearman"]["value"] == 1
    assert rankings["quality followers"]["spearman"]["value"] > 0.3
    rules = {row["name"].partition(":")[0] for row in stream["detection"]}
    assert rules == {"quality followers", "constant", "supervised"}
    _evaluate_bots.show(report, as_json=False)
    shown = capsys.readouterr().out
    for text in ("strong:", "buyers' percentile", "precision", "damped"):
        assert text in shown


def test_files_have_no_precision(capsys: pytest.CaptureFixture[str]) -> None:
    """Of files the report has counts alone, and files without follows are reported as such."""
    report = _evaluate_bots.on_files(society(100))
    assert (report["users"], report["follows"]) == (40, sum(event.kind == 0 for event in society(100)))
    assert 0 < report["suspected"] <= 15
    _evaluate_bots.show(report, as_json=False)
    assert "no labels" in capsys.readouterr().out
    _evaluate_bots.show(_evaluate_bots.on_files([event for event in society(5) if event.kind != 0]), as_json=False)
    assert "no follow" in capsys.readouterr().out


def test_unknown_difficulties_are_refused() -> None:
    """The error has the names that there are."""
    with pytest.raises(InputError, match="very_hard"):
        _evaluate_bots.on_streams(["impossible"])
