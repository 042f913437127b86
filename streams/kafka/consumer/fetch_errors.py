"""Record batches that cannot be decoded: which one it is, why, and how to read on behind it.

Both clients decode lazily, inside a generator named `_unpack_records`, and raise whatever the codec's library
raises. Neither names the batch, so it is read from the frame of that generator in the traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from streams.errors import UnreadableBatch, one_line

CODECS = ("gzip", "snappy", "lz4", "zstd")
PACKAGES = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}
"""What kafka-python, the client of the commands, decodes with; aiokafka, the worker's, has one package for all."""
WORKER_PACKAGE = "cramjam"
_UNPACK = "_unpack_records"


class Batch(NamedTuple):
    """Where a batch lies: the first offset that cannot be read, and the one behind the batch."""

    topic: str
    partition: int
    offset: int
    behind: int

    def __str__(self) -> str:
        return f"{self.topic} partition {self.partition} offset {self.offset}"


def find(error: BaseException) -> Batch | None:
    """The batch that raised the error, or None if the error is not one of decoding."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == _UNPACK:
            return _batch(trace.tb_frame)
        trace = trace.tb_next
    return None


def _batch(frame: FrameType) -> Batch:
    found: dict[str, Any] = frame.f_locals
    tp, offset = found["tp"], int(found["self"].next_fetch_offset)
    # aiokafka and kafka-python name it differently; of an old message format it may not know its end.
    batch: Any = found.get("next_batch", found.get("batch"))
    try:
        behind = int(batch.next_offset)
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        behind = 0
    return Batch(tp.topic, tp.partition, offset, max(behind, offset + 1))


def unreadable(error: BaseException) -> UnreadableBatch | None:
    """The error of one line for an error of decoding, or None if it is another one."""
    batch = find(error)
    if batch is None:
        return None
    return UnreadableBatch(f"{batch} cannot be decoded ({_what(error)}): {_remedy(batch, error)}")


def _what(error: BaseException) -> str:
    return one_line(error) if type(error).__module__.startswith(("aiokafka", "kafka")) else _named(error)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _remedy(batch: Batch, error: BaseException) -> str:
    codec = next((name for name in CODECS if f"for {name} compression codec not found" in str(error)), None)
    if codec is not None:
        package = WORKER_PACKAGE if type(error).__module__.startswith("aiokafka") else PACKAGES[codec]
        return f"install the Python package {package}; `groundswell doctor` shows which codecs are missing"
    where = f'"topic":"{batch.topic}","partition":{batch.partition},"offset":{batch.behind}'
    return (
        "restore it from another replica, or delete it with all records before it: kafka-delete-records.sh "
        f'--offset-json-file FILE, with {{"partitions":[{{{where}}}],"version":1}} in FILE (a compacted topic: delete '
        "and create it)"
    )


@contextmanager
def decoding() -> Iterator[None]:
    """Raise what cannot be decoded as an error of one line; wrap each poll of a consumer in it.

    Raises:
        UnreadableBatch: a batch cannot be decoded.
    """
    try:
        yield
    except Exception as error:
        found = unreadable(error)
        if found is None:
            raise
        raise found from error


def missing_codecs() -> list[str]:
    """What this installation cannot decode, one line each: codec, client and package; empty if nothing."""
    import aiokafka.codec
    import kafka.codec

    clients = (("the worker", aiokafka.codec), ("the commands", kafka.codec))
    lines = []
    for client, library in clients:
        for codec in CODECS:
            package = WORKER_PACKAGE if library is aiokafka.codec else PACKAGES.get(codec, "")
            problem = _broken(library, codec)
            if problem:
                lines.append(f"{client} cannot read {codec} ({problem}): install the Python package {package}")
    return lines


def _broken(library: Any, codec: str) -> str:
    """Why a codec does not give back what it was given; empty if it does."""
    sample = b"groundswell" * 10
    if not getattr(library, f"has_{codec}")():
        return "not installed"
    try:
        packed = getattr(library, f"{codec}_encode")(sample)
        return "" if bytes(getattr(library, f"{codec}_decode")(packed)) == sample else "wrong result"
    except Exception as error:  # noqa: BLE001 - whatever a library raises, the codec cannot be used
        return _named(error)
