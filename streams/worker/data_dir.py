"""A worker's data folder: the folders of its shards, and the lock that admits one worker at a time.

The kernel releases the lock when the process ends, for whatever reason.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from streams.errors import StateError

LOCK_FILE = "worker.lock"
_SHARD = "shard-"


def shard_name(shard: int) -> str:
    """Return the name of a shard's folder."""
    return f"{_SHARD}{shard}"


def state_folder(datadir: Path, shard: int) -> Path:
    """Return the folder of a shard's state."""
    return datadir / shard_name(shard)


def shard_folders(datadir: Path) -> dict[int, Path]:
    """Return the folders of states that exist, by shard in ascending order."""
    folders = {}
    for folder in datadir.glob(f"{_SHARD}*"):
        number = folder.name.removeprefix(_SHARD)
        if number.isdecimal() and folder.is_dir():
            folders[int(number)] = folder
    return dict(sorted(folders.items()))


def check_readable(datadir: Path) -> None:
    """Check that every folder in the data folder can be listed: one that cannot would look empty.

    Raises:
        StateError: One cannot be listed.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise StateError(
                f"{error.filename} cannot be read ({error.strerror}): correct GROUNDSWELL_DATADIR, or run this as the "
                "user of the worker"
            ) from error

    for _ in os.walk(datadir, onerror=refuse):
        pass


def lock_data_dir(datadir: Path) -> TextIO:
    """Lock the folder for this process; closing the returned file releases it.

    Raises:
        StateError: Another worker has locked it, or the folder cannot be created.
    """
    try:
        datadir.mkdir(parents=True, exist_ok=True)
        file = (datadir / LOCK_FILE).open("a+", encoding="ascii")
    except OSError as error:
        raise _unusable(datadir, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except BlockingIOError:
        file.seek(0)
        process = file.read().strip() or "unknown"
        file.close()
        raise StateError(
            f"{datadir} is in use by another worker (process {process}): stop that one, or give this one a folder of "
            "its own with GROUNDSWELL_DATADIR"
        ) from None
    except OSError as error:
        with suppress(OSError):  # close() writes buffered data again and fails again
            file.close()
        raise _unusable(datadir, error) from error
    return file


def check_usable(datadir: Path) -> None:
    """Check that the folder can be locked now; create it if it is missing.

    Raises:
        StateError: Another worker has locked it, or the folder cannot be created.
    """
    lock_data_dir(datadir).close()


def _unusable(datadir: Path, error: OSError) -> StateError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return StateError(f"{datadir} is no folder, or lies in something that is none: set GROUNDSWELL_DATADIR right")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StateError(f"{datadir} has no room left ({error.strerror}): make room, or set GROUNDSWELL_DATADIR right")
    return StateError(f"{datadir} cannot be written ({error.strerror}): set GROUNDSWELL_DATADIR right")


def lock_holder(datadir: Path) -> str | None:
    """Return the process id of the worker that has locked the folder, None if it is free; nothing is written."""
    try:
        file = (datadir / LOCK_FILE).open(encoding="ascii")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
    return None
