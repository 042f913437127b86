"""The artifact: what is saved comes back, what is damaged is refused, and torch stays out."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphstate.types as graph
from model import config as vocabulary
from model.artifact import DEFAULT, MANIFEST, Artifact, untrained
from model.config import ModelConfig
from model.errors import ArtifactError, ConfigError


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Weights, configuration, card and version survive the folder."""
    artifact = untrained(ModelConfig().scaled(0.7, 0.3), 1)
    artifact.save(tmp_path)
    back = Artifact.load(tmp_path)
    assert (back.config, back.card, back.version) == (artifact.config, artifact.card, artifact.version)
    assert all(np.array_equal(back.weights[name], value) for name, value in artifact.weights.items())


def test_the_version_names_weights_and_configuration() -> None:
    """Other weights and another configuration are another version, equal ones the same."""
    config = ModelConfig()
    versions = [
        untrained(config, 0).version,
        untrained(config, 1).version,
        Artifact(untrained(config, 0).weights, replace(config, horizon_s=86_400)).version,
    ]
    assert len(set(versions)) == 3
    assert untrained(config, 0).version == versions[0]
    assert len(versions[0]) == 12


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_a_damaged_artifact_is_refused(tmp_path: Path, name: str) -> None:
    """A file cut in half or missing is an ArtifactError that names the folder, with a manifest or without."""
    untrained(ModelConfig(), 1).save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=f"damaged: {name} does not match its manifest; copy it again"):
        Artifact.load(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="damaged"):
        Artifact.load(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="groundswell train"):
        Artifact.load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "card.md", "manifest.json"])
def test_one_bit_is_noticed(tmp_path: Path, name: str) -> None:
    """Files that would load are refused if they differ from the manifest."""
    untrained(ModelConfig(), 1).save(tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        Artifact.load(tmp_path)


def test_a_manifest_that_does_not_fit(tmp_path: Path) -> None:
    """One of another schema, of another version, or of a file that is gone is refused; none at all is an old one's."""
    artifact = untrained(ModelConfig(), 1)
    for wrong, says in (
        ({"schema": 9}, "has schema 9, this version reads 2"),
        ({"version": "0" * 12}, f"it is version {artifact.version}, not 000000000000"),
        ({"sha256": {}}, "card.md does not match its manifest"),
    ):
        files = artifact.files()
        files[MANIFEST] = json.dumps({**json.loads(files[MANIFEST]), **wrong}).encode()
        with pytest.raises(ArtifactError, match=says):
            Artifact.of(files, "here")
    artifact.save(tmp_path)
    (tmp_path / "card.md").unlink()
    with pytest.raises(ArtifactError, match=r"card\.md does not match"):
        Artifact.load(tmp_path)
    (tmp_path / MANIFEST).unlink()
    assert Artifact.load(tmp_path).version == artifact.version


def test_the_packaged_artifact_has_a_manifest() -> None:
    """What ships is what was saved."""
    assert {path.name: path.read_bytes() for path in DEFAULT.iterdir()} == Artifact.default().files()


def test_weights_must_fit_the_configuration() -> None:
    """A weight too many, of another shape, or not finite is refused."""
    good = untrained(ModelConfig(), 1).weights
    for wrong in (
        {**good, "more": np.zeros(1, np.float32)},
        {**good, "head.skip": np.zeros(2, np.float32)},
        {**good, "head.skip": np.full(1, np.nan, np.float32)},
    ):
        with pytest.raises(ArtifactError):
            Artifact(wrong, ModelConfig())


def test_configurations_that_make_no_network_are_refused() -> None:
    """Heads that do not divide the width, another schema and unknown fields are errors."""
    with pytest.raises(ConfigError, match="multiple"):
        ModelConfig(hidden=10, heads=3)
    with pytest.raises(ConfigError, match="schema"):
        ModelConfig.from_json(ModelConfig().to_json().replace('"schema": 2', '"schema": 9'))
    with pytest.raises(ConfigError, match="exactly"):
        ModelConfig.from_json("{}")
    with pytest.raises(ConfigError, match="preset"):
        ModelConfig.preset("huge")
    for number in ("NaN", "Infinity", "-Infinity"):
        for name in ("target_mean", "target_std"):
            told = re.sub(rf'"{name}": [0-9.]+', f'"{name}": {number}', ModelConfig().to_json())
            assert number in told
            with pytest.raises(ConfigError, match="finite"):
                ModelConfig.from_json(told)


def test_the_vocabulary_is_the_graphs() -> None:
    """Relations, types and features are those that the graph keeps, in its order."""
    relations = tuple((r.name, graph.TYPES[r.source], graph.TYPES[r.target]) for r in graph.RELATIONS)
    assert relations == vocabulary.RELATIONS
    assert tuple(vocabulary.PROPAGATED.values()) == graph.PROPAGATED
    assert vocabulary.TYPES == graph.TYPES
    assert vocabulary.OWN == graph.OWN


def test_loading_imports_no_torch(tmp_path: Path) -> None:
    """A worker that only loads an artifact never imports torch."""
    untrained(ModelConfig(), 1).save(tmp_path)
    code = (
        "import sys; from pathlib import Path; from model.artifact import Artifact;"
        "Artifact.load(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
