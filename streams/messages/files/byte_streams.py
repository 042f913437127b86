"""The bytes of an event file: standard input, pipes and files, decompressed and converted to UTF-8, read once.

Nothing seeks, and nothing waits for more bytes than have arrived: the bytes of a live pipe are passed on at once. Every
step is an iterator of chunks, and no chunk is much larger than CHUNK_BYTES, however well the data is compressed.
"""

from __future__ import annotations

import bz2
import codecs
import fcntl
import lzma
import os
import select
import stat
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from streams.errors import InputError, one_line
from streams.messages.files import kinds

Chunks = Iterator[bytes]

CHUNK_BYTES = 1 << 20
STDIN = Path("-")
_STDIN_NAMES = (STDIN, Path("/dev/stdin"), Path("/dev/fd/0"), Path("/proc/self/fd/0"))
_ZSTD_BYTES = 1 << 12
"""Bytes passed to zstd at once, because zstd does not limit the size of its output."""
_ZSTD_WINDOW = 1 << 31
"""The largest window of zstd (--long=31); memory is allocated only for a frame with such a window."""
_LAYERS = 3
"""Maximum number of nested compressions."""
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"), (b"{\x00", "utf-16-le"), (b"[\x00", "utf-16-le"), (b"\x00{", "utf-16-be"),
    (b"\x00[", "utf-16-be"),
)  # fmt: skip
"""First bytes of text in other encodings; JSON without a BOM begins with a bracket."""


class CutOff(Exception):
    """The data ends inside of what the message names."""


class Damaged(Exception):
    """The data cannot be decompressed or decoded; the message has the cause."""


def is_stdin(path: Path) -> bool:
    """Return whether the path is standard input."""
    return path in _STDIN_NAMES


def is_stream(path: Path) -> bool:
    """Return whether the path can be read only once and in order: standard input, a pipe or a device."""
    return is_stdin(path) or not stat.S_ISREG(path.stat().st_mode)


@contextmanager
def opened(path: Path) -> Iterator[Chunks]:
    """Yield the bytes of a file, a pipe or standard input, in chunks as they arrive."""
    if is_stdin(path):
        if sys.__stdin__ is None:
            raise InputError("standard input is closed; give a file, or a pipe into this command")
        yield _read(0)
        return
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _read(number)
    finally:
        os.close(number)


def _read(number: int) -> Chunks:
    if stat.S_ISFIFO(os.fstat(number).st_mode):
        # With a larger pipe the writer continues while the reader works; not every system allows it.
        with suppress(OSError, AttributeError):
            fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
    while True:
        try:
            chunk = os.read(number, CHUNK_BYTES)
        except BlockingIOError:
            select.select([number], [], [])
            continue
        if not chunk:
            return
        yield chunk


def peek(chunks: Chunks) -> tuple[bytes, Chunks]:
    """Return the first bytes, enough to recognize the format, and an iterator of all bytes."""
    head = b""
    for chunk in chunks:
        head += chunk
        if kinds.is_decided(head):
            break
    return head, chain((head,), chunks) if head else iter(())


def decompressed(chunks: Chunks) -> tuple[bytes, Chunks, list[str]]:
    """Decompress all layers of compression.

    Returns:
        (first bytes, all bytes, names of the codecs).

    Raises:
        CutOff: from the iterator: the compressed data ends early.
        Damaged: from the iterator: the compressed data is damaged.
    """
    head, chunks = peek(chunks)
    layers: list[str] = []
    while codec := kinds.compression(head):
        if len(layers) == _LAYERS:
            raise Damaged(f"it is compressed more than {_LAYERS} times ({', '.join(layers)})")
        layers.append(codec)
        head, chunks = peek(inflated(codec, chunks))
    return head, chunks, layers


def as_utf8(head: bytes, chunks: Chunks) -> Chunks:
    """Convert text in any of Unicode's encodings to UTF-8 without a BOM."""
    if head.startswith(codecs.BOM_UTF8):
        return _without(codecs.BOM_UTF8, chunks)
    name = next((name for start, name in _BOMS if head.startswith(start)), None)
    return chunks if name is None else _recoded(name, chunks)


def _without(mark: bytes, chunks: Chunks) -> Chunks:
    yield next(chunks).removeprefix(mark)
    yield from chunks


def _recoded(name: str, chunks: Chunks) -> Chunks:
    decode = codecs.getincrementaldecoder(name)().decode
    try:
        for chunk in chunks:
            yield decode(chunk).encode()
        decode(b"", True)
    except UnicodeError as error:
        raise Damaged(f"it is not {name.upper()}: {one_line(error)}") from error


# Decompression


def inflated(codec: str, chunks: Chunks) -> Chunks:
    """Decompress the chunks of one codec, over all members or frames.

    Raises:
        CutOff: the last member has no end.
        Damaged: the data is damaged, or other data follows it.
    """
    make, feed = _codec(codec)
    decoder, between = None, False
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if decoder is None:
                    # Tapes and block devices pad with zeros, and so may xz.
                    data = data.lstrip(b"\x00") if between else data
                    if not data:
                        break
                    decoder = make()
                data = yield from feed(decoder, data)
                if decoder.eof:
                    decoder, between = None, True
    except (zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        where = f"other data follows its {codec} data" if between else f"damaged {codec} data"
        raise Damaged(f"{where} ({one_line(error)})") from error
    if decoder is not None:
        raise CutOff(f"{codec} data")


def _codec(name: str) -> tuple[Callable[[], Any], Callable[[Any, bytes], Generator[bytes, None, bytes]]]:
    """Return the constructor of a codec's decoder, and the function that feeds it."""
    if name == "gzip":
        return lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), _feed_zlib
    if name == "bzip2":
        return bz2.BZ2Decompressor, _feed_limited
    if name in {"xz", "lzma"}:
        return lzma.LZMADecompressor, _feed_limited
    if name == "lz4":
        import lz4.frame

        return lz4.frame.LZ4FrameDecompressor, _feed_limited
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return lambda: _Zstd(context.decompressobj(), zstandard.ZstdError), _feed_zstd


class _Zstd:
    """A decoder of one zstd frame that raises ValueError instead of the library's own error."""

    def __init__(self, decoder: Any, error: type[Exception]) -> None:
        self._decoder, self._error = decoder, error

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data)

    def decompress(self, data: bytes) -> bytes:
        try:
            return bytes(self._decoder.decompress(data))
        except self._error as error:
            raise ValueError(str(error)) from error


def _feed_zlib(decoder: Any, data: bytes) -> Generator[bytes, None, bytes]:
    """Yield the decompressed data; returns the bytes after the end of the member."""
    while True:
        out = decoder.decompress(data, CHUNK_BYTES)
        if out:
            yield out
        data = decoder.unconsumed_tail
        if decoder.eof or (not data and len(out) < CHUNK_BYTES):
            return bytes(decoder.unused_data)


def _feed_limited(decoder: Any, data: bytes) -> Generator[bytes, None, bytes]:
    while True:
        out = decoder.decompress(data, CHUNK_BYTES)
        if out:
            yield out
        if decoder.eof:
            return bytes(decoder.unused_data or b"")
        if decoder.needs_input:
            return b""
        data = b""


def _feed_zstd(decoder: Any, data: bytes) -> Generator[bytes, None, bytes]:
    ready: list[bytes] = []
    size = 0
    for begin in range(0, len(data), _ZSTD_BYTES):
        out = decoder.decompress(data[begin : begin + _ZSTD_BYTES])
        ready.append(out)
        size += len(out)
        if decoder.eof:
            if size:
                yield b"".join(ready)
            return bytes(decoder.unused_data) + data[begin + _ZSTD_BYTES :]
        if size >= CHUNK_BYTES:
            yield b"".join(ready)
            ready, size = [], 0
    if size:
        yield b"".join(ready)
    return b""


def head_of(path: Path) -> tuple[bytes, list[str]]:
    """Return the first bytes of a file after decompression, and the codecs; not for streams."""
    with opened(path) as chunks:
        head, _, layers = decompressed(chunks)
        return head, layers
