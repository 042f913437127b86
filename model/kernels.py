"""The compiled kernels of the engine on the CPU, made for one width of the network each.

Every number depends on nothing but the row's own inputs, in whatever order its window holds them. All arrays are
contiguous. precise: sums over inputs are those of float64, rounded; weights and biases are float64s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.vector import GRAIN, affine, affine64, blend, divide, exp, logits, prefetch, rectified

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]
Kernel = Callable[..., Any]
VECTOR = 0x8E972B4F
"""The checksum of `vector.py`: numba's cache of compiled kernels looks at this file alone, and would keep old ones."""
_F = np.float32
_LANES = 16
"""Exponentials are taken of so many numbers at once."""
_ROOM = 64
"""Neighbours for which there is room from the beginning."""
_TARGETS = 32
"""Targets whose own projections are computed together."""
_AHEAD = 8
"""So many rows ahead memory is asked for."""


@lru_cache
def linear(width: int, *, precise: bool = False) -> Kernel:
    """The kernel (x `[m, F]`, rows, weight `[F, width]`, bias, out, scatter): out[rows] = x[rows] @ weight + bias.

    Without scatter the results are out[0], out[1], …
    """

    @njit(cache=True, nogil=True)
    def run(x: Float32s, rows: Int64s, weight: Float32s, bias: Float32s, out: Float32s, scatter: bool) -> None:
        inputs = len(weight)
        x_, weight_, out_ = x.reshape(-1), weight.reshape(-1), out.reshape(-1)
        for i in range(len(rows)):
            if i + _AHEAD < len(rows):
                for at in range(rows[i + _AHEAD] * inputs, (rows[i + _AHEAD] + 1) * inputs, _LANES):
                    prefetch(x_, at)
            row = rows[i]
            at = (row if scatter else i) * width
            if precise:
                affine64(x_, row * inputs, inputs, weight_, bias, out_, at, width)
            else:
                affine(x_, row * inputs, inputs, weight_, bias, out_, at, width)

    return run


@njit(cache=True, nogil=True)
def _softmax(line: Float32s, at: int, n: int) -> None:
    """Softmax of the n numbers from `at` on; there is room for whole lanes behind them."""
    top = line[at]
    for k in range(at + 1, at + n):
        top = max(top, line[k])
    lanes = (n + _LANES - 1) // _LANES * _LANES
    for k in range(at + n, at + lanes):
        line[k] = top
    for block in range(at, at + lanes, _LANES):
        exp(line, block, top, _LANES)
    whole = 0.0
    for k in range(at, at + n):
        whole += (np.float64(line[k]) + GRAIN) - GRAIN  # so that their order does not matter
    total = _F(whole)
    for block in range(at, at + lanes, _LANES):
        divide(line, block, total, _LANES)


@njit(cache=True, nogil=True)
def _filled(rows: Int64s, count: NDArray[np.int32], begin: int, some: Int64s) -> tuple[int, int]:
    """List the places in rows, from begin on, of targets whose window is not empty; how many there are, and the end."""
    n, i = 0, begin
    while i < len(rows) and n < len(some):
        if i + _AHEAD < len(rows):
            prefetch(count, rows[i + _AHEAD])
        if count[rows[i]] > 0:
            some[n] = i
            n += 1
        i += 1
    return n, i


@njit(cache=True, nogil=True)
def _after(rows: Int64s, some: Int64s, j: int, start: NDArray[np.int32], count: NDArray[np.int32]) -> tuple[int, int]:
    """Where the window of target j begins, and how many of its sources are asked for; none where there is no j."""
    if j >= len(some):
        return 0, 0
    row = rows[some[j]]
    return int(start[row]), min(int(count[row]), _ROOM)


@njit(cache=True, nogil=True)
def _fetch(source: NDArray[np.int32], begin: int, end: int, x: Float32s, width: int) -> None:
    """Have those of the next target's sources brought that are more than this target has."""
    for k in range(begin, end):
        for at in range(source[k] * width, (source[k] + 1) * width, _LANES):
            prefetch(x, at)


@lru_cache
def attend(heads: int, channels: int) -> Kernel:
    """The kernel of GATv2 attention: out[i] += what target rows[i] attends to in its window, softmax per head.

    Its arguments: rows, the windows (start, count, source), projected `[sources, H]`, and of the target x, weight
    `[F, H]`, bias; attention `[heads, channels]`; out `[len(rows), H]`.
    """
    width = heads * channels

    @njit(cache=True, nogil=True)
    def run(
        rows: Int64s, start: NDArray[np.int32], count: NDArray[np.int32], source: NDArray[np.int32],
        projected: Float32s, x: Float32s, weight: Float32s, bias: Float32s, attention: Float32s, out: Float32s,
    ) -> None:  # fmt: skip
        room, done, inputs = _ROOM, 0, len(weight)
        projected_, out_, attention_ = projected.reshape(-1), out.reshape(-1), attention.reshape(-1)
        x_, weight_ = x.reshape(-1), weight.reshape(-1)
        line, target_ = np.empty(heads * room, np.float32), np.empty(_TARGETS * width, np.float32)
        places = np.empty(_TARGETS, np.int64)
        while done < len(rows):
            filled, done = _filled(rows, count, done, places)
            some = places[:filled]
            for j in range(filled):
                prefetch(start, rows[some[j]])
            for j in range(filled):
                if j + 2 < filled:
                    for at in range(0, inputs, _LANES):
                        prefetch(x_, rows[some[j + 2]] * inputs + at)
                affine(x_, rows[some[j]] * inputs, inputs, weight_, bias, target_, j * width, width)
            for j in range(filled):
                if j + 2 < filled:
                    prefetch(source, start[rows[some[j + 2]]])
                i, begin, n = some[j], int(start[rows[some[j]]]), int(count[rows[some[j]]])
                if n > room:
                    room = 2 * (n + _LANES) // _LANES * _LANES  # whole lanes, as softmax fills them
                    line = np.empty(heads * room, np.float32)
                after, n_after = _after(rows, some, j + 1, start, count)
                shift, last = (after - begin, after + n_after - 1) if n_after else (0, begin)
                _fetch(source, after + n, after + n_after, projected_, width)
                # Of a neighbour that comes next each loop asks for one line; two heads of 32 channels have four.
                for h in range(heads):
                    at, first = h * channels, h * room
                    logits(
                        line, first - begin, projected_, at, source, width, begin, begin + n,
                        target_, j * width + at, attention_, at, shift, last, h * channels // 2, channels,
                    )  # fmt: skip
                    _softmax(line, first, n)
                for h in range(heads):
                    at = h * channels
                    blend(
                        out_, i * width + at, projected_, at, source, width, begin, begin + n,
                        line, h * room - begin, shift, last, (heads + h) * channels // 2, channels,
                    )  # fmt: skip

    return run


@lru_cache
def attend_inputs(heads: int, channels: int) -> Kernel:
    """The same in the first layer, where sources are projected on the way: with so few inputs that takes no longer
    than reading what was projected before, and 4 · H bytes less of each source and relation are kept.

    Its arguments: rows, the windows (start, count, source), of the sources x, weight, bias, of the target x, weight,
    bias; attention; out. Weights and biases are float64s.
    """
    width = heads * channels

    @njit(cache=True, nogil=True)
    def run(
        rows: Int64s, start: NDArray[np.int32], count: NDArray[np.int32], source: NDArray[np.int32],
        x: Float32s, project: Float64s, project_bias: Float64s, own: Float32s, weight: Float64s, bias: Float64s,
        attention: Float32s, out: Float32s,
    ) -> None:  # fmt: skip
        room, inputs, owns = _ROOM, len(project), len(weight)
        x_, own_, out_, attention_ = x.reshape(-1), own.reshape(-1), out.reshape(-1), attention.reshape(-1)
        project_, weight_ = project.reshape(-1), weight.reshape(-1)
        line, target_ = np.empty(heads * room, np.float32), np.empty(width, np.float32)
        projected_, places = np.empty(room * width, np.float32), np.arange(room).astype(np.int32)
        for i in range(len(rows)):
            if i + _AHEAD < len(rows):
                prefetch(count, rows[i + _AHEAD])
                prefetch(start, rows[i + _AHEAD])
            if i + 2 < len(rows):
                prefetch(source, start[rows[i + 2]])
            if i + 1 < len(rows):
                for k in range(start[rows[i + 1]], start[rows[i + 1]] + min(count[rows[i + 1]], _ROOM)):
                    prefetch(x_, np.int64(source[k]) * inputs)
            begin, n = int(start[rows[i]]), int(count[rows[i]])
            if n == 0:
                continue
            if n > room:
                room = 2 * (n + _LANES) // _LANES * _LANES  # whole lanes, as softmax fills them
                line = np.empty(heads * room, np.float32)
                projected_, places = np.empty(room * width, np.float32), np.arange(room).astype(np.int32)
            affine64(own_, rows[i] * owns, owns, weight_, bias, target_, 0, width)
            for k in range(n):
                affine64(
                    x_,
                    np.int64(source[begin + k]) * inputs,
                    inputs,
                    project_,
                    project_bias,
                    projected_,
                    k * width,
                    width,
                )
            for at in range(0, width, channels):
                first = at // channels * room
                logits(
                    line, first, projected_, at, places, width, 0, n, target_, at, attention_, at, 0, 0, 0, channels
                )  # fmt: skip
                _softmax(line, first, n)
                blend(out_, i * width + at, projected_, at, places, width, 0, n, line, first, 0, 0, 0, channels)

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
            if i + _AHEAD < len(rows):
                for line in range(0, width, _LANES):
                    prefetch(old_, rows[i + _AHEAD] * width + line)
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
        rows: Int64s, embedding: Float32s, own: NDArray[np.int32], scale: Float32s, weight: Float32s, bias: Float32s,
        out_weight: Float32s, out_bias: np.float32, skip: np.float32, mean: np.float32, std: np.float32,
        scores: Float32s,
    ) -> None:  # fmt: skip
        inputs, width, features = len(weight), embedding.shape[1], own.shape[1]
        weight_, x, line = weight.reshape(-1), np.empty(inputs, np.float32), np.empty(hidden, np.float32)
        embedding_, own_ = embedding.reshape(-1), own.reshape(-1)
        for i in range(len(rows)):
            if i + _AHEAD < len(rows):
                for at in range(rows[i + _AHEAD] * width, (rows[i + _AHEAD] + 1) * width, _LANES):
                    prefetch(embedding_, at)
                for at in range(rows[i + _AHEAD] * features, (rows[i + _AHEAD] + 1) * features, _LANES):
                    prefetch(own_, at)
            row = rows[i]
            x[:width] = embedding[row]
            for k in range(features):
                x[width + k] = _F(own[row, k]) * scale[k]
            affine(x, 0, inputs, weight_, bias, line, 0, hidden)
            z = _F(rectified(line, out_weight, hidden) + out_bias)
            scores[row] = (z + skip * x[width]) * std + mean

    return run
