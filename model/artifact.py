"""Artifact: weights, configuration and card of a trained network, in one folder without pickle.

Loading reads plain arrays and does not import torch, so a worker starts fast and stays small.
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
        raise ArtifactError(f"the weights do not fit the configuration, see {wrong[0]}; train again")
    for name, shape in shapes.items():
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            raise ArtifactError(f"{name} must be float32 of shape {shape}, not {weights[name].shape}; train again")
        if not np.isfinite(weights[name]).all():
            raise ArtifactError(f"{name} holds a number that is not finite; train again")


def check_manifest(files: Mapping[str, bytes], where: str, schema: int = SCHEMA) -> dict[str, Any]:
    """Return the manifest after comparing every file with it; empty without a manifest.

    Raises:
        ArtifactError: a file differs from it, or it is of another schema.
    """
    if MANIFEST not in files:
        return {}
    try:
        manifest: dict[str, Any] = json.loads(files[MANIFEST])
        sums = dict(manifest["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"the artifact in {where} is damaged: its {MANIFEST} cannot be read") from error
    if manifest.get("schema") != schema:
        given = manifest.get("schema")
        raise ArtifactError(f"the artifact in {where} has schema {given}, this version reads {schema}; train again")
    for name in sorted({*sums, *files} - {MANIFEST}):
        if hashlib.sha256(files.get(name, b"")).hexdigest() != sums.get(name):
            raise ArtifactError(
                f"the artifact in {where} is damaged: {name} does not match its manifest; copy it again"
            )
    return manifest


def save_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is created if missing; each file is replaced atomically, in their order.

    With the manifest last, a mix of two artifacts after an interrupted save does not load.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        part = folder / f"{name}.part"
        part.write_bytes(data)
        part.replace(folder / name)


@dataclass(frozen=True)
class Artifact:
    """A trained network as arrays.

    Attributes:
        weights: Weights by name.
        config: Configuration of the network.
        card: Model card as Markdown.
        version: Hash of weights and configuration; every score and alert names it.
    """

    weights: dict[str, Float32s]
    config: ModelConfig
    card: str = ""
    version: str = field(init=False)

    def __post_init__(self) -> None:
        """Check the weights against the configuration and compute the version."""
        _check(self.weights, self.config)
        object.__setattr__(self, "version", _version(self.weights, self.config))

    def files(self) -> dict[str, bytes]:
        """Return the files of the artifact by name, the manifest last; equal artifacts give equal bytes."""
        from safetensors.numpy import save

        weights = save({name: np.ascontiguousarray(self.weights[name]) for name in sorted(self.weights)})
        files = {CARD: self.card.encode(), CONFIG: self.config.to_json().encode(), WEIGHTS: weights}
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = json.dumps({"schema": SCHEMA, "version": self.version, "sha256": sums}, indent=1, sort_keys=True)
        return {**files, MANIFEST: manifest.encode() + b"\n"}

    def save(self, folder: Path) -> None:
        """Write the artifact into a folder, which is created if missing; each file is replaced atomically."""
        save_files(folder, self.files())

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read the artifact in a folder.

        Raises:
            ArtifactError: a file is missing or damaged, or the files do not fit together.
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
        """Build an artifact from its files.

        Args:
            files: Contents by name; without a manifest (earlier releases) nothing is compared.
            where: Origin of the files, for errors.

        Raises:
            ArtifactError: as `load`.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        missing = [name for name in (CONFIG, WEIGHTS) if name not in files]
        if missing:
            raise ArtifactError(f"{where} holds no {missing[0]}: give a folder that `groundswell train` wrote")
        manifest = check_manifest(files, where)
        try:
            config = ModelConfig.from_json(files[CONFIG].decode())
            weights = load(files[WEIGHTS])
            artifact = cls(weights, config, files.get(CARD, b"").decode())
        except (SafetensorError, ConfigError, UnicodeDecodeError) as error:
            raise ArtifactError(f"the artifact in {where} is damaged: {error}") from error
        if manifest and manifest.get("version") != artifact.version:
            given = manifest.get("version")
            raise ArtifactError(f"the artifact in {where} is damaged: it is version {artifact.version}, not {given}")
        return artifact

    @classmethod
    def default(cls) -> Artifact:
        """Load the artifact that ships with the package."""
        return cls.load(DEFAULT)


def untrained(config: ModelConfig, seed: int = 0) -> Artifact:
    """Return random weights of a plausible size, biases included, for tests."""
    random = np.random.default_rng(seed)
    weights: dict[str, Float32s] = {}
    for name, shape in weight_shapes(config).items():
        scale = 0.1 if name.endswith("bias") else np.sqrt(2 / sum(shape[-2:]))
        weights[name] = (random.standard_normal(shape) * scale).astype(np.float32)
    return Artifact(weights, config, "Untrained: random weights, for tests only.\n")
