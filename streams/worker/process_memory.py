"""Memory settings of the current process: Python's cycle collector and the C library's allocator."""

from __future__ import annotations

import ctypes
import gc
import os

COLLECT_AFTER = (50_000, 20, 50)
"""Thresholds of the cycle collector (`gc.set_threshold`).

A step creates and drops tens of thousands of objects, none of them in a cycle; Python's default thresholds cost a sixth
of a large step.
"""
ALLOCATOR = {
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20),
    "MALLOC_TRIM_THRESHOLD_": (-1, 256 << 20),
}
"""glibc's environment variables, with their numbers for `mallopt` (malloc.h) and the values set here.

By default every thread has an arena of its own, and no thread reuses the memory that another one freed: 747 MB instead
of 692 MB at the peak of an overload. Steps free and request large arrays all the time, so up to 256 MB stay allocated.
"""


def collect_rarely() -> None:
    """Set the thresholds of the cycle collector for the steps of a shard."""
    gc.set_threshold(*COLLECT_AFTER)


def one_arena() -> bool:
    """Set the allocator for many threads with large arrays; call it before the first thread starts.

    Variables that are set in the environment take precedence.

    Returns:
        Whether the allocator supports these settings, as glibc's does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # The tunables may set any of the three, and mallopt would override them.
    if "GLIBC_TUNABLES" in os.environ:
        return True
    wanted = [option for name, option in ALLOCATOR.items() if name not in os.environ]
    return all(accepted == 1 for accepted in [mallopt(number, value) for number, value in wanted])
