"""Processor time by thread."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from streams.telemetry.thread_time import ThreadTime

BUSY_S = 0.15


def test_a_busy_thread_is_charged_and_stays_counted() -> None:
    """A thread's time is counted under its name without its number, also after its end; an idle one has none."""
    found, idle, release = ThreadTime("x"), threading.Event(), threading.Event()

    def work() -> None:
        end = time.thread_time() + BUSY_S
        while time.thread_time() < end:
            pass
        idle.set()
        release.wait()

    thread = threading.Thread(target=work, name="busy_3")
    thread.start()
    idle.wait()
    assert BUSY_S - 0.03 <= found.seconds()["busy"] <= BUSY_S + 0.05
    release.set()
    thread.join()
    assert BUSY_S - 0.03 <= found.seconds()["busy"] <= BUSY_S + 0.05
    assert found.seconds()["main"] > 0


def stat(folder: Path, task: int, name: str, ticks: int) -> None:
    """Write the kernel's account of a thread."""
    (folder / str(task)).mkdir(exist_ok=True)
    fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 30]
    (folder / str(task) / "stat").write_text(f"{task} ({name}) {' '.join(fields)}\n")


def test_threads_of_a_pool_add_up_and_numbers_are_used_again(tmp_path: Path) -> None:
    """Names without numbers; a thread with the number of an ended one adds to the time of that one."""
    found = ThreadTime("x", tmp_path)
    stat(tmp_path, 1, "rocksdb:low0", 100)
    stat(tmp_path, 2, "rocksdb:low1", 300)
    assert found.seconds() == {"rocksdb:low": 4.0}
    stat(tmp_path, 2, "rocksdb:low1", 50)
    assert found.seconds() == {"rocksdb:low": 4.5}


def test_an_ending_thread_keeps_its_name(tmp_path: Path) -> None:
    """A thread that Python has dropped and the kernel has not is counted under the name that it had."""
    found, own = ThreadTime("x", tmp_path), threading.get_native_id()
    thread = threading.current_thread()
    stat(tmp_path, own, "python", 100)
    with_name = found.seconds()
    own_number, thread._native_id = thread._native_id, -1  # type: ignore[attr-defined]
    try:
        assert found.seconds() == with_name
    finally:
        thread._native_id = own_number  # type: ignore[attr-defined]


def test_without_proc_there_is_no_value(tmp_path: Path) -> None:
    """A system without /proc has the counter without samples."""
    (family,) = ThreadTime("x", tmp_path / "none").collect()
    assert not family.samples
