"""A worker's data folder: which shards have states in it, and one worker each, by a lock that the kernel frees when
its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from streams.errors import StateError

FILE = "worker.lock"


def shard_folders(datadir: Path) -> dict[int, Path]:
    """The folders of shards' states, by shard."""
    found = {}
    for folder in datadir.glob("shard-*"):
        number = folder.name.removeprefix("shard-")
        if number.isdecimal() and folder.is_dir():
            found[int(number)] = folder
    return dict(sorted(found.items()))


def hold(datadir: Path) -> TextIO:
    """Take the folder for this process, until the file that is returned is closed or the process ends.

    Raises:
        StateError: another worker has it, or the folder cannot be made.
    """
    try:
        datadir.mkdir(parents=True, exist_ok=True)
        file = (datadir / FILE).open("a+", encoding="ascii")
    except OSError as error:
        raise StateError(f"{datadir} cannot be written ({error.strerror}): set GROUNDSWELL_DATADIR right") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StateError(
            f"{datadir} is in use by another worker (process {holder}): stop that one, or give this one a folder of "
            "its own with GROUNDSWELL_DATADIR"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def holder(datadir: Path) -> str | None:
    """The process of the worker that has the folder, None if nobody has; nothing is written."""
    try:
        file = (datadir / FILE).open(encoding="ascii")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
    return None
