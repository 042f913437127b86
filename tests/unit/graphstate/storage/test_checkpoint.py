"""Checkpoints: whole or not there, nothing uploaded twice, nothing removed that is needed; on both filesystems."""

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
from graphstate.storage import checkpoint
from graphstate.storage.checkpoint import GRACE_S, Interrupted, Manifest, Repository, Saved
from graphstate.storage.store import Store
from graphstate.types import GraphSpec, Kind, Mutation

SPEC = GraphSpec()
KEEP = 3
DAY_US = 86_400_000_000


def quiet(_what: str, _done: int, _total: int) -> None:
    """No progress."""


class Shard:
    """A state that takes follows, and the folder for its checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = GraphState.open(folder / "state", SPEC)
        self.next = 0

    def work(self, follows: int = 50) -> None:
        """Follow somebody that many times and commit."""
        numbers = range(self.next + 1, self.next + follows + 1)
        self.state.apply([Mutation(Kind.FOLLOW, DAY_US + n, f"u{n}", f"u{n // 3}") for n in numbers])
        self.next += follows
        self.state.commit({b"next": str(self.next).encode(), b"halo_next": b"7", b"model": b"abc"})

    def save(self, kept: Repository, keep: int = KEEP, **named: Any) -> Saved:
        """Keep a checkpoint."""
        folder = self.folder / f"taken-{uuid.uuid4().hex}"
        meta = checkpoint.take(self.state.store, folder)
        about = checkpoint.describe(meta, log="groundswell.mutations", shard=0, shards=1, created_s=time.time())
        return kept.save(folder, about, keep, **named)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    """A shard at work."""
    found = Shard(tmp_path / "shard")
    found.work()
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
    return set(kept._list("blobs"))


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


def test_back_as_it_was(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """What comes back is the state at the checkpoint, whatever happened since; the manifest says what it is."""
    saved = shard.save(kept)
    assert kept.ids() == [saved.id] == ["00000001-50"]
    about = kept.load(saved.id)
    assert about == saved.manifest
    assert (about.next_offset, about.offsets, about.format) == (50, {"halo_next": 7}, saved.manifest.format)
    assert (about.shard, about.shards, about.artifact, about.log) == (0, 1, "abc", "groundswell.mutations")
    assert saved.uploaded_bytes == about.size == sum((kept._list("blobs")).values()) > 0
    undisturbed = Shard(tmp_path / "undisturbed")
    undisturbed.work()
    undisturbed.state.close()
    shard.work()
    target = tmp_path / "back" / "shard-0"
    assert kept.restore(saved.id, target, quiet) == about
    assert canonical(target) == canonical(tmp_path / "undisturbed" / "state")
    assert checkpoint.read_meta(target)[b"next"] == b"50"
    assert [path.name for path in target.parent.iterdir()] == ["shard-0"]


def test_unchanged_files_are_not_uploaded_again(shard: Shard, kept: Repository) -> None:
    """A second checkpoint uploads what is new; a third without any change only what RocksDB wrote anew."""
    shard.work(5_000)
    first = shard.save(kept)
    shard.work(10)
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


def test_keeps_the_newest(shard: Shard, kept: Repository) -> None:
    """Older manifests go at once, blobs that nobody needs when they are old, and what is left can be restored."""
    ids = []
    for _ in range(5):
        shard.work()
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


def test_nothing_goes_while_a_manifest_cannot_be_read(shard: Shard, kept: Repository) -> None:
    """Nobody knows what that one needs; once it is too old it goes, and with it what it alone needed."""
    shard.save(kept)
    shard.work()
    broken = shard.save(kept)
    path = f"{kept.root}/manifests/{broken.id}.json"
    kept.fs.pipe_file(path, kept.fs.cat_file(path)[:-10])
    later = Repository(kept.fs, kept.root, now=lambda: time.time() + GRACE_S + 60)
    assert later.prune(1) == 0
    assert kept.ids() == [broken.id]
    shard.work()
    last = shard.save(kept, keep=2)
    assert later.prune(1) > 0
    assert blobs(kept) == {file.sha256 for file in last.manifest.files}


@pytest.mark.parametrize("harm", ["flipped", "cut", "missing", "manifest", "version"])
def test_a_damaged_newest_falls_back(
    shard: Shard, kept: Repository, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with the newest, the one before comes back, with a warning; then the next one is whole."""
    first = shard.save(kept)
    shard.work(500)
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
    assert checkpoint.read_meta(target)[b"next"] == b"50"
    # The same bytes are uploaded again, although a blob of that name and size is there.
    again = shard.save(kept)
    assert kept.restore(again.id, tmp_path / "again", quiet).next_offset == 550


def test_all_damaged(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """With none left that is whole that is said, and nothing lies there half done."""
    shared = largest(shard.save(kept).manifest)
    shard.save(kept)
    damage(kept, shared)
    with pytest.raises(DamagedError, match=r"none of 2 checkpoints .* is whole"):
        kept.restore_newest(tmp_path / "back" / "state", quiet, misfit=lambda _: "")
    assert list((tmp_path / "back").iterdir()) == []


def test_what_does_not_fit_is_passed_over(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """The newest that fits comes back, none if none does."""
    first = shard.save(kept)
    shard.work()
    shard.save(kept)
    found = kept.restore_newest(tmp_path / "a", quiet, misfit=lambda about: "too new" if about.next_offset > 50 else "")
    assert found == (first.id, first.manifest)
    assert kept.restore_newest(tmp_path / "b", quiet, misfit=lambda _: "no") is None
    assert not (tmp_path / "b").exists()


def test_never_over_a_state_unless_told(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """A folder that exists stays as it is without `replace`, and when what should replace it is damaged."""
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
    """Names of files with a path in them, and files larger than they say, are refused."""
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
    with pytest.raises(DamagedError, match="is not what was kept"):
        kept.restore(saved.id, tmp_path / "target", quiet)


def test_the_state_of_another_manifest_is_refused(shard: Shard, kept: Repository, tmp_path: Path) -> None:
    """Whole files that are not of the offset that the manifest tells are no checkpoint of it."""
    saved = shard.save(kept)
    other = msgspec.structs.replace(saved.manifest, next_offset=51)
    kept.fs.pipe_file(f"{kept.root}/manifests/00000002-51.json", msgspec.json.encode(other))
    with pytest.raises(DamagedError, match="not of the state"):
        kept.restore("00000002-51", tmp_path / "target", quiet)


class Failing(LocalFileSystem):
    """A filesystem that fails at the n-th file that is opened for writing, and a number of times from there."""

    cachable = False

    def __init__(self, at: int, times: int) -> None:
        super().__init__()
        self.left = at
        self.times = times

    def open(self, path: str, mode: str = "rb", **named: Any) -> Any:
        """As the real one, sometimes."""
        if "w" in mode:
            self.left -= 1
            if self.left <= 0 < self.times:
                self.times -= 1
                raise OSError(5, "no route to the disk")
        return super().open(path, mode, **named)


@pytest.mark.parametrize("at", [1, 3, 8])
def test_tries_again_but_not_for_ever(shard: Shard, tmp_path: Path, at: int) -> None:
    """An error that passes is overcome; one that stays ends in one line, and the older ones stand."""
    pauses: list[float] = []
    root = str(tmp_path / "kept")
    passing = Repository(Failing(at, 3), root, sleep=pauses.append)
    saved = shard.save(passing)
    assert pauses == [0.5, 1.0, 2.0]
    shard.work()
    with pytest.raises(GraphError, match=r"failed 5 times: .*no route to the disk; is .* well\?"):
        shard.save(Repository(Failing(1, 99), root, sleep=pauses.append))
    assert passing.ids() == [saved.id]
    passing.restore(saved.id, tmp_path / "target", quiet)
    assert not list((tmp_path / "kept").rglob("*.part"))


def test_a_kill_between_any_two_writes(shard: Shard, tmp_path: Path) -> None:
    """However far an upload came before it was given up: the older checkpoint stands, and the next one is whole."""
    saved = shard.save(Repository(LocalFileSystem(), str(tmp_path / "kept")))
    shard.work(500)
    for asked in range(1, 12):
        left = iter([False] * asked)
        kept = Repository(LocalFileSystem(), str(tmp_path / "kept"), stopped=lambda left=left: next(left, True))
        with pytest.raises(Interrupted):
            shard.save(kept)
        kept = Repository(LocalFileSystem(), str(tmp_path / "kept"))
        assert kept.ids() == [saved.id]
    newest = shard.save(kept)
    kept.restore(newest.id, tmp_path / "target", quiet)


def test_a_shard_that_was_lost_meanwhile_writes_no_manifest(shard: Shard, kept: Repository) -> None:
    """Who is no longer the owner when the upload is done leaves no checkpoint."""
    with pytest.raises(Interrupted):
        shard.save(kept, allowed=lambda: False)
    assert kept.ids() == []
    assert shard.save(kept).id == "00000001-50"


def test_blobs_that_vanish_meanwhile(shard: Shard, kept: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another writer removed during the upload is noticed before the manifest is written."""
    shard.save(kept)
    upload = Repository._upload

    def remove(self: Repository, *arguments: Any) -> None:
        for name in blobs(self):
            self.fs.rm_file(f"{self.root}/blobs/{name}")
        upload(self, *arguments)

    monkeypatch.setattr(Repository, "_upload", remove)
    shard.work()
    with pytest.raises(GraphError, match=r"is not in .* after its upload"):
        shard.save(kept)
    assert len(kept.ids()) == 1


def test_no_room(shard: Shard, kept: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is too small is said before anything is downloaded."""
    saved = shard.save(kept)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(GraphError, match="bytes left, the checkpoint needs"):
        kept.restore(saved.id, tmp_path / "target", quiet)


def test_read_meta(shard: Shard, tmp_path: Path) -> None:
    """`meta` can be read while the state is open; a folder without a state is an error that says so."""
    assert checkpoint.read_meta(shard.folder / "state")[b"next"] == b"50"
    with pytest.raises(DamagedError, match="holds no state"):
        checkpoint.read_meta(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(DamagedError, match="nothing was committed yet"):
        checkpoint.describe({}, log="", shard=0, shards=1, created_s=0.0)


def test_only_what_is_committed_and_links(tmp_path: Path) -> None:
    """The store's own part: staged rows are not in it, SST files are the same files."""
    store = Store(tmp_path / "state")
    store.write("meta", b"next", b"1")
    store.commit()
    store.write("meta", b"next", b"2")
    store.checkpoint(tmp_path / "taken")
    assert checkpoint.read_meta(tmp_path / "taken") == {b"next": b"1"}
    tables = list((tmp_path / "taken").glob("*.sst"))
    assert tables
    assert all(path.stat().st_nlink == 2 for path in tables)
    store.close()
