"""The supervisor of one embedded Kafka: a small process that starts Java and ends it when its own parent ends.

It is run as a file and uses only the standard library, so that it starts in a few milliseconds. A parent that is killed
cannot clean up, and the kernel's parent-death signal depends on the *thread* that started the child, so the parent
cannot use it. The supervisor watches its standard input (the kernel closes it when the parent ends) and its parent's
process id (a fork of the parent may hold the pipe open). Java has the parent-death signal of the supervisor, which has
one thread, so Java ends if the supervisor is killed.

    supervisor.py PARENT_PID REMOVE_FOLDER_OR_EMPTY LOG_FILE PID_FILE COMMAND...

Standard input: the line `stop` ends Java cleanly, `kill` at once; end of file: kill Java and remove the folder.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

POLL_S = 0.25
STOP_S = 15.0
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Start the command and wait; returns its exit code, or 0 if it was ended by a command or with the parent."""
    parent, folder, log, pid_file, *command = arguments
    # The parent handles Ctrl-C and a closed terminal; SIGTERM counts as `stop`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Path(log).open("ab") as output:
        java = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Safe here, because this process has one thread.
            preexec_fn=_die_with_supervisor,  # noqa: PLW1509
        )
    Path(pid_file).write_text(str(java.pid), encoding="ascii")
    try:
        event = _watch(java, int(parent))
    except SystemExit:
        event = "stop"
    if event == "ended":
        return java.returncode
    _end(java, cleanly=event == "stop")
    if event == "orphan" and folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _watch(java: subprocess.Popen[bytes], parent: int) -> str:
    """Wait for the first event: Java's end (`ended`), a command (`stop`, `kill`) or the parent's end (`orphan`)."""
    while True:
        readable, _, _ = select.select([0], [], [], POLL_S)
        if java.poll() is not None:
            return "ended"
        if os.getppid() != parent:
            return "orphan"
        if readable:
            line = os.read(0, 64).decode("ascii", "replace").strip()
            return line if line in {"stop", "kill"} else "orphan"


def _end(java: subprocess.Popen[bytes], *, cleanly: bool) -> None:
    if cleanly:
        java.terminate()
        try:
            java.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
    java.kill()
    java.wait()


def _die_with_supervisor() -> None:
    """Ask the kernel, in the child before Java starts, to kill it when the supervisor ends; Linux only."""
    supervisor = os.getppid()
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != supervisor:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
