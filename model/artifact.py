"""What training leaves and serving needs: weights, configuration and card, in one folder without pickle.

Loading reads plain arrays and imports no torch, so that a worker starts fast and stays small.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.config import SCHEMA, ModelConfig, weight_shapes
from model.errors import ArtifactError, ConfigError
from model.types import Float32s

WEIGHTS, CONFIG, CARD, MANIFEST = "weights.safetensors", "config.json", "card.md", "manifest.json"
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


def _manifest(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """The manifest, which every file was compared with; empty if there is none."""
    if MANIFEST not in files:
        return {}
    try:
        manifest: dict[str, Any] = json.loads(files[MANIFEST])
        sums = dict(manifest["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"the artifact in {where} is damaged: its {MANIFEST} cannot be read") from error
    if manifest.get("schema") != SCHEMA:
        told = manifest.get("schema")
        raise ArtifactError(f"the artifact in {where} has schema {told}, this version reads {SCHEMA}: train anew")
    for name in sorted({*sums, *files} - {MANIFEST}):
        if hashlib.sha256(files.get(name, b"")).hexdigest() != sums.get(name):
            raise ArtifactError(
                f"the artifact in {where} is damaged: {name} is not what its manifest says; copy it anew"
            )
    return manifest


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

    def files(self) -> dict[str, bytes]:
        """What `save` writes, by name: equal artifacts are equal bytes. The manifest comes last."""
        from safetensors.numpy import save

        weights = save({name: np.ascontiguousarray(self.weights[name]) for name in sorted(self.weights)})
        files = {CARD: self.card.encode(), CONFIG: self.config.to_json().encode(), WEIGHTS: weights}
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = json.dumps({"schema": SCHEMA, "version": self.version, "sha256": sums}, indent=1, sort_keys=True)
        return {**files, MANIFEST: manifest.encode() + b"\n"}

    def save(self, folder: Path) -> None:
        """Write the artifact into `folder`, made if it is missing; each file appears whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        # The manifest last, so that what a broken save leaves of two artifacts does not pass for one.
        for name, data in self.files().items():
            part = folder / f"{name}.part"
            part.write_bytes(data)
            part.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read the artifact in `folder`.

        Raises:
            ArtifactError: something is missing, damaged, or does not fit together.
        """
        names = (CARD, CONFIG, WEIGHTS, MANIFEST)
        try:
            if not folder.is_dir():
                missing = "is no folder" if folder.exists() else "does not exist"
                raise ArtifactError(f"{folder} {missing}: give a folder that `groundswell train` wrote")
            files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
        except OSError as error:
            where = error.filename or folder
            raise ArtifactError(f"{where} cannot be read ({error.strerror}): correct its permissions") from error
        return cls.of(files, str(folder))

    @classmethod
    def of(cls, files: Mapping[str, bytes], where: str) -> Artifact:
        """The artifact of such files; where: where they are from, for errors.

        Files without a manifest are those of an earlier release: nothing says what they should be.

        Raises:
            ArtifactError: as `load`.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        missing = [name for name in (CONFIG, WEIGHTS) if name not in files]
        if missing:
            raise ArtifactError(f"{where} holds no {missing[0]}: give a folder that `groundswell train` wrote")
        manifest = _manifest(files, where)
        try:
            config = ModelConfig.from_json(files[CONFIG].decode())
            weights = load(files[WEIGHTS])
            found = cls(weights, config, files.get(CARD, b"").decode())
        except (SafetensorError, ConfigError, UnicodeDecodeError) as error:
            raise ArtifactError(f"the artifact in {where} is damaged: {error}") from error
        if manifest and manifest.get("version") != found.version:
            told = manifest.get("version")
            raise ArtifactError(f"the artifact in {where} is damaged: it is version {found.version}, not {told}")
        return found

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
