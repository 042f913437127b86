"""Migration of a state to the present format: written beside the old state, then renamed to its folder.

The old state stays unchanged until the new one is complete, so a crash leaves one or the other.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from graphstate.errors import FormatError
from graphstate.storage import row_layouts
from graphstate.storage.journal import pack
from graphstate.storage.register_tables import TABLES, RegisterTables
from graphstate.storage.store import FAMILIES, Store
from graphstate.types import CONTENT, RELATIONS, USER, Progress, source_hash

Row = tuple[str, bytes, bytes]
"""Family, key, value."""

BATCH = 50_000
_UNSHARED = b"u"
"""A table of format 3."""
_REGISTERS_3, _MASK_3, _PUBLISHED_3 = 24, 20, 16
"""Bytes of a user's registers, which precede the id in format 3, of the mask of its counters, of an `outputs` row."""
_CONTENT_3 = 45
"""Bytes of a content's fields in format 3; labels follow in format 4."""
_NO_LABELS = struct.pack("<iB", -1, 0)
BEHIND, BESIDE = ".old-", ".migrating-"


def migrate(folder: Path, stored: int, target: int, progress: Progress) -> None:
    """Migrate the state in a folder to a later format, one format after the other.

    Args:
        folder: The folder.
        stored: The state's format.
        target: The format to reach.
        progress: Receives progress reports.

    Raises:
        FormatError: The state's format is newer than the target or older than `OLDEST`.
    """
    if stored > target:
        raise FormatError(f"{folder} has format {stored}, this version reads {target}: run the release that wrote it")
    for version in range(stored, target):
        step = _STEPS.get(version)
        if step is None:
            raise FormatError(
                f"{folder} has format {stored}, too old to read (the oldest is {OLDEST}): remove the folder, and the "
                "worker rebuilds the state from the log"
            )
        beside, behind = folder.with_name(BESIDE + folder.name), folder.with_name(BEHIND + folder.name)
        shutil.rmtree(beside, ignore_errors=True)
        _copy(folder, beside, step, progress)
        shutil.rmtree(behind, ignore_errors=True)
        folder.rename(behind)
        beside.rename(folder)
        recover(folder)


def recover(folder: Path) -> None:
    """Undo or complete a migration that a crash interrupted."""
    beside, behind = folder.with_name(BESIDE + folder.name), folder.with_name(BEHIND + folder.name)
    if behind.exists() and not folder.exists():
        behind.rename(folder)
    elif behind.exists():
        # Rename it before removing it: half removed it must not be restored as the old state.
        shutil.rmtree(beside, ignore_errors=True)
        behind.rename(beside)
    shutil.rmtree(beside, ignore_errors=True)


def recover_all(datadir: Path) -> None:
    """Call `recover` for every state in a worker's folder, also for one whose folder is missing."""
    for left in (*datadir.glob(f"{BEHIND}*"), *datadir.glob(f"{BESIDE}*")):
        recover(left.with_name(left.name.removeprefix(BEHIND).removeprefix(BESIDE)))


def _copy(folder: Path, beside: Path, step: Callable[[Store], Iterator[Row]], progress: Progress) -> None:
    old, new = Store(folder, read_only=True), Store(beside)
    try:
        for done, (family, key, value) in enumerate(step(old)):
            new.write(family, key, value)
            if done % BATCH == 0:
                new.commit()
                progress("migrating", done, 0)
        new.commit()
    finally:
        old.close()
        new.close()


# From format 2 to 3: only the counters of a user that are not zero


def _from_2(old: Store) -> Iterator[Row]:
    for family in FAMILIES:
        for key, value in old.rows(family):
            yield family, key, _packed_3(value) if family == "counters" else value
    yield "meta", b"format", b"3"


def _packed_3(value: bytes) -> bytes:
    words = np.frombuffer(value, "<u4")
    nonzero = words != 0
    mask: bytes = np.packbits(nonzero, bitorder="little").tobytes()
    present: bytes = words[nonzero].tobytes()
    return mask + present


# From format 3 to 4: the registers of edges in the journal, and no index of edges but of other shards' contents


def _from_3(old: Store) -> Iterator[Row]:
    spec = json.loads(dict(old.rows("meta"))[b"spec"])
    owned = _owned(old, spec["shards"], spec["shard"]) if spec["shards"] > 1 else None
    registers = RegisterTables()
    for key, value in old.rows("edges"):
        if key[0] in TABLES:
            registers.note(key, value)
        elif key[0] >= len(RELATIONS):
            if key[:1] != _UNSHARED:
                yield "edges", key, value
        elif owned is not None and RELATIONS[key[0]].source == CONTENT:
            source, target = int.from_bytes(key[-4:], "big"), int.from_bytes(key[1:5], "big")
            if (CONTENT, source) not in owned and (RELATIONS[key[0]].target, target) in owned:
                yield "edges", key, value
    _published_4(old, registers)
    for number, sections in enumerate(registers.dump(BATCH), 1):
        yield "journal", number.to_bytes(8, "big"), pack(sections)
    yield from _users_4(old)
    for family in ("mirrors", "meta"):
        for key, value in old.rows(family):
            yield family, key, value
    yield "meta", b"format", b"4"


def _published_4(old: Store, registers: RegisterTables) -> None:
    """Move what was published of users to the journal; a value that cannot be read is published again."""
    for key, value in old.rows("outputs"):
        if len(value) == _PUBLISHED_3:
            entry = np.array([(row_layouts.read_node(key)[1], *np.frombuffer(value, "<i8"))], np.int64)
            registers.published.load(entry)


def _users_4(old: Store) -> Iterator[Row]:
    """Move the registers of users from their records to the beginning of their counters; contents have no labels."""
    registers = {}
    for key, value in old.rows("nodes"):
        is_user = row_layouts.read_node(key)[0] == USER
        if is_user:
            registers[key] = value[:_REGISTERS_3]
            yield "nodes", key, value[_REGISTERS_3:]
        elif row_layouts.read_node(key)[0] == CONTENT:
            yield "nodes", key, value[:_CONTENT_3] + _NO_LABELS + value[_CONTENT_3:]
        else:
            yield "nodes", key, value
    for key, value in old.rows("counters"):
        yield "counters", key, registers.pop(key) + value
    for key, value in registers.items():
        yield "counters", key, value + bytes(_MASK_3)


def _owned(old: Store, shards: int, shard: int) -> set[tuple[int, int]]:
    """Return the nodes (type, row) that the shard owns."""
    owned = set()
    for key, value in old.rows("nodes"):
        kind, row = row_layouts.read_node(key)
        if kind == USER and not value[_REGISTERS_3]:
            begin = _REGISTERS_3 + 1
            hashed = int.from_bytes(value[begin : begin + 8], "big")
        else:
            begin = (_REGISTERS_3 + 1, _CONTENT_3, 4)[kind]
            hashed = source_hash(value[begin:].decode())
        if hashed % shards == shard:
            owned.add((kind, row))
    return owned


_STEPS: dict[int, Callable[[Store], Iterator[Row]]] = {2: _from_2, 3: _from_3}

OLDEST = min(_STEPS)
"""The oldest format that can be migrated."""
