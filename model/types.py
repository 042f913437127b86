"""Input of the network as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.config import OWN, OWN_SCALE, PROPAGATED_SCALE, USER, ModelConfig

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class GraphInput:
    """A whole graph, scaled for the network; rows are nodes of one type.

    Attributes:
        x: Propagated features `[n, F]` per node type.
        edges: Source row and target row of each edge `[2, E]`, per relation.
        own: Own features `[n_users, 21]`.
    """

    x: dict[str, Float32s]
    edges: dict[str, Int64s]
    own: Float32s

    @classmethod
    def scaled(
        cls, config: ModelConfig, propagated: dict[str, Int32s], edges: dict[str, Int32s | Int64s], own: Int32s
    ) -> GraphInput:
        """Scale the integer features of a graph."""
        return cls(
            x={name: propagated[name].astype(np.float32) * np.float32(PROPAGATED_SCALE) for name in config.propagated},
            edges={name: edges[name].astype(np.int64) for name, _, _ in config.relations},
            own=own.astype(np.float32) * OWN_SCALE,
        )

    def with_strangers(self, count: int = 1) -> GraphInput:
        """Return the graph with `count` users without any event appended."""
        x = self.x[USER]
        own = np.zeros((count, len(OWN)), np.float32)
        own[:, OWN.index("cold")] = OWN_SCALE[OWN.index("cold")]
        return replace(
            self,
            x={**self.x, USER: np.concatenate([x, np.zeros((count, x.shape[1]), np.float32)])},
            own=np.concatenate([self.own, own]),
        )


class WindowsView(NamedTuple):
    """In-edges of one relation.

    Attributes:
        start: First slot of each target's window.
        counts: Number of sources of each target.
        source: Source row of each slot.
        hash: Hash of each source, which breaks ties.
    """

    start: Int32s
    counts: Int32s
    source: Int32s
    hash: NDArray[np.uint64]
