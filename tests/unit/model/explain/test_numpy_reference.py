"""The reference in NumPy equals the one of PyTorch Geometric."""

import numpy as np
import pytest

from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.explain.numpy_reference import NumpyReference
from model.network.pyg_reference import Reference
from model.types import GraphInput


def graph(config: ModelConfig, seed: int, n: int = 40, edges: int = 120) -> GraphInput:
    """A random graph with `n` nodes of every type and repeated targets."""
    random = np.random.default_rng(seed)
    return GraphInput.scaled(
        config,
        {t: random.integers(0, 8, (n, len(names))).astype(np.int32) for t, names in config.propagated.items()},
        {name: random.integers(0, n, (2, edges)).astype(np.int32) for name, _, _ in config.relations},
        random.integers(0, 20, (n, 21)).astype(np.int32),
    )


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_network_of_pytorch_geometric(seed: int) -> None:
    """Both layers and the scores agree, also with outputs that are given and with fewer rows than nodes."""
    artifact = untrained(ModelConfig(hidden=12, heads=3, head_hidden=4), seed) if seed else Artifact.default()
    given_graph = graph(artifact.config, seed)
    user_rows = (np.array([1, 3], np.int64), np.full((2, artifact.config.hidden), 0.5, np.float32))
    numpy_reference, pyg = (kind(artifact.weights, artifact.config) for kind in (NumpyReference, Reference))
    for arguments in ((), (None, {"user": user_rows})):
        mine, other = numpy_reference(given_graph, *arguments), pyg(given_graph, *arguments)
        for name in mine[0]:
            np.testing.assert_allclose(mine[0][name], other[0][name], atol=1e-6)
        np.testing.assert_allclose(mine[1], other[1], atol=1e-6)
        np.testing.assert_allclose(mine[2], other[2], atol=1e-6)
