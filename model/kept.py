"""What the second layer keeps between steps: projections of its sources, and for each window what its softmax sums up.

If some neighbours of a target changed and nothing else did, what they were worth is taken from its sums and what they
are worth now is added: exactly, as sums have no order (decision 0020). So a target costs what changed, not what it
has. Who was not computed when a neighbour changed, or changed itself, is computed anew, which gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import attention
from model.config import ModelConfig
from model.engine_weights import LayerWeights, RelationWeights
from model.types import Float32s, Int64s, WindowsView

FEW = 64
"""For fewer targets sorting out takes longer than it saves."""
_STAGED = 1 << 14
"""With more changes at once neither what was before is kept nor sums: most windows would be computed anew."""
_ANEW = -1


class Kept:
    """The second layer's attention over one type of targets, `Kept.add`, and what it keeps for it.

    Changes of sources are numbered. changed: per source the number of its last one. computed: per target the number
    of the next one when it was last computed.
    """

    def __init__(self, layer: LayerWeights, target: int, config: ModelConfig, few: int = FEW) -> None:
        self._layer, self._target, self._window, self._few = layer, target, config.window, few
        self._projected = [np.zeros((0, config.hidden), np.float32) for _ in config.relations]
        self._before = [np.zeros((0, config.hidden), np.float32) for _ in config.relations]
        self._place = [np.zeros(0, np.int32) for _ in config.relations]
        self._sums = [np.zeros((1, config.hidden + 2 * config.heads)) for _ in config.relations]
        # Where nothing is kept, because all neighbours count or too many changed, all targets have one place.
        self._nowhere, self._scratch = np.zeros(0, np.int32), np.zeros((1, config.hidden + 2 * config.heads))
        self._keeps = config.window > 0
        self._used = [np.zeros(1, np.int64) for _ in config.relations]
        self._changed = [np.zeros(0, np.int64) for _ in layer.reading]
        self._previous = np.zeros(0, np.int64)
        self._computed = np.zeros(0, np.int64)
        self._base = self._next = 1
        self._replace = attention.replace(config.hidden)
        self._attend = attention.attend(config.heads, config.channels)
        self._move = attention.move(config.heads, config.channels)

    @property
    def memory_bytes(self) -> int:
        """Bytes that it takes in memory."""
        held: list[NDArray[Any]] = [self._previous, self._computed, self._nowhere, self._scratch]
        for arrays in (self._projected, self._before, self._place, self._sums, self._changed):
            held.extend(arrays)
        return sum(array.nbytes for array in held)

    def reach(self, kind: int, size: int) -> None:
        """Make room for so many rows of a node type."""
        for relation in self._layer.reading[kind]:
            self._projected[relation.number] = grown(self._projected[relation.number], size)
        self._changed[kind] = grown(self._changed[kind], size)
        if kind == self._target:
            self._computed = grown(self._computed, size, _ANEW)
            for relation in self._layer.relations[kind]:
                self._place[relation.number] = grown(self._place[relation.number], size, -1)
            self._nowhere = grown(self._nowhere, size)

    def anew(self, targets: Int64s) -> None:
        """Windows of these targets, or they themselves, changed."""
        self._computed[targets] = _ANEW

    def project(self, kind: int, rows: Int64s, x: Float32s) -> None:
        """Take over new first-layer outputs x of these rows of a node type; of targets `anew` is told besides."""
        relations = self._layer.reading[kind]
        if not relations:
            return
        changed, first = self._changed[kind], self._next
        self._keeps &= self._next + len(rows) - self._base <= _STAGED
        if not self._keeps:
            # Numbers below base: nothing is copied.
            self._base = self._next = first = self._next + 1
            changed[rows] = first - 1
        else:
            self._previous = _reaching(self._previous, len(rows) + self._next - self._base)
            self._next = int(attention.number(rows, changed, self._base, first, self._previous))
        for relation in relations:
            at = relation.number
            self._before[at] = _reaching(self._before[at], self._next - self._base)
            self._replace(x, rows, *relation.project, self._projected[at], changed, self._base, first, self._before[at])

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
        """Add to out what these targets, each named once, attend to in their windows of one relation; x: theirs.

        every: call every kernel, if for nothing.
        """
        at, which = relation.number, np.arange(len(rows))
        own = (x, *relation.target, relation.attention)
        if every or (self._keeps and len(rows) >= self._few):
            new, old = np.empty((2, len(rows) * (self._window // 2 + 1) + self._window), np.int32)
            ends, whole, moved = np.empty((3, len(rows)), np.int64)
            n_whole, n_moved = attention.sort_out(
                rows, windows.start, windows.counts, windows.source, self._changed[relation.source], self._computed,
                self._base, self._previous, self._place[at], new, old, ends, whole, moved,
            )  # fmt: skip
            which = whole[:n_whole]
            if every or n_moved:
                failed = np.empty(n_moved, np.int64)
                n_failed = self._move(
                    rows, moved[:n_moved], new, old, ends, self._projected[at], self._before[at],
                    *own, self._place[at], self._sums[at], out, failed, self._window,
                )  # fmt: skip
                which = np.concatenate([which, failed[:n_failed]])
        place, sums = self._nowhere, self._scratch
        if self._keeps:
            self._make_room(at, len(which))
            place, sums = self._place[at], self._sums[at]
        self._attend(
            rows, which, windows.start, windows.counts, windows.source, self._projected[at],
            *own, place, self._used[at], sums, out,
        )  # fmt: skip

    def _make_room(self, relation: int, targets: int) -> None:
        """Have room for the sums of so many targets more."""
        sums, most = self._sums[relation], len(self._place[relation])
        wanted = min(int(self._used[relation][0]) + targets, most)
        if wanted > len(sums):
            self._sums[relation] = grown(sums, min(max(wanted, len(sums) * 5 // 4), most))

    def computed(self, rows: Int64s) -> None:
        """These targets are up to date in all relations; what was before is not needed any more."""
        self._computed[rows] = self._next if self._keeps else _ANEW
        self._base = self._next
        self._keeps = self._window > 0


def _reaching(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array, or a longer one: at least of that size, and at most as long as any need be."""
    return array if size <= len(array) else grown(array, max(size, min(_STAGED, max(256, 2 * size))))


def grown(array: NDArray[Any], size: int, value: int = 0) -> NDArray[Any]:
    """The array with more rows, of that value."""
    found = np.zeros((size, *array.shape[1:]), array.dtype)
    if value:
        found[len(array) :] = value
    found[: len(array)] = array
    return found
