"""`groundswell model show` and `model history`: an artifact, the trainer's decisions, or an error of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.artifact import untrained
from model.config import ModelConfig
from streams import cli
from streams.commands import model as command
from streams.trainer.history import HistoryRow
from streams.worker.rollout.models_topic import ModelsTopicState


def test_shows_an_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Version, number of parameters, configuration and card of the folder that was named."""
    artifact = untrained(ModelConfig())
    artifact.save(tmp_path)
    assert cli.run(["model", "show", str(tmp_path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["version"] == artifact.version
    assert shown["parameters"] == sum(values.size for values in artifact.weights.values())
    assert shown["card"] == artifact.card
    assert cli.run(["model", "show", str(tmp_path)]) == 0
    assert artifact.version in capsys.readouterr().out


def test_an_empty_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit code 1."""
    assert cli.run(["model", "show", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_history_lists_decisions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`model history` prints one line per decision with its figures, as JSON all fields; without any, a note."""
    figure = {"value": 0.25, "low": 0.1, "high": 0.4}
    row = HistoryRow(
        id="000000000000001",
        at="2026-01-01T00:00:00+00:00",
        as_of=1,
        action="refused",
        in_use="a" * 12,
        candidate="b" * 12,
        reasons=["it ranks worse"],
        figures={"spearman": {"candidate": figure, "current": figure, "past mean": figure}, "posts": 300},
    )
    state = ModelsTopicState()
    monkeypatch.setattr(command, "_notices", lambda _settings: state)
    command.history()
    assert "no decisions" in capsys.readouterr().out
    state.apply(row.message())
    command.history()
    text = capsys.readouterr().out
    for part in ("refused", "b" * 12, "300", "0.250 / 0.250 / 0.250", "it ranks worse"):
        assert part in text
    command.history(as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["figures"]["posts"] == 300
