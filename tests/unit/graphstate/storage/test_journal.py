"""The journal: rewritten, joined and cleaned in any order, it loads what memory holds, and forgets what was removed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from graphstate.errors import DamagedError
from graphstate.storage import journal as journals
from graphstate.storage import row_layouts
from graphstate.storage.journal import Journal, pack, unpack
from graphstate.storage.register_tables import RegisterTables, nothing
from graphstate.storage.row_layouts import DECISION, FOLLOW, NEVER, PAIR, PAIR_VALUE, SHARE, SHARE_VALUE
from graphstate.storage.store import Store


def change(registers: RegisterTables, rng: random.Random, step: int) -> None:
    """Change a few entries of each table."""
    for _ in range(rng.randrange(1, 8)):
        one, two = rng.randrange(12), rng.randrange(12)
        gone = rng.random() < 0.3
        registers.note(row_layouts.pair(FOLLOW, one, two), None if gone else DECISION.pack(step, step % 2))
        share = SHARE_VALUE.pack(step if step % 3 else NEVER, step, step % 5 - 1, 0)
        registers.note(row_layouts.pair(SHARE, one, two), None if gone else share)
        pair = row_layouts.pair(PAIR, one, two)
        if gone:
            for time, content in credits_of(registers, one, two):
                registers.note(row_layouts.credit(two, one, time, content), None)
            registers.note(pair, None)
        else:
            registers.note(pair, PAIR_VALUE.pack(step, step, NEVER, NEVER))
            registers.note(row_layouts.credit(two, one, step, rng.randrange(3)), b"")


def credits_of(registers: RegisterTables, user: int, creator: int) -> list[tuple[int, int]]:
    """Return (time, content) of the credits of a pair, sorted."""
    entry = registers.pairs.get(user, creator)
    if entry is None:
        return []
    return sorted((time, content) for time, content in registers.credits.entries(int(entry[5])).tolist())


def publish(registers: RegisterTables, rng: random.Random, step: int) -> None:
    """Publish scores and alerts of a few users, and invalidate others."""
    published = registers.published
    published.ensure_capacity(600)
    rows = np.unique([rng.randrange(600) for _ in range(4)])
    published.reach[rows], published.percentile[rows] = step, step / 7
    published.alerted[rows[:1]] = step
    published.mark(rows)
    gone = np.array([rng.randrange(600)])
    published.alerted[gone] = NEVER
    published.invalidate(gone)


def held(registers: RegisterTables) -> list[object]:
    """Return everything that tables hold, in an order of its own."""
    tables = [sorted(map(tuple, table.entries()[:, :5].tolist())) for table in registers.tables]
    credited = {
        key: credits_of(registers, key >> 32, key & 0xFFFFFFFF) for key, *_ in registers.pairs.entries().tolist()
    }
    sharers = [sorted(registers.sharers_of(content)) for content in range(12)]
    return [tables, sorted(credited.items()), sharers, registers.published.dump().tolist()]


def loaded(folder: Path) -> list[object]:
    """Return what the committed journal loads."""
    store = Store(folder, read_only=True)
    try:
        for _ in Journal(store, store.registers).load():
            pass
        store.registers.loaded(12)
        return held(store.registers)
    finally:
        store.close()


@pytest.mark.parametrize("spare", [0, 1 << 30])
def test_it_loads_what_memory_holds(spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of many commits, with segments rewritten for space (spare 0), joined by class, and cleaned."""
    monkeypatch.setattr(journals, "_SPARE_BYTES", spare)
    monkeypatch.setattr(journals, "_AT_ONCE_BYTES", 300)
    monkeypatch.setattr(journals, "_FEW", 4)
    monkeypatch.setattr(journals, "_CLASSES", (400, 2_000))
    rng, store = random.Random(spare), Store(tmp_path / "state")
    journal = Journal(store, store.registers)
    for step in range(1, 200):
        change(store.registers, rng, step)
        publish(store.registers, rng, step)
        journal.commit()
        if step % 50 == 0:
            assert journal.clean(journal.newest, 1 << 30)
        store.commit()
        assert journal.size == sum(len(value) for _, value in store.rows("journal"))
        if step % 20 == 0:
            assert loaded(tmp_path / "state") == held(store.registers)
    assert len(journal.segments) < 150
    store.close()


def test_a_row_is_joined_once_in_each_size_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joins read each byte a few times at most, whatever the sizes of the commits that follow each other."""
    read, rewrite = 0, Journal._rewrite

    def counted(journal: Journal, begin: int, end: int) -> None:
        nonlocal read
        read += sum(segment.size for segment in journal.segments[begin:end])
        rewrite(journal, begin, end)

    monkeypatch.setattr(Journal, "_rewrite", counted)
    store, rng, follow, added = Store(tmp_path), random.Random(1), 0, 0
    journal = Journal(store, store.registers)
    for _ in range(3_000):
        for _ in range(rng.choice((5, 5, 5, 60))):
            follow += 1
            store.registers.note(row_layouts.pair(FOLLOW, follow, 1), DECISION.pack(follow, 1))
        before, merged = journal.size, read
        journal.commit()
        added += journal.size - before if read == merged else 0
        store.commit()
    assert read < 3 * added
    assert len(journal.segments) < 3 * 16
    store.close()


def test_cleaning_drops_what_was_removed(tmp_path: Path) -> None:
    """No segment has the key of a removed entry after a cleaning in small parts."""
    store = Store(tmp_path)
    journal, key = Journal(store, store.registers), row_layouts.pair(FOLLOW, 7, 11)
    for time in range(1, 30):
        store.registers.note(key, DECISION.pack(time, 1))
        store.registers.note(row_layouts.pair(FOLLOW, 1, time), DECISION.pack(time, 1))
        journal.commit()
        store.commit()
    store.registers.note(key, None)
    journal.commit()
    store.commit()
    until, parts = journal.newest, 1
    while not journal.clean(until, 100):
        store.commit()
        parts += 1
    store.commit()
    assert parts > 2
    rows = np.concatenate([unpack(value)[0] for _, value in store.rows("journal")])
    assert 7 not in (rows[:, 0] >> 32).tolist()
    assert len(rows) == 29
    store.close()


def test_a_damaged_segment_is_refused() -> None:
    """A segment of another size than its rows have is refused with one line."""
    value = pack(nothing())
    for damaged in (value[:-3], value + bytes(8), value[:8]):
        with pytest.raises(DamagedError, match="restore or remove the state"):
            unpack(damaged)
