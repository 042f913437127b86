"""Checkpoints: complete or absent, no file uploaded twice, no needed file removed; on both filesystems."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from graphstate.errors import DamagedError, GraphError
from graphstate.state import GraphState
from graphstate.storage.checkpoints.manifest import Manifest, create_checkpoint, describe, read_meta
from graphstate.storage.checkpoints.remote_folder import Interrupted
from graphstate.storage.checkpoints.repository import GRACE_S, Repository, SavedCheckpoint
from graphstate.types import GraphSpec, Kind, Mutation

SPEC = GraphSpec()
KEEP = 3
DAY_US = 86_400_000_000


def quiet(_what: str, _done: int, _total: int) -> None:
    """No progress."""


class Shard:
    """A state that applies follows, and the folder for its checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = GraphState.open(folder / "state", SPEC)
        self.next = 0

    def advance(self, follows: int = 50) -> None:
        """Apply a number of follows and commit."""
        numbers = range(self.next + 1, self.next + follows + 1)
        self.state.apply([Mutation(Kind.FOLLOW, DAY_US + n, f"u{n}", f"u{n // 3}") for n in numbers])
        self.next += follows
        self.state.commit({b"next": str(self.next).encode(), b"halo_next": b"7", b"model": b"abc"})

    def save(self, kept: Repository, keep: int = KEEP, **named: Any) -> SavedCheckpoint:
        """Save a checkpoint."""
        folder = self.folder / f"taken-{uuid.uuid4().hex}"
        meta = create_checkpoint(self.state.store, folder)
        about = describe(meta, log="groundswell.mutations", shard=0, shards=1, created_s=time.time())
        return kept.save(folder, about, keep, **named)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    """A shard with some commits."""
    found = Shard(tmp_path / "shard")
    found.advance()
    yield found
    found.state.close()


@pytest.fixture(params=["local", "memory"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    """An empty repository on each filesystem, without pauses between attempts."""
    fs, root = LocalFileSystem(), str(tmp_path / "kept")
    if request.param == "memory":
        fs, root = MemoryFileSystem(), f"/{uuid.uuid4().hex}"
    yield Repository(fs, root, sleep=lambda _: None)
    if fs.exists(root):
        fs.rm(root, recursive=True)


def blobs(kept: Repository) -> set[str]:
    return set(kept._files.sizes("blobs"))


def damage(kept: Repository, name: str, *, cut: bool = False) -> None:
    """Change a byte in the middle of a blob, or cut it off there."""
    path = f"{kept.root}/blobs/{name}"
    value = kept.fs.cat_file(path)
    middle = len(value) // 2
    kept.fs.pipe_file(path, value[:middle] + (b"" if cut else bytes((value[middle] ^ 1,)) + value[middle + 1 :]))


def largest(manifest: Manifest) -> str:
    return max(manifest.files, key=lambda file: file.size).sha256


def canonical(folder: Path) -> tuple[Any, ...]:
    state = GraphState.open(folder, SPEC)
    try:
        graph = state.snapshot().canonical()
        return graph.ids, [edge.tolist() for edge in graph.edges], graph.own.tolist()
    finally:
        state.close()


def test_a_restore_returns_the_saved_state(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """A restore returns the state at the checkpoint, without later commits; the manifest describes it."""
    saved = shard.save(kept)
    assert kept.ids() == [saved.id] == ["00000001-50"]
    about = kept.load(saved.id)
    assert about == saved.manifest
    assert (about.next_offset, about.offsets, about.format) == (50, {"halo_next": 7}, saved.manifest.format)
    assert (about.shard, about.shards, about.artifact, about.log) == (0, 1, "abc", "groundswell.mutations")
    assert saved.uploaded_bytes == about.size == sum((kept._files.sizes("blobs")).values()) > 0
    undisturbed = Shard(tmp_path / "undisturbed")
    undisturbed.advance()
    undisturbed.state.close()
    shard.advance()
    target = tmp_path / "back" / "shard-0"
    assert kept.restore(saved.id, target, quiet) == about
    assert canonical(target) == canonical(tmp_path / "undisturbed" / "state")
    assert read_meta(target)[b"next"] == b"50"
    assert [path.name for path in target.parent.iterdir()] == ["shard-0"]


def test_unchanged_files_are_not_uploaded_again(shard: Shard, kept: Repository) -> None:
    """A second checkpoint uploads new files; a third without a commit only the files that RocksDB rewrote."""
    shard.advance(5_000)
    first = shard.save(kept)
    shard.advance(10)
    before = blobs(kept)
    second = shard.save(kept)
    tables = {file.sha256 for file in first.manifest.files if file.name.endswith(".sst")}
    assert tables <= {file.sha256 for file in second.manifest.files}
    assert 0 < second.uploaded_bytes < first.uploaded_bytes / 3
    assert blobs(kept) > before
    third = shard.save(kept)
    assert not [
        file for file in third.manifest.files if file.name.endswith(".sst") and file not in second.manifest.files
    ]
    assert third.uploaded_bytes < 2_000


def test_the_newest_are_kept(shard: Shard, kept: Repository) -> None:
    """Older manifests are removed at once, unused blobs after the grace period; the others can be restored."""
    ids = []
    for _ in range(5):
        shard.advance()
        ids.append(shard.save(kept).id)
    assert kept.ids() == ids[:1:-1]
    used = {file.sha256 for name in kept.ids() for file in kept.load(name).files}
    young = blobs(kept)
    assert used < young
    assert kept.prune(KEEP) == 0
    later = Repository(kept.fs, kept.root, now=lambda: time.time() + GRACE_S + 60)
    assert later.prune(KEEP) == len(young - used)
    assert blobs(kept) == used
    for number, name in enumerate(kept.ids()):
        kept.restore(name, shard.folder / f"back-{number}", quiet)


def test_no_blob_is_removed_while_a_manifest_is_unreadable(shard: Shard, kept: Repository) -> None:
    """No blob is removed while a manifest is unreadable; when that manifest is pruned, its blobs are."""
    shard.save(kept)
    shard.advance()
    broken = shard.save(kept)
    path = f"{kept.root}/manifests/{broken.id}.json"
    kept.fs.pipe_file(path, kept.fs.cat_file(path)[:-10])
    later = Repository(kept.fs, kept.root, now=lambda: time.time() + GRACE_S + 60)
    assert later.prune(1) == 0
    assert kept.ids() == [broken.id]
    shard.advance()
    last = shard.save(kept, keep=2)
    assert later.prune(1) > 0
    assert blobs(kept) == {file.sha256 for file in last.manifest.files}


@pytest.mark.parametrize("harm", ["flipped", "cut", "missing", "manifest", "version"])
def test_a_damaged_newest_falls_back(
    shard: Shard, kept: Repository, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If the newest is damaged, the one before is restored with a warning; the next checkpoint is complete."""
    first = shard.save(kept)
    shard.advance(500)
    newest = shard.save(kept)
    only = {file.sha256 for file in newest.manifest.files} - {file.sha256 for file in first.manifest.files}
    name = next(file.sha256 for file in newest.manifest.files if file.name.endswith(".sst") and file.sha256 in only)
    path = f"{kept.root}/manifests/{newest.id}.json"
    if harm == "missing":
        kept.fs.rm_file(f"{kept.root}/blobs/{name}")
    elif harm == "manifest":
        kept.fs.pipe_file(path, b"{}")
    elif harm == "version":
        kept.fs.pipe_file(path, msgspec.json.encode(msgspec.structs.replace(newest.manifest, version=99)))
    else:
        damage(kept, name, cut=harm == "cut")
    target = tmp_path / "back"
    found = kept.restore_newest(target, quiet, misfit=lambda _: "")
    assert found is not None
    assert found[0] == first.id
    assert "damaged" in caplog.text
    assert read_meta(target)[b"next"] == b"50"
    # The same bytes are uploaded again, although a blob of that name and size is there.
    again = shard.save(kept)
    assert kept.restore(again.id, tmp_path / "again", quiet).next_offset == 550


def test_all_checkpoints_damaged(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """If all are damaged, the error counts them, and no folder is left behind."""
    shared = largest(shard.save(kept).manifest)
    shard.save(kept)
    damage(kept, shared)
    with pytest.raises(DamagedError, match=r"all checkpoints in .* are damaged \(2\)"):
        kept.restore_newest(tmp_path / "back" / "state", quiet, misfit=lambda _: "")
    assert list((tmp_path / "back").iterdir()) == []


def test_checkpoints_that_do_not_fit_are_skipped(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """The newest that fits is restored, none if none does."""
    first = shard.save(kept)
    shard.advance()
    shard.save(kept)
    found = kept.restore_newest(tmp_path / "a", quiet, misfit=lambda about: "too new" if about.next_offset > 50 else "")
    assert found == (first.id, first.manifest)
    assert kept.restore_newest(tmp_path / "b", quiet, misfit=lambda _: "no") is None
    assert not (tmp_path / "b").exists()


def test_an_existing_folder_is_replaced_only_on_request(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """An existing folder stays without `replace`, and if the checkpoint is damaged."""
    saved = shard.save(kept)
    target = tmp_path / "target"
    kept.restore(saved.id, target, quiet)
    (target / "mark").touch()
    with pytest.raises(GraphError, match="--force"):
        kept.restore(saved.id, target, quiet)
    damage(kept, largest(saved.manifest))
    with pytest.raises(DamagedError):
        kept.restore(saved.id, target, quiet, replace=True)
    assert (target / "mark").exists()
    damage(kept, largest(saved.manifest))
    kept.restore(saved.id, target, quiet, replace=True)
    assert not (target / "mark").exists()
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_manifest_cannot_write_elsewhere(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """File names with a path, and files larger than their manifest entry, are refused."""
    saved = shard.save(kept)
    path = f"{kept.root}/manifests/{saved.id}.json"
    whole = kept.fs.cat_file(path)
    for name in ("../outside", "/outside", "..", "a/b", ""):
        kept.fs.pipe_file(path, whole.replace(b'"CURRENT"', msgspec.json.encode(name)))
        with pytest.raises(DamagedError, match="manifest cannot be read"):
            kept.restore(saved.id, tmp_path / "in" / "target", quiet)
    assert list(tmp_path.rglob("outside")) == []
    about = msgspec.json.decode(whole, type=Manifest)
    less = [msgspec.structs.replace(file, size=file.size // 2) for file in about.files]
    kept.fs.pipe_file(path, msgspec.json.encode(msgspec.structs.replace(about, files=less)))
    with pytest.raises(DamagedError, match="checksum mismatch in"):
        kept.restore(saved.id, tmp_path / "target", quiet)


def test_the_state_of_another_manifest_is_refused(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """Undamaged files of another offset than the manifest's are refused."""
    saved = shard.save(kept)
    other = msgspec.structs.replace(saved.manifest, next_offset=51)
    kept.fs.pipe_file(f"{kept.root}/manifests/00000002-51.json", msgspec.json.encode(other))
    with pytest.raises(DamagedError, match="another format or offset than its manifest"):
        kept.restore("00000002-51", tmp_path / "target", quiet)


class Failing(LocalFileSystem):
    """A filesystem that fails at the n-th file opened for writing, and at a number of further ones."""

    cachable = False

    def __init__(self, at: int, times: int) -> None:
        super().__init__()
        self.left = at
        self.times = times

    def open(self, path: str, mode: str = "rb", **named: Any) -> Any:
        """Open a file, or raise OSError."""
        if "w" in mode:
            self.left -= 1
            if self.left <= 0 < self.times:
                self.times -= 1
                raise OSError(5, "no route to the disk")
        return super().open(path, mode, **named)


@pytest.mark.parametrize("at", [1, 3, 8])
def test_failures_are_retried_up_to_a_limit(shard: Shard, tmp_path: Path, at: int) -> None:
    """A temporary error is retried; a lasting one ends in one line, and older checkpoints stay."""
    pauses: list[float] = []
    root = str(tmp_path / "kept")
    passing = Repository(Failing(at, 3), root, sleep=pauses.append)
    saved = shard.save(passing)
    assert pauses == [0.5, 1.0, 2.0]
    shard.advance()
    with pytest.raises(GraphError, match=r"failed 5 times \(.*no route to the disk\): check "):
        shard.save(Repository(Failing(1, 99), root, sleep=pauses.append))
    assert passing.ids() == [saved.id]
    passing.restore(saved.id, tmp_path / "target", quiet)
    assert not list((tmp_path / "kept").rglob("*.part"))


def test_an_upload_interrupted_at_any_write(shard: Shard, tmp_path: Path) -> None:
    """An upload interrupted at any point keeps the older checkpoint, and the next one is complete."""
    saved = shard.save(Repository(LocalFileSystem(), str(tmp_path / "kept")))
    shard.advance(500)
    for asked in range(1, 12):
        left = iter([False] * asked)
        kept = Repository(LocalFileSystem(), str(tmp_path / "kept"), stopped=lambda left=left: next(left, True))
        with pytest.raises(Interrupted):
            shard.save(kept)
        kept = Repository(LocalFileSystem(), str(tmp_path / "kept"))
        assert kept.ids() == [saved.id]
    newest = shard.save(kept)
    kept.restore(newest.id, tmp_path / "target", quiet)


def test_a_lost_shard_writes_no_manifest(shard: Shard, kept: Repository) -> None:
    """A worker that lost the shard during the upload writes no manifest."""
    with pytest.raises(Interrupted):
        shard.save(kept, allowed=lambda: False)
    assert kept.ids() == []
    assert shard.save(kept).id == "00000001-50"


def test_blobs_removed_during_the_upload(shard: Shard, kept: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs that another writer removed during the upload are missed before the manifest is written."""
    shard.save(kept)
    upload = Repository._upload

    def remove(self: Repository, *arguments: Any) -> None:
        for name in blobs(self):
            self.fs.rm_file(f"{self.root}/blobs/{name}")
        upload(self, *arguments)

    monkeypatch.setattr(Repository, "_upload", remove)
    shard.advance()
    with pytest.raises(GraphError, match=r"is not in .* after its upload"):
        shard.save(kept)
    assert len(kept.ids()) == 1


def test_a_disk_that_is_too_small(
    shard: Shard, kept: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is too small is an error before any download."""
    saved = shard.save(kept)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(GraphError, match="bytes left, the checkpoint needs"):
        kept.restore(saved.id, tmp_path / "target", quiet)
