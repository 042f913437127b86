"""Checkpoint of a training after each epoch, in one file without pickle.

A resumed training ends in the same artifact as an uninterrupted one, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.errors import TrainingError
from model.types import Float32s

SEARCH, TUNE, REFIT = 1, 2, 3
"""The fits of a training: from random weights and from given ones, to select the number of epochs by the newest
snapshots; and with all snapshots, from random weights and, with the next numbers, from given ones."""
_GLOBAL, _OWN = "random.global", "random.own"


@dataclass(frozen=True)
class TrainingState:
    """Position within a training.

    Attributes:
        fit: Number of the fit.
        epoch: Completed epochs of the fit.
        kept: Epoch whose weights are kept so far.
        best: Highest validation so far.
        epochs: Maximum number of epochs of the fit.
    """

    fit: int
    epoch: int
    kept: int
    best: float
    epochs: int


class TrainingCheckpoint:
    """The checkpoint file of one training; without a path nothing is stored.

    Args:
        path: The file.
        key: Identifies data, settings and seed; a checkpoint with another key is ignored.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path, self._key = path, key
        self.state: TrainingState | None = None
        self._tensors: dict[str, Tensor] = {}
        if path is not None and path.is_file():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                stored = json.loads((file.metadata() or {})["mark"])
                if stored.pop("key") == self._key:
                    self.state = TrainingState(**stored)
                    self._tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, KeyError, ValueError, TypeError):
            # A damaged checkpoint costs its epochs, nothing else.
            self.state, self._tensors = None, {}

    def restore(
        self, fit: int, network: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> tuple[TrainingState, dict[str, Float32s]] | None:
        """Restore network, optimizer and random generators as they were in this fit.

        Returns:
            The position and the weights that are kept; None if the file holds no state of this fit.
        """
        if self.state is None or self.state.fit != fit:
            return None
        network.load_state_dict(_under(self._tensors, "network."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(self._tensors, "optimizer.").items():
            index, what = name.split(".")
            moments.setdefault(int(index), {})[what] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(self._tensors[_GLOBAL])
        generator.set_state(self._tensors[_OWN])
        return self.state, {name: value.numpy() for name, value in _under(self._tensors, "kept.").items()}

    def write(
        self,
        state: TrainingState,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        kept: dict[str, Float32s],
    ) -> None:
        """Store the state after an epoch; the file is replaced atomically.

        Raises:
            TrainingError: the file cannot be written.
        """
        if self._path is None:
            return
        tensors = {f"network.{name}": value.clone() for name, value in network.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{what}": value.clone() for what, value in values.items()}
        tensors |= {f"kept.{name}": torch.from_numpy(value) for name, value in kept.items()}
        tensors |= {_GLOBAL: torch.get_rng_state(), _OWN: generator.get_state()}
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, part, {"mark": json.dumps({**asdict(state), "key": self._key})})
            part.replace(self._path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{self._path}: cannot be written ({error}); free some space, or give another --out"
            ) from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def key_of(text: str, arrays: Iterable[NDArray[Any]]) -> str:
    """Return a hash of a text and of arrays."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
