"""Where a training stands after an epoch, in one file without pickle: what was stopped goes on from there.

A training that goes on ends in the same artifact as one that was never stopped, bit for bit.
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

SEARCH, REFIT = 1, 2
"""The two fits of a training: the one that finds how long, and the one with all snapshots."""
_GLOBAL, _OWN = "random.global", "random.own"


@dataclass(frozen=True)
class Mark:
    """After which epoch of which fit; the epoch that is kept so far, and its rank. epochs: of how many."""

    fit: int
    epoch: int
    kept: int
    best: float
    epochs: int


class Notes:
    """The file of one training; without a path nothing is noted.

    key: names data, settings and seed. What another training left in the file is not gone on with.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path, self._key = path, key
        self.mark: Mark | None = None
        self._tensors: dict[str, Tensor] = {}
        if path is not None and path.is_file():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                told = json.loads((file.metadata() or {})["mark"])
                if told.pop("key") == self._key:
                    self.mark = Mark(**told)
                    self._tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, KeyError, ValueError, TypeError):
            # A damaged note costs the epochs that it stood for, nothing else.
            self.mark, self._tensors = None, {}

    def restore(
        self, fit: int, network: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> tuple[Mark, dict[str, Float32s]] | None:
        """Put everything back as it was in this fit; where that was, and the weights that are kept. None: begin."""
        if self.mark is None or self.mark.fit != fit:
            return None
        network.load_state_dict(_under(self._tensors, "network."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(self._tensors, "optimizer.").items():
            at, what = name.split(".")
            state.setdefault(int(at), {})[what] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(self._tensors[_GLOBAL])
        generator.set_state(self._tensors[_OWN])
        return self.mark, {name: value.numpy() for name, value in _under(self._tensors, "kept.").items()}

    def write(
        self,
        mark: Mark,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        kept: dict[str, Float32s],
    ) -> None:
        """Note an epoch; the file appears whole or not at all.

        Raises:
            TrainingError: it cannot be written.
        """
        if self._path is None:
            return
        tensors = {f"network.{name}": value.clone() for name, value in network.state_dict().items()}
        for at, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{at}.{what}": value.clone() for what, value in values.items()}
        tensors |= {f"kept.{name}": torch.from_numpy(value) for name, value in kept.items()}
        tensors |= {_GLOBAL: torch.get_rng_state(), _OWN: generator.get_state()}
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, part, {"mark": json.dumps({**asdict(mark), "key": self._key})})
            part.replace(self._path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{self._path}: cannot be written ({error}); make room, or give another --out"
            ) from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def key_of(words: str, arrays: Iterable[NDArray[Any]]) -> str:
    """A name for what a training is made of."""
    digest = hashlib.blake2b(words.encode(), digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
