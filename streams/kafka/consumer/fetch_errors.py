"""Record batches that cannot be decoded: their offset, the cause, and how to skip them.

Both clients decode lazily, inside a generator named `_unpack_records`, and raise the error of the codec's library.
Neither names the batch, so its offset is read from the frame of that generator in the traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from streams.errors import UnreadableBatch, one_line

CODECS = ("gzip", "snappy", "lz4", "zstd")
PACKAGES = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}
"""Python packages with which kafka-python, the client of the commands, decodes."""
WORKER_PACKAGE = "cramjam"
"""Python package with which aiokafka, the client of the worker, decodes all codecs."""
_UNPACK = "_unpack_records"


class Batch(NamedTuple):
    """A batch that cannot be decoded: its first unread offset, and the offset after the batch."""

    topic: str
    partition: int
    offset: int
    next_offset: int

    def __str__(self) -> str:
        return f"{self.topic} partition {self.partition} offset {self.offset}"


def find_batch(error: BaseException) -> Batch | None:
    """Return the batch that raised the error, or None if it is not an error of decoding."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == _UNPACK:
            return _batch(trace.tb_frame)
        trace = trace.tb_next
    return None


def _batch(frame: FrameType) -> Batch:
    variables: dict[str, Any] = frame.f_locals
    tp, offset = variables["tp"], int(variables["self"].next_fetch_offset)
    # aiokafka and kafka-python use different names; a batch of an old message format may lack its end.
    batch: Any = variables.get("next_batch", variables.get("batch"))
    try:
        next_offset = int(batch.next_offset)
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        next_offset = 0
    return Batch(tp.topic, tp.partition, offset, max(next_offset, offset + 1))


def unreadable_batch(error: BaseException) -> UnreadableBatch | None:
    """Return the error of one line for an error of decoding, or None for any other error."""
    batch = find_batch(error)
    if batch is None:
        return None
    return UnreadableBatch(f"{batch} cannot be decoded ({_cause(error)}): {_remedy(batch, error)}")


def _cause(error: BaseException) -> str:
    return one_line(error) if type(error).__module__.startswith(("aiokafka", "kafka")) else _with_type(error)


def _with_type(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _remedy(batch: Batch, error: BaseException) -> str:
    codec = next((name for name in CODECS if f"for {name} compression codec not found" in str(error)), None)
    if codec is not None:
        package = WORKER_PACKAGE if type(error).__module__.startswith("aiokafka") else PACKAGES[codec]
        return f"install the Python package {package}; `groundswell doctor` shows which codecs are missing"
    where = f'"topic":"{batch.topic}","partition":{batch.partition},"offset":{batch.next_offset}'
    return (
        "restore it from another replica, or delete it with all records before it: kafka-delete-records.sh "
        f'--offset-json-file FILE, with {{"partitions":[{{{where}}}],"version":1}} in FILE (a compacted topic: delete '
        "and create it)"
    )


@contextmanager
def decoding() -> Iterator[None]:
    """Turn an error of decoding into one of one line; every poll of a consumer runs inside this context.

    Raises:
        UnreadableBatch: a batch cannot be decoded.
    """
    try:
        yield
    except Exception as error:
        unreadable = unreadable_batch(error)
        if unreadable is None:
            raise
        raise unreadable from error


def missing_codecs() -> list[str]:
    """Return a line for each codec that a client here cannot decode, with the package to install; empty if none."""
    import aiokafka.codec
    import kafka.codec

    clients = (("the worker", aiokafka.codec), ("the commands", kafka.codec))
    lines = []
    for client, library in clients:
        for codec in CODECS:
            package = WORKER_PACKAGE if library is aiokafka.codec else PACKAGES.get(codec, "")
            problem = _problem(library, codec)
            if problem:
                lines.append(f"{client} cannot read {codec} ({problem}): install the Python package {package}")
    return lines


def _problem(library: Any, codec: str) -> str:
    """Return why a codec does not restore a sample that it compressed; empty if it does."""
    sample = b"groundswell" * 10
    if not getattr(library, f"has_{codec}")():
        return "not installed"
    try:
        packed = getattr(library, f"{codec}_encode")(sample)
        return "" if bytes(getattr(library, f"{codec}_decode")(packed)) == sample else "wrong result"
    except Exception as error:  # noqa: BLE001 - after any error of a library the codec cannot be used
        return _with_type(error)
