"""Training on a society in which a fifth of the users share often: what is learned, and what must not leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.analysis.exposures import DAY_US
from model.errors import ArtifactError, TrainingError
from model.next_action import training
from model.next_action.artifact import NextActionArtifact
from model.next_action.card import card, summary
from model.next_action.examples import matched
from model.next_action.features import features
from model.next_action.timeline import FOREVER, Timeline, timeline
from model.next_action.training import Judged
from tests.support.societies import habitual_society

HORIZON = 3 * DAY_US


@pytest.fixture(scope="module")
def made() -> Timeline:
    """The index of the society."""
    return timeline(*habitual_society(2), FOREVER)


@pytest.fixture(scope="module")
def trained(made: Timeline) -> tuple[NextActionArtifact, Judged, list[str]]:
    """An artifact, its figures, and the lines of progress."""
    lines: list[str] = []
    return *training.train(made, HORIZON, 1, lines.append), lines


def test_it_learns_who_shares(trained: tuple[NextActionArtifact, Judged, list[str]]) -> None:
    """Trees separate habitual sharers from others; probabilities are right on average, and better than a constant."""
    _, judged, lines = trained
    served = {row.active: row for row in judged.rows if "LightGBM" in row.name}
    assert served[1].auc.value > 0.75
    assert served[1].auc.low < served[1].auc.value < served[1].auc.high
    asked = judged.asked
    assert asked.log_loss < asked.constant_loss
    assert np.mean([tenth.predicted for tenth in asked.tenths]) == pytest.approx(asked.shared, rel=0.2)
    assert asked.tenths[-1].observed > 3 * asked.tenths[0].observed
    assert sum(judged.gains.values()) == pytest.approx(1)
    assert "drawing examples" in lines


def test_shuffled_labels_teach_nothing(made: Timeline) -> None:
    """Trees that learned from shuffled labels order the examples that judge no better than chance."""
    parts = training.split(made, matched(made))
    chance = [training.shuffled_auc(parts, seed) for seed in range(4)]
    assert np.mean(chance) == pytest.approx(0.5, abs=0.06)


def test_the_parts_are_apart_in_time(made: Timeline) -> None:
    """Posts of a part are older than those of the next, and no moment of one lies in the next."""
    parts = training.split(made, matched(made))
    born = [made.born[part.post] for part in parts.examples]
    assert born[0].max() < born[1].min()
    assert born[1].max() < born[2].min()
    assert parts.examples[0].at.max() < born[1].min()
    assert parts.examples[1].at.max() < born[2].min()


def test_an_artifact_survives_its_folder(
    trained: tuple[NextActionArtifact, Judged, list[str]], made: Timeline, tmp_path: Path
) -> None:
    """What was saved predicts the same and has the same version; the same seed makes the same artifact."""
    artifact, judged, _ = trained
    described = card(artifact.config, judged, "groundswell train-next x", "a society", 1.0)
    for text in ("all of the past", "3 days", "seed 1", "LightGBM", "since_action"):
        assert text in described
    assert summary(judged)["examples"] == dict(zip(("train", "validation", "test"), judged.sizes, strict=True))
    artifact.save(tmp_path)
    loaded = NextActionArtifact.load(tmp_path)
    values = features(made, *matched(made)[:3])
    assert np.array_equal(loaded.probability(values), artifact.probability(values))
    assert loaded.version == artifact.version
    again, _ = training.train(made, HORIZON, 1, lambda _: None)
    assert again.version == artifact.version


@pytest.mark.parametrize("name", ["trees.txt", "config.json"])
def test_damaged_artifacts_are_refused(
    trained: tuple[NextActionArtifact, Judged, list[str]], tmp_path: Path, name: str
) -> None:
    """A changed or missing file is refused with one line that has the remedy."""
    trained[0].save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=f"{name} does not match"):
        NextActionArtifact.load(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"holds no {name}: give a folder that `groundswell train-next` wrote"):
        NextActionArtifact.load(tmp_path)


def test_too_little_is_refused() -> None:
    """Few posts are refused with the numbers."""
    few = timeline(*habitual_society(2, posts=20), FOREVER)
    with pytest.raises(TrainingError, match="100 needed of each; give a longer event file"):
        training.train(few, HORIZON, 0, lambda _: None)
