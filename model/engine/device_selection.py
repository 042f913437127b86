"""Device selection: the device of a setting, or the faster one on this machine.

State is on one device, and the two backends differ in the last bits, so the device is chosen once per worker and not
per micro-batch (decision 0012).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np

from model.artifact import untrained
from model.config import TYPES, USER, ModelConfig
from model.engine.cpu import Backend, Engine, MakeBackend
from model.engine.device_sample import SampleGraph
from model.errors import DeviceError
from model.types import OwnInputs

FRONTIERS = (100, 1_000, 10_000)
"""Numbers of stale users for which both devices are timed; the last one decides, as speed matters under load."""
_TRIES = 5
Times = dict[str, dict[int, float]]
"""Median seconds of the second layer, by device and number of users."""


class Choice(NamedTuple):
    """A selected device.

    Attributes:
        device: `cpu` or `cuda:N`.
        why: Reason as text, for the log and `doctor`.
    """

    device: str
    why: str


def driver() -> bool:
    """Return whether a CUDA driver is installed; without one, torch (1 s, 200 MB) is not imported."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def gpus() -> int:
    """Return the number of GPUs that PyTorch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose(wanted: str, config: ModelConfig) -> Choice:
    """Select the device for a setting.

    Args:
        wanted: `cpu`, `cuda`, `cuda:N`, or `auto`, which times both on a random graph if there is a GPU.
        config: Configuration of the network.

    Raises:
        DeviceError: the requested GPU does not exist.
    """
    if wanted == "cpu":
        return Choice("cpu", "as it is set")
    if wanted == "auto" and not driver():
        return Choice("cpu", "there is no CUDA driver")
    count = gpus()
    if wanted != "auto":
        number = int(wanted.partition(":")[2] or 0)
        if number >= count:
            raise DeviceError(f"GROUNDSWELL_DEVICE is {wanted}, but PyTorch sees {count} GPU(s); set it to auto or cpu")
        return Choice(f"cuda:{number}", "as it is set")
    if count == 0:
        return Choice("cpu", "PyTorch sees no GPU")
    try:
        return quicker(race({name: backend(name) for name in ("cpu", "cuda:0")}, config))
    except RuntimeError as error:
        # Such as a GPU that is full, or too old for this PyTorch: `auto` falls back to the CPU.
        return Choice("cpu", f"the GPU cannot be used: {str(error).splitlines()[0]}")


def quicker(times: Times) -> Choice:
    """Select the device that is fastest at the largest number of users."""
    largest = max(next(iter(times.values())))
    timings = "; ".join(
        f"{rows:,} rows " + ", ".join(f"{device} {took[rows] * 1e3:.2f} ms" for device, took in times.items())
        for rows in sorted(next(iter(times.values())))
    )
    return Choice(min(times, key=lambda device: times[device][largest]), f"measured: {timings}")


def backend(device: str) -> MakeBackend:
    """Return the constructor of engines for a device: the compiled one for the CPU, else the one in torch."""
    if device == "cpu":
        return Engine
    from model.engine.torch_backend import TorchEngine

    return partial(TorchEngine, device=device)


def race(backends: Mapping[str, MakeBackend], config: ModelConfig, frontiers: Sequence[int] = FRONTIERS) -> Times:
    """Time the second layer of each backend for several numbers of users of one random graph."""
    graph = SampleGraph(config, 2 * max(frontiers))
    weights = untrained(config).weights
    return {
        name: _timed(compute_all(make(config, weights), graph), graph, frontiers) for name, make in backends.items()
    }


def compute_all(engine: Backend, graph: SampleGraph) -> Backend:
    """Compute everything of a graph in an engine, and return the engine."""
    rows = graph.all_rows()
    engine.ensure_capacity(graph)
    engine.warm_up(graph)
    engine.relate(OwnInputs.among(graph.own()))
    engine.init_rows(graph, rows)
    engine.layer1(graph, rows)
    engine.layer2(graph, rows[TYPES.index(USER)])
    engine.head(graph, rows[TYPES.index(USER)])
    return engine


def _timed(engine: Backend, graph: SampleGraph, frontiers: Sequence[int]) -> dict[int, float]:
    random, users = np.random.default_rng(3), graph.rows(TYPES.index(USER))
    return {size: seconds(engine, graph, np.sort(random.permutation(users)[:size]), _TRIES) for size in frontiers}


def seconds(engine: Backend, graph: SampleGraph, rows: np.ndarray[tuple[int], np.dtype[np.int64]], tries: int) -> float:
    """Return the median time of the second layer of some users, after one untimed run."""
    taken = []
    for _ in range(tries + 1):
        begin = perf_counter()
        engine.layer2(graph, rows)
        taken.append(perf_counter() - begin)
    return median(taken[1:])
