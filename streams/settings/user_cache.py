"""A folder of this user for files that can be made again, also without a home folder and without a name.

The first that can be written of: the user's cache, the temporary folder, shared memory. What is kept there is run as
code, so the last two are used only if no other user can write to the folder.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NAME = "groundswell"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is checked as one in the temporary folder is


def folder(name: str) -> Path | None:
    """The folder of that name, made if it is missing; None if there is no place for one."""
    return next((found for found in _candidates(name) if usable(found) and _ours_alone(found)), None)


def usable(path: Path) -> bool:
    """Whether files can be made in the folder, which is made if it is missing."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _candidates(name: str) -> Iterator[Path]:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base or _has_home():
        cache = Path(base) if base else Path.home() / ".cache"
        if cache.is_absolute():
            yield cache / NAME / name
    own = f"{NAME}-{name}-{os.getuid()}"
    with suppress(OSError):
        yield Path(tempfile.gettempdir()).absolute() / own
    yield SHARED_MEMORY / own


def _has_home() -> bool:
    """Whether there is a home folder: HOME is set, or the user is in the list of users."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def _ours_alone(path: Path) -> bool:
    """Whether no other user can put code into the folder: it is no link, is ours, and others cannot write it."""
    found = path.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
