"""The number of arenas of a process, as glibc reports it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from streams.worker import process_memory
if sys.argv[1] == "one":
    assert process_memory.one_arena()
barrier = threading.Barrier(6)
def work():
    data = bytearray(100_000)
    barrier.wait()
for thread in [threading.Thread(target=work) for _ in range(6)]:
    thread.start()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(out))
libc.fflush(ctypes.c_void_p(out))
"""


def arenas(wanted: str, **environment: str) -> int:
    """Return the number of arenas of a process in which seven threads allocate."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, wanted]
    ran = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return ran.stdout.count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_one_arena_for_all_threads() -> None:
    """By default there are several arenas; the environment takes precedence over the setting."""
    assert arenas("default") > 2
    assert arenas("one") == 1
    assert arenas("one", MALLOC_ARENA_MAX="3") == 3
    assert arenas("one", GLIBC_TUNABLES="glibc.malloc.arena_max=2") == 2
