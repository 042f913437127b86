"""Closed posts of a shard as a message of the models topic: numbers only, no id of a user or a content."""

from __future__ import annotations

import zlib

import numpy as np

from model.evaluation.live_figures import POST, LivePosts
from streams.errors import StateError

VERSION = b"\1"
_BYTES_MAX = 64 << 20


def encode(posts: LivePosts) -> bytes:
    """Return closed posts as bytes; equal posts give equal bytes."""
    return VERSION + zlib.compress(posts.tobytes(), 6)


def decode(value: bytes) -> LivePosts:
    """Return the closed posts of `encode`.

    Raises:
        StateError: another program or another release wrote the value.
    """
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(value[1:], _BYTES_MAX)
    except zlib.error:
        data = b""
    if value[:1] != VERSION or not inflate.eof or len(data) % POST.itemsize:
        raise StateError("closed posts on the models topic are of another release: upgrade all processes")
    return np.frombuffer(data, POST)
