"""Checks that a command can write its output, before hours of work that produce it."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from streams.errors import InputError, reason


def check_folder(folder: Path) -> None:
    """Try whether a folder can be made and written to; what the trial makes is removed.

    Raises:
        InputError: the folder cannot be created or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give the name of a folder")
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=".groundswell-") as probe:
            probe.write(b"\n")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({reason(error)}); give another folder") from error
    finally:
        for made in absent:
            with suppress(OSError):
                made.rmdir()


def check_file(path: Path) -> None:
    """Check that a file can be written: its folder, and the file itself if it exists.

    Raises:
        InputError: the file cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file to write")
    check_folder(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{path}: cannot be written (Permission denied); give another name")
