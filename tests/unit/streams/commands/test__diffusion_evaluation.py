"""Probabilities of edges on held-out posts, on a history whose users share always or never."""

from __future__ import annotations

import pytest

from graphstate.types import Kind
from streams.commands._diffusion_evaluation import evaluate
from streams.errors import InputError
from tests.support.analysts import society


def test_learned_probabilities_are_the_best() -> None:
    """Half of the users share .7 of what they see, the others nothing: a constant does not separate them."""
    found = evaluate(society(300))
    kinds = {kind.name.partition(":")[0]: kind for kind in found.kinds}
    assert list(kinds) == ["constant", "weighted", "past rate of the pair", "learned"]
    assert kinds["constant"].auc == 0.5
    assert kinds["learned"].auc > 0.8
    assert kinds["learned"].log_loss < kinds["constant"].log_loss - 0.2
    assert kinds["learned"].mean == pytest.approx(found.shared, abs=0.05)
    assert found.exposures > 200


def test_too_little_is_refused() -> None:
    """Files without posts, and with too few shares, are refused with one line."""
    with pytest.raises(InputError, match="no posts"):
        evaluate([event for event in society(10) if event.kind == Kind.FOLLOW])
    with pytest.raises(InputError, match="longer event file"):
        evaluate(society(10))
