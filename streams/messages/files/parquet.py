"""Parquet event files, read and written in chunks: only the columns of events, with values as in JSON.

Only this module of the folder and `result_tables` import pyarrow; the base installation has none.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import InputError, reason
from streams.messages.files.byte_streams import Chunks, Damaged
from streams.messages.files.text_rows import CHUNK_ROWS, FIELDS, TIMES, BadRow, Row, whole

_TYPES = dict.fromkeys(TIMES, pa.timestamp("us", tz="UTC")) | {"topics": pa.list_(pa.string())}
COLUMNS = pa.schema([(name, _TYPES.get(name, pa.string())) for name in FIELDS])
"""The columns of Parquet event files that `write` produces; absent values are null."""
_NEEDED = ("type", "time", "user")


@contextmanager
def spooled(chunks: Chunks) -> Iterator[Path]:
    """Copy the bytes to a temporary file, because Parquet is read from its end, which a pipe does not allow."""
    with tempfile.NamedTemporaryFile(prefix="groundswell-spool-", suffix=".parquet", buffering=0) as file:
        for chunk in chunks:
            left = memoryview(chunk)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                message = f"{file.name}, a copy of the Parquet file, cannot be written ({reason(error)}); set TMPDIR"
                raise InputError(message) from error
        yield Path(file.name)


def number_of_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file."""
    return int(pq.read_metadata(path).num_rows)


def rows(path: Path, name: str, fixed: Row) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield each row without nulls and NaN, or why it is invalid, with its number from 1; rows are not validated.

    Args:
        path: the file.
        name: its name for messages.
        fixed: values of all rows, from the names of the folders around the file.

    Raises:
        InputError: a column that every event needs is missing.
        OSError: the file cannot be read.
        Damaged: the file is no whole Parquet file.
    """
    try:
        yield from _rows(path, name, fixed)
    except pa.ArrowException as error:
        raise Damaged(f"{reason(error)}; is it a whole event file?") from error


def _rows(path: Path, name: str, fixed: Row) -> Iterator[tuple[int, Row | BadRow]]:
    number = 0
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        names = [column for column in COLUMNS.names if column in schema.names]
        if missing := sorted(set(_NEEDED) - set(names) - set(fixed)):
            existing = ", ".join(schema.names[:20]) or "none"
            raise InputError(
                f"{name}: has no column {', '.join(missing)} (its columns: {existing}); see the README for the columns"
            )
        bad_columns = {column: bad for column in names if (bad := _wrong_type(column, schema.field(column).type))}
        for batch in file.iter_batches(CHUNK_ROWS, columns=names):
            columns = [_values(column, batch.column(column)) for column in names]
            for cells in zip(*columns, strict=True):
                number += 1
                row = {column: cell for column, cell in zip(names, cells, strict=True) if cell is not None}
                bad = next((bad for column, bad in bad_columns.items() if column in row), None) if bad_columns else None
                yield number, bad or ({**fixed, **row} if fixed else row)


def _values(name: str, column: pa.Array) -> list[Any]:
    """Convert a column to Python values."""
    type_ = column.type
    if pa.types.is_timestamp(type_):
        # A timestamp without a zone is UTC.
        column = column.cast(pa.timestamp("us", tz=type_.tz or "UTC"), safe=False)
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(type_):
        return [None if value is None else _cell(name, value) for value in values]
    if pa.types.is_decimal(type_) and name in TIMES:
        return [None if value is None else int(value) if value == int(value) else float(value) for value in values]
    return values


def _is_text(type_: Any) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _cell(name: str, value: float) -> Any:
    if math.isnan(value):
        return None
    return value if name in TIMES else whole(value)


def _wrong_type(name: str, type_: Any) -> BadRow | None:
    """Return what is wrong with the values of a column with an unsupported type; None if the type is supported."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    if _is_text(type_) or pa.types.is_integer(type_) or pa.types.is_null(type_) or pa.types.is_floating(type_):
        return None
    if (pa.types.is_timestamp(type_) or pa.types.is_decimal(type_)) if name in TIMES else is_list and name == "topics":
        return None
    type_name = getattr(type_, "extension_name", "").removeprefix("arrow.") or str(type_)
    if name in TIMES:
        return BadRow(
            "time", f"column {name} is {type_name}, which is no time: cast it to a timestamp or to Unix seconds"
        )
    wanted = {"type": "strings", "topics": "a list of strings"}.get(name, "strings or whole numbers")
    cast = f"cast it to string{' or int64' if pa.types.is_decimal(type_) else ''}"
    return BadRow("type" if name == "type" else "id", f"column {name} is {type_name} where {wanted} are read: {cast}")


# Writing


def write(path: Path, chunks: Iterable[list[Mapping[str, Any]]], time_us: Callable[[Any], int]) -> int:
    """Write rows as a Parquet event file.

    Args:
        path: the file.
        chunks: the rows.
        time_us: converts a time to microseconds since 1970.

    Returns:
        The number of rows.

    Raises:
        Damaged: a value does not fit its column.
    """
    count = 0
    try:
        with pq.ParquetWriter(path, COLUMNS, compression="zstd") as writer:
            for chunk in chunks:
                columns = [
                    pa.array([_written(name, row.get(name), time_us) for row in chunk], type_)
                    for name, type_ in zip(COLUMNS.names, COLUMNS.types, strict=True)
                ]
                writer.write_table(pa.table(columns, schema=COLUMNS))
                count += len(chunk)
    except pa.ArrowException as error:
        raise Damaged(reason(error)) from error
    return count


def _written(name: str, value: Any, time_us: Callable[[Any], int]) -> Any:
    if value is None or name == "topics":
        return value
    return time_us(value) if name in TIMES else str(value)
