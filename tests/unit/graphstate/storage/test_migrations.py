"""Migration of stored states of older formats."""

from __future__ import annotations

import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from graphstate.errors import FormatError
from graphstate.state import FORMAT, GraphState
from graphstate.storage import migrations, row_layouts
from graphstate.storage.store import Store
from graphstate.types import USER, GraphSpec, Mutation, Snapshot

GOLDEN = Path(__file__).parents[3] / "golden"


def stored(tmp_path: Path, version: int = migrations.OLDEST) -> tuple[Path, GraphSpec, list[Mutation]]:
    """Return the folder of a stored format's state, its spec and its mutations, which are the same for each format."""
    folder = tmp_path / "shard-0"
    with tarfile.open(GOLDEN / f"state-{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    described = json.loads((GOLDEN / "state.json").read_text(encoding="utf-8"))
    return folder, GraphSpec(**described["spec"]), [Mutation(*fields) for fields in described["mutations"]]


def assert_same(one: Snapshot, other: Snapshot) -> None:
    """Assert that two graphs are equal, bit by bit."""
    for field in ("ids", "edges", "times", "propagated", "own", "as_of", "live", "created", "labels"):
        for mine, theirs in zip(getattr(one, field), getattr(other, field), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def rebuilt(tmp_path: Path, spec: GraphSpec, log: list[Mutation]) -> GraphState:
    """Return the state that the same mutations result in now."""
    state = GraphState.open(tmp_path / "rebuilt", spec)
    for begin in range(0, len(log), 50):
        state.apply(log[begin : begin + 50])
        state.commit()
    return state


@pytest.mark.parametrize("version", range(migrations.OLDEST, FORMAT))
def test_a_migrated_state_equals_a_rebuilt_one(tmp_path: Path, version: int) -> None:
    """The migrated state equals the rebuilt one and has its offset, also after further mutations."""
    folder, spec, log = stored(tmp_path, version)
    store = Store(folder)
    assert dict(store.rows("meta"))[b"format"] == str(version).encode()
    store.write("outputs", row_layouts.node(USER, 3), struct.pack("<ffq", 1.5, 50, 7))
    store.commit()
    store.close()
    old, new = GraphState.open(folder, spec), rebuilt(tmp_path, spec, log)
    assert old.meta[b"next"] == b"600"
    assert old.meta[b"format"] == str(FORMAT).encode()
    published = old.store.registers.published
    assert len(published.dump()) == 1
    assert (published.reach[3], published.percentile[3], published.alerted[3]) == (1.5, 50, 7)
    assert_same(old.snapshot().canonical(), new.snapshot().canonical())
    # Removals read every key that the format added.
    last = max(mutation.time for mutation in log)
    for mutation in log[::3]:
        undone = [mutation._replace(kind=kind, time=last, other=other, extra=None) for kind, other in _undo(mutation)]
        for state in (old, new):
            state.apply(undone)
            state.commit()
        assert_same(old.snapshot().canonical(), new.snapshot().canonical())
    old.close()
    new.close()
    again = GraphState.open(folder, spec)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    again.close()


def _undo(mutation: Mutation) -> list[tuple[int, str]]:
    undoing = {5: 6, 7: 8}
    return [(undoing[mutation.kind], mutation.other)] if mutation.kind in undoing else [(4, "")]


def test_a_crash_leaves_one_or_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash during the copy or between the renames, the next start opens a complete state."""
    folder, spec, _ = stored(tmp_path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_packed_3", crash)
        with pytest.raises(KeyboardInterrupt):
            GraphState.open(folder, spec)
    folder.rename(folder.with_name(migrations.BEHIND + folder.name))
    state = GraphState.open(folder, spec)
    assert state.meta[b"next"] == b"600"
    state.close()


@pytest.mark.parametrize(
    ("stored", "message"), [(1, "remove the folder, and the worker rebuilds"), (99, "the release that wrote it")]
)
def test_unsupported_formats(stored: int, message: str, tmp_path: Path) -> None:
    """Other formats are refused with one line that names what to do."""
    with pytest.raises(FormatError, match=message):
        migrations.migrate(tmp_path, stored, FORMAT, lambda *_: None)


def test_leftovers_of_a_migration_are_removed(tmp_path: Path) -> None:
    """A half removed old state is not restored, even if the new one is removed later."""
    folder, spec, _ = stored(tmp_path)
    GraphState.open(folder, spec).close()
    for left in (migrations.BEHIND, migrations.BESIDE):
        (tmp_path / f"{left}{folder.name}").mkdir()
    migrations.recover_all(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    # A read-only process must not change the folders of a writing one.
    (tmp_path / f"{migrations.BESIDE}{folder.name}").mkdir()
    GraphState.open(folder, spec, read_only=True).close()
    assert (tmp_path / f"{migrations.BESIDE}{folder.name}").exists()


def test_an_old_state_is_found_under_its_name(tmp_path: Path) -> None:
    """`recover_all` renames a state that a crash left between two names back to its folder."""
    folder, _, _ = stored(tmp_path)
    folder.rename(tmp_path / f"{migrations.BEHIND}{folder.name}")
    migrations.recover_all(tmp_path)
    assert (folder / "CURRENT").exists()
