"""Reference process: answers, priority, and end, with and without its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.artifact import untrained
from model.config import ModelConfig
from streams.errors import ModelRefused
from streams.worker.inspection.reference_process import NICE, ReferenceProcess

pytestmark = pytest.mark.slow
ARTIFACT = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=3, floor=1), 1)
ENDS_S = 10.0
PARENT = """
from model.artifact import Artifact
from streams.worker.inspection.reference_process import ReferenceProcess
process = ReferenceProcess(Artifact.default())
process.start()
print(*process._pool._processes, flush=True)
input()
"""


@pytest.fixture
def process() -> Iterator[ReferenceProcess]:
    """Yield a started process."""
    process = ReferenceProcess(ARTIFACT)
    process.start()
    yield process
    process.close()


def pid_of(process: ReferenceProcess) -> int:
    """Return the process id."""
    (pid,) = process._pool._processes
    return pid


def running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Return whether a process ends soon."""
    deadline = time.monotonic() + ENDS_S
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not running(pid)


def test_it_is_closed_while_it_computes(process: ReferenceProcess) -> None:
    """The process has a low priority; closing it fails a call in another thread, and ends the process."""
    pid, failed = pid_of(process), list[BaseException]()
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICE

    def call() -> None:
        try:
            process._run(time.sleep, 60.0)
        except ModelRefused as error:
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.2)
    process.close()
    thread.join(ENDS_S)
    assert failed
    assert ends(pid)
    with pytest.raises(ModelRefused, match="reference process"):
        process.start()


def test_a_killed_process_is_an_error(process: ReferenceProcess) -> None:
    """A call to a killed process raises an error instead of waiting."""
    os.kill(pid_of(process), signal.SIGKILL)
    with pytest.raises(ModelRefused, match="reference process"):
        process._run(time.sleep, 60.0)


@pytest.mark.parametrize("end", [subprocess.Popen.kill, subprocess.Popen.communicate])
def test_it_ends_with_its_worker(end: Callable[[subprocess.Popen[bytes]], object]) -> None:
    """A worker that is killed, or returns without closing the process, leaves no process behind."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, stderr=pipe) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert running(pid)
        end(worker)
        assert ends(pid)
