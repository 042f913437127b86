"""`train --simulate many`: a small form of the command that makes what ships."""

import json
from pathlib import Path

import pytest

from model.artifact import Artifact
from streams import cli

pytestmark = pytest.mark.slow


def test_the_same_command_gives_the_same_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two small worlds, one of them held out: artifact, card and figures; again the same version."""
    versions = []
    for name in ("one", "two"):
        out = tmp_path / name
        words = ["--simulate", "many", "--worlds", "2", "--users", "400", "--epochs", "1", "--horizon", "2d", "--json"]
        assert cli.run(["train", *words, "--out", str(out)]) == 0
        summary = json.loads(capsys.readouterr().out)
        artifact = Artifact.load(out)
        versions.append(artifact.version)
        assert (summary["model"], summary["worlds"], summary["held_out"]) == (artifact.version, 1, 1)
        assert [row["scorer"] for row in summary["ladder"]] == ["past mean, centred", "GATv2"]
        assert artifact.config.horizon_s == 2 * 86_400
        assert (
            "groundswell train --simulate many --worlds 2 --users 400 --preset default --horizon 2d --epochs 1"
            in artifact.card
        )
        assert "within 2 days" in artifact.card
    assert versions[0] == versions[1]
