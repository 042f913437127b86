"""A folder of event files as Spark and other tools write it: its parts in order, and values in names of folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from streams.errors import InputError
from streams.messages.files.text_rows import FIELDS

_TABLES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table", "metadata": "an Iceberg table"}
"""Folders of table formats whose data folder also holds parts of earlier versions."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def parts(folder: Path) -> list[Path]:
    """Return the files of a folder and its inner folders, sorted by name.

    Left out are markers, checksums, hidden files, and empty files, which Spark writes for partitions without rows.

    Raises:
        InputError: the folder has no such file, or is a table that may hold parts of earlier versions.
        OSError: the folder cannot be read.
    """
    for name, table in _TABLES.items():
        metadata = folder / name
        if metadata.is_dir() and (name != "metadata" or any(metadata.glob("*.metadata.json"))):
            raise InputError(f"{folder}: is {table}, which may hold old parts: export the current rows as Parquet")
    files = sorted(_files(folder))
    if not files:
        raise InputError(f"{folder}: is a folder without event files; give files, or a folder of parts")
    return files


def _files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name.startswith(("_", ".")) or entry.name.lower().endswith(".crc"):
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path))
        elif entry.is_file() and entry.stat().st_size:
            yield Path(entry.path)


def fixed(folder: Path, part: Path) -> dict[str, Any]:
    """Return the values that names of inner folders give to all rows of a part, such as `type=follow` (Hive, Spark)."""
    pairs = (name.partition("=") for name in part.relative_to(folder).parts[:-1])
    values = {name: unquote(value) for name, _, value in pairs if name in FIELDS and value not in ("", _NO_VALUE)}
    return {name: float(value) if name == "time" and value.isdigit() else value for name, value in values.items()}
