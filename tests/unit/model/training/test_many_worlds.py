"""Training on many worlds: what is learned holds in a world of another scale, and targets are centred apart."""

from dataclasses import replace

import numpy as np
import pytest

from model.config import OWN, ModelConfig
from model.errors import TrainingError
from model.training.fitting import TrainingSnapshot, apart
from model.training.many_worlds import PLAN, Worlds, figures, fit_worlds
from model.types import GraphInput

CONFIG = ModelConfig(hidden=8, heads=2, head_hidden=8)
COLD, MADE = OWN.index("cold"), OWN.index("made")


def world(seed: int, scale: int, users: int = 150) -> TrainingSnapshot:
    """Users whose reach follows how much they share, relative to a scale of this world alone."""
    random = np.random.default_rng(seed)
    own = random.integers(0, 5, (users, len(OWN))).astype(np.int32)
    own[:, MADE] = random.integers(scale, scale + 8, users)
    own[:, COLD] = random.random(users) < 0.5
    x = {name: np.zeros((users, len(names)), np.int32) for name, names in CONFIG.propagated.items()}
    edges = {name: np.zeros((2, 0), np.int32) for name, _, _ in CONFIG.relations}
    target = own[:, MADE] - 0.5 * scale + 30.0 * own[:, COLD] + random.normal(0, 0.5, users)
    return TrainingSnapshot(
        GraphInput.scaled(CONFIG, x, edges, own), target, np.full(users, 0.5), np.ones(users, np.bool_)
    )


def test_targets_of_known_and_of_new_authors_are_centred_apart() -> None:
    """Both have mean 0 afterwards; differences among each are kept."""
    before, after = world(1, 3), apart(world(1, 3))
    cold = before.graph.features[:, COLD] == 1
    for rows in (cold, ~cold):
        assert after.target[rows].mean() == pytest.approx(0)
        np.testing.assert_allclose(after.target[rows] - before.target[rows], (after.target - before.target)[rows][0])


def test_what_is_learned_holds_at_another_scale() -> None:
    """Trained on low counts, tested on high ones: the ranks are right, far ahead of the past mean."""
    worlds = Worlds()
    for seed in range(4):
        worlds.add([world(seed, 1 + 2 * seed)], CONFIG, seed, held_out=False, plain=False)
    worlds.add([replace(one, target=np.where(one.graph.features[:, COLD] == 1, np.nan, one.target)) for one in
                [world(9, 40)]], CONFIG, 9, held_out=True, plain=False)  # fmt: skip
    assert (worlds.learned, len(worlds.held_out), worlds.users) == (4, 1, 600)
    artifact = fit_worlds(worlds, CONFIG, 0, lambda _line: None, replace(PLAN, epochs=30, dropout=0.0))
    past, network = figures(worlds, artifact)
    assert network.every > 0.9
    assert past.every < 0.5


def test_plain_worlds_keep_what_separates_known_from_new_authors() -> None:
    """Their targets are not centred apart, and the linear part does not learn from them."""
    worlds = Worlds()
    for seed, plain in ((1, False), (2, True)):
        worlds.add([world(seed, 3)], CONFIG, seed, held_out=False, plain=plain)
    gaps = [np.corrcoef(batch.part.own[:, COLD], batch.target)[0, 1] for batch in worlds.batches]
    assert gaps[0] == pytest.approx(0, abs=0.05)
    assert gaps[1] > 0.9
    assert worlds.varied == worlds.batches[:1]


def test_worlds_without_labels_are_refused() -> None:
    """The error names what is missing."""
    empty = replace(world(1, 3), target=np.full(150, np.nan))
    worlds = Worlds()
    worlds.add([empty], CONFIG, 0, held_out=False, plain=False)
    with pytest.raises(TrainingError, match="--worlds"):
        fit_worlds(worlds, CONFIG, 0, lambda _line: None)
