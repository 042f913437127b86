"""Which device a worker's engine runs on, and why: as the setting says, or the one that is quicker here.

State is on one device, and the two backends differ in the last bits; so one is chosen for a worker, not for a
micro-batch (decision 0012).
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
from model.engine import Backend, Engine, MakeBackend
from model.engine_sample import SampleGraph
from model.errors import DeviceError

FRONTIERS = (100, 1_000, 10_000)
"""Stale users of a micro-batch for which both devices are timed; the last decides: speed counts when there is much."""
_TRIES = 5
Times = dict[str, dict[int, float]]
"""Per device and frontier the seconds of its second layer, the median."""


class Choice(NamedTuple):
    """device: `cpu` or `cuda:N`. why: in words, for the log and the doctor."""

    device: str
    why: str


def driver() -> bool:
    """Whether there is a CUDA driver; to ask PyTorch costs a second and 200 MB."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def gpus() -> int:
    """How many GPUs PyTorch can compute on."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose(wanted: str, config: ModelConfig) -> Choice:
    """The device for a setting: `cpu`, `cuda`, `cuda:N`, or `auto`, which times both on a random graph where it can.

    Raises:
        DeviceError: there is no such GPU.
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
        # Too old for this PyTorch, or full: under `auto` that is no reason not to start.
        return Choice("cpu", f"the GPU cannot be used: {str(error).splitlines()[0]}")


def quicker(times: Times) -> Choice:
    """The device that is quickest at the largest frontier."""
    largest = max(next(iter(times.values())))
    told = "; ".join(
        f"{rows:,} rows " + ", ".join(f"{device} {took[rows] * 1e3:.2f} ms" for device, took in times.items())
        for rows in sorted(next(iter(times.values())))
    )
    return Choice(min(times, key=lambda device: times[device][largest]), f"measured: {told}")


def backend(device: str) -> MakeBackend:
    """What makes engines on a device: the compiled one on the CPU, else torch's."""
    if device == "cpu":
        return Engine
    from model.engine_torch import TorchEngine

    return partial(TorchEngine, device=device)


def race(backends: Mapping[str, MakeBackend], config: ModelConfig, frontiers: Sequence[int] = FRONTIERS) -> Times:
    """How long each backend takes for the second layer of so many users of one random graph."""
    graph = SampleGraph(config, 2 * max(frontiers))
    weights = untrained(config).weights
    return {name: _timed(computed(make(config, weights), graph), graph, frontiers) for name, make in backends.items()}


def computed(engine: Backend, graph: SampleGraph) -> Backend:
    """The engine with everything of a graph computed."""
    rows = graph.all_rows()
    engine.reach(graph)
    engine.warm_up(graph)
    engine.fresh(graph, rows)
    engine.first(graph, rows)
    engine.second(graph, rows[TYPES.index(USER)])
    engine.head(graph, rows[TYPES.index(USER)])
    return engine


def _timed(engine: Backend, graph: SampleGraph, frontiers: Sequence[int]) -> dict[int, float]:
    random, users = np.random.default_rng(3), graph.rows(TYPES.index(USER))
    return {size: seconds(engine, graph, np.sort(random.permutation(users)[:size]), _TRIES) for size in frontiers}


def seconds(engine: Backend, graph: SampleGraph, rows: np.ndarray[tuple[int], np.dtype[np.int64]], tries: int) -> float:
    """The median time of the second layer of some users, after one that does not count."""
    taken = []
    for _ in range(tries + 1):
        begin = perf_counter()
        engine.second(graph, rows)
        taken.append(perf_counter() - begin)
    return median(taken[1:])
