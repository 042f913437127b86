"""Rounds beside the passes: when one is wanted, what it reports, and how its error appears."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from streams.analyst.pace import Rounds
from tests.support.coroutines import run


@dataclass(frozen=True, eq=False)
class Result:
    """A result of a pass."""

    measures: Any


class Work(Rounds[Result]):
    """Rounds that fail with a given error."""

    def begin(self, measures: Any, error: Exception | None = None) -> None:
        """Begin a round."""

        async def work(seconds: dict[str, float]) -> Result:
            seconds["stage"] = 0.0
            return Result(await self._in_thread(self._result, measures, error))

        self._start(work)

    @staticmethod
    def _result(measures: Any, error: Exception | None) -> Any:
        if error is not None:
            raise error
        return measures


def test_a_round_is_wanted_once_for_each_pass() -> None:
    """None is wanted while one runs, and none of a pass that has one; its stages are reported."""
    stages: list[str] = []

    async def rounds() -> None:
        done = asyncio.Event()

        def note(stage: str, _: float) -> None:
            stages.append(stage)
            done.set()

        work, one, two = Work("test", note), object(), object()
        assert work.wants(one)
        work.begin(one)
        assert not work.wants(two)
        await done.wait()
        assert work.latest is not None
        assert work.latest.measures is one
        while not work.wants(two):  # noqa: ASYNC110 - a finished task signals nothing
            await asyncio.sleep(0)
        assert not work.wants(one)
        await work.close()

    run(rounds)
    assert stages == ["stage"]


def test_the_error_of_a_round_appears_with_the_next_check() -> None:
    """A round that failed raises its error in `check` and in the next begin, and can be closed."""

    async def rounds() -> None:
        work = Work("test", lambda *_: None)
        work.begin(object(), OSError("no memory"))
        while not work.wants(object()):  # noqa: ASYNC110 - a finished task signals nothing
            await asyncio.sleep(0)
        with pytest.raises(OSError, match="no memory"):
            work.check()
        with pytest.raises(OSError, match="no memory"):
            work.begin(object())
        await work.close()

    run(rounds)
