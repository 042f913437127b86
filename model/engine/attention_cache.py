"""Attention cache of the second layer: projections of its sources, and the softmax sums of each window.

If only some neighbours of a target changed, the cache subtracts their previous contributions from the target's sums
and adds the new ones. The sums are exact and independent of order (decision 0020), so the result is bit-equal to a full
recomputation, at the cost of the changed neighbours alone. A target is recomputed in full if its own input or its
window changed, or if it missed an earlier change of a neighbour. `cpu_layers` has the compiled code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import ModelConfig
from model.engine import cpu_layers
from model.engine.cpu_layers import ArrayTable
from model.engine.weights import LayerWeights

FEW = 4
"""Minimum number of targets for which selecting the changed neighbours pays off."""
_STAGED = 1 << 14
"""Maximum number of changes per step whose previous projections are kept; above it most windows are recomputed."""
_INVALID = -1


class AttentionCache:
    """Arrays of second-layer attention over one type of targets: the projections and sums that it reuses.

    Changes of sources are numbered in order. `CHANGED` holds the number of each source's latest change,
    `COMPUTED` for each target the number that the next change had when the target was last computed.

    Args:
        layer: Weights of the second layer.
        target: Node type of the targets.
        config: Configuration of the network.
        table: Receives the arrays.

    Attributes:
        state: Numbers of changes, as `cpu_layers` reads them.
        projected: Projections by relation `[n_sources, hidden]`.
        sums: Sums by relation into the targets `[n_targets, hidden + 2 · heads]`; rows are used from the first on.
    """

    def __init__(self, layer: LayerWeights, target: int, config: ModelConfig, table: ArrayTable) -> None:
        self._layer, self._target, self._table = layer, target, table
        self._hidden, self._reuses = config.hidden, config.window > 0
        self.state = np.array([1, 1, self._reuses, _STAGED, 0, 0], np.int64)
        self.projected = {one.number: np.zeros((0, config.hidden), np.float32) for one in layer.relations[target]}
        width = config.hidden + 2 * config.heads
        self.sums = {one.number: np.zeros((1, width)) for one in layer.relations[target]}
        self._slot = {one.number: np.zeros(0, np.int32) for one in layer.relations[target]}
        self._used = {one.number: np.zeros(1, np.int64) for one in layer.relations[target]}
        self._changed = [np.zeros(0, np.int64) for _ in layer.reading]
        self._computed = np.zeros(0, np.int64)
        # Without reuse (windows have no limit, or too many changes) all targets share one row of sums.
        table.put(cpu_layers.SCRATCH, np.zeros((1, width)), np.float64)
        table.put(cpu_layers.PREVIOUS, np.zeros(_STAGED, np.int64), np.int64)
        for relation in layer.relations[target]:
            at = cpu_layers.of_relation.py_func
            for name, array in (
                (cpu_layers.PROJECT, relation.project[0]), (cpu_layers.PROJECT_BIAS, relation.project[1]),
                (cpu_layers.TARGET, relation.target[0]), (cpu_layers.TARGET_BIAS, relation.target[1]),
                (cpu_layers.ATTENTION, relation.attention.reshape(-1)),
                (cpu_layers.BEFORE, np.zeros((_STAGED, config.hidden), np.float32)),
            ):  # fmt: skip
                table.put(at(relation.number, name), array, np.float32)
            table.put(at(relation.number, cpu_layers.USED), self._used[relation.number], np.int64)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the cache in memory; rows of sums that were never used take none."""
        held: list[NDArray[Any]] = [self._computed, *self.projected.values(), *self._slot.values(), *self._changed]
        used = sum(int(self._used[number][0]) * int(sums[0].nbytes) for number, sums in self.sums.items())
        return used + sum(int(array.nbytes) for array in held)

    def ensure_capacity(self, kind: int, size: int) -> None:
        """Grow the cache to hold `size` rows of a node type."""
        table, of_relation = self._table, cpu_layers.of_relation.py_func
        for relation in self._layer.reading[kind]:
            number = relation.number
            self.projected[number] = grown(self.projected[number], size)
            table.put(of_relation(number, cpu_layers.PROJECTED), self.projected[number], np.float32)
        self._changed[kind] = grown(self._changed[kind], size)
        table.put(cpu_layers.of_type.py_func(kind, cpu_layers.CHANGED), self._changed[kind], np.int64)
        if kind != self._target:
            return
        self._computed = grown(self._computed, size, _INVALID)
        table.put(cpu_layers.COMPUTED, self._computed, np.int64)
        table.put(cpu_layers.NO_SLOTS, np.zeros(size, np.int32), np.int32)
        for relation in self._layer.relations[kind]:
            number = relation.number
            self._slot[number] = grown(self._slot[number], size, -1)
            table.put(of_relation(number, cpu_layers.SLOT), self._slot[number], np.int32)
            if self._reuses:
                # One row for each target, although only used ones are touched: pages that are not take no memory.
                self.sums[number] = grown(self.sums[number], size, used=int(self._used[number][0]))
            table.put(of_relation(number, cpu_layers.SUMS), self.sums[number], np.float64)


def grown(array: NDArray[Any], size: int, value: int = 0, *, used: int | None = None) -> NDArray[Any]:
    """Return a copy of the array with `size` rows; new rows hold `value`.

    Args:
        array: The array.
        size: Rows of the copy.
        value: Value of new rows.
        used: Rows that are copied; None for all.
    """
    rows = len(array) if used is None else used
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    if value:
        longer[rows:] = value
    longer[:rows] = array[:rows]
    return longer
