"""The keeper of one embedded Kafka: a small process between us and Java that ends Java when we are gone.

Run as a file, with the standard library only, so that it starts in a few milliseconds. A parent
that is killed outright cannot clean up, and the kernel's parent-death signal is tied to the
*thread* that started a child, so we cannot use it directly: the keeper watches its standard
input (closed by the kernel when the parent is gone) and its parent's id (a fork of the parent may
hold the pipe open). Java itself gets the parent-death signal of the single-threaded keeper, so
that killing the keeper ends it too.

    keeper.py PARENT_PID REMOVE_FOLDER_OR_EMPTY LOG_FILE PID_FILE COMMAND...

Standard input: the line `stop` ends Java politely, `kill` at once; end of file: kill and remove the folder.
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
POLITE_S = 15.0
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Start the command and keep it until told otherwise; its exit code, or 0 if it was ended here."""
    parent, folder, log, pid_file, *command = arguments
    # Ctrl-C and a closed terminal are the parent's business; SIGTERM is a wish like "stop".
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Path(log).open("ab") as output:
        java = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Safe here, where there are no threads.
            preexec_fn=_die_with_keeper,  # noqa: PLW1509
        )
    Path(pid_file).write_text(str(java.pid), encoding="ascii")
    try:
        wish = _watch(java, int(parent))
    except SystemExit:
        wish = "stop"
    if wish == "ended":
        return java.returncode
    _end(java, politely=wish == "stop")
    if wish == "orphan" and folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _watch(java: subprocess.Popen[bytes], parent: int) -> str:
    """Wait for what comes first: Java's end (`ended`), a wish (`stop`, `kill`) or the parent's end (`orphan`)."""
    while True:
        readable, _, _ = select.select([0], [], [], POLL_S)
        if java.poll() is not None:
            return "ended"
        if os.getppid() != parent:
            return "orphan"
        if readable:
            line = os.read(0, 64).decode("ascii", "replace").strip()
            return line if line in {"stop", "kill"} else "orphan"


def _end(java: subprocess.Popen[bytes], *, politely: bool) -> None:
    if politely:
        java.terminate()
        try:
            java.wait(POLITE_S)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
    java.kill()
    java.wait()


def _die_with_keeper() -> None:
    """In the child before Java starts: be killed when the keeper ends. Linux only; elsewhere the pipe must do."""
    keeper = os.getppid()
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != keeper:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
