"""The table of addresses, and arrays that are replaced."""

from __future__ import annotations

import numpy as np
import pytest

from model.artifact import Artifact
from model.config import TYPES, USER
from model.engine.cpu import Engine
from model.engine.cpu_layers import ArrayTable, load, of_type
from model.engine.device_sample import SampleGraph
from model.engine.device_selection import compute_all

PEOPLE = TYPES.index(USER)


def test_only_what_compiled_code_reads_is_accepted() -> None:
    """Another type or a view with gaps would be read as something else; the table keeps its arrays alive."""
    table = ArrayTable(1)
    with pytest.raises(TypeError, match="int64"):
        table.put(0, np.zeros(3, np.int64), np.int32)
    with pytest.raises(TypeError, match="contiguous"):
        table.put(0, np.zeros(6, np.int32)[::2], np.int32)
    array = np.zeros((5, 7), np.float32)
    table.put(3, array, np.float32)
    assert table.table[3].tolist() == [array.ctypes.data, 5, 7]
    table.put(3, array[:, 0].copy(), np.float32)
    assert table.table[3].tolist()[1:] == [5, 1]


def test_compiled_code_reads_and_writes_by_the_table() -> None:
    """Features are scaled into the array behind an address, in the given rows alone."""
    table, x, features = ArrayTable(1), np.zeros((4, 2), np.float32), np.arange(8, dtype=np.int32).reshape(4, 2)
    table.put(of_type.py_func(1, 0), x, np.float32)
    table.put(of_type.py_func(1, 2), features, np.int32)
    load(table.table, 1, np.array([3, 1]), 0.25)
    assert x.tolist() == [[0, 0], [0.5, 0.75], [0, 0], [1.5, 1.75]]


class Replacing(SampleGraph):
    """A graph that replaces all arrays by copies, as a state does that grows."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact.config, 300, seed=3)
        self.token = object()

    def replace(self) -> None:
        """Replace all arrays, and spoil the former ones."""
        windows = self._windows
        self._windows = [type(view)(*(array.copy() for array in view)) for view in windows]
        for view in windows:
            view.counts[:] = 0
        for former in (*self._propagated, self._own):
            former[:] += 1
        self._propagated = [array - 1 for array in self._propagated]
        self._own = self._own - 1
        self.token = object()

    def arrays(self) -> object:
        """Return another object after each replacement."""
        return self.token


def test_replaced_arrays_are_read_from_then_on() -> None:
    """After its graph replaced every array, an engine computes the same as before."""
    artifact = Artifact.default()
    graph = Replacing(artifact)
    engine = Engine(artifact.config, artifact.weights)
    compute_all(engine, graph)
    before = [engine.hidden1[PEOPLE].tobytes(), engine.hidden2.tobytes(), engine.score.tobytes()]
    graph.replace()
    compute_all(engine, graph)
    assert [engine.hidden1[PEOPLE].tobytes(), engine.hidden2.tobytes(), engine.score.tobytes()] == before
