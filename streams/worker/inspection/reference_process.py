"""PyTorch Geometric in a process of its own, to check embeddings and scores while a worker serves.

Its import takes seconds, in which the interpreter is held again and again, and hundreds of megabytes that a worker
would keep. The process has a low priority. It ends when it is closed, and when the worker is gone, however that ended.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from model.artifact import Artifact
from model.config import ModelConfig
from model.types import Float32s, GraphInput
from streams.errors import ModelRefused

if TYPE_CHECKING:
    from model.network.pyg_reference import Given, Reference

T = TypeVar("T")

NICE = 5
"""Steps come first. With a still lower priority the process gets next to no time where steps fill all cores."""

_reference: Reference
"""In the process itself: the network of the artifact that it was started for."""


class ReferenceProcess:
    """A `model.network.pyg_reference.Reference` in another process, until it is closed; for one thread at a time."""

    def __init__(self, artifact: Artifact) -> None:
        self.config = artifact.config
        # Spawned: a fork would share the threads' locks, RocksDB's files and Kafka's sockets.
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_prepare, initargs=(artifact.weights, artifact.config)
        )

    def start(self) -> None:
        """Start the process and wait until it is ready, which takes seconds; without this the first call does.

        Raises:
            ModelRefused: the process ended.
        """
        self._ask(os.getpid)

    def __call__(
        self, graph: GraphInput, inner: dict[str, int] | None = None, given: Given | None = None
    ) -> tuple[dict[str, Float32s], Float32s, Float32s]:
        """Compute the first layer, the second layer and the scores, as `model.network.pyg_reference.Reference`.

        Raises:
            ModelRefused: the process ended.
        """
        return self._ask(_compute, graph, inner, given)

    def _ask(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            return self._pool.submit(function, *arguments).result()
        except (BrokenProcessPool, RuntimeError) as error:  # it ended, or was closed
            raise ModelRefused(
                "it could not be judged: the process of PyTorch Geometric ended, see the worker's log"
            ) from error

    def close(self) -> None:
        """End the process, also while it computes."""
        for process in list((self._pool._processes or {}).values()):  # noqa: SLF001 - public from Python 3.14 on
            process.kill()
        self._pool.shutdown()


def _prepare(weights: dict[str, Float32s], config: ModelConfig) -> None:
    """Lower the priority, watch the worker, and load the network."""
    global _reference  # noqa: PLW0603 - a pool's process has no other place for it
    Thread(target=_end_with_worker, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the worker closes this process
    os.nice(NICE)
    import torch

    from model.network.pyg_reference import Reference

    torch.set_num_threads(1)
    _reference = Reference(weights, config)


def _end_with_worker() -> None:
    """Wait for the end of the worker; the pool alone waits for its next task forever after a kill -9."""
    worker = parent_process()
    if worker is not None:
        connection.wait([worker.sentinel])
        os._exit(1)


def _compute(
    graph: GraphInput, inner: dict[str, int] | None, given: Given | None
) -> tuple[dict[str, Float32s], Float32s, Float32s]:
    return _reference(graph, inner, given)
