"""A worker's data folder: which shards have states in it, and one worker each, by a lock that the kernel frees when
its holder ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from streams.errors import StateError

FILE = "worker.lock"


def readable(datadir: Path) -> None:
    """Check that every folder in the data folder can be looked into: what cannot would pass for empty.

    Raises:
        StateError: one cannot.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise StateError(
                f"{error.filename} cannot be read ({error.strerror}): correct GROUNDSWELL_DATADIR, or run this as the "
                "user of the worker"
            ) from error

    for _ in os.walk(datadir, onerror=refuse):
        pass


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
        raise _unusable(datadir, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StateError(
            f"{datadir} is in use by another worker (process {holder}): stop that one, or give this one a folder of "
            "its own with GROUNDSWELL_DATADIR"
        ) from None
    except OSError as error:
        with suppress(OSError):  # what could not be written is tried once more
            file.close()
        raise _unusable(datadir, error) from error
    return file


def check(datadir: Path) -> None:
    """Raise StateError, as `hold` does, if the folder cannot be used now; it is made if it is missing."""
    hold(datadir).close()


def _unusable(datadir: Path, error: OSError) -> StateError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return StateError(f"{datadir} is no folder, or lies in something that is none: set GROUNDSWELL_DATADIR right")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StateError(f"{datadir} has no room left ({error.strerror}): make room, or set GROUNDSWELL_DATADIR right")
    return StateError(f"{datadir} cannot be written ({error.strerror}): set GROUNDSWELL_DATADIR right")


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
