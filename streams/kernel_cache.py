"""Where compiled kernels are kept: beside the sources, or in another folder where those cannot be written.

numba decides when a module with kernels is imported, and fails if no folder of its own choice can be written. So
`prepare` comes before: it names a folder in `NUMBA_CACHE_DIR`, unless the operator has, and processes that are started
from here inherit it. numba loads what it finds there as code: a shared folder is used only if no other user can write
to it.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streams.errors import SettingsError

VARIABLE = "NUMBA_CACHE_DIR"
FOLDER = "kernels"
NAME = "groundswell-kernels"
PACKAGES = ("graphstate", "model", "streams")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is checked as one in the temporary folder is

_chosen: list[str] = []


def prepare(datadir: Path | None = None) -> str:
    """Choose the folder of compiled kernels; the answer says which, for a person.

    Args:
        datadir: the data folder of a worker, which then has them in it; made if it is missing.

    Raises:
        SettingsError: there is no folder that can be used.
    """
    datadir = None if datadir is None else datadir.absolute()
    given = os.environ.get(VARIABLE, "")
    if given and given not in _chosen and _usable(Path(given)):
        return f"in {given}, as {VARIABLE} says"
    if sources_writable():
        return "beside the sources"
    for folder in _candidates(datadir):
        if _usable(folder) and (folder.parent == datadir or _ours_alone(folder)):
            _use(str(folder))
            return f"in {folder}, as the sources cannot be written"
    unusable = f" ({given} cannot be written)" if given and given not in _chosen else ""
    raise SettingsError(
        f"there is no folder for the compiled kernels, as neither the sources, the user's cache nor {_temporary()} can "
        f"be written: set {VARIABLE} to a folder that can{unusable}"
    )


def sources_writable() -> bool:
    """Whether numba can keep kernels beside every package, as it does by itself."""
    root = Path(__file__).parents[1]
    folders = [root / package for package in PACKAGES]
    caches = [cache if (cache := folder / "__pycache__").is_dir() else folder for folder in folders]
    return all(os.access(cache, os.W_OK | os.X_OK) for cache in caches)


def _candidates(datadir: Path | None) -> Iterator[Path]:
    if datadir is not None:
        yield datadir / FOLDER
    base = os.environ.get("XDG_CACHE_HOME", "")
    # Without a home folder and an entry in the list of users there is no such path, and "~" stays as it is.
    home = Path(base) if base else Path("~/.cache").expanduser() if _has_home() else None
    if home is not None and home.is_absolute():
        yield home / "groundswell" / FOLDER
    name = f"{NAME}-{os.getuid()}"
    if (temporary := _temporary()) is not None:
        yield temporary / name
    yield SHARED_MEMORY / name


def _has_home() -> bool:
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def _temporary() -> Path | None:
    try:
        return Path(tempfile.gettempdir()).absolute()
    except OSError:
        return None


def _usable(folder: Path) -> bool:
    """Whether files can be made in the folder, which is made if it is missing."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _ours_alone(folder: Path) -> bool:
    """Whether no other user can put code into the folder: it is no link, is ours, and others cannot write it."""
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _use(folder: str) -> None:
    _chosen.append(folder)
    os.environ[VARIABLE] = folder
    # numba has read its variables if something imported it before.
    if (config := sys.modules.get("numba.core.config")) is not None:
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
