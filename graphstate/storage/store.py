"""One RocksDB and the changes not yet written to it: reads see both, a commit writes them as one batch."""

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
    BlockBasedIndexType,
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    Checkpoint,
    ColumnFamily,
    CompactOptions,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
)

from graphstate.errors import DamagedError, GraphError, LockedError

Groups = dict[bytes, list[bytes]]
"""Keys by their first bytes."""
Keys = Callable[..., list[bytes]]
"""What `Store.search` returns."""
FAMILIES = ("nodes", "edges", "counters", "outputs", "mirrors", "meta")
PREFIX = 5
"""Every scan is of keys that share at least this many first bytes."""

_MEMTABLE_BYTES = 32 << 20
_BUDGET_BYTES = 128 << 20
_MEMTABLE_FILTER = 0.01
"""Of a memtable's bytes: about seven bits a row."""


class Memory:
    """What RocksDB may take for blocks, filters, memtables, in bytes; stores that are given the same one share it."""

    def __init__(self, budget: int = _BUDGET_BYTES) -> None:
        self.cache = Cache(budget)
        self.memtables = WriteBufferManager.new_write_buffer_manager_with_cache(budget // 2, False, self.cache)


def _options(memory: Memory, family: str = "") -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(_MEMTABLE_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_write_buffer_manager(memory.memtables)
    options.set_max_total_wal_size(256 << 20)
    options.set_keep_log_file_num(3)
    if family == "nodes":
        # Ids are here and nowhere else: uncompressed, so that a search of the files finds whoever is in them.
        options.set_compression_type(DBCompressionType.none())
    if family == "edges":
        # Most reads are of registers that are not there yet: a filter says so of memtables, as one does of files.
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(_MEMTABLE_FILTER)
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(10, False)
    blocks.set_block_cache(memory.cache)
    # Filters and indexes grow with the state. Cut into blocks they live in the cache, within its budget; whole ones are
    # larger than a part of a small cache, and would be read from the file again for every row that is looked for.
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_pin_top_level_index_and_filter(True)
    options.set_block_based_table_factory(blocks)
    return options


def _whole(rows: RdictIter) -> None:
    """A block that cannot be read ends an iterator as its end does; raise DamagedError for it."""
    try:
        rows.status()
    except Exception as error:  # rocksdict raises bare exceptions
        raise DamagedError(f"a part of the state cannot be read: restore or remove it ({error})") from error


class Store:
    """Column families of one RocksDB with the pending changes of one micro-batch over `edges`.

    `edges` keys are read and scanned through the pending changes; the other families are only written,
    and read once by `rows` when the state is loaded. staged: the pending rows of `edges`, None for a removal;
    it may be written to, and nothing is ever taken out of it.
    """

    def __init__(self, path: Path, memory: Memory | None = None, *, read_only: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        memory = memory or Memory()
        options = _options(memory)
        access = AccessType.read_only() if read_only else AccessType.read_write()
        try:
            self._db = Rdict(str(path), options, {name: _options(memory, name) for name in FAMILIES}, access)
        except Exception as error:  # rocksdict raises bare exceptions
            if "lock" in str(error).lower():
                raise LockedError(f"{path} is open in another process: stop that worker first ({error})") from error
            if "no space" in str(error).lower():
                raise GraphError(f"{path} cannot be opened ({error}): make room on its disk and start again") from error
            raise DamagedError(f"{path} cannot be opened: restore or remove it ({error})") from error
        self._path = path
        self._rewriting = Lock()
        self._closing = False
        self._families: dict[str, Rdict] = {name: self._db.get_column_family(name) for name in FAMILIES}
        self._handles: dict[str, ColumnFamily] = {name: self._db.get_column_family_handle(name) for name in FAMILIES}
        self._edges = self._families["edges"]
        self._read = self._edges.get
        self._failed = False
        self.staged: dict[bytes, bytes | None] = {}
        self._groups: dict[int, Groups] = {}
        self._grouped: dict[int, int] = {}
        self._writes: dict[str, dict[bytes, bytes | None]] = {name: {} for name in FAMILIES}

    def get(self, key: bytes) -> bytes | None:
        """The value of an `edges` key, pending changes included."""
        if key in self.staged:
            return self.staged[key]
        value: bytes | None = self._read(key)
        return value

    def gets(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of some `edges` keys, pending changes included; cheaper than one by one."""
        staged = self.staged
        stored = [key for key in keys if key not in staged]
        read: Any = self._read
        found: dict[bytes, bytes | None] = dict(zip(stored, read(stored), strict=True)) if stored else {}
        return [staged[key] if key in staged else found[key] for key in keys]

    def put(self, key: bytes, value: bytes) -> None:
        """Stage an `edges` row."""
        self.staged[key] = value

    def delete(self, key: bytes) -> None:
        """Stage the removal of an `edges` row."""
        self.staged[key] = None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The `edges` rows that begin with prefix (≥ 5 bytes), in key order, pending changes included.

        Changes staged while the iterator is open may or may not be seen: take a list before changing.
        """
        staged, group = self.staged, self._group(prefix)
        stored = self._stored(prefix)
        if not group:
            return stored
        found = sorted((key, value) for key in group if key.startswith(prefix) and (value := staged[key]) is not None)
        return merge(((key, value) for key, value in stored if key not in staged), found)

    def _group(self, prefix: bytes) -> list[bytes] | None:
        """The staged keys that have their first bytes in common with a prefix."""
        staged, table = self.staged, prefix[0]
        groups = self._groups.setdefault(table, {})
        new = len(staged) - self._grouped.get(table, 0)
        if new:
            # Most micro-batches scan few tables: their keys are put into groups when a scan asks, new ones at the end.
            for key in islice(reversed(staged), new):
                if key[0] == table:
                    groups.setdefault(key[:PREFIX], []).append(key)
            self._grouped[table] = len(staged)
        return groups.get(prefix[:PREFIX])

    def firsts(
        self, prefixes: Iterable[bytes], most: int, passes: Callable[[bytes], bool] | None = None
    ) -> Iterator[list[bytes]]:
        """Per prefix the first keys of its `scan`, up to so many, without those that `passes` is true of."""
        keys = self.search()
        return (keys(prefix, most, passes) for prefix in prefixes)

    def search(self) -> Keys:
        """What finds the keys of one prefix after the other, pending changes included.

        One iterator for all of them, which a prefix with fewer keys than are asked for lets read on behind it.
        """
        rows = self._edges.iter()
        seek, valid, key_of, following = rows.seek, rows.valid, rows.key, rows.next

        def keys(
            prefix: bytes, most: int = 0, passes: Callable[[bytes], bool] | None = None, *, pending: bool = True
        ) -> list[bytes]:
            """The first so many keys (0: all) of a prefix, without those that `passes` is true of.

            pending: False where the caller knows that nothing with this prefix was added since the last commit.
            """
            staged = self.staged
            group = self._group(prefix) if pending else None
            found: list[bytes] = []
            seek(prefix)
            while valid() and (key := key_of()).startswith(prefix):
                if key not in staged and not (passes and passes(key)):
                    found.append(key)
                    if len(found) == most:
                        break
                following()
            else:
                if not valid():
                    _whole(rows)
            if group is not None:
                new = (key for key in group if staged[key] is not None and key.startswith(prefix))
                found = sorted([*found, *(key for key in new if not (passes and passes(key)))])
                found = found[:most] if most else found
            return found

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
        """All committed rows of a family, in key order."""
        rows = self._families[family].iter()
        rows.seek_to_first()
        while rows.valid():
            yield rows.key(), rows.value()
            rows.next()
        _whole(rows)

    def chunks(self, before: bytes, size: int) -> Iterator[list[bytes]]:
        """The committed keys of `edges` before a key, in their order, so many at a time."""
        read = ReadOptions()
        read.set_iterate_upper_bound(before)
        rows = self._edges.iter(read)
        rows.seek_to_first()
        valid, key, following = rows.valid, rows.key, rows.next
        found: list[bytes] = []
        while valid():
            found.append(key())
            following()
            if len(found) == size:
                yield found
                found = []
        _whole(rows)
        if found:
            yield found

    def commit(self) -> int:
        """Write everything staged as one WriteBatch; returns the number of rows."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for name, writes in (("edges", self.staged), *self._writes.items()):
            # A family that is named with every row costs a fifth of all this.
            batch.set_default_column_family(self._handles[name])
            for key, value in writes.items():
                if value is None:
                    delete(key)
                else:
                    put(key, value)
        rows = len(batch)
        try:
            self._db.write(batch)
        except Exception as error:  # rocksdict raises bare exceptions
            self._failed = True
            raise GraphError(f"the state cannot be written ({error}): make room on its disk and start again") from error
        self.discard()
        return rows

    def discard(self) -> None:
        """Forget everything staged."""
        self.staged = {}
        self._groups, self._grouped = {}, {}
        self._writes = {name: {} for name in FAMILIES}

    def sizes(self) -> dict[str, int]:
        """Bytes in memtables and SST files, and pending compaction, by RocksDB's own account."""
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

    @property
    def stalled(self) -> bool:
        """Whether RocksDB holds writes back, or has stopped them, until files are compacted."""
        names = ("rocksdb.is-write-stopped", "rocksdb.actual-delayed-write-rate")
        return any(family.property_int_value(name) for family in self._families.values() for name in names)

    def flush(self) -> None:
        """Begin to write memtables out, beside all other work: a checkpoint soon after has little left to wait for."""
        for family in self._families.values():
            family.flush(False)

    def committed(self, family: str, key: bytes) -> bytes | None:
        """A committed value."""
        value: bytes | None = self._families[family].get(key)
        return value

    def remove(self, family: str, key: bytes) -> None:
        """Remove a row at once, whatever is staged."""
        self._families[family].delete(key)

    def rewrite(self) -> bool:
        """Write all files anew, so that what was removed or replaced is in none of them; the one call for another
        thread, beside all others. Returns False if `close` ended it early.

        Raises:
            GraphError: some file could not be.
        """
        with self._rewriting:
            try:
                failure = self._rewrite()
            except Exception as error:  # noqa: BLE001 - rocksdict raises bare exceptions
                # Not raised from here: its frames would keep a database open that `close` waits to close.
                failure = str(error)
            if self._closing:
                return False
        if not failure:
            return True
        raise GraphError(f"the files of {self._path} could not be written anew ({failure}): is the disk full?")

    def _rewrite(self) -> str:
        before = {name for name, size in self._data_files().items() if size}
        # All of them first: then no log is needed any more. One with nothing to flush would keep its log.
        if self._families:
            self._families["meta"].delete(b"")
        for family in list(self._families.values()):
            family.flush(True)
        for family in list(self._families.values()):
            whole = CompactOptions()
            whole.set_bottommost_level_compaction(BottommostLevelCompaction.force_optimized())
            whole.set_exclusive_manual_compaction(False)
            family.compact_range(None, None, whole)
        # RocksDB tells nobody here whether a compaction failed: the files do.
        left = sorted(before & self._data_files().keys())
        return f"{left[0]} and {len(left) - 1} more are still there" if left else ""

    def _data_files(self) -> dict[str, int]:
        found = {}
        for path in self._path.iterdir():
            with suppress(FileNotFoundError):
                if path.suffix in {".sst", ".log"}:
                    found[path.name] = path.stat().st_size
        return found

    def checkpoint(self, folder: Path) -> None:
        """Put what is committed into a folder of its own, which must not exist; SST files are hard links."""
        Checkpoint(self._db).create_checkpoint(str(folder))

    def close(self) -> None:
        """Close the database; the lock is free afterwards."""
        self._closing = True
        ended = not self._rewriting.acquire(blocking=False)
        if ended:
            self._db.cancel_all_background(True)
            self._rewriting.acquire()
        try:
            self._handles.clear()
            for family in [*self._families.values(), self._db]:
                # What cannot be flushed, because the disk is full or the work was ended, is in RocksDB's log.
                with suppress(Exception):
                    family.close()
            self._families.clear()
            del self._edges, self._read, self._db
        finally:
            self._rewriting.release()
