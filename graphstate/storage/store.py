"""One RocksDB with staged changes: reads of `edges` see both, a commit writes the changes as one WriteBatch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from heapq import merge
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from rocksdict import (
    AccessType,
    BottommostLevelCompaction,
    Checkpoint,
    ColumnFamily,
    CompactOptions,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
)

from graphstate.errors import DamagedError, GraphError, LockedError
from graphstate.storage.options import RocksDbBudget, options
from graphstate.storage.register_tables import TABLES, RegisterTables

Groups = dict[bytes, list[bytes]]
"""Keys by their first `PREFIX` bytes."""
Keys = Callable[..., list[bytes]]
"""The function that `Store.search` returns."""
FAMILIES = ("nodes", "edges", "journal", "counters", "outputs", "mirrors", "meta")
PREFIX = 5
"""Scans are of prefixes of at least this many bytes: the table byte and a row."""


def _whole(rows: RdictIter) -> None:
    """Raise DamagedError if an unreadable block ended the iterator, which looks like its end."""
    try:
        rows.status()
    except Exception as error:  # rocksdict raises bare exceptions
        raise DamagedError(f"a part of the state cannot be read: restore or remove it ({error})") from error


def _present(path: Path) -> list[str]:
    """Return the families that a database has."""
    names = Rdict.list_cf(str(path), Options(raw_mode=True))
    return [name for name in FAMILIES if name in names]


class StagedRows:
    """Rows of `edges` that are not written yet, None for a removal, with an index of their first bytes."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self._groups: dict[int, Groups] = {}
        self._grouped: dict[int, int] = {}

    def group(self, prefix: bytes) -> list[bytes]:
        """Return the keys that share the first `PREFIX` bytes of a prefix."""
        rows, table = self.rows, prefix[0]
        groups = self._groups.setdefault(table, {})
        new = len(rows) - self._grouped.get(table, 0)
        if new:
            # Most micro-batches scan few tables: keys are grouped on the first scan of a table, later ones appended.
            for key in islice(reversed(rows), new):
                if key[0] == table:
                    groups.setdefault(key[:PREFIX], []).append(key)
            self._grouped[table] = len(rows)
        return groups.get(prefix[:PREFIX], [])


# large class: the one place that touches RocksDB's handles, which must close in order; most methods are a few lines
class Store:
    """Column families of one RocksDB with the staged changes of one micro-batch.

    `prepare` makes a WriteBatch of the staged changes, and `write_prepared` writes it, at the latest before the next
    `prepare`. In between the next micro-batch stages its own. Reads and scans of `edges` see both; the other families
    are only written, and read by `rows` when the state is loaded.

    Args:
        path: The folder; it is created if it does not exist.
        budget: RocksDB's memory; None creates one of its own.
        read_only: Open without a lock.

    Attributes:
        staged: The staged rows of `edges`, None for a removal. Callers may add entries and must not remove any.
        registers: The rows of the tables that decide events, in memory; `get`, `put` and `delete` of these use it.

    Raises:
        LockedError: Another process has it open.
        GraphError: The disk is full.
        DamagedError: RocksDB cannot open it.
    """

    def __init__(self, path: Path, budget: RocksDbBudget | None = None, *, read_only: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        budget = budget or RocksDbBudget()
        access = AccessType.read_only() if read_only else AccessType.read_write()
        try:
            # A folder of an earlier format lacks some families, and a read-only database cannot add them.
            names = _present(path) if read_only else FAMILIES
            self._db = Rdict(str(path), options(budget), {name: options(budget, name) for name in names}, access)
        except Exception as error:  # rocksdict raises bare exceptions
            if "lock" in str(error).lower():
                raise LockedError(f"{path} is open in another process: stop that worker first ({error})") from error
            if "no space" in str(error).lower():
                raise GraphError(f"{path} cannot be opened ({error}): make room on its disk and start again") from error
            raise DamagedError(f"{path} cannot be opened: restore or remove it ({error})") from error
        self._path = path
        self._rewriting = Lock()
        self._closing = False
        self._families: dict[str, Rdict] = {name: self._db.get_column_family(name) for name in names}
        self._handles: dict[str, ColumnFamily] = {name: self._db.get_column_family_handle(name) for name in names}
        self._edges = self._families["edges"]
        self._read = self._edges.get
        self._failed = False
        self._changes, self._sealed = StagedRows(), StagedRows()
        self.staged = self._changes.rows
        self._prepared: WriteBatch | None = None
        self.registers = RegisterTables()
        self._writes: dict[str, dict[bytes, bytes | None]] = {name: {} for name in FAMILIES}
        self._sealed_writes = self._writes

    @property
    def prepared(self) -> bool:
        """Whether a prepared WriteBatch waits for `write_prepared`."""
        return self._prepared is not None

    def get(self, key: bytes) -> bytes | None:
        """Return the value of an `edges` key, staged changes included; None if it has none."""
        if key[0] in TABLES:
            return self.registers.get(key)
        if key in self.staged:
            return self.staged[key]
        if key in self._sealed.rows:
            return self._sealed.rows[key]
        value: bytes | None = self._read(key)
        return value

    def gets(self, keys: list[bytes]) -> list[bytes | None]:
        """Return the values of `edges` keys, staged changes included; faster than one `get` per key."""
        if keys and keys[0][0] in TABLES:
            return list(map(self.registers.get, keys))
        staged = {**self._sealed.rows, **self.staged} if self._sealed.rows else self.staged
        stored = [key for key in keys if key not in staged]
        read: Any = self._read
        values: dict[bytes, bytes | None] = dict(zip(stored, read(stored), strict=True)) if stored else {}
        return [staged[key] if key in staged else values[key] for key in keys]

    def put(self, key: bytes, value: bytes) -> None:
        """Stage an `edges` row."""
        if key[0] in TABLES:
            self.registers.note(key, value)
        else:
            self.staged[key] = value

    def delete(self, key: bytes) -> None:
        """Stage the removal of an `edges` row."""
        if key[0] in TABLES:
            self.registers.note(key, None)
        else:
            self.staged[key] = None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Return the `edges` rows with a prefix of at least 5 bytes, in key order, staged changes included.

        Changes staged while the iterator is open may be missing from it: make a list before staging changes.
        """
        changes, stored = self._unwritten(prefix), self._stored(prefix)
        if not changes:
            return stored
        new = sorted((key, value) for key, value in changes.items() if key.startswith(prefix) and value is not None)
        return merge(((key, value) for key, value in stored if key not in changes), new)

    def _unwritten(self, prefix: bytes, *, staged: bool = True) -> dict[bytes, bytes | None]:
        """Return the changes of rows that share the first `PREFIX` bytes of a prefix and are not written yet.

        Args:
            prefix: The prefix.
            staged: Whether those staged since the last `prepare` are included.
        """
        parts = (self._sealed, self._changes) if staged else (self._sealed,)
        return {key: part.rows[key] for part in parts if part.rows for key in part.group(prefix)}

    def search(self) -> Keys:
        """Return a function that returns the keys of a prefix, staged changes included.

        All calls share one iterator. If a prefix has fewer keys than requested, the iterator reads past its end.
        """
        rows = self._edges.iter()
        seek, valid, key_of, following = rows.seek, rows.valid, rows.key, rows.next

        def keys(
            prefix: bytes, most: int = 0, skip: Callable[[bytes], bool] | None = None, *, pending: bool = True
        ) -> list[bytes]:
            """Return up to `most` keys of a prefix (0: all), without those that `skip` returns true for.

            pending: False if no key with this prefix was added in this micro-batch.
            """
            staged, sealed = self.staged, self._sealed.rows
            changes = self._unwritten(prefix, staged=pending)
            selected: list[bytes] = []
            seek(prefix)
            while valid() and (key := key_of()).startswith(prefix):
                if key not in staged and key not in sealed and not (skip and skip(key)):
                    selected.append(key)
                    if len(selected) == most:
                        break
                following()
            else:
                if not valid():
                    _whole(rows)
            if changes:
                new = (key for key, value in changes.items() if key.startswith(prefix) and value is not None)
                # A prepared row may be removed by this micro-batch.
                new = (key for key in new if staged.get(key, b"") is not None)
                selected = sorted([*selected, *(key for key in new if not (skip and skip(key)))])
                selected = selected[:most] if most else selected
            return selected

        return keys

    def _stored(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        last = int.from_bytes(prefix, "big") + 1
        read = ReadOptions()
        read.set_iterate_upper_bound(last.to_bytes(len(prefix), "big"))
        rows = self._edges.iter(read)
        rows.seek(prefix)
        while rows.valid():
            yield rows.key(), rows.value()
            rows.next()
        _whole(rows)

    def write(self, family: str, key: bytes, value: bytes | None) -> None:
        """Stage a row of another family; None removes it."""
        self._writes[family][key] = value

    def write_all(self, family: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Stage many rows of another family."""
        self._writes[family].update(rows)

    def rows(self, family: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield all committed rows of a family, in key order."""
        if family not in self._families:
            return
        rows = self._families[family].iter()
        rows.seek_to_first()
        while rows.valid():
            yield rows.key(), rows.value()
            rows.next()
        _whole(rows)

    def chunks(self, before: bytes, size: int) -> Iterator[list[bytes]]:
        """Yield the committed keys of `edges` before a key, in key order, `size` at a time."""
        read = ReadOptions()
        read.set_iterate_upper_bound(before)
        rows = self._edges.iter(read)
        rows.seek_to_first()
        valid, key, following = rows.valid, rows.key, rows.next
        chunk: list[bytes] = []
        while valid():
            chunk.append(key())
            following()
            if len(chunk) == size:
                yield chunk
                chunk = []
        _whole(rows)
        if chunk:
            yield chunk

    def commit(self) -> int:
        """Write everything staged as one WriteBatch and return the number of rows.

        Raises:
            GraphError: RocksDB cannot write it.
        """
        self.prepare()
        return self.write_prepared()

    def prepare(self) -> None:
        """Make a WriteBatch of everything staged, and stage the next micro-batch from now on.

        Raises:
            RuntimeError: the last one was not written.
        """
        if self._prepared is not None:
            raise RuntimeError("Store.prepare called before the last prepared changes were written")
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for name, writes in (("edges", self.staged), *self._writes.items()):
            if not writes:
                continue
            # Passing the family with every row would add a fifth to the time.
            batch.set_default_column_family(self._handles[name])
            for key, value in writes.items():
                if value is None:
                    delete(key)
                else:
                    put(key, value)
        self._prepared, self._sealed, self._sealed_writes = batch, self._changes, self._writes
        self.discard()

    def write_prepared(self) -> int:
        """Write what `prepare` made and return the number of rows.

        Raises:
            GraphError: RocksDB cannot write it.
            RuntimeError: nothing is prepared.
        """
        if self._prepared is None:
            raise RuntimeError("Store.write_prepared called before prepare")
        rows = len(self._prepared)
        try:
            self._db.write(self._prepared)
        except Exception as error:  # rocksdict raises bare exceptions
            self._failed = True
            raise GraphError(f"the state cannot be written ({error}): make room on its disk and start again") from error
        self._prepared, self._sealed = None, StagedRows()
        self._sealed_writes = {name: {} for name in FAMILIES}
        return rows

    def discard(self) -> None:
        """Discard everything staged since the last `prepare`."""
        self._changes = StagedRows()
        self.staged = self._changes.rows
        self._writes = {name: {} for name in FAMILIES}

    def sizes(self) -> dict[str, int]:
        """Return RocksDB's counts of bytes in memtables, in SST files and in pending compactions."""
        names = (
            "rocksdb.cur-size-all-mem-tables",
            "rocksdb.total-sst-files-size",
            "rocksdb.estimate-pending-compaction-bytes",
        )
        labels = ("memtable", "sst", "pending_compaction")
        return {
            label: sum(family.property_int_value(name) or 0 for family in self._families.values())
            for label, name in zip(labels, names, strict=True)
        }

    def estimated_rows(self, family: str) -> int:
        """Return RocksDB's estimate of the number of rows of a family."""
        return self._property(family, "rocksdb.estimate-num-keys")

    def value_bytes(self, family: str) -> int:
        """Return RocksDB's estimate of the bytes of a family's rows, compressed in files."""
        names = ("rocksdb.estimate-live-data-size", "rocksdb.cur-size-all-mem-tables")
        return sum(self._property(family, name) for name in names)

    def _property(self, family: str, name: str) -> int:
        return (self._families[family].property_int_value(name) or 0) if family in self._families else 0

    @property
    def stalled(self) -> bool:
        """Whether RocksDB delays or stops writes until files are compacted."""
        names = ("rocksdb.is-write-stopped", "rocksdb.actual-delayed-write-rate")
        return any(family.property_int_value(name) for family in self._families.values() for name in names)

    def flush(self) -> None:
        """Start to flush memtables in the background, so that a checkpoint soon after waits less."""
        for family in self._families.values():
            family.flush(False)

    def committed(self, family: str, key: bytes) -> bytes | None:
        """Return a committed value, None if there is none."""
        value: bytes | None = self._families[family].get(key)
        return value

    def newest(self, family: str, key: bytes) -> bytes | None:
        """Return a staged value or else the committed one, None if there is none; not for `edges`."""
        for writes in (self._writes[family], self._sealed_writes[family]):
            if key in writes:
                return writes[key]
        return self.committed(family, key)

    def remove(self, family: str, key: bytes) -> None:
        """Remove a row at once, without the staged changes."""
        self._families[family].delete(key)

    def rewrite(self) -> bool:
        """Rewrite all files, so that none holds removed or replaced rows.

        It is the one method for a second thread, concurrent to all others.

        Returns:
            False if `close` interrupted it.

        Raises:
            GraphError: A file could not be rewritten.
        """
        with self._rewriting:
            try:
                failure = self._rewrite()
            except Exception as error:  # noqa: BLE001 - rocksdict raises bare exceptions
                # Raised outside of the lock: its frames hold references to the database, and `close` waits for them.
                failure = str(error)
            if self._closing:
                return False
        if not failure:
            return True
        raise GraphError(f"the files of {self._path} could not be rewritten ({failure}): make room on its disk")

    def _rewrite(self) -> str:
        before = {name for name, size in self._data_files().items() if size}
        # Flush all families first, so that RocksDB drops its log. A family with nothing to flush would keep the log.
        if self._families:
            self._families["meta"].delete(b"")
        for family in list(self._families.values()):
            family.flush(True)
        for family in list(self._families.values()):
            whole = CompactOptions()
            whole.set_bottommost_level_compaction(BottommostLevelCompaction.force_optimized())
            whole.set_exclusive_manual_compaction(False)
            family.compact_range(None, None, whole)
        # `compact_range` reports no failure here: a file that is still there was not rewritten.
        left = sorted(before & self._data_files().keys())
        return f"{left[0]} and {len(left) - 1} more are still there" if left else ""

    def _data_files(self) -> dict[str, int]:
        sizes = {}
        for path in self._path.iterdir():
            with suppress(FileNotFoundError):
                if path.suffix in {".sst", ".log"}:
                    sizes[path.name] = path.stat().st_size
        return sizes

    def checkpoint(self, folder: Path) -> None:
        """Write the committed rows to a folder that must not exist; SST files are hard links."""
        Checkpoint(self._db).create_checkpoint(str(folder))

    def close(self) -> None:
        """Close the database and release its lock."""
        self._closing = True
        ended = not self._rewriting.acquire(blocking=False)
        if ended:
            self._db.cancel_all_background(True)
            self._rewriting.acquire()
        try:
            self._prepared = None  # it holds families, too
            self._handles.clear()
            for family in [*self._families.values(), self._db]:
                # Rows that cannot be flushed (full disk, cancelled work) remain in RocksDB's log.
                with suppress(Exception):
                    family.close()
            self._families.clear()
            del self._edges, self._read, self._db
        finally:
            self._rewriting.release()
