"""`groundswell model show`: the artifact of a folder, or an error of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.artifact import untrained
from model.config import ModelConfig
from streams import cli


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
