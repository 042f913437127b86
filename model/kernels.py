"""The compiled kernels of the engine on the CPU, made for one width of the network each.

Every number is computed in an order that depends on nothing but the row's own inputs. All arrays are contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.vector import add_scaled, affine, as_float, logit

Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]
Kernel = Callable[..., Any]
VECTOR = 0x6A15A9E4
"""The checksum of `vector.py`: numba's cache of compiled kernels looks at this file alone, and would keep old ones."""
_F = np.float32
_LANES = 16
"""Exponentials are taken of so many numbers at once."""
_ROOM = 64
"""Neighbours for which there is room from the beginning; of more, sums are taken in parts and those in float64."""


@njit(inline="always", fastmath={"contract"})
def _exp(x: Any) -> Any:
    """e^x for x ≤ 0 to two units in the last place; below e^−87 it stays that (after Cephes' expf)."""
    x = max(x, _F(-87.0))
    n = np.floor(x * _F(1.44269504) + _F(0.5))
    r = x - n * _F(0.693359375)
    r -= n * _F(-2.12194440e-4)
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _F(5.0000001201e-1)
    p = p * r * r + r + _F(1)
    return p * as_float((np.int32(n) + np.int32(127)) << np.int32(23))


@lru_cache
def linear(width: int) -> Kernel:
    """The kernel (x `[m, F]`, rows, weight `[F, width]`, bias, out, scatter): out[rows] = x[rows] @ weight + bias.

    Without scatter the results are out[0], out[1], …
    """

    @njit(cache=True, nogil=True)
    def run(x: Float32s, rows: Int64s, weight: Float32s, bias: Float32s, out: Float32s, scatter: bool) -> None:
        inputs = len(weight)
        x_, weight_, out_ = x.reshape(-1), weight.reshape(-1), out.reshape(-1)
        for i in range(len(rows)):
            row = rows[i]
            affine(x_, row * inputs, inputs, weight_, 0, bias, 0, out_, (row if scatter else i) * width, width)

    return run


@njit(cache=True, nogil=True)
def _by_hash(
    source: NDArray[np.int32], hashes: NDArray[np.uint64], start: int, n: int, keys: NDArray[np.uint64], order: Int64s
) -> None:
    """Sort a window's sources by hash, so that sums do not depend on how the window came about.

    By insertion; thousands of them in steps that get shorter (Shell's sort, Knuth's steps).
    """
    step = 1
    while n > _ROOM and step < n // 9:
        step = 3 * step + 1
    for k in range(n):
        order[k] = source[start + k]
        keys[k] = hashes[order[k]]
    while step > 0:
        for k in range(step, n):
            key, row, at = keys[k], order[k], k
            while at >= step and keys[at - step] > key:
                keys[at], order[at] = keys[at - step], order[at - step]
                at -= step
            keys[at], order[at] = key, row
        step //= 3


@njit(cache=True, nogil=True, fastmath={"contract"})
def _softmax(line: Float32s, n: int) -> None:
    """Softmax of the first n numbers; there is room for whole lanes behind them."""
    top = line[0]
    for k in range(1, n):
        top = max(top, line[k])
    lanes = (n + _LANES - 1) // _LANES * _LANES
    for k in range(n, lanes):
        line[k] = top
    for block in range(0, lanes, _LANES):
        for k in range(block, block + _LANES):
            line[k] = _exp(line[k] - top)
    total = _F(0)
    if n <= _ROOM:
        for k in range(n):
            total += line[k]
    else:
        # One by one, each of thousands would lose its last bits.
        whole = 0.0
        for k in range(n):
            whole += line[k]
        total = _F(whole)
    for k in range(n):
        line[k] /= total


@lru_cache
def attend(heads: int, channels: int) -> Kernel:
    """The kernel of GATv2 attention: out[i] += what target rows[i] attends to in its window, softmax per head.

    Its arguments: rows, the windows (start, count, source, hash of the sources), projected `[sources, H]`, and of the
    target x, weight `[F, H]`, bias; attention `[heads, channels]`; out `[len(rows), H]`.
    """
    width = heads * channels

    @njit(cache=True, nogil=True, fastmath={"contract"})
    def run(
        rows: Int64s, start: NDArray[np.int32], count: NDArray[np.int32], source: NDArray[np.int32],
        hashes: NDArray[np.uint64], projected: Float32s, x: Float32s, weight: Float32s, bias: Float32s,
        attention: Float32s, out: Float32s,
    ) -> None:  # fmt: skip
        inputs, room = len(weight), _ROOM
        projected_, x_, out_ = projected.reshape(-1), x.reshape(-1), out.reshape(-1)
        weight_, attention_ = weight.reshape(-1), attention.reshape(-1)
        target, part, whole = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float64)
        keys, order, logits = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty((heads, room), np.float32)
        for i in range(len(rows)):
            row = rows[i]
            n = int(count[row])
            if n == 0:
                continue
            if n > room:
                room = 2 * (n + _LANES) // _LANES * _LANES  # whole lanes, as softmax fills them
                keys, order = np.empty(room, np.uint64), np.empty(room, np.int64)
                logits = np.empty((heads, room), np.float32)
            _by_hash(source, hashes, int(start[row]), n, keys, order)
            affine(x_, row * inputs, inputs, weight_, 0, bias, 0, target, 0, width)
            for k in range(n):
                for h in range(heads):
                    at = h * channels
                    logits[h, k] = logit(projected_, order[k] * width + at, target, at, attention_, at, channels)
            for h in range(heads):
                _softmax(logits[h], n)
            if n <= _ROOM:
                for k in range(n):
                    for h in range(heads):
                        at = h * channels
                        add_scaled(out_, i * width + at, logits[h, k], projected_, order[k] * width + at, channels)
                continue
            whole[:] = 0
            for first in range(0, n, _ROOM):
                part[:] = 0
                for k in range(first, min(first + _ROOM, n)):
                    for h in range(heads):
                        at = h * channels
                        add_scaled(part, at, logits[h, k], projected_, order[k] * width + at, channels)
                whole += part
            for j in range(width):
                out_[i * width + j] += _F(whole[j])

    return run


@lru_cache
def settle(width: int) -> Kernel:
    """The kernel (rows, new, old, changed): old[rows] = elu(new).

    Returns how many of the rows are not bit-equal to before; changed lists them.
    """

    @njit(cache=True, nogil=True, fastmath={"contract"})
    def run(rows: Int64s, new: Float32s, old: Float32s, changed: Int64s) -> int:
        n = 0
        for i in range(len(rows)):
            fresh, kept = new[i], old[rows[i]]
            differing = 0
            for j in range(width):
                value = fresh[j]
                value = value if value > _F(0) else _exp(min(value, _F(0))) - _F(1)
                differing += value != kept[j]
                kept[j] = value
            if differing:
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

    @njit(cache=True, nogil=True, fastmath={"contract"})
    def run(
        rows: Int64s, embedding: Float32s, own: NDArray[np.int32], scale: Float32s, weight: Float32s, bias: Float32s,
        out_weight: Float32s, out_bias: np.float32, skip: np.float32, mean: np.float32, std: np.float32,
        scores: Float32s,
    ) -> None:  # fmt: skip
        inputs, width = len(weight), embedding.shape[1]
        weight_, x, line = weight.reshape(-1), np.empty(inputs, np.float32), np.empty(hidden, np.float32)
        for row in rows:
            x[:width] = embedding[row]
            for k in range(inputs - width):
                x[width + k] = _F(own[row, k]) * scale[k]
            affine(x, 0, inputs, weight_, 0, bias, 0, line, 0, hidden)
            z = _F(out_bias)
            for j in range(hidden):
                z += max(line[j], _F(0)) * out_weight[j]
            scores[row] = (z + skip * x[width]) * std + mean

    return run
