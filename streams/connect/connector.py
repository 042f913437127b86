"""The process of `groundswell connect`: batch after batch from a source through a mapping to the input topics.

The order of one batch stands in `Connector.deliver`: events acknowledged by Kafka, the memory written, the position of
the source committed. A crash between two of these repeats the batch, whose events count once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from streams.connect.mapping import Mapping
from streams.connect.sources import Arrival, Source
from streams.errors import BadEvent, InputError, one_line
from streams.kafka.event_producer import CHUNK
from streams.messages.files.event_files import Skipped

Row = dict[str, Any]


class Out(Protocol):
    """Where events are sent (`streams.kafka.event_producer.Sender`)."""

    sent: int

    async def send(self, rows: list[Row]) -> None:
        """Send valid rows and wait until all are acknowledged."""


class Refused:
    """Records that make no valid event: counted, and written to a file if there is one.

    Args:
        skipped: counts them, and ends the command at the first that may not be skipped.
        path: the file, one JSON object a line: `place`, `reason`, `message` and the record as text; None: no file.
    """

    def __init__(self, skipped: Skipped, path: Path | None = None) -> None:
        self._skipped, self._path = skipped, path
        self._lines: list[bytes] = []

    def add(self, arrival: Arrival, bad: BadEvent) -> None:
        """Count a record.

        Raises:
            InputError: it may not be skipped.
        """
        self._skipped.skip(arrival.place, bad, arrival.record if isinstance(arrival.record, dict) else None)
        line = {"place": arrival.place, "reason": bad.reason, "message": str(bad)}
        self._lines.append(msgspec.json.encode({**line, "record": arrival.raw.decode(errors="replace")}) + b"\n")

    def write(self) -> None:
        """Append the records to the file.

        Raises:
            InputError: the file cannot be written.
        """
        lines, self._lines = self._lines, []
        if self._path is None or not lines:
            return
        try:
            with self._path.open("ab") as file:
                file.writelines(lines)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({one_line(error)}); give another --rejected") from error


class Connector:
    """Reads a source until its end or `stop`.

    Args:
        source: the source.
        mapping: makes events of its records.
        out: sends them.
        refused: records without a valid event.
        on_records: called with the number of records of each batch.
    """

    def __init__(
        self,
        source: Source,
        mapping: Mapping,
        out: Out,
        refused: Refused,
        on_records: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._source, self._mapping, self._out = source, mapping, out
        self._refused, self._on_records = refused, on_records
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End after the present batch."""
        self._stopped.set()

    async def run(self) -> None:
        """Deliver batches.

        Raises:
            InputError: a record is invalid and may not be skipped; the batches before it are delivered.
            BrokerError: Kafka refused.
        """
        batches = self._source.batches()
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            while True:
                # Each batch is a task of its own, so that a stop need not wait for a source that has nothing to send.
                pending = asyncio.ensure_future(anext(batches, None))
                await asyncio.wait({pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not pending.done():
                    pending.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await pending
                    return
                batch = pending.result()
                if batch is None:
                    return
                await self.deliver(batch)
                if self._stopped.is_set():
                    return
        finally:
            stopped.cancel()
            await batches.aclose()  # type: ignore[attr-defined]

    async def deliver(self, batch: list[Arrival]) -> None:
        """Send the events of a batch, then write the memory, then commit the position.

        Raises:
            InputError: a record may not be skipped. What was valid before it in the batch is sent and remembered, the
                position is not committed, so that the record is read again after a mend.
        """
        rows, error = self._mapped(batch)
        for begin in range(0, len(rows), CHUNK):
            await self._out.send(rows[begin : begin + CHUNK])
        self._refused.write()
        # A cursor behind a record that ended the batch would leave it out.
        self._mapping.memory.commit("" if error else self._source.cursor)
        if error:
            raise error
        await self._source.commit()
        self._on_records(len(batch))

    def _mapped(self, batch: list[Arrival]) -> tuple[list[Row], InputError | None]:
        rows: list[Row] = []
        for arrival in batch:
            try:
                if isinstance(arrival.record, BadEvent):
                    raise arrival.record
                rows += (row for row, _ in self._mapping(arrival.record, None, arrival.time_s))
            except BadEvent as bad:
                try:
                    self._refused.add(arrival, bad)
                except InputError as error:
                    return rows, error
        return rows, None
