"""Inspect and verify a state on disk without changing it."""

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
from graphstate.storage.checkpoints.manifest import Manifest, describe, read_meta
from graphstate.storage.row_layouts import NEVER
from graphstate.types import COMMUNITY, CONTENT, FOLLOWS, MEMBER_OF, RELATIONS, SHARED, USER, GraphSpec, Int64s
from graphstate.types import CREATED as CREATED_RELATION

NODES = ("users", "contents", "communities")
_NAMED = 3
"""Maximum nodes that a finding names."""


def inspect(folder: Path, *, count: bool = True) -> dict[str, Any]:
    """Return the metadata of a state: format, offsets, model, bytes, spec; counted: clock (µs), nodes, edges.

    Args:
        folder: The folder of the state.
        count: Load the graph and count. The counts are None without it, and for another format than this version's.

    Raises:
        GraphError: The folder cannot be read as a state.
    """
    about = _about(folder)
    result: dict[str, Any] = {
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
        return result
    state = _open(folder, about)
    try:
        result["clock"] = None if state.clock == NEVER else state.clock
        result |= {name: len(table.index) for name, table in zip(NODES, state.tables, strict=True)}
        result["live_users"] = int(state.live_users().sum())
        result["edges"] = {
            relation.name: int(_degree(state, number).sum()) for number, relation in enumerate(RELATIONS)
        }
    finally:
        state.close()
    return result


def verify(folder: Path) -> Iterator[str]:
    """Yield the faults of a state, one line each: damaged blocks, another format, counters that contradict edges."""
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
        yield f"it has format {about.format}, this version reads {FORMAT}: start a worker to migrate it"
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
    """Read all rows with checksums and yield the errors; at a damaged block an iterator ends with an error status."""
    try:
        names = Rdict.list_cf(str(folder), Options(raw_mode=True))
        options = {name: Options(raw_mode=True) for name in names}
        database = Rdict(str(folder), Options(raw_mode=True), options, AccessType.read_only())
    except Exception as error:  # noqa: BLE001 - rocksdict raises bare exceptions
        yield f"RocksDB cannot open it, restore a checkpoint: {error}"
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
    """Return the number of in-edges in the index, `[n]` by row of the relation's target type."""
    rows = state.tables[RELATIONS[relation].target].rows
    degree: Int64s = np.asarray(state.windows.rows.degree[relation][:rows], np.int64)
    return degree


def _disagreements(state: GraphState, about: Manifest) -> Iterator[str]:
    """Compare counters with the index of edges, which other code writes; mirrored nodes have neither."""
    users, contents, communities = state.tables
    checks = (
        ("followers", USER, users.counts[:, FOLLOWERS], FOLLOWS, False),
        # Eviction removes edges and keeps counters.
        ("contents created", USER, users.counts[:, CREATED], CREATED_RELATION, about.spec["retention_s"] > 0),
        ("sharers", CONTENT, contents.sharers, SHARED, False),
        ("members", COMMUNITY, communities.members, MEMBER_OF, False),
    )
    for what, kind, counter, relation, may_exceed in checks:
        degree = _degree(state, relation)
        counted = np.asarray(counter[: len(degree)], np.int64)
        wrong: NDArray[np.bool_] = counted < degree if may_exceed else counted != degree
        rows = np.flatnonzero(wrong)
        if len(rows):
            ids = state.tables[kind].ids
            named = [f"{ids[row]} counts {counted[row]}, has {degree[row]}" for row in rows[:_NAMED]]
            yield f"{what}: {len(rows)} nodes disagree with their {RELATIONS[relation].name} edges ({'; '.join(named)})"
