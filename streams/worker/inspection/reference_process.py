"""A reference in a separate process, which checks embeddings and scores while a worker serves.

It is PyTorch Geometric where that is installed (extra `train` or `gpu`), else the same network in NumPy.

Importing it takes seconds, during which the GIL is held for long periods, and hundreds of megabytes that the worker
would keep. The process runs at low priority. It ends when it is closed, and when the worker ends, even by SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from model.artifact import Artifact
from model.config import ModelConfig
from model.explain.numpy_reference import NumpyReference
from model.types import Float32s, GraphInput
from streams.errors import ModelRefused

if TYPE_CHECKING:
    from model.network.pyg_reference import Given, Reference

T = TypeVar("T")

NICE = 5
"""Steps have priority. With a higher value the process gets almost no CPU time while steps use all cores."""

_reference: Reference | NumpyReference
"""In the separate process: the network of the artifact that it was started for."""


class ReferenceProcess:
    """A `model.network.pyg_reference.Reference` in a separate process, until it is closed; for one thread at a time.

    Args:
        artifact: Artifact of the network.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.config = artifact.config
        # Spawned: a fork would inherit locks of other threads, RocksDB's files and Kafka's sockets.
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_prepare, initargs=(artifact.weights, artifact.config)
        )

    def start(self) -> None:
        """Start the process and wait until it is ready, which takes seconds; otherwise the first call starts it.

        Raises:
            ModelRefused: The process ended.
        """
        self._run(os.getpid)

    def __call__(
        self, graph: GraphInput, inner: dict[str, int] | None = None, given: Given | None = None
    ) -> tuple[dict[str, Float32s], Float32s, Float32s]:
        """Compute the first layer, the second layer and the scores, as `model.network.pyg_reference.Reference`.

        Raises:
            ModelRefused: The process ended.
        """
        return self._run(_compute, graph, inner, given)

    def _run(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            return self._pool.submit(function, *arguments).result()
        except (BrokenProcessPool, RuntimeError) as error:  # it ended, or was closed
            raise ModelRefused("the reference process ended during the comparison; see the worker's log") from error

    def close(self) -> None:
        """End the process, even while it computes."""
        for process in list((self._pool._processes or {}).values()):  # noqa: SLF001 - public from Python 3.14 on
            process.kill()
        self._pool.shutdown()


def _prepare(weights: dict[str, Float32s], config: ModelConfig) -> None:
    """Lower the priority, watch the worker, and load the network."""
    global _reference  # noqa: PLW0603 - a pool's process can pass it to tasks in no other way
    Thread(target=_end_with_worker, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker ends this process
    os.nice(NICE)
    _reference = _load_reference(weights, config)


def _load_reference(weights: dict[str, Float32s], config: ModelConfig) -> Reference | NumpyReference:
    """Return PyTorch Geometric's network; in an installation without it the same network in NumPy."""
    if find_spec("torch_geometric") is None:
        return NumpyReference(weights, config)
    import torch

    from model.network.pyg_reference import Reference

    torch.set_num_threads(1)
    return Reference(weights, config)


def _end_with_worker() -> None:
    """Exit when the worker ends; after a SIGKILL of the worker the pool would wait for its next task forever."""
    worker = parent_process()
    if worker is not None:
        connection.wait([worker.sentinel])
        os._exit(1)


def _compute(
    graph: GraphInput, inner: dict[str, int] | None, given: Given | None
) -> tuple[dict[str, Float32s], Float32s, Float32s]:
    return _reference(graph, inner, given)
