"""Start the benchmark with one thread per library and with malloc settings that keep freed memory.

A process reads both at its start, so this one is replaced. `--resident`, which measures memory, has malloc's defaults.
"""

from __future__ import annotations

import os
import sys

MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def main() -> None:
    """Become `tests.bench.run`."""
    environment = {name: value for name, value in os.environ.items() if name not in MALLOC}
    environment |= dict.fromkeys(THREADS, "1")
    if "--resident" not in sys.argv:
        environment |= dict.fromkeys(MALLOC, "4000000000")
    os.execve(sys.executable, [sys.executable, "-m", "tests.bench.run", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
