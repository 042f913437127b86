"""`groundswell worker` with a shifted wall clock: `python -m tests.chaos.skewed FILE worker`.

Python's `time.time` and `time.time_ns` are shifted by the seconds in FILE, as soon as that is written. Times that other
libraries read from the kernel (RocksDB, the broker) stay correct.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path

POLL_S = 0.05
_seconds, _nanoseconds = time.time, time.time_ns
_skew_s = 0


def _watch(path: Path) -> None:
    global _skew_s  # noqa: PLW0603 - there is one clock
    while True:
        with contextlib.suppress(OSError, ValueError):
            _skew_s = int(path.read_text(encoding="ascii"))
        time.sleep(POLL_S)


def main() -> None:
    """Patch the clock, then run the command."""
    path = Path(sys.argv.pop(1))
    time.time = lambda: _seconds() + _skew_s
    time.time_ns = lambda: _nanoseconds() + _skew_s * 1_000_000_000
    threading.Thread(target=_watch, args=(path,), daemon=True).start()
    from streams.cli import main as command

    command()


if __name__ == "__main__":
    main()
