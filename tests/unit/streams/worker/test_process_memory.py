"""The allocator of a process that was told to have one arena, as glibc itself describes it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from streams import memory
if sys.argv[1] == "told":
    assert memory.one_arena()
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


def arenas(told: str, **environment: str) -> int:
    """How many arenas a process with seven threads that allocate has."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, told]
    ran = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return ran.stdout.count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_one_arena_for_all_threads() -> None:
    """Without being told there are several; the environment has the last word."""
    assert arenas("no") > 2
    assert arenas("told") == 1
    assert arenas("told", MALLOC_ARENA_MAX="3") == 3
    assert arenas("told", GLIBC_TUNABLES="glibc.malloc.arena_max=2") == 2
