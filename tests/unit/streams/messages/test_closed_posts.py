"""Closed posts as messages: the same posts come back, and anything else is refused."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.live_figures import POST
from streams.errors import StateError
from streams.messages.closed_posts import decode, encode


def test_posts_come_back() -> None:
    """Encoded posts are decoded to the same; none too."""
    posts = np.zeros(30, POST)
    posts["created_at"], posts["score"] = np.arange(30), np.linspace(0, 1, 30)
    assert np.array_equal(decode(encode(posts)), posts)
    assert len(decode(encode(posts[:0]))) == 0


@pytest.mark.parametrize("value", [b"", b"\1", b"\2x", b"\1not compressed", encode(np.zeros(3, POST))[:-9]])
def test_others_are_refused(value: bytes) -> None:
    """Bytes of another release or program end in one line."""
    with pytest.raises(StateError, match="upgrade all processes"):
        decode(value)
