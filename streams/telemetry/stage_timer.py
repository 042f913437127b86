"""How long the stages of a step take."""

from __future__ import annotations

from time import perf_counter, thread_time
from typing import ClassVar


class StageTimer:
    """Adds the duration of a `with` block to a stage; ten times as fast as a generator-based context manager.

    Args:
        seconds: the durations so far, by stage.
        stage: the stage of the block.

    Attributes:
        processor: processor seconds of the thread by stage; None, the default, measures none: each reading of that
            clock is a system call.
    """

    processor: ClassVar[dict[str, float] | None] = None

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        if self.processor is not None:
            self._processor_begin = thread_time()
        self._begin = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + perf_counter() - self._begin
        if self.processor is not None:
            used = thread_time() - self._processor_begin
            self.processor[self._stage] = self.processor.get(self._stage, 0.0) + used
