"""PyTorch Geometric in a process of its own, for a worker that is to judge another artifact while it serves.

Its import takes seconds, in which the interpreter is held again and again, and hundreds of megabytes that a worker
would keep. The process has a low priority, and ends with its input: when it is closed, or the worker is gone.

    parent → child   the artifact's files, then one frame of arrays after the other: a neighbourhood
    child → parent   as many frames: its first and second layer and scores
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.artifact import Artifact
from model.types import Float32s, GraphInput
from streams.errors import ModelRefused

if TYPE_CHECKING:
    from model.reference import Given

LENGTH = 8
NICE = 5
"""So that steps come first; lower still, it would get next to nothing where they fill all cores."""
Arrays = dict[str, NDArray[Any]]
Packed = dict[str, tuple[str, list[int], bytes]]
_encode = msgspec.msgpack.Encoder().encode
_arrays = msgspec.msgpack.Decoder(Packed).decode
_files = msgspec.msgpack.Decoder(dict[str, bytes]).decode


def write(pipe: IO[bytes], data: bytes) -> None:
    """One frame."""
    pipe.write(len(data).to_bytes(LENGTH, "big") + data)
    pipe.flush()


def read(pipe: IO[bytes]) -> bytes | None:
    """The next frame, None at the end."""
    length = pipe.read(LENGTH)
    if len(length) < LENGTH:
        return None
    data = pipe.read(int.from_bytes(length, "big"))
    return data if len(data) == int.from_bytes(length, "big") else None


def pack(arrays: Arrays) -> bytes:
    """Arrays by name as bytes."""
    return _encode({name: (some.dtype.str, list(some.shape), some.tobytes()) for name, some in arrays.items()})


def unpack(data: bytes) -> Arrays:
    """What `pack` made bytes of."""
    return {name: np.frombuffer(values, dtype).reshape(shape) for name, (dtype, shape, values) in _arrays(data).items()}


class Judge:
    """A `model.reference.Reference` in another process, until it is closed; for one thread at a time."""

    def __init__(self, artifact: Artifact) -> None:
        self.config = artifact.config
        command = [sys.executable, "-m", "streams.judging"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._ask(_encode(artifact.files()), answered=False)

    def _ask(self, data: bytes, *, answered: bool = True) -> bytes:
        pipes = self._process.stdin, self._process.stdout
        try:
            if pipes[0] is not None and pipes[1] is not None:
                write(pipes[0], data)
                answer = read(pipes[1]) if answered else b""
                if answer is not None:
                    return answer
        except (OSError, ValueError):
            pass  # it has ended, or was closed
        raise ModelRefused("it could not be judged: the process of PyTorch Geometric ended, see the worker's log")

    def __call__(
        self, graph: GraphInput, inner: dict[str, int] | None = None, given: Given | None = None
    ) -> tuple[dict[str, Float32s], Float32s, Float32s]:
        """As `model.reference.Reference`.

        Raises:
            ModelRefused: the process ended.
        """
        arrays: Arrays = {f"x/{name}": some for name, some in graph.x.items()}
        arrays |= {f"edges/{name}": some for name, some in graph.edges.items()}
        arrays |= {f"inner/{name}": np.array(count) for name, count in (inner or {}).items()}
        for name, (rows, hidden) in (given or {}).items():
            arrays |= {f"rows/{name}": rows, f"given/{name}": hidden}
        found = unpack(self._ask(pack({**arrays, "own": graph.own})))
        return _under(found, "hidden1"), found["hidden2"], found["score"]

    def close(self) -> None:
        """End the process."""
        # First it ends, then whoever reads of it does, and only then there is nobody in the pipes.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _under(arrays: Arrays, kind: str) -> Arrays:
    return {name.removeprefix(f"{kind}/"): some for name, some in arrays.items() if name.startswith(f"{kind}/")}


def main() -> None:
    """Judge until the input ends."""
    os.nice(NICE)
    files = read(sys.stdin.buffer)
    if files is None:
        return
    import torch

    from model.reference import Reference

    torch.set_num_threads(1)
    artifact = Artifact.of(_files(files), "the worker's pipe")
    reference = Reference(artifact.weights, artifact.config)
    while (data := read(sys.stdin.buffer)) is not None:
        asked = {name: some.copy() for name, some in unpack(data).items()}
        graph = GraphInput(_under(asked, "x"), _under(asked, "edges"), asked["own"])
        rows, hidden = _under(asked, "rows"), _under(asked, "given")
        inner = {name: int(count) for name, count in _under(asked, "inner").items()}
        first, second, score = reference(graph, inner or None, {name: (rows[name], hidden[name]) for name in rows})
        named = {f"hidden1/{name}": some for name, some in first.items()}
        write(sys.stdout.buffer, pack({**named, "hidden2": second, "score": score}))


if __name__ == "__main__":
    main()
