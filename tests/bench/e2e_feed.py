"""Process that sends the stream of `social` on request: `python -m tests.bench.e2e_feed ADDRESS ...`.

It writes one line when it is ready. Each line of its input is a JSON object with rate, count and seconds as in
`tests.load.feed`; it answers each with what it sent. The stream continues across requests. `Feeder` is the client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Self

import msgspec

from graphstate.types import Kind, Mutation
from streams.messages.events import TOPIC_OF
from streams.messages.files.event_files import FIELDS, row_of
from streams.settings.settings import Settings
from tests.bench.workloads import Size, generated
from tests.load.events import Sent
from tests.load.feed import send
from tests.load.rig import cpu_s
from tests.support import tidy

END_S = 10.0
_encode = msgspec.json.Encoder().encode


def messages(updates: Iterable[Mutation]) -> Iterator[Sent]:
    """Encode mutations as the input messages that they come from."""
    for one in updates:
        yield Sent(TOPIC_OF[FIELDS[Kind(one.kind)][0]], one.user.encode(), _encode(row_of(one)))


class Feeder:
    """Client of the sending process; a context manager. sent: number of events that Kafka has acknowledged."""

    def __init__(self, address: str, size: Size) -> None:
        command = [sys.executable, "-m", "tests.bench.e2e_feed", address, str(size.users), str(size.follows)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tidy.ROOT
        )
        self._ready = False
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def cpu_s(self) -> float:
        """Processor seconds of the process so far."""
        return cpu_s(self._process.pid)

    def wait_ready(self) -> None:
        """Wait until the process has generated its graph."""
        if not self._ready:
            self._ready = bool(self._answer())

    def begin(self, *, rate: float = 0.0, count: int = 0, seconds: float = 0.0) -> None:
        """Start sending; `result` waits for the end."""
        self.wait_ready()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"rate": rate, "count": count, "seconds": seconds}) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for the last `begin`; return the events and seconds that were sent."""
        report = self._answer()
        self.sent += int(report["events"])
        return report

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the feeder ended with {self._process.wait(END_S)}")
        report: dict[str, Any] = json.loads(line)
        return report


def main() -> None:
    """Answer each request until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("users", type=int)
    parser.add_argument("follows", type=int)
    given = parser.parse_args()
    settings = Settings.load(broker=given.address)
    events = messages(generated("social", Size(given.users, given.follows)).updates())
    first = next(events)

    def rest() -> Iterator[Sent]:
        yield first
        yield from events

    stream = rest()
    answer({"ready": True})
    for line in sys.stdin:
        answer(asyncio.run(send(settings, stream, **json.loads(line))))


def answer(report: dict[str, Any]) -> None:
    """Write one line of output."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
