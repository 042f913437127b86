"""The compiled kernels of the engine on the CPU but for attention, made for one width of the network each.

Every number depends on nothing but the row's own inputs, in whatever order its window holds them. All arrays are
contiguous. precise: sums over inputs are those of float64, rounded; weights and biases are float64s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from model.types import Float32s, Int32s, Int64s
from model.vector import AHEAD, LANES, affine, affine64, exp, prefetch, rectified

Kernel = Callable[..., Any]
VECTOR = 0xBB088F8A
"""The checksum of `vector.py`: numba's cache of compiled kernels looks at this file alone, and would keep old ones."""
_F = np.float32


@lru_cache
def linear(width: int, *, precise: bool = False) -> Kernel:
    """The kernel (x `[m, F]`, rows, weight `[F, width]`, bias, out): out = x[rows] @ weight + bias."""

    @njit(cache=True, nogil=True)
    def run(x: Float32s, rows: Int64s, weight: Float32s, bias: Float32s, out: Float32s) -> None:
        inputs = len(weight)
        x_, weight_, out_ = x.reshape(-1), weight.reshape(-1), out.reshape(-1)
        for i in range(len(rows)):
            if i + AHEAD < len(rows):
                for at in range(rows[i + AHEAD] * inputs, (rows[i + AHEAD] + 1) * inputs, LANES):
                    prefetch(x_, at)
            if precise:
                affine64(x_, rows[i] * inputs, inputs, weight_, bias, out_, i * width, width)
            else:
                affine(x_, rows[i] * inputs, inputs, weight_, bias, out_, i * width, width)

    return run


@lru_cache
def settle(width: int) -> Kernel:
    """The kernel (rows, new, old, tolerance, changed): old[rows] = elu(new) where that moves any number of a row by
    more than the tolerance; the other rows stay, so that what is held back adds up.

    Returns how many of the rows moved; changed lists them. With a tolerance of 0 they are those that are not bit-equal.
    """

    @njit(cache=True, nogil=True)
    def run(rows: Int64s, new: Float32s, old: Float32s, tolerance: np.float32, changed: Int64s) -> int:
        n, below = 0, np.empty(width, np.float32)
        old_ = old.reshape(-1)
        for i in range(len(rows)):
            if i + AHEAD < len(rows):
                for line in range(0, width, LANES):
                    prefetch(old_, rows[i + AHEAD] * width + line)
            fresh, kept = new[i], old[rows[i]]
            below[:] = fresh
            exp(below, 0, _F(0), width)
            differing = 0
            for j in range(width):
                value = fresh[j] if fresh[j] > _F(0) else below[j] - _F(1)
                # Written so that what is no number counts as moved, and what stays infinite does not.
                differing += (value != kept[j]) & (not abs(value - kept[j]) <= tolerance)
            if differing:
                # Worked out again: to keep it from above takes longer.
                for j in range(width):
                    kept[j] = fresh[j] if fresh[j] > _F(0) else below[j] - _F(1)
                changed[n] = rows[i]
                n += 1
        return n

    return run


@lru_cache
def score(hidden: int) -> Kernel:
    """The kernel of the head, `hidden` wide: score[rows] = mean log reach.

    Its arguments: rows, embedding, own features and their scale, weight `[H + own, hidden]`, bias, out weight and bias,
    what the first own feature adds, mean and deviation of the target, score.
    """

    @njit(cache=True, nogil=True)
    def run(
        rows: Int64s, embedding: Float32s, own: Int32s, scale: Float32s, weight: Float32s, bias: Float32s,
        out_weight: Float32s, out_bias: np.float32, skip: np.float32, mean: np.float32, std: np.float32,
        scores: Float32s,
    ) -> None:  # fmt: skip
        inputs, width, features = len(weight), embedding.shape[1], own.shape[1]
        weight_, x, line = weight.reshape(-1), np.empty(inputs, np.float32), np.empty(hidden, np.float32)
        embedding_, own_ = embedding.reshape(-1), own.reshape(-1)
        for i in range(len(rows)):
            if i + AHEAD < len(rows):
                for at in range(rows[i + AHEAD] * width, (rows[i + AHEAD] + 1) * width, LANES):
                    prefetch(embedding_, at)
                for at in range(rows[i + AHEAD] * features, (rows[i + AHEAD] + 1) * features, LANES):
                    prefetch(own_, at)
            row = rows[i]
            x[:width] = embedding[row]
            for k in range(features):
                x[width + k] = _F(own[row, k]) * scale[k]
            affine(x, 0, inputs, weight_, bias, line, 0, hidden)
            z = _F(rectified(line, out_weight, hidden) + out_bias)
            scores[row] = (z + skip * x[width]) * std + mean

    return run
