"""Looking at a state on disk without changing it: what it says of itself, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rocksdict import AccessType, Options, Rdict, ReadOptions

from graphstate.errors import GraphError
from graphstate.memory.node_tables import CREATED, FOLLOWERS
from graphstate.state import FORMAT, GraphState
from graphstate.storage.manifest import Manifest, describe, read_meta
from graphstate.storage.row_layouts import NEVER
from graphstate.types import COMMUNITY, CONTENT, FOLLOWS, MEMBER_OF, RELATIONS, SHARED, USER, GraphSpec, Int64s
from graphstate.types import CREATED as CREATED_RELATION

NODES = ("users", "contents", "communities")
_NAMED = 3
"""Nodes that a finding names; there may be millions."""


def inspect(folder: Path, *, count: bool = True) -> dict[str, Any]:
    """What a state says of itself: format, offsets, model, bytes, spec; counted: clock (µs), nodes, edges.

    Counting loads the graph; it is left out, and so None, for another format than this version's.

    Raises:
        GraphError: the folder cannot be read as a state.
    """
    about = _about(folder)
    found: dict[str, Any] = {
        "format": about.format,
        "shards": about.shards,
        "next_offset": about.next_offset,
        "offsets": about.offsets,
        "model": about.artifact,
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "clock": None,
        **dict.fromkeys(NODES),
        "live_users": None,
        "edges": None,
        "spec": about.spec,
    }
    if not count or about.format != FORMAT:
        return found
    state = _open(folder, about)
    try:
        found["clock"] = None if state.clock == NEVER else state.clock
        found |= {name: len(table.index) for name, table in zip(NODES, state.tables, strict=True)}
        found["live_users"] = int(state.live_users().sum())
        found["edges"] = {relation.name: int(_degree(state, at).sum()) for at, relation in enumerate(RELATIONS)}
    finally:
        state.close()
    return found


def verify(folder: Path) -> Iterator[str]:
    """What is wrong with a state, one line each: blocks that are not what was written, another format, counters
    that are not what the edges add up to.
    """
    try:
        about = _about(folder)
    except GraphError as error:
        yield str(error)
        return
    damaged = list(_unreadable(folder))
    yield from damaged
    if damaged:
        return
    if about.format != FORMAT:
        yield f"it has format {about.format}, this version reads {FORMAT}; a worker migrates it if it can"
        return
    try:
        state = _open(folder, about)
    except GraphError as error:
        yield str(error)
        return
    try:
        yield from _disagreements(state, about)
    finally:
        state.close()


def _about(folder: Path) -> Manifest:
    return describe(read_meta(folder), log="", shard=0, shards=1, created_s=0.0)


def _open(folder: Path, about: Manifest) -> GraphState:
    return GraphState.open(folder, GraphSpec(**about.spec), read_only=True)


def _unreadable(folder: Path) -> Iterator[str]:
    """Read every row with its block's checksum. An iterator that meets a bad block just ends: its status tells."""
    try:
        names = Rdict.list_cf(str(folder), Options(raw_mode=True))
        options = {name: Options(raw_mode=True) for name in names}
        database = Rdict(str(folder), Options(raw_mode=True), options, AccessType.read_only())
    except Exception as error:  # noqa: BLE001 - rocksdict raises bare exceptions
        yield f"RocksDB cannot open it: {error}"
        return
    for name in names:
        family = database.get_column_family(name)
        reading = ReadOptions()
        reading.set_verify_checksums(True)
        rows = family.iter(reading)
        try:
            rows.seek_to_first()
            while rows.valid():
                rows.value()
                rows.next()
            rows.status()
        except Exception as error:  # noqa: BLE001 - see above
            yield f"family {name}: {error}"
        del rows
        family.close()
    database.close()


def _degree(state: GraphState, relation: int) -> Int64s:
    """The number of in-edges that the index holds, of each row of the relation's target type."""
    rows = state.tables[RELATIONS[relation].target].rows
    degree: Int64s = np.asarray(state.windows.rows.degree[relation][:rows], np.int64)
    return degree


def _disagreements(state: GraphState, about: Manifest) -> Iterator[str]:
    """Counters against the index of edges: they are written by different code. Mirrored nodes have neither."""
    users, contents, communities = state.tables
    checks = (
        ("followers", USER, users.counts[:, FOLLOWERS], FOLLOWS, False),
        # Of evicted contents the edges go and the counts stay.
        ("contents created", USER, users.counts[:, CREATED], CREATED_RELATION, about.spec["retention_s"] > 0),
        ("sharers", CONTENT, contents.sharers, SHARED, False),
        ("members", COMMUNITY, communities.members, MEMBER_OF, False),
    )
    for what, kind, counter, relation, more_is_well in checks:
        degree = _degree(state, relation)
        counted = np.asarray(counter[: len(degree)], np.int64)
        wrong: NDArray[np.bool_] = counted < degree if more_is_well else counted != degree
        rows = np.flatnonzero(wrong)
        if len(rows):
            ids = state.tables[kind].ids
            some = [f"{ids[row]} counts {counted[row]}, has {degree[row]}" for row in rows[:_NAMED]]
            yield f"{what}: {len(rows)} nodes disagree with their {RELATIONS[relation].name} edges ({'; '.join(some)})"
