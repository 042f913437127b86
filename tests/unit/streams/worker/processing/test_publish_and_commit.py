"""The order of outputs, state and offsets, and the refusal of stale polls between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

import pytest
from faust.types import TP

from streams.errors import StaleStep
from streams.kafka.consumer.poll_queue import Poll
from streams.worker.processing.publish_and_commit import Step, publish_and_commit


class Recorder:
    """A consumer, and the steps of its polls; records what happens and ends the epoch after a given record."""

    def __init__(self, stale_after: str = "") -> None:
        self.log: list[str] = []
        self.fails = ""
        self._stale_after = stale_after

    def note(self, what: str) -> None:
        """Record an action, or fail in it."""
        if what == self.fails:
            raise ConnectionError(what)
        self.log.append(what)

    def is_current(self, _poll: Poll) -> bool:
        """Whether the given action is not recorded yet."""
        return self._stale_after not in self.log

    def complete_poll(self, _poll: Poll) -> None:
        """Record the completion."""
        self.note("offsets")

    async def steps(self, names: Iterable[str]) -> AsyncGenerator[Step | None, None]:
        """Yield one step per name, and None for a space."""
        for name in names:
            if name == " ":
                yield None
                continue
            if not self.is_current(poll()):
                raise StaleStep(name)
            self.note(f"step {name}")
            yield RecordedStep(self, name)


class RecordedStep:
    """A step that records its actions."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self._name = name

    async def publish(self) -> None:
        """Record the acknowledgement."""
        await asyncio.sleep(0)
        self._recorder.note(f"publish {self._name}")

    async def commit(self) -> bool:
        """Record the commit, unless the poll is stale."""
        await asyncio.sleep(0)
        if not self._recorder.is_current(poll()):
            return False
        self._recorder.note(f"commit {self._name}")
        return True


def poll(*, empty: bool = False) -> Poll:
    """Return a poll with one record, or none."""
    polled = Poll("t", 1, 1)
    if not empty:
        polled.add(TP("t", 0), [], 1)
    return polled


WHOLE = ["step a", "step b", "publish a", "commit a", "publish b", "commit b", "offsets"]
APART = ["step a", "publish a", "commit a", "step b", "publish b", "commit b", "offsets"]


@pytest.mark.parametrize(
    ("names", "stale_after", "log"),
    [
        ("ab", "never", WHOLE),
        ("ab", "step a", ["step a", "publish a"]),
        ("ab", "step b", WHOLE[:3]),
        ("ab", "publish a", WHOLE[:3]),
        ("ab", "commit a", WHOLE[:5]),  # the real producer refuses the outputs of b
        ("ab", "publish b", WHOLE[:5]),
        ("ab", "commit b", WHOLE[:6]),
        ("a b", "never", APART),
        ("a b", "publish a", APART[:2]),
        ("a b", "commit a", APART[:3]),
    ],
)
def test_outputs_then_state_then_offsets(names: str, stale_after: str, log: list[str]) -> None:
    """One step may be computed ahead, nothing of it is sent before the one before is durable; offsets follow the last.

    A stale poll commits nothing further. A space is a step that must not run ahead.
    """
    recorder = Recorder(stale_after)
    durable = asyncio.run(publish_and_commit(recorder, poll(), [recorder.steps(names)]))
    assert recorder.log == log
    assert durable == (log in (WHOLE, APART))


@pytest.mark.parametrize("failing", ["publish a", "step b"])
def test_nothing_is_in_flight_after_an_error(failing: str) -> None:
    """An error of the step ahead waits for the step before; an error of that one drops the step ahead."""
    recorder = Recorder("never")
    recorder.fails = failing
    with pytest.raises(ConnectionError):
        asyncio.run(publish_and_commit(recorder, poll(), [recorder.steps("abc")]))
    assert recorder.log == {
        "publish a": ["step a", "step b"],
        "step b": ["step a", "publish a", "commit a"],
    }[failing]  # fmt: skip


def test_offsets_wait_for_every_partition() -> None:
    """The offsets of a poll follow the last commit of all its partitions."""
    recorder = Recorder("never")
    assert asyncio.run(publish_and_commit(recorder, poll(), [recorder.steps("a"), recorder.steps("bc")]))
    assert sorted(recorder.log[:-1]) == sorted(
        f"{what} {name}" for name in "abc" for what in ("step", "publish", "commit")
    )
    assert recorder.log[-1] == "offsets"


def test_an_empty_poll_has_no_offsets() -> None:
    """A step without a fetch is published and committed, and completes no poll."""
    recorder = Recorder("never")
    assert asyncio.run(publish_and_commit(recorder, poll(empty=True), [recorder.steps("a")]))
    assert recorder.log == APART[:3]


def test_a_refused_step_of_a_current_poll_is_an_error() -> None:
    """A shard refuses a step only for a stale poll; otherwise the error is raised."""

    async def refused() -> AsyncGenerator[Step | None, None]:
        raise StaleStep("refused")
        yield

    recorder = Recorder("never")
    with pytest.raises(StaleStep):
        asyncio.run(publish_and_commit(recorder, poll(), [refused()]))
