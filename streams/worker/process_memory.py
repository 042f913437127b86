"""How a process of ours handles memory: Python's search for cycles, and the allocator of the C library."""

from __future__ import annotations

import ctypes
import gc
import os

COLLECT_AFTER = (50_000, 20, 50)
"""How often Python looks for cycles (`gc.set_threshold`). A step makes and drops tens of thousands of objects, none of
them in a cycle: looked for as often as Python does by itself, that is a sixth of a large step.
"""
ALLOCATOR = {
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20),
    "MALLOC_TRIM_THRESHOLD_": (-1, 256 << 20),
}
"""glibc's variables, with their numbers for `mallopt` (malloc.h) and our values.

By itself each thread has an arena of its own, and what one frees no other takes: 747 MB instead of 692 at the most of
an overload. Arrays of a step are freed and asked for again, so up to 256 MB are kept in between.
"""


def collect_rarely() -> None:
    """Let this process look for cycles as often as suits the steps of a shard."""
    gc.set_threshold(*COLLECT_AFTER)


def one_arena() -> bool:
    """Set the allocator as suits many threads with large arrays, but for what the environment says; before any thread.

    Returns whether there was such an allocator to set: glibc's alone knows of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # What is in the tunables cannot be told from here: whoever writes those means them all.
    if "GLIBC_TUNABLES" in os.environ:
        return True
    wanted = [option for name, option in ALLOCATOR.items() if name not in os.environ]
    return all(taken == 1 for taken in [mallopt(number, value) for number, value in wanted])
