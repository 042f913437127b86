"""The backends of the engine that tests run on, and weights that make errors large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from model.artifact import Artifact
from model.engine.cpu import Engine, MakeBackend
from model.engine.torch_backend import TorchEngine

# Test graphs are small: cached sums are used from one row on.
BACKENDS: dict[str, MakeBackend] = {"compiled": partial(Engine, few=1), "torch": partial(TorchEngine, device="cpu")}
if torch.cuda.is_available():
    BACKENDS["cuda"] = partial(TorchEngine, device="cuda")


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: its threads wait in a busy loop, which is slow on shared cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def peaked(artifact: Artifact) -> Artifact:
    """A copy of the artifact with attention 25 times as sharp."""
    sharper = {name: value * np.float32(25) for name, value in artifact.weights.items() if name.endswith(".att")}
    return Artifact(artifact.weights | sharper, artifact.config, "")
