"""A folder of event files as other tools write it: its parts in order, and what its inner folders' names say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from streams.errors import InputError
from streams.messages.files.parquet import COLUMNS

_TABLES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table", "metadata": "an Iceberg table"}
"""Folders beside the parts of tables that also keep parts which no longer count."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def parts(folder: Path) -> list[Path]:
    """The files of a folder and of its inner folders in the order of their names, without marks, checksums and hidden
    files, and without empty ones, which Spark writes for partitions without rows.

    Raises:
        InputError: it holds no such file, or is a table whose parts do not all count.
        OSError: it cannot be read.
    """
    for name, table in _TABLES.items():
        beside = folder / name
        if beside.is_dir() and (name != "metadata" or any(beside.glob("*.metadata.json"))):
            raise InputError(f"{folder}: is {table}, which keeps old parts too: export what counts as Parquet")
    found = sorted(_files(folder))
    if not found:
        raise InputError(f"{folder}: is a folder without event files; give files, or a folder of parts")
    return found


def _files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name.startswith(("_", ".")) or entry.name.lower().endswith(".crc"):
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path))
        elif entry.is_file() and entry.stat().st_size:
            yield Path(entry.path)


def fixed(folder: Path, part: Path) -> dict[str, Any]:
    """What the names of the inner folders say of all rows of a part, as `type=follow` does (Hive, Spark)."""
    said = (name.partition("=") for name in part.relative_to(folder).parts[:-1])
    values = {name: unquote(value) for name, _, value in said if name in COLUMNS.names and value not in ("", _NO_VALUE)}
    return {name: float(value) if name == "time" and value.isdigit() else value for name, value in values.items()}
