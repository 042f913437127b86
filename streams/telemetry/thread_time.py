"""Processor time of the process by thread, read from the kernel at each scrape."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

TASKS = Path("/proc/self/task")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_NUMBER = re.compile(r"[-_:]?\d+(_\d+)?$")
MAIN = "main"


class ThreadTime(Collector):
    """A counter of processor seconds by thread name; threads of one pool count as one, ended threads stay counted.

    Python's threads have the name that Python gave them, others (RocksDB's) that of the kernel. Empty where the kernel
    has no `/proc`.

    Args:
        name: name of the metric.
        tasks: folder with one folder for each thread.
    """

    def __init__(self, name: str, tasks: Path = TASKS) -> None:
        self._name, self._tasks = name, tasks
        self._ended: dict[str, float] = {}
        self._last: dict[int, tuple[str, float]] = {}

    def describe(self) -> Iterable[Metric]:
        """Return the counter without values."""
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        """Yield the counter for Prometheus."""
        family = self._family()
        for thread, seconds in sorted(self.seconds().items()):
            family.add_metric([thread], seconds)
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, "Processor time used, by thread", labels=["thread"])

    def seconds(self) -> dict[str, float]:
        """Return the processor seconds so far by thread name."""
        current = self._read()
        for task, (name, seconds) in self._last.items():
            # A number that is used again belongs to another thread, whose time begins at 0.
            if task not in current or current[task][1] < seconds:
                self._ended[name] = self._ended.get(name, 0.0) + seconds
        self._last = current
        total = dict(self._ended)
        for name, seconds in current.values():
            total[name] = total.get(name, 0.0) + seconds
        return total

    def _read(self) -> dict[int, tuple[str, float]]:
        """Return name and processor seconds of each thread by its number."""
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        names[threading.main_thread().native_id] = MAIN
        found: dict[int, tuple[str, float]] = {}
        for folder in self._tasks.iterdir() if self._tasks.is_dir() else ():
            with suppress(OSError):  # the thread has ended
                # The name of a thread, in brackets, may contain spaces and brackets.
                begin, _, rest = (folder / "stat").read_text(encoding="utf-8").rpartition(")")
                fields = rest.split()
                task, seconds = int(folder.name), (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
                last, before = self._last.get(task, ("", 0.0))
                # Python drops a thread a moment before the kernel does: until then it keeps its name.
                name = names.get(task) or (last if seconds >= before else "") or begin.partition("(")[2]
                found[task] = (_NUMBER.sub("", name), seconds)
        return found
