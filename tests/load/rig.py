"""Broker, workers and feeders of a load test, and measurements from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from streams.demo.worker_process import Reading, parse
from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from streams.worker.web.feed import quantile_ms
from tests.chaos import errors, evidence
from tests.chaos.network import free_ports
from tests.support import tidy
from tests.support.workers import WorkerProcess, lag, wait_for

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MB = 1 << 20
QUIET_S = 24 * 3_600.0
STALL_S = 120.0
NODES = re.compile(r'^groundswell_nodes\{type="(\w+)"\} (\S+)', re.MULTILINE)
WORK = re.compile(
    r"^groundswell_((?:batch|ingest)_\w+_(?:sum|count)|scores_total|thread_cpu_seconds_total)"
    r'(?:\{\w+="([^"]+)"\})? (\S+)',
    re.MULTILINE,
)


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES / MB


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far, all threads together."""
    # The name of the program, in brackets, may contain spaces and brackets.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def open_files(pid: int) -> int:
    """Number of open file descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@dataclass
class Sample:
    """One sample: seconds since the start; memory, open files and processor seconds per process; and the sum of the
    workers' metrics.

    work: sums and counts of the workers' histograms by name and stage, the number of published scores, and processor
    seconds by thread.
    """

    at_s: float
    rss_mb: dict[str, float]
    files: dict[str, int]
    lag_records: int
    done: int
    nodes: dict[str, int] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    freshness: Any = field(repr=False, default=None)


class Rig:
    """An embedded Kafka and workers with their own settings, in one folder; a context manager."""

    def __init__(self, folder: Path, *, workers: int, shards: int, **settings: Any) -> None:
        self.folder = folder
        self._open = ExitStack()
        self._count, self._shards, self._given = workers, shards, settings
        self.workers: list[WorkerProcess] = []
        self._common: dict[str, Any] = {}
        self.settings = Settings.load()
        self._begin = time.monotonic()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.kafka = stack.enter_context(EmbeddedKafka(self.folder / "kafka"))
            self._common = {"broker": self.kafka.address, "shards": self._shards, "log_format": "json", **self._given}
            self.settings = Settings.load(**self._common, datadir=self.folder / "onlooker")
            with admin(self.settings, 20.0) as client:
                create(client, Topics(self.settings).all())
            for number, port in enumerate(free_ports(self._count)):
                self._start_worker(stack, f"w{number}", port)
            for process in self.workers:
                process.wait_ready()
            self._open = stack.pop_all()
        self._begin = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, name: str, **settings: Any) -> WorkerProcess:
        """Start one more worker on the folder and topics of that name; return before it is ready."""
        (port,) = free_ports(1)
        with admin(self.settings, 20.0) as client:
            create(client, Topics(Settings.load(**{**self._common, **settings})).all())
        return self._start_worker(self._open, name, port, **settings)

    def _start_worker(self, stack: ExitStack, name: str, port: int, **settings: Any) -> WorkerProcess:
        own = {**self._common, "datadir": self.folder / name, "web_port": port, "instance": name, **settings}
        process = WorkerProcess(Settings.load(**own))
        self.workers.append(process)
        process.start()
        stack.callback(process.kill)
        return process

    # Feeding

    def feeder(self, stream: str, **options: float) -> subprocess.Popen[str]:
        """Start sending a stream; `tests.load.feed` has the options."""
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.feed", self.kafka.address, stream, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tidy.ROOT,
        )
        self._open.callback(_end, process)
        return process

    # Measuring

    def reading(self, nodes: Counter[str] | None = None, work: dict[str, float] | None = None) -> Reading:
        """Sum the metrics of all workers; a worker that does not answer counts as 0.

        nodes: filled with the number of nodes in memory by type. work: filled with the `work` of a `Sample`.
        """
        total, worked = Reading(), {} if work is None else work
        for process in self.workers:
            status, body = process.get("/metrics")
            if status != 200:
                continue
            one = parse(body.decode())
            if nodes is not None:
                nodes.update({name: int(float(count)) for name, count in NODES.findall(body.decode())})
            for name, label, value in WORK.findall(body.decode()):
                key = f"{name} {label}".rstrip()
                worked[key] = worked.get(key, 0.0) + float(value)
            for name, value in vars(one).items():
                setattr(total, name, getattr(total, name) + value)
        return total

    def sample(self) -> Sample:
        """Take a sample."""
        pids = {f"w{number}": process.process.pid for number, process in enumerate(self.workers) if process.process}
        pids["broker"] = self.kafka.pid
        nodes, work = Counter[str](), dict[str, float]()
        reading = self.reading(nodes, work)
        return Sample(
            at_s=round(time.monotonic() - self._begin, 1),
            rss_mb={name: round(rss_mb(pid), 1) for name, pid in pids.items()},
            files={name: open_files(pid) for name, pid in pids.items()},
            lag_records=reading.lag_records,
            done=reading.mutations,
            nodes=dict(nodes),
            cpu_s={name: cpu_s(pid) for name, pid in pids.items()},
            work=work,
            freshness=reading.freshness,
        )

    def watch(self, until: Callable[[], bool], every_s: float, seen: Callable[[Sample], None]) -> None:
        """Take samples at this interval until the condition holds; raise if a worker ended."""
        while not until():
            self.check()
            seen(self.sample())
            time.sleep(every_s)

    def check(self) -> None:
        """Raise if a worker ended."""
        for process in self.workers:
            if process.process is not None and process.process.poll() is not None:
                last = process.log.read_text(encoding="utf-8").rstrip().splitlines()[-1:]
                raise RuntimeError(f"a worker ended: {' '.join(last)}")

    def drained(self) -> bool:
        """Whether the group has committed all offsets."""
        topics = Topics(self.settings)
        names = [*(spec.name for spec in topics.inputs.values()), topics.mutations.name]
        if self.settings.shards > 1:
            names.append(topics.halos.name)
        return lag(self.settings, names) == 0

    def wait_drained(self, timeout_s: float = QUIET_S) -> None:
        """Wait until the group has committed all offsets."""
        wait_for(self.drained, timeout_s, "everything to be committed")

    def stop(self) -> list[int]:
        """Stop the workers; return their exit codes."""
        return [process.stop() for process in self.workers]

    def errors(self) -> list[str]:
        """Error lines of the workers' logs."""
        found = []
        for process in self.workers:
            found += [line for line in evidence.error_lines(process.log) if not errors.explained(line, ())]
        return found


def end_well() -> None:
    """Handle SIGTERM like Ctrl-C, so that a command also ends the processes that it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a feeder and return its report."""
    report, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the feeder ended with {process.returncode}")
    found: dict[str, Any] = json.loads(report)
    return found


def p_ms(later: Sample, earlier: Sample, q: float) -> float | None:
    """A quantile of the freshness between two samples, in ms."""
    return quantile_ms(later.freshness - earlier.freshness, q)


def spread(values: Iterable[float]) -> float:
    """(max − min) / mean; 0 without values."""
    some = np.asarray(list(values), np.float64)
    return float((some.max() - some.min()) / some.mean()) if len(some) else 0.0
