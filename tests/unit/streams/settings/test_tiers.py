"""Tiers of users by octaves of followers."""

from __future__ import annotations

import pytest

from streams.errors import SettingsError
from streams.settings.tiers import Tiers


def test_octaves() -> None:
    """A tier begins at its octave and ends where the next one begins; the last one has no end."""
    tiers = Tiers("nano=0,micro=3,mega=5")
    assert [tiers.of(followers) for followers in (0, 1, 7, 8, 31, 32, 1 << 40)] == [
        None, "nano", "nano", "micro", "micro", "mega", "mega",
    ]  # fmt: skip
    assert tiers.bounds["micro"] == (8, 32)


def test_the_defaults() -> None:
    """By default nano begins at one follower, and mega at a million."""
    assert list(Tiers().bounds) == ["nano", "micro", "mid", "macro", "mega"]
    assert Tiers().of(1 << 20) == "mega"


@pytest.mark.parametrize("text", ["", "nano", "nano=x", "nano=3,micro=3", "micro=4,nano=1", "a=1,a=2", "a=41", "A=1"])
def test_malformed(text: str) -> None:
    """Names must be distinct and octaves must rise."""
    with pytest.raises(SettingsError, match="rising octaves"):
        Tiers(text)
