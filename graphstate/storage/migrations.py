"""Migration of a state to the present format: written beside the old state, then renamed to its folder.

The old state stays unchanged until the new one is complete, so a crash leaves one or the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from graphstate.errors import FormatError
from graphstate.storage.store import FAMILIES, Store
from graphstate.types import Progress

Row = tuple[str, bytes, bytes]
"""Family, key, value."""

BATCH = 50_000
BEHIND, BESIDE = ".old-", ".migrating-"


def migrate(folder: Path, stored: int, target: int, progress: Progress) -> None:
    """Migrate the state in a folder to a later format, one format after the other.

    Args:
        folder: The folder.
        stored: The state's format.
        target: The format to reach.
        progress: Receives progress reports.

    Raises:
        FormatError: The state's format is newer than the target or older than `OLDEST`.
    """
    if stored > target:
        raise FormatError(f"{folder} has format {stored}, this version reads {target}: run the release that wrote it")
    for version in range(stored, target):
        step = _STEPS.get(version)
        if step is None:
            raise FormatError(
                f"{folder} has format {stored}, too old to read (the oldest is {OLDEST}): remove the folder, and the "
                "worker rebuilds the state from the log"
            )
        beside, behind = folder.with_name(BESIDE + folder.name), folder.with_name(BEHIND + folder.name)
        shutil.rmtree(beside, ignore_errors=True)
        _copy(folder, beside, step, progress)
        shutil.rmtree(behind, ignore_errors=True)
        folder.rename(behind)
        beside.rename(folder)
        recover(folder)


def recover(folder: Path) -> None:
    """Undo or complete a migration that a crash interrupted."""
    beside, behind = folder.with_name(BESIDE + folder.name), folder.with_name(BEHIND + folder.name)
    if behind.exists() and not folder.exists():
        behind.rename(folder)
    elif behind.exists():
        # Rename it before removing it: half removed it must not be restored as the old state.
        shutil.rmtree(beside, ignore_errors=True)
        behind.rename(beside)
    shutil.rmtree(beside, ignore_errors=True)


def recover_all(datadir: Path) -> None:
    """Call `recover` for every state in a worker's folder, also for one whose folder is missing."""
    for left in (*datadir.glob(f"{BEHIND}*"), *datadir.glob(f"{BESIDE}*")):
        recover(left.with_name(left.name.removeprefix(BEHIND).removeprefix(BESIDE)))


def _copy(folder: Path, beside: Path, step: Callable[[Store], Iterator[Row]], progress: Progress) -> None:
    old, new = Store(folder, read_only=True), Store(beside)
    try:
        for done, (family, key, value) in enumerate(step(old)):
            new.write(family, key, value)
            if done % BATCH == 0:
                new.commit()
                progress("migrating", done, 0)
        new.commit()
    finally:
        old.close()
        new.close()


# From format 2 to 3: only the counters of a user that are not zero


def _from_2(old: Store) -> Iterator[Row]:
    for family in FAMILIES:
        for key, value in old.rows(family):
            yield family, key, _packed_3(value) if family == "counters" else value
    yield "meta", b"format", b"3"


def _packed_3(value: bytes) -> bytes:
    words = np.frombuffer(value, "<u4")
    nonzero = words != 0
    mask: bytes = np.packbits(nonzero, bitorder="little").tobytes()
    present: bytes = words[nonzero].tobytes()
    return mask + present


_STEPS: dict[int, Callable[[Store], Iterator[Row]]] = {2: _from_2}

OLDEST = min(_STEPS)
"""The oldest format that can be migrated."""
