"""GATv2 attention as one compiled pass, forward and backward, for training on CPUs.

It computes what `GATv2Conv` does between its two linear maps and its bias (formula in `model/engine/cpu_attention.py`)
without an
array per edge and channel: about twenty times faster. Serving has its own engine, and the reference uses neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from model.types import Float32s, Int64s

_SLOPE = np.float32(0.2)


@dataclass(frozen=True)
class SortedEdges:
    """Edges grouped by target.

    Attributes:
        source: Source rows `[E]`.
        start: The edges into target t are source[start[t] : start[t + 1]].
    """

    source: Int64s
    start: Int64s

    @classmethod
    def of(cls, edges: Int64s, targets: int) -> SortedEdges:
        """Group edges `[2, E]`, all of whose targets are below `targets`."""
        order = np.argsort(edges[1], kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(edges[1], minlength=targets))]).astype(np.int64)
        return cls(np.ascontiguousarray(edges[0][order]), start)


@njit(cache=True, fastmath=True, nogil=True)
def _forward(left: Float32s, right: Float32s, att: Float32s, source: Int64s, start: Int64s) -> Any:
    """Return outputs `[n_targets, heads · C]` and attention `[E, heads]`."""
    heads, width = att.shape
    out = np.zeros((len(start) - 1, heads * width), np.float32)
    alpha = np.empty((len(source), heads), np.float32)
    for target in range(len(start) - 1):
        low, high = start[target], start[target + 1]
        if low == high:
            continue
        row = right[target]
        for head in range(heads):
            begin = head * width
            largest = np.float32(-np.inf)
            for edge in range(low, high):
                from_row = left[source[edge]]
                score = np.float32(0)
                for c in range(width):
                    mixed = from_row[begin + c] + row[begin + c]
                    score += att[head, c] * max(mixed, _SLOPE * mixed)
                alpha[edge, head] = score
                largest = max(largest, score)
            total = np.float32(0)
            for edge in range(low, high):
                alpha[edge, head] = np.exp(alpha[edge, head] - largest)
                total += alpha[edge, head]
            for edge in range(low, high):
                alpha[edge, head] /= total
                share = alpha[edge, head]
                from_row = left[source[edge]]
                for c in range(width):
                    out[target, begin + c] += share * from_row[begin + c]
    return out, alpha


@njit(cache=True, fastmath=True, nogil=True)
def _backward(
    left: Float32s, right: Float32s, att: Float32s, source: Int64s, start: Int64s, alpha: Float32s, grad: Float32s
) -> Any:
    """Return the gradients of left, right and att from the gradient of the outputs."""
    heads, width = att.shape
    to_left, to_right, to_att = np.zeros_like(left), np.zeros_like(right), np.zeros_like(att)
    through = np.empty(len(source), np.float32)
    for target in range(len(start) - 1):
        low, high = start[target], start[target + 1]
        for head in range(heads):
            begin = head * width
            mean = np.float32(0)
            for edge in range(low, high):
                from_row = left[source[edge]]
                dot = np.float32(0)
                for c in range(width):
                    dot += grad[target, begin + c] * from_row[begin + c]
                through[edge] = dot
                mean += alpha[edge, head] * dot
            for edge in range(low, high):
                share = alpha[edge, head]
                slope = share * (through[edge] - mean)
                node = source[edge]
                for c in range(width):
                    column = begin + c
                    mixed = left[node, column] + right[target, column]
                    leak = np.float32(1) if mixed > 0 else _SLOPE
                    moved = slope * att[head, c] * leak
                    to_att[head, c] += slope * mixed * leak
                    to_left[node, column] += share * grad[target, column] + moved
                    to_right[target, column] += moved
    return to_left, to_right, to_att


class _Attend(torch.autograd.Function):
    """The pair of passes as an autograd function."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, att: Tensor, edges: SortedEdges) -> Tensor:
        arrays = tuple(value.detach().contiguous().numpy() for value in (left, right, att))
        left_array, right_array, att_array = arrays
        out, alpha = _forward(left_array, right_array, att_array, edges.source, edges.start)
        ctx.arrays = (*arrays, edges.source, edges.start, alpha)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        left, right, att, source, start, alpha = ctx.arrays
        grad = grads[0].contiguous().numpy()
        left, right, att = _backward(left, right, att, source, start, alpha, grad)
        return torch.from_numpy(left), torch.from_numpy(right), torch.from_numpy(att), None


def attend(left: Tensor, right: Tensor, att: Tensor, edges: SortedEdges) -> Tensor:
    """Return the attention of targets over their edges, `[n_targets, heads · C]`.

    Args:
        left: Projected sources `[n_sources, heads · C]`.
        right: Projected targets `[n_targets, heads · C]`.
        att: Attention vectors `[1, heads, C]`.
        edges: Edges grouped by target.
    """
    out: Tensor = _Attend.apply(left, right, att[0], edges)
    return out
