"""Odds of two users by their counts."""

from __future__ import annotations

import math

import pytest

from model.evaluation.pair_odds import WEIGHTS, chance, parts


def test_symmetry() -> None:
    """The log odds change sign when both are swapped, and the chance is one half for equals."""
    a, b = dict.fromkeys(WEIGHTS, 10.0), {**dict.fromkeys(WEIGHTS, 3.0), "followers": 900.0}
    assert parts(a, b) == {name: pytest.approx(-value) for name, value in parts(b, a).items()}
    assert chance(a, b) + chance(b, a) == pytest.approx(1)
    assert chance(a, a) == 0.5


def test_one_count() -> None:
    """Of users that differ in followers only, the odds are a power of the ratio."""
    a, b = dict.fromkeys(WEIGHTS, 0.0), {**dict.fromkeys(WEIGHTS, 0.0), "followers": 99.0}
    assert chance(b, a) == pytest.approx(1 / (1 + math.exp(-WEIGHTS["followers"] * math.log(100))))
