"""Attention cache of the second layer: projections of its sources, and the softmax sums of each window.

If only some neighbours of a target changed, the cache subtracts their previous contributions from the target's sums
and adds the new ones. The sums are exact and independent of order (decision 0020), so the result is bit-equal to a full
recomputation, at the cost of the changed neighbours alone. A target is recomputed in full if its own input or its
window changed, or if it missed an earlier change of a neighbour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import ModelConfig
from model.engine import cpu_attention
from model.engine.weights import LayerWeights, RelationWeights
from model.types import Float32s, Int64s, WindowsView

FEW = 64
"""Minimum number of targets for which selecting the changed neighbours pays off."""
_STAGED = 1 << 14
"""Maximum number of changes per step whose previous projections are kept; above it most windows are recomputed."""
_INVALID = -1


class AttentionCache:
    """Second-layer attention over one type of targets, with the projections and sums that it reuses.

    Changes of sources are numbered in order. `_changed` holds the number of each source's latest change,
    `_computed` for each target the number that the next change had when the target was last computed.

    Args:
        layer: Weights of the second layer.
        target: Node type of the targets.
        config: Configuration of the network.
        few: For fewer targets than this, all are recomputed in full.
    """

    def __init__(self, layer: LayerWeights, target: int, config: ModelConfig, few: int = FEW) -> None:
        self._layer, self._target, self._window, self._few = layer, target, config.window, few
        self._projected = [np.zeros((0, config.hidden), np.float32) for _ in config.relations]
        self._before = [np.zeros((0, config.hidden), np.float32) for _ in config.relations]
        self._slot = [np.zeros(0, np.int32) for _ in config.relations]
        self._sums = [np.zeros((1, config.hidden + 2 * config.heads)) for _ in config.relations]
        # Without reuse (windows have no limit, or too many changes) all targets share one row of sums.
        self._no_slots, self._scratch = np.zeros(0, np.int32), np.zeros((1, config.hidden + 2 * config.heads))
        self._reuses = config.window > 0
        self._used = [np.zeros(1, np.int64) for _ in config.relations]
        self._changed = [np.zeros(0, np.int64) for _ in layer.reading]
        self._previous = np.zeros(0, np.int64)
        self._computed = np.zeros(0, np.int64)
        self._base = self._next = 1
        self._replace = cpu_attention.replace(config.hidden)
        self._attend = cpu_attention.attend(config.heads, config.channels)
        self._move = cpu_attention.move(config.heads, config.channels)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the cache in memory."""
        held: list[NDArray[Any]] = [self._previous, self._computed, self._no_slots, self._scratch]
        for arrays in (self._projected, self._before, self._slot, self._sums, self._changed):
            held.extend(arrays)
        return sum(array.nbytes for array in held)

    def ensure_capacity(self, kind: int, size: int) -> None:
        """Grow the cache to hold `size` rows of a node type."""
        for relation in self._layer.reading[kind]:
            self._projected[relation.number] = grown(self._projected[relation.number], size)
        self._changed[kind] = grown(self._changed[kind], size)
        if kind == self._target:
            self._computed = grown(self._computed, size, _INVALID)
            for relation in self._layer.relations[kind]:
                self._slot[relation.number] = grown(self._slot[relation.number], size, -1)
            self._no_slots = grown(self._no_slots, size)

    def invalidate(self, targets: Int64s) -> None:
        """Mark targets whose own input or window changed: they are recomputed in full."""
        self._computed[targets] = _INVALID

    def project(self, kind: int, rows: Int64s, x: Float32s) -> None:
        """Project new first-layer outputs `x` of these rows of a node type for the relations that read them.

        Rows that are targets too must be passed to `invalidate` as well.
        """
        relations = self._layer.reading[kind]
        if not relations:
            return
        changed, first = self._changed[kind], self._next
        self._reuses &= self._next + len(rows) - self._base <= _STAGED
        if not self._reuses:
            # Numbers below the base: previous projections are not copied.
            self._base = self._next = first = self._next + 1
            changed[rows] = first - 1
        else:
            self._previous = _with_capacity(self._previous, len(rows) + self._next - self._base)
            self._next = int(cpu_attention.number(rows, changed, self._base, first, self._previous))
        for relation in relations:
            index = relation.number
            self._before[index] = _with_capacity(self._before[index], self._next - self._base)
            self._replace(
                x, rows, *relation.project, self._projected[index], changed, self._base, first, self._before[index]
            )

    def add(
        self,
        relation: RelationWeights,
        windows: WindowsView,
        rows: Int64s,
        x: Float32s,
        out: Float32s,
        *,
        every: bool = False,
    ) -> None:
        """Add the attention of distinct targets over one relation to `out` `[len(rows), hidden]`.

        Args:
            relation: Weights of the relation.
            windows: Windows of the relation.
            rows: Target rows, each once.
            x: Inputs of the targets `[n, hidden]`.
            out: Receives the sums.
            every: Call every kernel even without work, so that all are compiled.
        """
        index, which = relation.number, np.arange(len(rows))
        own = (x, *relation.target, relation.attention)
        if every or (self._reuses and len(rows) >= self._few):
            new, old = np.empty((2, len(rows) * (self._window // 2 + 1) + self._window), np.int32)
            ends, whole, moved = np.empty((3, len(rows)), np.int64)
            n_whole, n_moved = cpu_attention.split_changed(
                rows, windows.start, windows.counts, windows.source, self._changed[relation.source], self._computed,
                self._base, self._previous, self._slot[index], new, old, ends, whole, moved,
            )  # fmt: skip
            which = whole[:n_whole]
            if every or n_moved:
                failed = np.empty(n_moved, np.int64)
                n_failed = self._move(
                    rows, moved[:n_moved], new, old, ends, self._projected[index], self._before[index],
                    *own, self._slot[index], self._sums[index], out, failed, self._window,
                )  # fmt: skip
                which = np.concatenate([which, failed[:n_failed]])
        slot, sums = self._no_slots, self._scratch
        if self._reuses:
            self._ensure_sums(index, len(which))
            slot, sums = self._slot[index], self._sums[index]
        self._attend(
            rows, which, windows.start, windows.counts, windows.source, self._projected[index],
            *own, slot, self._used[index], sums, out,
        )  # fmt: skip

    def _ensure_sums(self, relation: int, targets: int) -> None:
        """Grow the sums of a relation to hold those of more targets."""
        sums, most = self._sums[relation], len(self._slot[relation])
        wanted = min(int(self._used[relation][0]) + targets, most)
        if wanted > len(sums):
            self._sums[relation] = grown(sums, min(max(wanted, len(sums) * 5 // 4), most))

    def mark_computed(self, rows: Int64s) -> None:
        """Mark targets as up to date in all relations, and drop the previous projections."""
        self._computed[rows] = self._next if self._reuses else _INVALID
        self._base = self._next
        self._reuses = self._window > 0


def _with_capacity(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return the array, or a copy with at least `size` rows; grows in steps up to the maximum of staged changes."""
    return array if size <= len(array) else grown(array, max(size, min(_STAGED, max(256, 2 * size))))


def grown(array: NDArray[Any], size: int, value: int = 0) -> NDArray[Any]:
    """Return a copy of the array with `size` rows; new rows hold `value`."""
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    if value:
        longer[len(array) :] = value
    longer[: len(array)] = array
    return longer
