"""Windows of one node type on the device: the sources of each row, in the order in which sums take them.

They are refreshed with the first layer: a window whose set of sources changed makes its target stale there, so the
second layer reads them from the device and needs nothing of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from model.engine.torch_ops import Transfers, next_power_of_two
from model.types import WindowsView

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
_SLOTS = 16, 64
"""Slots per window on the device: default for unlimited windows, and maximum."""
_FEW = 1_024
"""Up to this number of windows, small ones are not grouped separately."""
_GATHER_MAX = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Floats that one step of attention may gather; affects speed and memory only."""
_SHORT = 32


@njit(cache=True, nogil=True)
def _sort(source: Int32s, hashes: NDArray[np.uint64], start: int, n: int, out: Int32s) -> None:
    """Write the n sources of a window to `out`, sorted by hash."""
    if n > _SHORT:
        window = source[start : start + n]
        out[:n] = window[np.argsort(hashes[window])]
        return
    for k in range(n):
        row, slot = source[start + k], k
        while slot > 0 and hashes[out[slot - 1]] > hashes[row]:
            out[slot] = out[slot - 1]
            slot -= 1
        out[slot] = row


@njit(cache=True, nogil=True)
def _copy(
    rows: Int64s,
    start: Int32s,
    counts: Int32s,
    source: Int32s,
    hashes: NDArray[np.uint64],
    out: Int32s,
    degrees: Int32s,
) -> None:
    """Write the sorted windows of some rows to `out` `[n, W]`, padded with zeros; of longer windows only the degree."""
    for i in range(len(rows)):
        n = counts[rows[i]]
        degrees[i] = n
        out[i] = 0
        if n <= out.shape[1]:
            _sort(source, hashes, start[rows[i]], n, out[i])


@njit(cache=True, nogil=True)
def _group_by_degree(rows: Int64s, degrees: Int32s, limits: Int64s, out: Int32s, ends: Int64s) -> None:
    """Group windows, numbered i · relations + relation, by the first limit that their degree does not exceed."""
    for i in range(len(rows)):
        for relation in range(degrees.shape[1]):
            degree = degrees[rows[i], relation]
            if degree == 0:
                continue
            part = 0
            while part < len(limits) and degree > limits[part]:
                part += 1
            out[part, ends[part]] = i * degrees.shape[1] + relation
            ends[part] += 1


class Group(NamedTuple):
    """Windows of equal capacity.

    Attributes:
        number: i · relations + relation of each window `[m]`, i the position in the rows.
        relation: Relation of each window `[m]`.
        sources: Source rows `[m, W]`, zeros behind.
        degrees: Number of sources `[m]`.
        windows: Number of windows; the others of the m are padding.
    """

    number: Tensor
    relation: Tensor
    sources: Tensor
    degrees: Tensor
    windows: int


class DeviceWindows:
    """The windows of the relations into one node type."""

    def __init__(self, relations: Sequence[int], window: int, hidden: int, transfers: Transfers) -> None:
        self.relations = list(relations)
        self.width = min(next_power_of_two(window), _SLOTS[1]) if window else _SLOTS[0]
        self._hidden = hidden
        self._transfers = transfers
        self._degrees: Int32s = np.zeros((0, len(self.relations)), np.int32)
        # Index row · relations + relation, so that more rows append at the end.
        self._sources = torch.zeros((0, self.width), dtype=torch.int32, device=transfers.device)
        self._counts = torch.zeros(0, dtype=torch.int32, device=transfers.device)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self._sources.nbytes + self._counts.nbytes

    def ensure_capacity(self, rows: int) -> None:
        """Grow to hold `rows` rows."""
        old, relations = len(self._degrees), len(self.relations)
        self._degrees = np.concatenate([self._degrees, np.zeros((rows - old, relations), np.int32)])
        more = (rows - old) * relations
        self._sources = torch.cat([self._sources, self._sources.new_zeros(more, self.width)])
        self._counts = torch.cat([self._counts, self._counts.new_zeros(more)])

    def refresh(self, views: Sequence[WindowsView], rows: Int64s) -> None:
        """Copy the windows of some rows from the graph, one view per relation."""
        relations = len(self.relations)
        sources = self._transfers.host_buffer(relations, len(rows), self.width, dtype=torch.int32)
        counts = self._transfers.host_buffer(relations, len(rows), dtype=torch.int32)
        for number, view in enumerate(views):
            _copy(rows, *view, sources[number].numpy(), counts[number].numpy())
            self._degrees[rows, number] = counts[number].numpy()
        places = self._transfers.send(rows * relations + np.arange(relations)[:, None]).view(-1)
        self._sources.index_copy_(0, places, self._transfers.send(sources).view(-1, self.width))
        self._counts.index_copy_(0, places, self._transfers.send(counts).view(-1))

    def groups(self, views: Sequence[WindowsView], rows: Int64s, sent: Tensor) -> Iterator[Group]:
        """Yield all non-empty windows of some rows in groups of equal capacity; sent: the rows on the device."""
        relations = len(self.relations)
        limits = [self.width] if len(rows) * relations <= _FEW or self.width <= 4 else [self.width // 4, self.width]
        parts = np.empty((len(limits) + 1, len(rows) * relations), np.int32)
        ends = np.zeros(len(limits) + 1, np.int64)
        _group_by_degree(rows, self._degrees, np.array(limits, np.int64), parts, ends)
        for limit, part, end in zip(limits, parts, ends.tolist(), strict=False):
            for chunk, count in self._chunks(part[:end], limit):
                number = self._transfers.send(chunk)
                which = torch.div(number, relations, rounding_mode="floor")
                relation = number - which * relations
                place = sent.index_select(0, which) * relations + relation
                sources = self._sources.index_select(0, place)[:, :limit]
                yield Group(number, relation, sources, self._counts.index_select(0, place), count)
        yield from self._large(views, rows, parts[-1, : ends[-1]])

    def _large(self, views: Sequence[WindowsView], rows: Int64s, numbers: Int32s) -> Iterator[Group]:
        """Yield the windows that are too long for the device, read from the graph."""
        relations = len(self.relations)
        for relation, view in enumerate(views):
            left = numbers[numbers % relations == relation]
            degrees = view.counts[rows[left // relations]]
            limit = self.width
            while len(left):
                limit *= 4
                for part, count in self._chunks(left[degrees <= limit], limit):
                    own = np.ascontiguousarray(rows[part // relations])
                    sources = self._transfers.host_buffer(len(part), limit, dtype=torch.int32)
                    counts = self._transfers.host_buffer(len(part), dtype=torch.int32)
                    _copy(own, *view, sources.numpy(), counts.numpy())
                    number = self._transfers.send(part)
                    which = torch.full_like(number, relation)
                    yield Group(number, which, self._transfers.send(sources), self._transfers.send(counts), count)
                left, degrees = left[degrees > limit], degrees[degrees > limit]

    def _chunks(self, numbers: Int32s, limit: int) -> Iterator[tuple[Int32s, int]]:
        """Split windows into chunks that fit into memory, padded to a power of two with their first window.

        Yields each chunk and its number of windows without padding.
        """
        most = next_power_of_two(max(1, _GATHER_MAX[self._transfers.device.type] // (limit * self._hidden)) + 1) // 2
        for start in range(0, len(numbers), most):
            chunk = numbers[start : start + most]
            padding = np.full(next_power_of_two(len(chunk)) - len(chunk), chunk[0], np.int32)
            yield np.concatenate([chunk, padding]), len(chunk)
