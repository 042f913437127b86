"""Workers that hang, and workers that use the same folder or name: `/livez` or one error line names the problem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.settings.settings import Settings
from tests.support.workers import START_S, WorkerProcess, wait_for


class HangingProcess(WorkerProcess):
    """A worker that hangs once it is ready."""

    def __init__(self, settings: Settings, what: str) -> None:
        super().__init__(settings)
        self._what = what

    def module(self) -> list[str]:
        """The worker with this fault."""
        return ["tests.recovery.hanging", self._what]


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [("loop", 0, ""), ("consumer", 503, "the consumer's thread"), ("shard", 503, "the shard thread")],
)
def test_a_hung_thread_fails_the_liveness_probe(settings: Settings, what: str, status: int, message: str) -> None:
    """A hung event loop does not answer; for another thread `/livez` fails and names it."""
    process = HangingProcess(settings, what)
    process.start()
    try:
        wait_for(lambda: process.get("/livez")[0] == 200, START_S, "the worker to be alive")
        wait_for(lambda: '"worker_ready"' in process.log.read_text(), START_S, "the worker to be ready")
        wait_for(lambda: process.get("/livez")[0] == status, 20, "the probe to fail")
        body = process.get("/livez")[1]
        if message:
            assert message in json.loads(body)["detail"]
    finally:
        process.kill()


def test_a_folder_and_an_instance_name_have_one_worker_each(settings: Settings, tmp_path: Path, web_port: int) -> None:
    """A second worker on the same folder exits with one line; with the same instance name the first worker does."""
    settings = settings.model_copy(update={"instance": "w0", "web_port": 0})
    first = WorkerProcess(settings.model_copy(update={"web_port": web_port}))
    first.start()
    second = WorkerProcess(settings)
    other = WorkerProcess(settings.model_copy(update={"datadir": tmp_path / "other"}))
    try:
        first.wait_ready()
        second.start()
        assert second.ended() == 1
        assert first.process is not None
        last = second.log.read_text().splitlines()[-1]
        assert last.startswith(f"groundswell: {settings.datadir} is in use by another worker")
        assert f"process {first.process.pid}" in last
        assert "GROUNDSWELL_DATADIR" in last
        other.start()
        assert first.ended(START_S) == 1
        wait_for(lambda: '"worker_ready"' in other.log.read_text(), START_S, "the other worker to have the partitions")
        assert other.process is not None
        assert other.process.poll() is None
        assert "groundswell: another worker joined as GROUNDSWELL_INSTANCE=w0" in first.log.read_text().splitlines()[-1]
    finally:
        for process in (first, second, other):
            if process.process is not None:
                process.kill()
