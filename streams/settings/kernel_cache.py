"""The folder of compiled kernels: beside the sources, or elsewhere if the sources cannot be written.

numba chooses a folder when a module with kernels is imported, and fails if it finds no writable one. `prepare` must run
before that import: it sets `NUMBA_CACHE_DIR`, unless the operator did. Child processes inherit the variable. If the
folder of the operator holds kernels and cannot be written, as in a read-only image, they are copied to the one in use.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from streams.errors import SettingsError
from streams.settings import user_cache

VARIABLE = "NUMBA_CACHE_DIR"
FOLDER = "kernels"
PACKAGES = ("graphstate", "model", "streams")
_chosen: list[str] = []


def prepare(datadir: Path | None = None) -> str:
    """Choose the folder of compiled kernels.

    Args:
        datadir: the data folder of a worker, preferred over the user's cache; created if it is missing.

    Returns:
        Which folder it is and why, as text for a message.

    Raises:
        SettingsError: no folder can be written.
    """
    datadir = None if datadir is None else datadir.absolute()
    given = os.environ.get(VARIABLE, "")
    if given and given not in _chosen and user_cache.usable(Path(given)):
        return f"in {given} ({VARIABLE})"
    if sources_writable():
        return "beside the sources"
    if datadir is not None and user_cache.usable(datadir / FOLDER):
        folder: Path | None = datadir / FOLDER
    else:
        folder = user_cache.folder(FOLDER)
    if folder is not None:
        if given and given not in _chosen:
            _copy_newer(Path(given), folder)
        _use(str(folder))
        return f"in {folder}, because the sources cannot be written"
    unusable = f" ({given} cannot be written)" if given and given not in _chosen else ""
    raise SettingsError(
        "no folder for the compiled kernels: neither the sources, the user's cache nor the temporary folder can be "
        f"written; set {VARIABLE} to a writable folder{unusable}"
    )


def _copy_newer(compiled: Path, folder: Path) -> None:
    """Copy kernels that were compiled before, as in an image: numba uses no folder that it cannot write.

    Args:
        compiled: the folder with compiled kernels; nothing happens if it cannot be read.
        folder: the folder that is used. Files that are as new are kept.
    """
    with suppress(OSError):
        for source in sorted(compiled.rglob("*.nb?")):
            target = folder / source.relative_to(compiled)
            if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
                continue
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            shutil.copy2(source, partial)
            partial.replace(target)


def compiled() -> bool:
    """Return whether kernels of an earlier start are in the folder that is in use."""
    given = os.environ.get(VARIABLE, "")
    root = Path(__file__).parents[2]
    folders = [Path(given)] if given else [root / package for package in PACKAGES]
    return any(True for folder in folders for _ in folder.rglob("*.nbi"))


def sources_writable() -> bool:
    """Return whether numba can write kernels beside every package, its default place."""
    root = Path(__file__).parents[2]
    folders = [path.parent for package in PACKAGES for path in (root / package).rglob("__init__.py")]
    caches = [cache if (cache := folder / "__pycache__").is_dir() else folder for folder in folders]
    return all(os.access(cache, os.W_OK | os.X_OK) for cache in caches)


def _use(folder: str) -> None:
    _chosen.append(folder)
    os.environ[VARIABLE] = folder
    # If numba is imported already, it has read the variable.
    if (config := sys.modules.get("numba.core.config")) is not None:
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
