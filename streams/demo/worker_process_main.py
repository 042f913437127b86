"""The demo's worker process: `python -m streams.demo.worker_process_main FOLDER`, settings as JSON in the first line.

An ordinary worker with settings that are handed over instead of read from the environment. Its
standard input stays open for as long as the demo lives: at its end the worker stops, and since
nobody is left to do it, removes the demo's folder.
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

GONE_S = 10.0
DONE = "done\n"


def main(folder: Path) -> int:
    """Run the worker; its exit code."""
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
    """Wait for the end of the input: a demo that ends well writes `done` first."""
    if sys.stdin.readline() == DONE:
        return
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)
    # A worker that hangs must not outlive the demo.
    threading.Event().wait(GONE_S)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
