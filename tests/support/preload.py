"""What the process that forks programs has in memory: the libraries of a worker and of the analyst, and their kernels.

Compiled kernels are loaded from their files, as the first call of each would: a second of a core per process.
"""

from __future__ import annotations

import sys
from importlib import import_module

from numba.core.registry import CPUDispatcher

LIBRARIES = (
    "kafka", "streams.cli", "streams.commands.analyst", "streams.commands.worker", "streams.analyst.run",
    "streams.analyst.analyst", "streams.kafka.access.rights_table", "streams.worker.run", "streams.worker.worker",
)  # fmt: skip


def load_kernels() -> int:
    """Load the compiled kernels of all imported modules; return their number."""
    own = [module for name, module in sys.modules.items() if name.startswith(("graphstate.", "model.", "streams."))]
    kernels = {
        id(value): value for module in own for value in vars(module).values() if isinstance(value, CPUDispatcher)
    }
    count = 0
    for kernel in kernels.values():
        index = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
        for signature, *_ in index._load_index() if index is not None else ():
            kernel.compile(signature)
            count += 1
    return count


for library in LIBRARIES:
    import_module(library)
load_kernels()
