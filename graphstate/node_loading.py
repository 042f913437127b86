"""Load the node tables when a state is opened, many rows at a time, and compile what the first events need."""

from __future__ import annotations

from array import array
from itertools import islice

import numpy as np

from graphstate.memory import counter_codec, features
from graphstate.memory.columns import as_rows
from graphstate.memory.counter_kernels import NOTHING, WIDTH, Counting
from graphstate.memory.frontier import Frontier
from graphstate.memory.labels import Labels
from graphstate.memory.node_tables import Communities, Contents, Users
from graphstate.memory.windows import Windows
from graphstate.storage import row_layouts
from graphstate.storage.store import Store
from graphstate.types import CONTENT, RELATIONS, Progress

_CHUNK = 100_000

Tables = tuple[Users, Contents, Communities]


def load(store: Store, tables: Tables, labels: Labels, progress: Progress) -> None:
    """Load the records and counters of all nodes, and the labels of contents."""
    rows, done = store.rows("nodes"), 0
    while chunk := list(islice(rows, _CHUNK)):
        keys = np.frombuffer(b"".join([key for key, _ in chunk]), row_layouts.NODE_KEYS)
        values = [value for _, value in chunk]
        for kind, table in enumerate((*tables, labels)):
            begin, end = np.searchsorted(keys["kind"], [kind, kind + 1]).tolist()
            if begin < end:
                table.restore_all(keys["row"][begin:end].astype(np.int64), values[begin:end])
        done += len(chunk)
        progress("nodes", done, 0)
    contents = tables[CONTENT]
    labels.count(contents.labels[: contents.rows])
    for content in np.flatnonzero(contents.waiting[: contents.rows]).tolist():
        for _, value in store.scan(row_layouts.prefix(row_layouts.LABEL_CLAIM, content)):
            labels.use(row_layouts.LABEL_VALUE.unpack(value)[0])
    counters = ((row_layouts.read_node(key)[1], value) for key, value in store.rows("counters"))
    for done in counter_codec.restore(tables[0], counters):
        progress("counters", done, 0)


def compile_kernels(tables: Tables, window: int, frontier: Frontier) -> None:
    """Compile the kernels that the first micro-batch may not call, so that none stalls a later one."""
    users, contents, communities = tables
    scratch = Windows(window)
    hashes = tuple(tables[relation.source].hash for relation in RELATIONS)
    scratch.change(np.zeros((1, 5), np.int64), hashes)
    scratch.refill(np.zeros((0, 2), np.int64), hashes)
    scratch.replace([(0, 0)], [1], as_rows([0]), as_rows([0]))
    Counting(users, contents, 0).add_up(array("q", [NOTHING] * WIDTH))
    features.warm_up(users, contents, communities)
    counter_codec.unpack(counter_codec.pack(users, as_rows([])))
    frontier.warm_up(scratch)
