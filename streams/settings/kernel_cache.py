"""Where compiled kernels are kept: beside the sources, or in another folder where those cannot be written.

numba decides when a module with kernels is imported, and fails if no folder of its own choice can be written. So
`prepare` comes before: it names a folder in `NUMBA_CACHE_DIR`, unless the operator has, and processes that are started
from here inherit it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from streams.errors import SettingsError
from streams.settings import user_cache

VARIABLE = "NUMBA_CACHE_DIR"
FOLDER = "kernels"
PACKAGES = ("graphstate", "model", "streams")
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
    if given and given not in _chosen and user_cache.usable(Path(given)):
        return f"in {given}, as {VARIABLE} says"
    if sources_writable():
        return "beside the sources"
    if datadir is not None and user_cache.usable(datadir / FOLDER):
        folder: Path | None = datadir / FOLDER
    else:
        folder = user_cache.folder(FOLDER)
    if folder is not None:
        _use(str(folder))
        return f"in {folder}, as the sources cannot be written"
    unusable = f" ({given} cannot be written)" if given and given not in _chosen else ""
    raise SettingsError(
        "there is no folder for the compiled kernels, as neither the sources, the user's cache nor the temporary "
        f"folder can be written: set {VARIABLE} to a folder that can{unusable}"
    )


def sources_writable() -> bool:
    """Whether numba can keep kernels beside every package, as it does by itself."""
    root = Path(__file__).parents[2]
    folders = [path.parent for package in PACKAGES for path in (root / package).rglob("__init__.py")]
    caches = [cache if (cache := folder / "__pycache__").is_dir() else folder for folder in folders]
    return all(os.access(cache, os.W_OK | os.X_OK) for cache in caches)


def _use(folder: str) -> None:
    _chosen.append(folder)
    os.environ[VARIABLE] = folder
    # numba has read its variables if something imported it before.
    if (config := sys.modules.get("numba.core.config")) is not None:
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
