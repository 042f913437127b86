"""Compiled kernels of the engine on the CPU except attention.

Every number depends only on the row's own inputs. All arrays are contiguous. Widths of the network are passed by their
type (`simd.size`). `linear64` sums in float64 and rounds once; its weights and biases are float64.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from model.engine.simd import AHEAD, LANES, Size, affine, affine64, exp, prefetch, rectified
from model.types import Float32s, Float64s, Int32s, Int64s

VECTOR = 0x4ABC916D
"""Checksum of `vector.py`: numba's cache of compiled kernels depends on this file alone."""
_F = np.float32


@njit(cache=True, nogil=True)
def _prefetch_row(x: Float32s, rows: Int64s, i: int, inputs: int) -> None:
    if i < len(rows):
        for at in range(rows[i] * inputs, (rows[i] + 1) * inputs, LANES):
            prefetch(x, at)


@njit(cache=True, nogil=True)
def linear(width: Size, x: Float32s, rows: Int64s, weight: Float32s, bias: Float32s, out: Float32s) -> None:
    """Compute out = x[rows] @ weight + bias; x `[m, F]`, weight `[F, width]`."""
    inputs, n = len(weight), len(width)
    x_, weight_, out_ = x.reshape(-1), weight.reshape(-1), out.reshape(-1)
    for i in range(len(rows)):
        _prefetch_row(x_, rows, i + AHEAD, inputs)
        affine(x_, rows[i] * inputs, inputs, weight_, bias, out_, i * n, width)


@njit(cache=True, nogil=True)
def linear64(width: Size, x: Float32s, rows: Int64s, weight: Float64s, bias: Float64s, out: Float32s) -> None:
    """Compute the same as `linear` in float64 and round once."""
    inputs, n = len(weight), len(width)
    x_, weight_, out_ = x.reshape(-1), weight.reshape(-1), out.reshape(-1)
    for i in range(len(rows)):
        _prefetch_row(x_, rows, i + AHEAD, inputs)
        affine64(x_, rows[i] * inputs, inputs, weight_, bias, out_, i * n, width)


@njit(cache=True, nogil=True)
def commit_moved(
    width: Size, rows: Int64s, new: Float32s, old: Float32s, tolerance: np.float32, changed: Int64s
) -> int:
    """Set old[rows] = elu(new) for the rows that moved; write these to `changed` and return their number.

    A row moved if any of its numbers moves by more than the tolerance; other rows keep their value, so deviations do
    not accumulate. With a tolerance of 0, a row moved if it is not bit-equal.
    """
    n, numbers, below = 0, len(width), np.empty(len(width), np.float32)
    old_ = old.reshape(-1)
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            for line in range(0, numbers, LANES):
                prefetch(old_, rows[i + AHEAD] * numbers + line)
        preactivation, stored = new[i], old[rows[i]]
        below[:] = preactivation
        exp(below, 0, _F(0), width)
        differing = 0
        for j in range(numbers):
            value = preactivation[j] if preactivation[j] > _F(0) else below[j] - _F(1)
            # A NaN counts as moved, an unchanged infinity does not.
            differing += (value != stored[j]) & (not abs(value - stored[j]) <= tolerance)
        if differing:
            # Recomputed: storing it in the loop above is slower.
            for j in range(numbers):
                stored[j] = preactivation[j] if preactivation[j] > _F(0) else below[j] - _F(1)
            changed[n] = rows[i]
            n += 1
    return n


@njit(cache=True, nogil=True)
def score(
    hidden: Size, rows: Int64s, embedding: Float32s, own: Int32s, gain: Float32s, summands: Float32s, partner: Int64s,
    weight: Float32s, bias: Float32s, out_weight: Float32s, skip: Float64s, constants: Float32s, scores: Float32s,
) -> None:  # fmt: skip
    """Compute the head, `hidden` wide: scores[rows] = mean log reach.

    Args:
        hidden: Width of the head.
        rows: User rows.
        embedding: Second-layer outputs `[n, H]`.
        own: Own features `[n, F]`.
        gain: Factor of each own feature `[F]`, see `model.types.OwnInputs`.
        summands: Summands by feature and value `[F, 64]`.
        partner: For each feature, the one whose value selects its summand `[F]`.
        weight: Weight `[H + F, hidden]`.
        bias: Bias `[hidden]`.
        out_weight: Output weight `[hidden]`.
        skip: Weights from the inputs of own features to the output `[F]`.
        constants: Output bias, mean and deviation of the target.
        scores: Receives the scores.
    """
    inputs, width, features = len(weight), embedding.shape[1], own.shape[1]
    out_bias, mean, std = constants[0], constants[1], constants[2]
    weight_, x, line = weight.reshape(-1), np.empty(inputs, np.float32), np.empty(len(hidden), np.float32)
    embedding_, own_ = embedding.reshape(-1), own.reshape(-1)
    for i in range(len(rows)):
        _prefetch_row(embedding_, rows, i + AHEAD, width)
        if i + AHEAD < len(rows):
            for at in range(rows[i + AHEAD] * features, (rows[i + AHEAD] + 1) * features, LANES):
                prefetch(own_, at)
        row = rows[i]
        x[:width] = embedding[row]
        direct = 0.0
        for k in range(features):
            value = _F(own[row, k]) * gain[k] + summands[k, own[row, partner[k]]]
            x[width + k] = value
            direct += np.float64(value) * skip[k]
        affine(x, 0, inputs, weight_, bias, line, 0, hidden)
        z = rectified(line, out_weight, hidden) + direct + out_bias
        scores[row] = _F(z) * std + mean
