"""Events that a mapping remembers, for records that name only the record that they take back.

A SQLite database. What a batch remembers is written in one transaction, after its events are delivered and before the
position of the source is committed, together with the cursor of a source that has no other place for its position.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

from streams.errors import InputError, one_line

Row = dict[str, Any]

UNDO = {"follow": "unfollow", "share": "unshare", "join": "leave", "create": "delete"}
"""The event that takes back each type of event."""
OTHER = {"follow": "target", "share": "content", "join": "community", "create": "content"}
"""The field of the second id of each type."""
FIRST, EARLY = "first", "undo"
"""Types of rows that are no events: a key that was seen, and an undo that came before its event (its time as JSON)."""
_EXPIRE = ("share", "create", FIRST, EARLY)
"""What is deleted after the retention: taking it back changes no score any more. Follows and memberships stay."""
_EXPIRE_EVERY = 1_000
"""Commits between two deletions of expired rows."""
_FORMAT = "1"
_TABLES = """
CREATE TABLE IF NOT EXISTS remembered
    (key BLOB PRIMARY KEY, type TEXT NOT NULL, user TEXT NOT NULL, other TEXT NOT NULL, time REAL NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Remembered(NamedTuple):
    """An event that can be taken back: its type, both ids, and its time (s)."""

    type: str
    user: str
    other: str
    time: float


class Memory:
    """The remembered events of one mapping.

    Args:
        path: the file; None: in memory, for files that are read from their beginning.
        keep_s: seconds of event time after which shares and creates are deleted; 0: never.

    Raises:
        InputError: the file cannot be opened, or another process has it open.
    """

    def __init__(self, path: Path | None = None, keep_s: float = 0) -> None:
        self._keep_s = keep_s
        self._newest_s = 0.0
        self._commits = 0
        self._record: dict[bytes, Remembered | None] = {}
        self._batch: dict[bytes, Remembered | None] = {}
        self._forgotten: set[str] = set()
        self._lock: IO[str] | None = None
        self._base: Any = None
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = path.with_name(f"{path.name}.lock").open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._base = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            self._base.executescript(_TABLES)
        except BlockingIOError:
            self.close()
            raise InputError(f"{path}: is open in another `groundswell connect`; give each its own --store") from None
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise InputError(f"{path}: is no store of `groundswell connect` ({one_line(error)})") from error
        if self._read("format", _FORMAT) != _FORMAT:
            self.close()
            raise InputError(f"{path}: was written by another version; give another --store")
        self._newest_s = float(self._read("newest", "0"))

    def _read(self, name: str, default: str = "") -> str:
        row = self._base.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else default

    @property
    def cursor(self) -> str:
        """The cursor of the last commit; empty if there is none."""
        return self._read("cursor")

    def remember(self, key: str, event: Row) -> list[Row]:
        """Remember an event under the id of its record.

        Returns:
            The event that takes it back if that record came first, as from another partition; else nothing.
        """
        name = event["type"]
        if name not in OTHER:
            return []
        before = self._get(_digest(key))
        self._put(key, Remembered(name, str(event["user"]), str(event[OTHER[name]]), 0.0))
        undone = self.undo(key, json.loads(before.user)) if before is not None and before.type == EARLY else None
        return [undone] if undone else []

    def first(self, key: str) -> bool:
        """Return whether this is the first call with a key within the retention."""
        if self._get(_digest(key)) is not None:
            return False
        self._put(key, Remembered(FIRST, "", "", 0.0))
        return True

    def undo(self, key: str, time: Any) -> Row | None:
        """Return the event that takes back a remembered one, and drop that.

        Args:
            key: the id of the record.
            time: the time of the new event.

        Returns:
            The event; None if nothing is remembered under the key: then it is returned by `remember`.
        """
        digest = _digest(key)
        event = self._get(digest)
        if event is None or event.type == EARLY:
            self._put(key, Remembered(EARLY, json.dumps(time), "", 0.0))
            return None
        if event.type == FIRST:
            return None
        self._record[digest] = None
        return {"type": UNDO[event.type], "time": time, "user": event.user, OTHER[event.type]: event.other}

    def _put(self, key: str, event: Remembered) -> None:
        self._record[_digest(key)] = event

    def _get(self, digest: bytes) -> Remembered | None:
        for staged in (self._record, self._batch):
            if digest in staged:
                return staged[digest]
        row = self._base.execute("SELECT type, user, other, time FROM remembered WHERE key = ?", (digest,)).fetchone()
        return None if row is None or {row[1], row[2]} & self._forgotten else Remembered(*row)

    # The order of a record and of a batch

    def accept(self, time_s: float, forgotten: tuple[str, ...] = ()) -> None:
        """Keep what the present record remembers.

        Args:
            time_s: the newest event time of the record; 0 if it makes no event.
            forgotten: users that it erases.
        """
        self._newest_s = max(self._newest_s, time_s)
        for digest, event in self._record.items():
            # A record without an event has no time; that of the newest one keeps its row from expiring at once.
            self._batch[digest] = event and event._replace(time=time_s or self._newest_s)
        self._record.clear()
        for user in forgotten:
            self._forgotten.add(user)
            self._batch = {key: event for key, event in self._batch.items() if not event or user not in event[1:3]}

    def discard(self) -> None:
        """Drop what the present record remembers."""
        self._record.clear()

    def commit(self, cursor: str = "") -> None:
        """Write everything since the last commit, and the cursor if there is one, in one transaction.

        Raises:
            InputError: the disk is full or the file is damaged.
        """
        written = [(key, *event) for key, event in self._batch.items() if event is not None]
        dropped = [(key,) for key, event in self._batch.items() if event is None]
        meta = {"format": _FORMAT, "newest": str(self._newest_s), **({"cursor": cursor} if cursor else {})}
        try:
            with self._base:
                self._base.execute("BEGIN")
                self._base.executemany(
                    "DELETE FROM remembered WHERE user = ? OR other = ?", [(user, user) for user in self._forgotten]
                )
                self._base.executemany("INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?, ?)", written)
                self._base.executemany("DELETE FROM remembered WHERE key = ?", dropped)
                self._base.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
                if self._keep_s and self._commits % _EXPIRE_EVERY == 0:
                    self._base.execute(
                        "DELETE FROM remembered WHERE type IN (?, ?, ?, ?) AND time < ?",
                        (*_EXPIRE, self._newest_s - self._keep_s),
                    )
        except sqlite3.Error as error:
            raise InputError(
                f"the store of remembered events cannot be written ({one_line(error)}); free the disk, then start again"
            ) from error
        self._commits += 1
        self._batch.clear()
        self._forgotten.clear()

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM remembered").fetchone()[0])

    def close(self) -> None:
        """Close the file; what was not committed is dropped."""
        if self._base is not None:
            self._base.close()
        if self._lock is not None:
            self._lock.close()


def _digest(key: str) -> bytes:
    return blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
