"""The state: the disk holds the last commit, and only the same spec and format can open it."""

from __future__ import annotations

from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

from graphstate.apply.kernels import events as event_kernels
from graphstate.errors import DamagedError, FormatError
from graphstate.event_columns import EventColumns
from graphstate.memory import counter_kernels, features, frontier, windows
from graphstate.memory.node_tables import LQ, LQ_SUM
from graphstate.oracle.naive_features import log_quantum
from graphstate.queries.recent_activity import measure
from graphstate.state import GraphState
from graphstate.storage import pair_tables, row_layouts
from graphstate.types import OWN, GraphSpec, Kind, Mutation
from tests.support.graphs import at, create, follow, share, unshare
from tests.support.strategies import history


def test_open_with_another_spec(tmp_path: Path) -> None:
    """A state built with another window is refused, and the message names what differs."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.commit()
    state.close()
    with pytest.raises(FormatError, match="window"):
        GraphState.open(tmp_path, GraphSpec(window=8))


def test_open_another_format(tmp_path: Path) -> None:
    """A state of another format version is refused, with both versions."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.commit({b"format": b"99"})
    state.close()
    with pytest.raises(FormatError, match="format 99"):
        GraphState.open(tmp_path, GraphSpec())


def test_a_boundary_follows_all_earlier_mutations(tmp_path: Path) -> None:
    """`on_boundary` is called before the mutation that passes the boundary, once for a jump over several."""
    state = GraphState.open(tmp_path, GraphSpec())
    calls: list[tuple[int, int]] = []

    def on_boundary(time: int) -> None:
        calls.append((time, len(state.users.index)))

    hour = 60 * 60_000_000
    state.apply(
        [follow(1, "a", "b"), follow(61, "a", "c"), follow(30, "a", "d"), follow(301, "a", "e")], hour, on_boundary
    )
    assert calls == [(at(60), 2), (at(300), 4)]
    state.close()


def test_forgotten_ids_leave_the_disk(tmp_path: Path) -> None:
    """After a forget no committed row holds the id, and late events of the person stay void after a restart."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.apply([follow(1, "somebody-real", "b"), share(2, "somebody-real", "x")])
    state.commit()
    state.apply([Mutation(Kind.FORGET, at(5), "somebody-real")])
    state.commit()
    state.close()
    again = GraphState.open(tmp_path, GraphSpec())
    rows = [value for family in ("nodes", "counters", "meta") for _, value in again.store.rows(family)]
    assert not any(b"somebody-real" in value for value in rows)
    again.apply([follow(4, "somebody-real", "b")])
    assert not again.snapshot().canonical().edges[0].size
    again.close()


def test_later_creates_of_forgotten_users_leave_the_disk(tmp_path: Path) -> None:
    """A forget removes the user's later create of a content; a create from after the forget stays."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.apply([create(1, "b", "x"), create(2, "a", "x"), create(3, "c", "x"), create(9, "a", "x")])
    state.commit()
    state.apply([Mutation(Kind.FORGET, at(5), "a")])
    state.commit()
    names, claims = (
        state.users.ids,
        row_layouts.prefix(row_layouts.CREATE_CLAIM, state.contents.index["x"]),
    )
    waiting = [row_layouts.read_create_claim(key) for key, _ in state.store.scan(claims)]
    assert [(time, names[user]) for time, user, _ in waiting] == [(at(3), "c"), (at(9), "a")]
    state.apply([Mutation(Kind.FORGET, at(10), name) for name in ("a", "c")])
    state.commit()
    assert list(state.store.scan(claims)) == []
    assert not state.contents.claims.any()
    state.close()


def test_more_sharers_than_logarithms(tmp_path: Path) -> None:
    """Beyond 2²⁰ sharers the logarithm of a content is constant, for rising and falling reach."""
    state, most = GraphState.open(tmp_path, GraphSpec()), len(LQ) - 1
    state.apply([create(1, "a", "x"), share(2, "b", "x")])
    users, contents = state.users, state.contents
    user, content = users.index["a"], contents.index["x"]
    contents.reach[content], users.counts[user, LQ_SUM] = most, LQ[most]
    state.apply([share(3, "c", "x"), share(4, "d", "x")])
    assert contents.reach[content] == most + 2
    assert users.counts[user, LQ_SUM] == LQ[most] == log_quantum(most + 2)
    assert users.own[user, [OWN.index("recent_mean"), OWN.index("last")]].tolist() == [LQ[most] // 64] * 2
    state.apply([unshare(5, name, "x") for name in "bcd"])
    assert contents.reach[content] == most - 1
    assert users.counts[user, LQ_SUM] == LQ[most - 1]
    state.close()


def test_expired_events_change_nothing(tmp_path: Path) -> None:
    """With retention, an event older than retention and lateness is counted and otherwise ignored."""
    state = GraphState.open(tmp_path, GraphSpec(retention_s=86_400, lateness_s=3_600))
    state.apply([follow(3_000, "a", "b")])
    assert state.apply([follow(1, "late", "b")]) == {"applied": 0, "expired": 1}
    assert "late" not in state.users.index
    state.close()


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """An unreadable block is an error, and not taken for the end of the rows."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.apply([follow(number, f"u{number}", f"v{number % 50}") for number in range(5_000)])
    state.commit()
    state.store.checkpoint(tmp_path / "copy")
    state.close()
    largest = max((tmp_path / "copy").glob("*.sst"), key=lambda path: path.stat().st_size)
    raw = bytearray(largest.read_bytes())
    raw[len(raw) // 3 : len(raw) // 3 + 64] = bytes(64)
    largest.unlink()  # it is a hard link to the original
    largest.write_bytes(raw)
    with pytest.raises(DamagedError, match="restore or remove it"):
        GraphState.open(tmp_path / "copy", GraphSpec())


def test_an_open_state_compiles_nothing_more(tmp_path: Path) -> None:
    """Opening an empty state compiles all kernels of a micro-batch, so that no event waits for a compiler."""
    state = GraphState.open(tmp_path, GraphSpec())
    kernels = [
        kernel
        for module in (counter_kernels, event_kernels, features, frontier, pair_tables, windows)
        for kernel in vars(module).values()
        if isinstance(kernel, Dispatcher)
    ]
    before = [len(kernel.overloads) for kernel in kernels]
    log = history(1, 400)
    for begin in range(0, len(log), 20):
        state.apply(log[begin : begin + 20])
        state.stale_second(state.stale_first())
        state.commit()
    assert [len(kernel.overloads) for kernel in kernels] == before
    assert any(before)
    state.close()


def test_a_micro_batch_has_one_order(tmp_path: Path) -> None:
    """Calls outside of begin, take, refresh, commit are refused, and name the order."""
    state = GraphState.open(tmp_path, GraphSpec())
    for early in (lambda: state.take(EventColumns.of([]), at(0)), state.refresh):
        with pytest.raises(RuntimeError, match="while idle; the order is begin, take, refresh, commit"):
            early()
    state.begin()
    state.take(EventColumns.of([follow(1, "a", "b")]), at(1))
    for late in (state.begin, state.commit):
        with pytest.raises(RuntimeError, match="while applying"):
            late()
    state.refresh()
    with pytest.raises(RuntimeError, match="take called while refreshed"):
        state.take(EventColumns.of([]), at(2))
    state.commit()
    state.close()


def test_counters_are_counted_when_a_record_is_taken(tmp_path: Path) -> None:
    """Activity can be measured before the refresh, after frequent and after rare events."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.begin()
    state.take(EventColumns.of([create(1, "a", "x"), share(2, "b", "x"), share(2, "c", "x")]), at(2))
    assert measure(state, at(90), 7_200).recent[state.users.index["a"]] == 2
    state.take(EventColumns.of([unshare(3, "b", "x")]), at(3))
    assert measure(state, at(90), 7_200).recent[state.users.index["a"]] == 1
    state.close()
