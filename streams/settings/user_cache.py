"""A cache folder of the current user, also for users without a home folder or a user name.

The first writable one of: the user's cache, the temporary folder, shared memory. Cached files are executed as code, so
the last two are used only if no other user can write to the folder.
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
    """Return the cache folder `name`, created if it is missing; None if no place can be written."""
    return next((path for path in _candidates(name) if usable(path) and _is_private(path)), None)


def usable(path: Path) -> bool:
    """Return whether files can be created in the folder; creates it if it is missing."""
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
    """Return whether there is a home folder: HOME is set, or the user is in the password database."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def _is_private(path: Path) -> bool:
    """Return whether no other user can write to the folder: it is no link, belongs to this user, and is not shared."""
    status = path.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
