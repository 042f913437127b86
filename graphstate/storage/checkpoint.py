"""Checkpoints: what a shard's RocksDB held at one moment, kept on another filesystem under its checksums.

A repository is a folder of an fsspec filesystem that belongs to one shard:

    blobs/<sha256>                    every file of every checkpoint, once
    manifests/<number>-<offset>.json  what one checkpoint consists of

The manifest is written last: without it there is no checkpoint. Numbers rise, so "newest" asks no clock.
Only the owner of a shard writes here. One that was owner until just now may still be at it, so a blob
that no manifest names stays for `GRACE_S`, and a checkpoint that lacks a blob is damaged, not wrong.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from io import UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from rocksdict import AccessType, Options, Rdict

from graphstate.errors import DamagedError, GraphError
from graphstate.types import Progress

if TYPE_CHECKING:
    from graphstate.storage.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")

VERSION = 1
"""The version of the manifest."""
GRACE_S = 3_600
CHUNK_BYTES = 1 << 20
MANIFEST_BYTES = 16 << 20
ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
RESTORING, REPLACED = ".restoring-", ".replaced-"
"""How folders beside a state begin that a restore works in; what is left of them can go."""

_NAME = re.compile(r"(\d{8,})-(\d+)")


class File(msgspec.Struct, frozen=True):
    """One file of a checkpoint."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=255)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(msgspec.Struct, frozen=True):
    """What a checkpoint is.

    log: the topic that its offsets are of. format, spec: as the state's. next_offset: of its partition of the log;
    offsets: further ones, by their name in `meta`. artifact: the model of its scores. created_s: Unix time. log_id:
    which topic of that name it was, empty if that is not known.
    """

    version: int
    log: str
    shard: int
    shards: int
    format: int
    spec: dict[str, Any]
    next_offset: Annotated[int, msgspec.Meta(ge=0)]
    offsets: dict[str, int]
    artifact: str
    created_s: float
    files: list[File]
    log_id: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was made: its id, its manifest, and the bytes that were not there already."""

    id: str
    manifest: Manifest
    uploaded_bytes: int


class Interrupted(GraphError):
    """Somebody wants this to end."""


# A shard's own side


def take(store: Store, folder: Path) -> dict[bytes, bytes]:
    """Make a RocksDB checkpoint of what is committed, in a folder that must not exist; returns its `meta`.

    Belongs between two commits: it flushes what is in memory, and links files instead of copying them.
    """
    store.checkpoint(folder)
    return dict(store.rows("meta"))


def read_meta(folder: Path) -> dict[bytes, bytes]:
    """The `meta` of a state of any format, without a lock and without changing anything.

    Raises:
        DamagedError: the folder holds no state that can be read.
    """
    if not (folder / "CURRENT").is_file():
        raise DamagedError(f"{folder} holds no state")
    try:
        options = {"meta": Options(raw_mode=True)}
        database = Rdict(str(folder), Options(raw_mode=True), options, AccessType.read_only())
        family = database.get_column_family("meta")
        rows = family.iter()
        rows.seek_to_first()
        meta = {}
        while rows.valid():
            meta[rows.key()] = rows.value()
            rows.next()
        rows.status()
        del rows
        family.close()
        database.close()
    except Exception as error:  # rocksdict raises bare exceptions
        raise DamagedError(f"{folder} cannot be read: restore or remove it ({error})") from error
    return meta


def describe(meta: dict[bytes, bytes], *, log: str, shard: int, shards: int, created_s: float) -> Manifest:
    """A manifest, still without files, from a state's `meta`.

    Raises:
        DamagedError: nothing was ever committed to the state.
    """
    if not {b"format", b"spec", b"next"} <= meta.keys():
        raise DamagedError("the state is empty: nothing was committed yet")
    names, spec = {name for name in meta if name.endswith(b"_next")}, json.loads(meta[b"spec"])
    return Manifest(
        VERSION,
        log,
        shard,
        int(spec.get("shards", shards)),
        int(meta[b"format"]),
        spec,
        int(meta[b"next"]),
        {name.decode(): int(meta[name]) for name in sorted(names)},
        meta.get(b"model", b"").decode(),
        created_s,
        [],
        meta.get(b"log", b"").decode(),
    )


# The other side


class Repository:
    """The checkpoints of one shard.

    Args:
        fs, root: the filesystem and the folder there; it need not exist.
        stopped: asked between chunks; True ends the work with `Interrupted`.
        sleep, now: seams for tests.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        root: str,
        *,
        stopped: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], object] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self._stopped = stopped
        self._sleep = sleep
        self._now = now
        self._hashes: dict[tuple[str, int, int, int], str] = {}
        self._bad: set[str] = set()

    # Reading

    def ids(self) -> list[str]:
        """The ids of all checkpoints, newest first."""
        names = [name.removesuffix(".json") for name in self._list("manifests") if name.endswith(".json")]
        return sorted((name for name in names if _NAME.fullmatch(name)), key=_number, reverse=True)

    def load(self, checkpoint: str) -> Manifest:
        """The manifest of a checkpoint.

        Raises:
            GraphError: there is none of that id.
            DamagedError: it cannot be read.
        """
        path = self._path("manifests", f"{checkpoint}.json")

        def read() -> bytes:
            with self.fs.open(path, "rb") as source:
                return bytes(source.read(MANIFEST_BYTES + 1))

        try:
            raw = self._try(f"reading {path}", read)
        except FileNotFoundError as error:
            raise GraphError(f"there is no checkpoint {checkpoint} in {self.root}") from error
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except msgspec.DecodeError as error:
            raise DamagedError(f"checkpoint {checkpoint}: its manifest cannot be read ({error})") from error
        if manifest.version != VERSION:
            raise DamagedError(f"checkpoint {checkpoint}: its manifest is of version {manifest.version}, not {VERSION}")
        return manifest

    def restore(self, checkpoint: str, target: Path, progress: Progress, *, replace: bool = False) -> Manifest:
        """Bring a checkpoint back as the folder `target`, whole or not at all.

        Raises:
            DamagedError: a file of it is missing or is not what it was.
            GraphError: the target exists and is not to be replaced, the disk is too small, nothing can be read.
        """
        if target.exists() and not replace:
            raise GraphError(f"{target} exists: move it away, or use --force to replace it")
        manifest = self.load(checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if free < manifest.size:
            raise GraphError(f"{target.parent} has {free:,} bytes left, the checkpoint needs {manifest.size:,}")
        beside = target.with_name(RESTORING + target.name)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            done = 0
            for file in manifest.files:
                progress(f"restoring checkpoint {checkpoint}", done, manifest.size)
                self._try(f"downloading {file.name}", partial(self._download, file, beside))
                done += file.size
            _same(manifest, checkpoint, beside)
            _settle(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return manifest

    def restore_newest(
        self, target: Path, progress: Progress, *, misfit: Callable[[Manifest], str], replace: bool = False
    ) -> tuple[str, Manifest] | None:
        """Bring back the newest checkpoint that is whole and fits; None if none of them fits.

        Arguments are those of `restore`, and misfit: why a checkpoint is of no use here; empty if it is of use.

        Raises:
            DamagedError: some would fit, and all of those are damaged.
            GraphError: as `restore`.
        """
        damaged: list[str] = []
        for checkpoint in self.ids():
            try:
                reason = misfit(self.load(checkpoint))
                if reason:
                    log.info("a checkpoint does not fit", extra={"checkpoint": checkpoint, "because": reason})
                    continue
                return checkpoint, self.restore(checkpoint, target, progress, replace=replace)
            except DamagedError as error:
                log.warning("a checkpoint is damaged: trying the one before", extra={"because": str(error)})
                damaged.append(str(error))
        if damaged:
            raise DamagedError(f"none of {len(damaged)} checkpoints in {self.root} is whole; the newest: {damaged[0]}")
        return None

    def _download(self, file: File, folder: Path) -> None:
        path, digest, size = self._path("blobs", file.sha256), sha256(), 0
        try:
            with self.fs.open(path, "rb") as source, (folder / file.name).open("wb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    self._go_on()
                    size += len(chunk)
                    if size > file.size:
                        break
                    digest.update(chunk)
                    target.write(chunk)
                _sync(target)
        except FileNotFoundError as error:
            raise DamagedError(f"{file.name} is missing ({path})") from error
        if size != file.size or digest.hexdigest() != file.sha256:
            # What is known to be bad is not counted as there when the same bytes are to be kept again.
            self._bad.add(file.sha256)
            raise DamagedError(f"{file.name} is not what was kept ({path})")

    # Writing

    def save(self, folder: Path, about: Manifest, keep: int, allowed: Callable[[], bool] = lambda: True) -> Saved:
        """Keep a RocksDB checkpoint: upload what is not there, then the manifest, then remove what is too old.

        Args:
            folder: what `take` made; it stays.
            about: what `describe` made of it.
            keep: how many checkpoints to keep.
            allowed: asked right before the manifest is written: whether the shard is still ours.

        Raises:
            GraphError: it could not be kept; there is no new checkpoint then.
        """
        number = 1 + max((_number(name)[0] for name in self.ids()), default=0)
        there, files, uploaded = self._list("blobs"), [], 0
        for path in sorted(folder.iterdir()):
            file = self._hash(path)
            files.append(file)
            if there.get(file.sha256) != file.size or file.sha256 in self._bad:
                self._try(f"uploading {file.name}", partial(self._upload, file, path))
                self._bad.discard(file.sha256)
                uploaded += file.size
        there = self._list("blobs")
        for file in files:
            if there.get(file.sha256) != file.size:
                raise GraphError(f"{file.name} is not in {self.root} after its upload: is somebody else writing there?")
        if not allowed():
            raise Interrupted("the shard went to another worker meanwhile")
        manifest = msgspec.structs.replace(about, files=files)
        checkpoint = f"{number:08d}-{manifest.next_offset}"
        raw = msgspec.json.encode(manifest)
        self._try("writing the manifest", lambda: self._write(self._path("manifests", f"{checkpoint}.json"), [raw]))
        try:
            self.prune(keep)
        except GraphError as error:
            log.warning("what is too old could not be removed", extra={"because": str(error)})
        return Saved(checkpoint, manifest, uploaded)

    def prune(self, keep: int) -> int:
        """Remove all checkpoints but the newest, then the blobs that none of these needs; returns how many blobs."""
        for checkpoint in self.ids()[keep:]:
            self._remove(self._path("manifests", f"{checkpoint}.json"))
        used: set[str] = set()
        for checkpoint in self.ids():
            try:
                used |= {file.sha256 for file in self.load(checkpoint).files}
            except DamagedError as error:
                # Nobody knows what it needs, so nothing goes until it is gone.
                log.warning("nothing is removed as long as a manifest cannot be read", extra={"because": str(error)})
                return 0
        return sum(self._remove_old(self._path("blobs", name)) for name in self._list("blobs") if name not in used)

    def _remove_old(self, path: str) -> bool:
        try:
            modified = self._try(f"asking for the age of {path}", lambda: self.fs.modified(path))
        except (FileNotFoundError, NotImplementedError):
            return False
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        if (datetime.fromtimestamp(self._now(), UTC) - modified).total_seconds() < GRACE_S:
            return False
        self._remove(path)
        return True

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._try(f"removing {path}", lambda: self.fs.rm_file(path))

    def _hash(self, path: Path) -> File:
        """A file's checksum; SST files never change, so each is read once while this process lives."""
        stat = path.stat()
        key = (path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            digest = sha256()
            with path.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    self._go_on()
                    digest.update(chunk)
            if path.suffix != ".sst":
                return File(path.name, stat.st_size, digest.hexdigest())
            self._hashes[key] = digest.hexdigest()
        return File(path.name, stat.st_size, self._hashes[key])

    def _upload(self, file: File, path: Path) -> None:
        with path.open("rb") as source:
            digest = sha256()

            def chunks() -> Any:
                while chunk := source.read(CHUNK_BYTES):
                    self._go_on()
                    digest.update(chunk)
                    yield chunk

            self._write(self._path("blobs", file.sha256), chunks())
        if digest.hexdigest() != file.sha256:
            self._bad.add(file.sha256)
            raise GraphError(f"{path} changed while it was uploaded: is the disk well?")

    def _write(self, path: str, chunks: Any) -> None:
        """Write a file that nobody sees half. Object stores show one when it is closed; folders need a rename."""
        local = isinstance(self.fs, LocalFileSystem)
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        under = f"{path}.part" if local else path
        with self.fs.open(under, "wb") as target:
            for chunk in chunks:
                target.write(chunk)
            if local:
                _sync(target)
        if local:
            self.fs.mv(under, path)

    # Asking the filesystem

    def _path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def _list(self, folder: str) -> dict[str, int]:
        """Name → size of the files in a folder, which need not exist."""
        path = self._path(folder)

        def look() -> list[dict[str, Any]]:
            self.fs.invalidate_cache()
            return list(self.fs.ls(path, detail=True))

        try:
            found = self._try(f"listing {path}", look)
        except FileNotFoundError:
            return {}
        return {str(info["name"]).rpartition("/")[2]: int(info["size"]) for info in found if info["type"] == "file"}

    def _go_on(self) -> None:
        if self._stopped():
            raise Interrupted("the worker stops")

    def _try(self, what: str, work: Callable[[], T]) -> T:
        """Do it, again after a pause if the filesystem fails, up to a limit."""
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            self._go_on()
            try:
                return work()
            except (FileNotFoundError, NotImplementedError, GraphError):
                raise
            except Exception as error:  # every filesystem has errors of its own
                if attempt == ATTEMPTS:
                    text = " ".join(str(error).split()) or type(error).__name__
                    raise GraphError(f"{what} failed {ATTEMPTS} times: {text}; is {self.root} well?") from error
                log.warning("trying again", extra={"what": what, "attempt": attempt, "because": repr(error)})
            self._sleep(pause_s)
            pause_s *= 2
        raise AssertionError


def _number(name: str) -> tuple[int, int]:
    number, _, offset = name.partition("-")
    return int(number), int(offset)


def _same(manifest: Manifest, checkpoint: str, folder: Path) -> None:
    """What came back is the state that the manifest speaks of."""
    meta = read_meta(folder)
    if (int(meta.get(b"format", -1)), int(meta.get(b"next", -1))) != (manifest.format, manifest.next_offset):
        raise DamagedError(f"checkpoint {checkpoint}: its files are not of the state that its manifest tells of")


def _settle(beside: Path, target: Path) -> None:
    """Put a whole folder in its place; what was there goes only after that."""
    _sync_folder(beside)
    replaced = target.with_name(REPLACED + target.name)
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    beside.rename(target)
    _sync_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync(file: Any) -> None:
    """Let the disk have it, where there is one."""
    file.flush()
    with suppress(AttributeError, UnsupportedOperation):
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
