"""The order of a batch: events, memory, position; and what a failure at each place leaves for the next start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streams.connect.connector import Connector, Refused
from streams.connect.mapping import load
from streams.connect.memory import Memory
from streams.connect.sources import Arrival, arrivals
from streams.errors import BrokerError, InputError
from streams.messages.files.event_files import Skipped

MAP = (
    'time = "at"\n[[event]]\nwhen.kind = "share"\ntype = "share"\nuser = "u"\ncontent = "p"\nkey = "id"\n'
    '[[event]]\nwhen.kind = "gone"\nundo = "id"\n'
)
SHARES = [{"kind": "share", "at": at, "u": "ana", "p": f"p{at}", "id": at} for at in range(1, 7)]


class Listed:
    """A source of prepared batches that keeps which were committed."""

    def __init__(self, batches: list[list[Any]], log: list[str]) -> None:
        self._batches, self._log, self._read = batches, log, 0
        self.cursor = ""

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield the batches."""
        for number, batch in enumerate(self._batches):
            self.cursor, self._read = str(number), number
            yield [one for record in batch for one in arrivals(f"batch {number}", _bytes(record), 1.0)]

    async def commit(self) -> None:
        """Note the commit."""
        self._log.append(f"position {self._read}")


def _bytes(record: Any) -> bytes:
    return record if isinstance(record, bytes) else json.dumps(record).encode()


class Sent:
    """Keeps the events; fails at a number of sends."""

    def __init__(self, log: list[str], fail_at: int = -1) -> None:
        self.sent, self._log, self._fail_at = 0, log, fail_at
        self.rows: list[dict[str, Any]] = []

    async def send(self, rows: list[dict[str, Any]]) -> None:
        """Keep the rows."""
        if self._fail_at == 0:
            raise BrokerError("refused")
        self._fail_at -= 1
        self.rows += rows
        self.sent += len(rows)
        self._log.append(f"events {len(rows)}")


def run(
    folder: Path, batches: list[list[Any]], log: list[str], *, fail_at: int = -1, skip: int | None = 0, on: Any = None
) -> Sent:
    """Run a connector over batches with the store of a folder."""
    path = folder / "own.toml"
    path.write_text(MAP)
    memory = Memory(folder / "store.sqlite")
    out = Sent(log, fail_at)
    rejected = Refused(Skipped(skip), folder / "rejected.jsonl")

    async def go() -> None:
        await Connector(Listed(batches, log), load(str(path), memory), out, rejected, on or (lambda _: None)).run()

    try:
        asyncio.run(go())
    finally:
        memory.close()
    return out


def test_the_position_follows_the_events(tmp_path: Path) -> None:
    """Each batch is sent before its position is committed, and a later start takes back what an earlier one shared."""
    log: list[str] = []
    run(tmp_path, [SHARES[:2], SHARES[2:]], log)
    assert log == ["events 2", "position 0", "events 4", "position 1"]
    out = run(tmp_path, [[{"kind": "gone", "at": 9, "id": 3}]], log)
    assert out.rows == [{"type": "unshare", "time": 9, "user": "ana", "content": "p3"}]


def test_a_refused_send_commits_nothing(tmp_path: Path) -> None:
    """The batch is neither remembered nor committed, so that it is read again."""
    log: list[str] = []
    with pytest.raises(BrokerError):
        run(tmp_path, [SHARES[:2], SHARES[2:]], log, fail_at=1)
    assert log == ["events 2", "position 0"]
    memory = Memory(tmp_path / "store.sqlite")
    assert (len(memory), memory.cursor) == (2, "0")
    memory.close()


def test_a_bad_record_ends_it_at_its_place(tmp_path: Path) -> None:
    """What was valid before it is sent, the position stays; with --skip-bad it is written to the file of rejected."""
    log: list[str] = []
    bad: list[Any] = [SHARES[0], {"kind": "share", "at": 5}, SHARES[1], b"{", [SHARES[2], {"kind": "other"}]]
    with pytest.raises(InputError, match=r"batch 0: own.toml, event 1, field user: the record has no u"):
        run(tmp_path, [bad], log)
    assert log == ["events 1"]
    out = run(tmp_path, [bad], log, skip=None)
    assert [row["content"] for row in out.rows] == ["p1", "p2", "p3"]
    assert log[-1] == "position 0"
    lines = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(line["reason"], line["record"]) for line in lines] == [
        ("map", '{"kind": "share", "at": 5}'), ("json", "{"),
    ]  # fmt: skip


def test_a_stop_ends_after_the_batch(tmp_path: Path) -> None:
    """A batch that is being delivered is completed, and a source that has nothing to send does not delay the end."""

    class Endless(Listed):
        async def batches(self) -> AsyncIterator[list[Arrival]]:
            async for batch in super().batches():
                yield batch
            await asyncio.sleep(3_600)

    log: list[str] = []
    path = tmp_path / "own.toml"
    path.write_text(MAP)
    memory = Memory()

    async def go() -> None:
        connector = Connector(Endless([SHARES[:1]], log), load(str(path), memory), Sent(log), Refused(Skipped()))
        asyncio.get_running_loop().call_later(0.2, connector.stop)
        await connector.run()

    asyncio.run(go())
    assert log == ["events 1", "position 0"]
