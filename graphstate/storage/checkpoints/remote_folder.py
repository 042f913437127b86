"""A folder of an fsspec filesystem: retried calls, writes that no reader sees half, interruption between chunks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from io import UnsupportedOperation
from pathlib import Path
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from graphstate.errors import GraphError

log = logging.getLogger(__name__)
T = TypeVar("T")

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
FIRST_PAUSE_S = 0.5


class Interrupted(GraphError):
    """The caller asked to stop."""


class RemoteFolder:
    """A folder on a filesystem that may fail for a while.

    Args:
        fs: The filesystem.
        root: The folder; it need not exist.
        stopped: Called between chunks and attempts; True raises `Interrupted`.
        sleep: Pauses between attempts; replaced in tests.
    """

    def __init__(
        self, fs: AbstractFileSystem, root: str, *, stopped: Callable[[], bool], sleep: Callable[[float], object]
    ) -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self._stopped = stopped
        self._sleep = sleep

    def path(self, *parts: str) -> str:
        """Return the path of a file below the folder."""
        return "/".join((self.root, *parts))

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size of each file of a subfolder, by name; empty if it does not exist."""
        path = self.path(folder)

        def entries() -> list[dict[str, Any]]:
            self.fs.invalidate_cache()
            return list(self.fs.ls(path, detail=True))

        try:
            listed = self.attempt(f"listing {path}", entries)
        except FileNotFoundError:
            return {}
        return {str(info["name"]).rpartition("/")[2]: int(info["size"]) for info in listed if info["type"] == "file"}

    def read(self, path: str, most: int) -> bytes:
        """Return up to `most` bytes of a file."""

        def content() -> bytes:
            with self.fs.open(path, "rb") as source:
                return bytes(source.read(most))

        return self.attempt(f"reading {path}", content)

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file, without retries, that no reader sees half.

        Object stores publish a file when it is closed; on a local filesystem it is renamed at the end.
        """
        local = isinstance(self.fs, LocalFileSystem)
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path}.part" if local else path
        with self.fs.open(temporary, "wb") as target:
            for chunk in chunks:
                target.write(chunk)
            if local:
                sync_file(target)
        if local:
            self.fs.mv(temporary, path)

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""
        with suppress(FileNotFoundError):
            self.attempt(f"removing {path}", lambda: self.fs.rm_file(path))

    def modified(self, path: str) -> datetime | None:
        """Return when a file was modified, None if it does not exist or the filesystem has no times."""
        try:
            modified: datetime = self.attempt(f"reading the time of {path}", lambda: self.fs.modified(path))
        except (FileNotFoundError, NotImplementedError):
            return None
        return modified if modified.tzinfo is not None else modified.replace(tzinfo=UTC)

    def chunks(self, source: Any) -> Iterator[bytes]:
        """Yield the chunks of an open file; raise `Interrupted` between two of them."""
        while chunk := source.read(CHUNK_BYTES):
            self.check_stopped()
            yield chunk

    def checksum(self, path: Path) -> str:
        """Return the SHA-256 of a local file."""
        digest = sha256()
        with path.open("rb") as source:
            for chunk in self.chunks(source):
                digest.update(chunk)
        return digest.hexdigest()

    def check_stopped(self) -> None:
        """Raise `Interrupted` if the caller asked to stop."""
        if self._stopped():
            raise Interrupted("the worker stops")

    def attempt(self, what: str, work: Callable[[], T]) -> T:
        """Call `work`, and retry it after a pause if the filesystem fails.

        Raises:
            GraphError: It failed `ATTEMPTS` times.
        """
        pause_s = FIRST_PAUSE_S
        for number in range(1, ATTEMPTS + 1):
            self.check_stopped()
            try:
                return work()
            except (FileNotFoundError, NotImplementedError, GraphError):
                raise
            except Exception as error:  # each filesystem has errors of its own
                if number == ATTEMPTS:
                    text = " ".join(str(error).split()) or type(error).__name__
                    raise GraphError(f"{what} failed {ATTEMPTS} times ({text}): check {self.root}") from error
                log.warning(
                    "filesystem_call_failed_retrying",
                    extra={"call": what, "attempt": number, "because": repr(error)},
                )
            self._sleep(pause_s)
            pause_s *= 2
        raise AssertionError


def sync_file(file: Any) -> None:
    """Flush a file to its disk; files without a descriptor are only flushed."""
    file.flush()
    with suppress(AttributeError, UnsupportedOperation):
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to its disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
