"""Programs of this checkout as forks of a process with `preload`, which takes 4 s of a core for each process otherwise.

A fork runs the same module with its own environment, working folder, log and memory. The tests that start a program by
its command (README, demo, chaos, installation, pipes) do without.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import warnings
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from streams.settings.settings import PREFIX

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.preload"])


class Forked:
    """A fork, with the methods of `subprocess.Popen` that tests use.

    Args:
        module: module to run, and its arguments.
        environment: the whole environment.
        log: file to which standard output and standard error are appended.
        folder: working folder.
    """

    def __init__(self, module: list[str], environment: dict[str, str], log: Path, folder: Path) -> None:
        log.touch()
        # A daemon ends with the test process, if a test leaves it.
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_run, args=(module, environment, str(log), str(folder)), daemon=True
        )
        self._process.start()
        self.pid = int(self._process.pid or 0)

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code.

        Raises:
            TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL unless it has ended."""
        self.send_signal(signal.SIGKILL)


def foreign(environment: dict[str, str]) -> dict[str, str]:
    """The part of an environment that libraries may read when they are imported."""
    return {name: value for name, value in environment.items() if not name.startswith((PREFIX, "PYTEST_"))}


_AT_START = foreign(dict(os.environ))


def usable(environment: dict[str, str]) -> bool:
    """Whether this is a test, and the libraries were imported with the same environment; no program that measures."""
    return "PYTEST_CURRENT_TEST" in os.environ and foreign(environment) == _AT_START


def _run(module: list[str], environment: dict[str, str], log: str, folder: str) -> None:
    """Run a module as `python -m` does."""
    # A daemon may have no processes of its own, and the worker has some.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    warnings.simplefilter("ignore", RuntimeWarning)
    sys.argv = list(module)
    try:
        runpy.run_module(module[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
