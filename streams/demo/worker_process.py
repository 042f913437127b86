"""The demo's processes, a worker and an analyst: start, readiness, metrics and stop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from streams.demo.worker_process_main import DONE
from streams.errors import WorkerError
from streams.settings.settings import Settings
from streams.telemetry.metrics import Freshness

READY_S = 900.0
"""Seconds until the worker must be ready. The first start compiles kernels, a minute and a half of a core, and takes
several times as long on a busy machine; a process that ends is noticed at once."""
STOP_S = 30.0
POLL_S = 0.1
ANSWER_S = 30.0
OK = 200


@dataclass
class Reading:
    """A reading of /metrics: counters summed over their labels, freshness as cumulative counts per bucket."""

    events: int = 0
    mutations: int = 0
    repeated: int = 0
    scores: int = 0
    alerts: int = 0
    dead_letters: int = 0
    lag_records: int = 0
    users: int = 0
    freshness: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(Freshness.BOUNDS_S) + 1))

    @property
    def done(self) -> int:
        """The number of processed input messages, one event each."""
        return self.mutations + self.dead_letters + self.repeated


_SUMS = {
    "groundswell_events_total": "events",
    "groundswell_mutations_total": "mutations",
    "groundswell_repeated_messages_total": "repeated",
    "groundswell_scores_total": "scores",
    "groundswell_alerts_total": "alerts",
    "groundswell_dead_letters_total": "dead_letters",
    "groundswell_lag_records": "lag_records",
    "groundswell_live_users": "users",
}


def parse(text: str) -> Reading:
    """Parse the text of /metrics."""
    reading, buckets = Reading(), []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # Facts are no events; each event is counted by its owner.
            if (name := _SUMS.get(sample.name)) and sample.labels.get("outcome") != "facts":
                setattr(reading, name, getattr(reading, name) + int(sample.value))
            elif sample.name == f"{Freshness.NAME}_bucket":
                buckets.append(sample.value)
    if buckets:
        reading.freshness = np.array(buckets)
    return reading


class WorkerProcess:
    """A running worker or analyst with its settings; `address` is the address of its web port."""

    def __init__(
        self, process: asyncio.subprocess.Process, settings: Settings, log: Path, session: Any, role: str = "worker"
    ) -> None:
        self._process, self.settings = process, settings
        self._role = role
        self._log = log
        self._session = session
        port = settings.web_port if role == "worker" else settings.analyst_port
        self.address = f"http://{settings.web_host}:{port}"

    def check(self) -> None:
        """Raise WorkerError with the last line of the log if the worker has ended."""
        if (code := self._process.returncode) is not None:
            raise WorkerError(f"the demo's {self._role} ended with {code}: {last_log_line(self._log)}")

    async def ready(self, waiting: Callable[[float], None] = lambda _seconds: None) -> None:
        """Wait until the worker is ready; `waiting` is called with the seconds so far, several times a second.

        Raises:
            WorkerError: it ends before that, or takes too long.
        """
        begin = time.monotonic()
        try:
            async with asyncio.timeout(READY_S):
                while not await self._is_ready():
                    self.check()
                    waiting(time.monotonic() - begin)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise WorkerError(
                f"the demo's {self._role} was not ready in {READY_S:.0f} s: {last_log_line(self._log)}"
            ) from None

    async def _is_ready(self) -> bool:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(f"{self.address}/readyz") as answer:
                return bool(answer.status == OK)
        return False

    async def reading(self) -> Reading:
        """Read /metrics.

        Raises:
            WorkerError: the worker does not respond.
        """
        status, text = await self._get("/metrics")
        if status != OK:
            raise WorkerError(f"{self.address}/metrics answers {status}: {text[:200]}")
        return parse(text)

    async def top(self, limit: int) -> dict[str, Any] | None:
        """Read /api/v1/top; None while a long micro-batch delays it."""
        status, text = await self._get(f"/api/v1/top?limit={limit}")
        top_users: dict[str, Any] | None = json.loads(text) if status == OK else None
        return top_users

    async def _get(self, path: str) -> tuple[int, str]:
        try:
            async with self._session.get(self.address + path) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.check()
            raise WorkerError(f"the demo's {self._role} does not respond at {self.address}{path}: {error!r}") from error

    async def stop(self) -> None:
        """Stop the worker or analyst with SIGTERM.

        An analyst that does not stop in time, as while it compiles its kernels, is killed at the end of the context: it
        keeps nothing on disk.

        Raises:
            WorkerError: it does not end in time, or with an error.
        """
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                code = await self._process.wait()
        except TimeoutError:
            if self._role == "analyst":
                return
            raise WorkerError(f"the demo's {self._role} did not stop in {STOP_S:.0f} s") from None
        if code:
            raise WorkerError(f"the demo's {self._role} ended with {code}: {last_log_line(self._log)}")


@asynccontextmanager
async def started(settings: Settings, folder: Path, role: str = "worker") -> AsyncIterator[WorkerProcess]:
    """Start a worker or an analyst; it ends with the context, and when this process ends, even if it is killed."""
    log = folder / f"{role}.log"
    with log.open("w", encoding="utf-8") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "streams.demo.worker_process_main", str(folder), role),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Ctrl-C signals all processes of the terminal's group; the demo stops its worker itself.
            start_new_session=True,
        )
    try:
        await _write_stdin(process, settings.handed_over() + "\n")
        timeout, headers = aiohttp.ClientTimeout(ANSWER_S), settings.web_headers()
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            yield WorkerProcess(process, settings, log, session, role)
    finally:
        with suppress(OSError):
            await _write_stdin(process, DONE)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _write_stdin(process: asyncio.subprocess.Process, text: str) -> None:
    if process.stdin is not None:
        process.stdin.write(text.encode())
        await process.stdin.drain()


def last_log_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "its log is empty"
