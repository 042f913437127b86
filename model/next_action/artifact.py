"""The artifact of who acts next: trees, configuration and card in one folder, without pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.analysis.edge_model import sigmoid
from model.artifact import CARD, CONFIG, MANIFEST, check_manifest, save_files
from model.errors import ArtifactError
from model.next_action.features import FEATURES
from model.next_action.trees import Trees

Float64s = NDArray[np.float64]

SCHEMA = 1
TREES = "trees.txt"
_REMEDY = "give a folder that `groundswell train-next` wrote"


MAPPED = ("age", "sharers", "sharers_hour", "sharers_day", "since_share", "since_newest_active", "since_exposed")
"""Columns beside the log odds: examples are matched by post and moment, so trees cannot learn how shares fade away."""
_COLUMNS = [FEATURES.index(name) for name in MAPPED]


def mapped(trees: Trees, values: Float64s) -> Float64s:
    """Return what the map to probabilities reads, `[n, 1 + len(MAPPED)]`: log odds, and the columns `MAPPED`."""
    return np.column_stack([trees.score(values), values[:, _COLUMNS]])


@dataclass(frozen=True)
class NextActionConfig:
    """What belongs to the trees.

    Attributes:
        horizon_us: within this time the share must follow (µs).
        memory_us: how far back features read (µs).
        weights: of the log odds among matched examples, and of the columns `MAPPED`.
        intercept: probability = sigmoid(intercept + their weighted sum).
        seed: of the fit.
        features: names of the columns.
    """

    horizon_us: int
    memory_us: int
    weights: tuple[float, ...]
    intercept: float
    seed: int = 0
    features: tuple[str, ...] = FEATURES


@dataclass(frozen=True)
class NextActionArtifact:
    """A fitted model.

    Attributes:
        trees: the trees.
        config: what belongs to them.
        card: Markdown.
    """

    trees: Trees
    config: NextActionConfig
    card: str = ""

    @cached_property
    def version(self) -> str:
        """The first 12 hex digits of the hash of trees and configuration."""
        return hashlib.sha256((self._config_text() + self.trees.text).encode()).hexdigest()[:12]

    def probability(self, values: Float64s) -> Float64s:
        """Return the probability that each exposed user shares within the horizon, `[n]`, from `features`."""
        config = self.config
        # A sum per row: a matrix product may round a row by the number of rows.
        return sigmoid(config.intercept + (mapped(self.trees, values) * np.array(config.weights)).sum(axis=1))

    def _config_text(self) -> str:
        return json.dumps(asdict(self.config), indent=1, sort_keys=True) + "\n"

    def save(self, folder: Path) -> None:
        """Write the artifact into a folder, which is created if missing."""
        files = {CARD: self.card.encode(), CONFIG: self._config_text().encode(), TREES: self.trees.text.encode()}
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = json.dumps({"schema": SCHEMA, "version": self.version, "sha256": sums}, indent=1, sort_keys=True)
        save_files(folder, {**files, MANIFEST: manifest.encode() + b"\n"})

    @classmethod
    def load(cls, folder: Path) -> NextActionArtifact:
        """Read the artifact in a folder.

        Raises:
            ArtifactError: a file is missing or damaged, or it is of another version.
        """
        names = (CARD, CONFIG, TREES, MANIFEST)
        try:
            files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
        except OSError as error:
            raise ArtifactError(
                f"{error.filename} cannot be read ({error.strerror}): correct its permissions"
            ) from error
        missing = [name for name in names if name not in files]
        if missing:
            raise ArtifactError(f"{folder} holds no {missing[0]}: {_REMEDY}")
        return cls._of(files, str(folder))

    @classmethod
    def _of(cls, files: Mapping[str, bytes], where: str) -> NextActionArtifact:
        check_manifest(files, where, SCHEMA)
        try:
            fields = json.loads(files[CONFIG])
            listed = {name: tuple(fields[name]) for name in ("features", "weights")}
            config = NextActionConfig(**{**fields, **listed})
            trees = Trees(files[TREES].decode())
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"the artifact in {where} is damaged: {error}; copy it again") from error
        if len(config.weights) != 1 + len(MAPPED):
            raise ArtifactError(
                f"the artifact in {where} is damaged: its map has {len(config.weights)} weights; train again"
            )
        if config.features != FEATURES or tuple(trees.names) != FEATURES:
            raise ArtifactError(f"the artifact in {where} reads other features than this version; train again")
        return cls(trees, config, files[CARD].decode())
