"""One worker of a chaos run: restarted unless it should be down, with its exits and measurements."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from streams.settings.settings import Settings
from tests.support.workers import WorkerProcess

STOP_S = 30.0
AGAIN_S = 1.0
"""Delay before an ended worker is restarted, as by a service manager."""
LOOK_S = 0.1
MEASURE_S = 1.0
MUTATIONS = "groundswell.mutations:"
STALL = "groundswell_rebalance_seconds_bucket"


@dataclass(frozen=True)
class End:
    """One exit of a worker's process. asked: the fault that stopped it, empty if it ended by itself."""

    worker: int
    at_s: float
    code: int
    asked: str
    last_line: str


class Member(WorkerProcess):
    """A numbered worker that is restarted after an exit; `up`: whether it should run."""

    forks = False

    def __init__(self, number: int, settings: Settings, *, skewed: bool = False) -> None:
        super().__init__(settings)
        self.number = number
        self.skewed = skewed
        self.clock = Path(f"{settings.datadir}.clock")
        self.up = False
        self.asked = ""
        self.ends: list[End] = []
        self.partitions: list[str] = []
        self.stalls: list[dict[float, float]] = []
        self._not_before = 0.0
        self._begin = time.monotonic()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._keep, self._watch)]

    def start(self) -> None:
        """Start the process without waiting for it."""
        self.stalls.append({})
        super().start()

    def module(self) -> list[str]:
        """The module to run: the worker, with a shifted clock if skewed."""
        return ["tests.chaos.skewed", str(self.clock), "worker"] if self.skewed else super().module()

    def begin(self) -> None:
        """Start the worker and keep it running from now on."""
        self.up = True
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: int) -> bool:
        """Send a signal; False if there is no process."""
        if not self.alive or self.process is None:
            return False
        self.process.send_signal(number)
        return True

    def down(self, number: int, why: str) -> bool:
        """Stop the worker by a signal and leave it down; False if it is down already."""
        self.up, self.asked = False, why
        return self.send(number)

    def again(self) -> None:
        """Restart the worker after `down`."""
        self.up = True

    def _keep(self) -> None:
        """Restart the worker whenever it should run and does not; record every exit."""
        while not self._over.wait(LOOK_S):
            self._note_end()
            if self.up and self.process is None and time.monotonic() >= self._not_before:
                self.start()

    def _note_end(self) -> None:
        process = self.process
        if process is not None and (code := process.poll()) is not None:
            self.ends.append(End(self.number, time.monotonic() - self._begin, code, self.asked, self.last_log_line()))
            self.process, self.asked, self.partitions = None, "", []
            self._not_before = time.monotonic() + AGAIN_S

    def _watch(self) -> None:
        """Read the worker's shards and its rebalance durations."""
        while not self._over.wait(MEASURE_S):
            if not self.alive:
                continue
            life = len(self.stalls) - 1
            status, body = self.get("/metrics")
            if status == 200:
                self.stalls[life] = stalls(body.decode())
            self.partitions = self.owned() or self.partitions

    def owned(self) -> list[str]:
        """The partitions that the worker reports as its own; none if it does not answer."""
        status, body = self.get("/readyz")
        found: list[str] = json.loads(body)["partitions"] if status == 200 else []
        return found

    @property
    def shards(self) -> list[int]:
        """The shards of the last such report."""
        return [int(name.rpartition(":")[2]) for name in self.partitions if MUTATIONS in name]

    def ready(self) -> bool:
        """Whether the worker reports that it is ready."""
        return self.get("/readyz")[0] == 200

    def last_log_line(self) -> str:
        """The last line of the worker's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        return lines[-1] if lines else ""

    def leave(self) -> None:
        """Stop restarting the worker."""
        self._over.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def finish(self) -> None:
        """Wait for the exit after SIGTERM."""
        if self.process is not None:
            self.ended(STOP_S)
            self._note_end()

    def abandon(self) -> None:
        """Kill the worker."""
        self.up = False
        self._over.set()
        process = self.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def stalls(text: str) -> dict[float, float]:
    """Cumulative number of rebalances by the upper bounds of the metric's buckets (s)."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == STALL:
                found[float(sample.labels["le"])] = sample.value
    return found
