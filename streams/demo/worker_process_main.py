"""The demo's processes: `python -m streams.demo.worker_process_main FOLDER ROLE`, settings as JSON in line one.

An ordinary worker or analyst that gets its settings from the demo instead of the environment. The demo keeps the
standard input open; when the demo ends without writing `done`, the process stops and removes the demo's folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from streams.analyst import run as analyst
from streams.errors import on_purpose, one_line
from streams.settings.settings import Settings
from streams.telemetry import logs
from streams.worker import run as worker

STOP_S = 10.0
"""Seconds until a worker without a demo is ended, even if it hangs."""
DONE = "done\n"


def run_worker(settings: Settings) -> None:
    """Run a worker with the button that sends a share."""
    # Imported late: it imports compiled kernels.
    from streams.demo.share_button import ShareButton

    worker.run(settings, ShareButton.attach)


ROLES = {"worker": run_worker, "analyst": analyst.run}


def main(folder: Path, role: str) -> int:
    """Run the process of a role; returns its exit code."""
    # Until the role has its own handler, such as while modules are imported, the folder must be removed, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    settings = Settings.model_validate_json(sys.stdin.readline())
    logs.setup(settings)
    orphaned = threading.Event()
    threading.Thread(target=_watch, args=(folder, orphaned), daemon=True).start()
    try:
        ROLES[role](settings)
    except Exception as error:
        if not on_purpose(error):
            raise
        sys.stderr.write(f"{one_line(error)}\n")
        return 1
    finally:
        if orphaned.is_set():
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _watch(folder: Path, orphaned: threading.Event) -> None:
    """Wait for the end of standard input, and stop the worker unless the demo wrote `done` first."""
    if sys.stdin.readline() == DONE:
        return
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)
    # A worker that hangs must not outlive the demo.
    threading.Event().wait(STOP_S)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
