"""The backends of the engine that the tests are run over, and weights that are hard on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from model.artifact import Artifact
from model.engine.cpu import Engine, MakeBackend
from model.engine.torch_backend import TorchEngine

# The graphs of tests are small: nothing is too little to keep sums for.
BACKENDS: dict[str, MakeBackend] = {"compiled": partial(Engine, few=1), "torch": partial(TorchEngine, device="cpu")}
if torch.cuda.is_available():
    BACKENDS["cuda"] = partial(TorchEngine, device="cuda")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other in a loop, which is slow where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def peaked(artifact: Artifact) -> Artifact:
    """The same with attention 25 times as sharp."""
    sharper = {name: value * np.float32(25) for name, value in artifact.weights.items() if name.endswith(".att")}
    return Artifact(artifact.weights | sharper, artifact.config, "")
