"""The checkpoints of one shard on another filesystem, verified by checksums.

A repository is a folder of an fsspec filesystem that belongs to one shard:

    blobs/<sha256>                    every file of every checkpoint, stored once
    manifests/<number>-<offset>.json  the description of one checkpoint

The manifest is written last: a checkpoint without one does not exist. Numbers rise, so finding the newest needs no
clock. Only the owner of a shard writes here. A former owner may still be uploading, so a blob that no manifest names
is removed only after `GRACE_S`, and a checkpoint without one of its blobs counts as damaged.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
from fsspec import AbstractFileSystem

from graphstate.errors import DamagedError, GraphError
from graphstate.storage.checkpoints.manifest import VERSION, File, Manifest, read_meta
from graphstate.storage.checkpoints.remote_folder import Interrupted, RemoteFolder, sync_file, sync_folder
from graphstate.types import Progress

log = logging.getLogger(__name__)

GRACE_S = 3_600
MANIFEST_BYTES = 16 << 20
RESTORING, REPLACED = ".restoring-", ".replaced-"
"""Prefixes of the temporary folders of a restore beside the state; left over, they can be removed."""

_NAME = re.compile(r"(\d{8,})-(\d+)")


@dataclass(frozen=True)
class SavedCheckpoint:
    """A new checkpoint: its id, its manifest, and the bytes that had to be uploaded."""

    id: str
    manifest: Manifest
    uploaded_bytes: int


class Repository:
    """The checkpoints of one shard.

    Args:
        fs: The filesystem.
        root: The folder; it need not exist.
        stopped: Called between chunks; True raises `Interrupted`.
        sleep: Pauses between attempts; replaced in tests.
        now: The clock for the age of blobs; replaced in tests.
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
        self._files = RemoteFolder(fs, root, stopped=stopped, sleep=sleep)
        self.fs, self.root = fs, self._files.root
        self._now = now
        self._hashes: dict[tuple[str, int, int, int], str] = {}
        self._damaged: set[str] = set()

    # Reading

    def ids(self) -> list[str]:
        """Return the ids of all checkpoints, newest first."""
        names = [name.removesuffix(".json") for name in self._files.sizes("manifests") if name.endswith(".json")]
        return sorted((name for name in names if _NAME.fullmatch(name)), key=_number, reverse=True)

    def load(self, checkpoint: str) -> Manifest:
        """Return the manifest of a checkpoint.

        Raises:
            GraphError: There is no checkpoint of that id.
            DamagedError: The manifest cannot be read.
        """
        try:
            raw = self._files.read(self._manifest_path(checkpoint), MANIFEST_BYTES + 1)
        except FileNotFoundError as error:
            raise GraphError(f"there is no checkpoint {checkpoint} in {self.root}") from error
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except msgspec.DecodeError as error:
            raise DamagedError(f"checkpoint {checkpoint}: its manifest cannot be read ({error})") from error
        if manifest.version != VERSION:
            raise DamagedError(
                f"checkpoint {checkpoint}: its manifest has version {manifest.version}, this version reads {VERSION}"
            )
        return manifest

    def restore(self, checkpoint: str, target: Path, progress: Progress, *, replace: bool = False) -> Manifest:
        """Restore a checkpoint as the folder `target`; if that fails, `target` stays as it was.

        Args:
            checkpoint: The id of the checkpoint.
            target: The folder.
            progress: Receives progress reports.
            replace: Replace an existing folder.

        Raises:
            DamagedError: A file of the checkpoint is missing or has another checksum.
            GraphError: The target exists and `replace` is False, the disk is too small, or reading failed.
        """
        if target.exists() and not replace:
            raise GraphError(f"{target} exists: move it away, or use --force to replace it")
        manifest = self.load(checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if free < manifest.size:
            raise GraphError(f"{target.parent} has {free:,} bytes left, the checkpoint needs {manifest.size:,}")
        temporary = target.with_name(RESTORING + target.name)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            done = 0
            for file in manifest.files:
                progress(f"restoring checkpoint {checkpoint}", done, manifest.size)
                self._files.attempt(f"downloading {file.name}", partial(self._download, file, temporary))
                done += file.size
            _check_meta(manifest, checkpoint, temporary)
            _move_into_place(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return manifest

    def restore_newest(
        self, target: Path, progress: Progress, *, misfit: Callable[[Manifest], str], replace: bool = False
    ) -> tuple[str, Manifest] | None:
        """Restore the newest checkpoint that fits and is not damaged.

        Args:
            target: The folder.
            progress: Receives progress reports.
            misfit: Returns why a checkpoint cannot be used here, an empty string if it can.
            replace: Replace an existing folder.

        Returns:
            The id and the manifest of the checkpoint, None if none fits.

        Raises:
            DamagedError: Some checkpoints fit, and all of them are damaged.
            GraphError: As `restore`.
        """
        damaged: list[str] = []
        for checkpoint in self.ids():
            try:
                reason = misfit(self.load(checkpoint))
                if reason:
                    log.info("checkpoint_misfit_skipped", extra={"checkpoint": checkpoint, "because": reason})
                    continue
                return checkpoint, self.restore(checkpoint, target, progress, replace=replace)
            except DamagedError as error:
                log.warning("checkpoint_damaged_trying_previous", extra={"because": str(error)})
                damaged.append(str(error))
        if damaged:
            raise DamagedError(f"all checkpoints in {self.root} are damaged ({len(damaged)}); the newest: {damaged[0]}")
        return None

    def _manifest_path(self, checkpoint: str) -> str:
        return self._files.path("manifests", f"{checkpoint}.json")

    def _blob_path(self, checksum: str) -> str:
        return self._files.path("blobs", checksum)

    def _download(self, file: File, folder: Path) -> None:
        path, digest, size = self._blob_path(file.sha256), sha256(), 0
        try:
            with self.fs.open(path, "rb") as source, (folder / file.name).open("wb") as target:
                for chunk in self._files.chunks(source):
                    size += len(chunk)
                    if size > file.size:
                        break
                    digest.update(chunk)
                    target.write(chunk)
                sync_file(target)
        except FileNotFoundError as error:
            raise DamagedError(f"{file.name} is missing ({path}): restore another checkpoint") from error
        if size != file.size or digest.hexdigest() != file.sha256:
            # `save` uploads the same bytes again instead of counting this blob as present.
            self._damaged.add(file.sha256)
            raise DamagedError(f"checksum mismatch in {file.name} ({path}): restore another checkpoint")

    # Writing

    def save(
        self, folder: Path, about: Manifest, keep: int, allowed: Callable[[], bool] = lambda: True
    ) -> SavedCheckpoint:
        """Save a RocksDB checkpoint: upload its new files, write the manifest, remove old checkpoints.

        Args:
            folder: The folder that `create_checkpoint` wrote; it stays.
            about: The manifest that `describe` returned for it.
            keep: How many checkpoints to keep.
            allowed: Called right before the manifest is written: whether this worker still owns the shard.

        Raises:
            Interrupted: The worker stops, or lost the shard during the upload.
            GraphError: The checkpoint could not be saved; the repository has no new one.
        """
        number = 1 + max((_number(name)[0] for name in self.ids()), default=0)
        present, files, uploaded = self._files.sizes("blobs"), [], 0
        for path in sorted(folder.iterdir()):
            file = self._hash(path)
            files.append(file)
            if present.get(file.sha256) != file.size or file.sha256 in self._damaged:
                self._files.attempt(f"uploading {file.name}", partial(self._upload, file, path))
                self._damaged.discard(file.sha256)
                uploaded += file.size
        present = self._files.sizes("blobs")
        for file in files:
            if present.get(file.sha256) != file.size:
                raise GraphError(
                    f"{file.name} is not in {self.root} after its upload: stop the other writer to that folder"
                )
        if not allowed():
            raise Interrupted("the shard went to another worker during the upload")
        manifest = msgspec.structs.replace(about, files=files)
        checkpoint = f"{number:08d}-{manifest.next_offset}"
        raw, path_of_manifest = msgspec.json.encode(manifest), self._manifest_path(checkpoint)
        self._files.attempt("writing the manifest", lambda: self._files.write(path_of_manifest, [raw]))
        try:
            self.prune(keep)
        except GraphError as error:
            log.warning("checkpoint_prune_failed", extra={"because": str(error)})
        return SavedCheckpoint(checkpoint, manifest, uploaded)

    def prune(self, keep: int) -> int:
        """Remove all checkpoints but the newest, then the blobs that no manifest names.

        Args:
            keep: How many checkpoints to keep.

        Returns:
            The number of removed blobs.
        """
        for checkpoint in self.ids()[keep:]:
            self._files.remove(self._manifest_path(checkpoint))
        used: set[str] = set()
        for checkpoint in self.ids():
            try:
                used |= {file.sha256 for file in self.load(checkpoint).files}
            except DamagedError as error:
                # The blobs of an unreadable manifest are unknown, so none is removed while it is kept.
                log.warning("checkpoint_prune_skipped", extra={"because": str(error)})
                return 0
        return sum(self._remove_old(self._blob_path(name)) for name in self._files.sizes("blobs") if name not in used)

    def _remove_old(self, path: str) -> bool:
        """Remove a blob that is older than `GRACE_S`; return whether it was."""
        modified = self._files.modified(path)
        if modified is None or (datetime.fromtimestamp(self._now(), UTC) - modified).total_seconds() < GRACE_S:
            return False
        self._files.remove(path)
        return True

    def _hash(self, path: Path) -> File:
        """Return a file with its checksum; the checksum of an SST file, which never changes, is computed once."""
        stat = path.stat()
        key = (path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if path.suffix != ".sst":
            return File(path.name, stat.st_size, self._files.checksum(path))
        if key not in self._hashes:
            self._hashes[key] = self._files.checksum(path)
        return File(path.name, stat.st_size, self._hashes[key])

    def _upload(self, file: File, path: Path) -> None:
        digest = sha256()

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as source:
                for chunk in self._files.chunks(source):
                    digest.update(chunk)
                    yield chunk

        self._files.write(self._blob_path(file.sha256), chunks())
        if digest.hexdigest() != file.sha256:
            self._damaged.add(file.sha256)
            raise GraphError(f"{path} changed during its upload: check the disk")


def _number(name: str) -> tuple[int, int]:
    number, _, offset = name.partition("-")
    return int(number), int(offset)


def _check_meta(manifest: Manifest, checkpoint: str, folder: Path) -> None:
    """Raise DamagedError unless the restored files have the manifest's format and offset."""
    meta = read_meta(folder)
    if (int(meta.get(b"format", -1)), int(meta.get(b"next", -1))) != (manifest.format, manifest.next_offset):
        raise DamagedError(
            f"checkpoint {checkpoint}: its files have another format or offset than its manifest; restore another one"
        )


def _move_into_place(temporary: Path, target: Path) -> None:
    """Rename a complete folder to `target`; what stood there is removed only after that."""
    sync_folder(temporary)
    replaced = target.with_name(REPLACED + target.name)
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    temporary.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)
