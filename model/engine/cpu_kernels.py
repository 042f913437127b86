"""Compiled kernels of the engine on the CPU except attention, specialised for one width of the network.

Every number depends only on the row's own inputs. All arrays are contiguous. `precise` kernels sum in float64 and round
once; their weights and biases are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from model.engine.simd import AHEAD, LANES, affine, affine64, exp, prefetch, rectified
from model.types import Float32s, Int32s, Int64s

Kernel = Callable[..., Any]
VECTOR = 0xE4ABD5E7
"""Checksum of `vector.py`: numba's cache of compiled kernels depends on this file alone."""
_F = np.float32


@lru_cache
def linear(width: int, *, precise: bool = False) -> Kernel:
    """Return the kernel (x `[m, F]`, rows, weight `[F, width]`, bias, out): out = x[rows] @ weight + bias."""

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
def commit_moved(width: int) -> Kernel:
    """Return the kernel (rows, new, old, tolerance, changed): old[rows] = elu(new) for the rows that moved.

    A row moved if any of its numbers moves by more than the tolerance; other rows keep their value, so deviations do
    not accumulate. With a tolerance of 0, a row moved if it is not bit-equal. The kernel writes the moved rows to
    `changed` and returns their number.
    """

    @njit(cache=True, nogil=True)
    def run(rows: Int64s, new: Float32s, old: Float32s, tolerance: np.float32, changed: Int64s) -> int:
        n, below = 0, np.empty(width, np.float32)
        old_ = old.reshape(-1)
        for i in range(len(rows)):
            if i + AHEAD < len(rows):
                for line in range(0, width, LANES):
                    prefetch(old_, rows[i + AHEAD] * width + line)
            preactivation, stored = new[i], old[rows[i]]
            below[:] = preactivation
            exp(below, 0, _F(0), width)
            differing = 0
            for j in range(width):
                value = preactivation[j] if preactivation[j] > _F(0) else below[j] - _F(1)
                # A NaN counts as moved, an unchanged infinity does not.
                differing += (value != stored[j]) & (not abs(value - stored[j]) <= tolerance)
            if differing:
                # Recomputed: storing it in the loop above is slower.
                for j in range(width):
                    stored[j] = preactivation[j] if preactivation[j] > _F(0) else below[j] - _F(1)
                changed[n] = rows[i]
                n += 1
        return n

    return run


@lru_cache
def score(hidden: int) -> Kernel:
    """Return the kernel of the head, `hidden` wide: scores[rows] = mean log reach.

    Arguments: rows, embedding, own features, gain, table and partners of their inputs (`model.types.OwnInputs`), weight
    `[H + own, hidden]`, bias, output weight and bias, skip weights of the inputs, mean and deviation of the target,
    scores.
    """

    @njit(cache=True, nogil=True)
    def run(
        rows: Int64s, embedding: Float32s, own: Int32s, gain: Float32s, table: Float32s, partner: Int64s,
        weight: Float32s, bias: Float32s, out_weight: Float32s, out_bias: np.float32, skip: Float32s,
        mean: np.float32, std: np.float32, scores: Float32s,
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
            direct = 0.0
            for k in range(features):
                value = _F(own[row, k]) * gain[k] + table[k, own[row, partner[k]]]
                x[width + k] = value
                direct += np.float64(value) * skip[k]
            affine(x, 0, inputs, weight_, bias, line, 0, hidden)
            z = rectified(line, out_weight, hidden) + direct + out_bias
            scores[row] = _F(z) * std + mean

    return run
