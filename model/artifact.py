"""What training leaves and serving needs: weights, configuration and card, in one folder without pickle.

Loading reads plain arrays and imports no torch, so that a worker starts fast and stays small.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.config import ModelConfig, weight_shapes
from model.errors import ArtifactError, ConfigError
from model.types import Float32s

WEIGHTS, CONFIG, CARD = "weights.safetensors", "config.json", "card.md"
DEFAULT = Path(__file__).parent / "artifacts" / "default"


def _version(weights: dict[str, Float32s], config: ModelConfig) -> str:
    digest = hashlib.sha256(config.to_json().encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name], "<f4").tobytes())
    return digest.hexdigest()[:12]


def _check(weights: dict[str, Float32s], config: ModelConfig) -> None:
    shapes = weight_shapes(config)
    if set(weights) != set(shapes):
        wrong = sorted(set(weights) ^ set(shapes))
        raise ArtifactError(f"the weights do not fit the configuration, see {wrong[0]}: train anew")
    for name, shape in shapes.items():
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            raise ArtifactError(f"{name} must be float32 of shape {shape}, not {weights[name].shape}: train anew")
        if not np.isfinite(weights[name]).all():
            raise ArtifactError(f"{name} holds a number that is not finite: train anew")


@dataclass(frozen=True)
class Artifact:
    """A trained network as arrays; `version` names it in every score and alert."""

    weights: dict[str, Float32s]
    config: ModelConfig
    card: str = ""
    version: str = field(init=False)

    def __post_init__(self) -> None:
        """Check the weights against the configuration and name the whole."""
        _check(self.weights, self.config)
        object.__setattr__(self, "version", _version(self.weights, self.config))

    def save(self, folder: Path) -> None:
        """Write the artifact into `folder`, made if it is missing; each file appears whole or not at all."""
        from safetensors.numpy import save

        folder.mkdir(parents=True, exist_ok=True)
        # Sorted, so that equal weights are equal bytes; the weights last, so that a broken save cannot load.
        weights = save({name: np.ascontiguousarray(self.weights[name]) for name in sorted(self.weights)})
        files = {CARD: self.card.encode(), CONFIG: self.config.to_json().encode(), WEIGHTS: weights}
        for name, data in files.items():
            part = folder / f"{name}.part"
            part.write_bytes(data)
            part.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read the artifact in `folder`.

        Raises:
            ArtifactError: something is missing, damaged, or does not fit together.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise ArtifactError(f"{folder} holds no {missing[0]}: give a folder that `groundswell train` wrote")
        card = folder / CARD
        try:
            config = ModelConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
            weights = load((folder / WEIGHTS).read_bytes())
        except (SafetensorError, ConfigError, UnicodeDecodeError) as error:
            raise ArtifactError(f"the artifact in {folder} is damaged: {error}") from error
        return cls(weights, config, card.read_text(encoding="utf-8") if card.is_file() else "")

    @classmethod
    def default(cls) -> Artifact:
        """The artifact that ships with the package."""
        return cls.load(DEFAULT)


def untrained(config: ModelConfig, seed: int = 0) -> Artifact:
    """Random weights of sane size, biases included: for tests and for the first minute of a new idea."""
    random = np.random.default_rng(seed)
    weights: dict[str, Float32s] = {}
    for name, shape in weight_shapes(config).items():
        scale = 0.1 if name.endswith("bias") else np.sqrt(2 / sum(shape[-2:]))
        weights[name] = (random.standard_normal(shape) * scale).astype(np.float32)
    return Artifact(weights, config, "Untrained: random weights, for tests only.\n")
