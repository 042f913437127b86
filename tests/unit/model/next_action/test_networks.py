"""Ego networks and the networks on them, on a society in which a fifth of the users share often."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.metrics import auc
from model.next_action.ego_networks import SIZE, EgoNetworks, sample, structure
from model.next_action.examples import Examples, matched
from model.next_action.features import features
from model.next_action.networks import EgoScorer
from model.next_action.timeline import FOREVER, Timeline, timeline
from tests.support.societies import habitual_society


@pytest.fixture(scope="module")
def made() -> Timeline:
    """The index of the society."""
    return timeline(*habitual_society(2, posts=120), FOREVER)


def part(made: Timeline, examples: Examples) -> tuple[EgoNetworks, np.ndarray, np.ndarray]:
    """Ego networks, features and labels."""
    return sample(made, examples), features(made, *examples[:3]), examples.shared


@pytest.mark.slow
def test_a_network_learns_from_activity(made: Timeline) -> None:
    """With activity a GCN orders unseen examples much better than chance, and stops by itself."""
    examples = matched(made)
    cuts = [np.arange(0, 480), np.arange(480, 720), np.arange(720, 1_200)]
    train, validation, test = (part(made, examples.of(cut)) for cut in cuts)
    scorer = EgoScorer("GCN", structure(made, int(made.born[-1])), activity=True)
    lines: list[str] = []
    epochs = scorer.fit(train, validation, lines.append)
    assert epochs == len(lines)
    assert auc(scorer.score(*test[:2]), test[2]) > 0.65


@pytest.mark.slow
def test_structure_and_state_alone_are_scored(made: Timeline) -> None:
    """Without activity the inputs are the embedding, the state and the ego's mark; an unfitted network is refused."""
    examples = matched(made).of(np.arange(200))
    networks, values, shared = part(made, examples)
    scorer = EgoScorer("GATv2", structure(made, int(made.born[-1])))
    with pytest.raises(RuntimeError, match="fit first"):
        scorer.score(networks, values)
    scorer.fit((networks, values, shared), (networks, values, shared), lambda _: None)
    assert np.isfinite(scorer.score(networks, values)).all()
    assert networks.users.shape == (200, SIZE)
