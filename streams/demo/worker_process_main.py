"""The demo's worker process: `python -m streams.demo.worker_process_main FOLDER`, settings as JSON in the first line.

An ordinary worker that gets its settings from the demo instead of the environment. The demo keeps the standard input
open; when the demo ends without writing `done`, the worker stops and removes the demo's folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from streams.errors import on_purpose, one_line
from streams.settings.settings import Settings
from streams.telemetry import logs
from streams.worker.run import run

STOP_S = 10.0
"""Seconds until a worker without a demo is ended, even if it hangs."""
DONE = "done\n"


def main(folder: Path) -> int:
    """Run the worker; returns its exit code."""
    settings = Settings.model_validate_json(sys.stdin.readline())
    logs.setup(settings)
    orphaned = threading.Event()
    threading.Thread(target=_watch, args=(folder, orphaned), daemon=True).start()
    try:
        run(settings)
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
    sys.exit(main(Path(sys.argv[1])))
