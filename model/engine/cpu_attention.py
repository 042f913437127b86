"""Compiled kernels of GATv2 attention; heads, channels and their product `wide` are passed by their type (`simd.size`).

For target i with input x_i and sources j in its window, per head (Brody, Alon, Yahav 2022, arXiv:2105.14491):

    e_ij  = a · LeakyReLU(W_s x_j + b_s + W_t x_i + b_t)        logit, slope 0.2
    α_ij  = exp(e_ij − top_i) / Σ_k exp(e_ik − top_i)           softmax over the window
    out_i += Σ_j α_ij (W_s x_j + b_s)

`top_i` is a value near the largest logit, taken from a grid of step 4 so that it seldom changes.

Shapes:
    projected: W_s x + b_s of the sources `[n_sources, hidden]`, hidden = heads · channels.
    x: inputs of the targets `[n_targets, F]`; weight: W_t `[F, hidden]`; bias: b_t `[hidden]`.
    attention: a `[heads, channels]`.
    windows: the sources of row t are source[start[t] : start[t] + count[t]].
    sums: `[slots, hidden + 2 · heads]`: Σ exp(e − top) · projected, then per head Σ exp(e − top), then per head top.
    out: `[len(rows), hidden]`.

All sums over a window are exact (decision 0020). They do not depend on the order of the sources, nor on whether the
whole window is summed or the old contributions of some sources are subtracted and the new ones added. All arrays are
contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.engine.simd import AHEAD, GRAIN, LANES, Size, affine, affine64, exp, gather, logits, prefetch, share
from model.types import Float32s, Float64s, Int32s, Int64s

VECTOR = 0x4ABC916D
"""Checksum of `simd.py`, see `cpu_kernels.VECTOR`."""
_F = np.float32
_CAPACITY = 64
"""Initial capacity of the buffers, in neighbours."""
_TARGETS = 32
"""Number of targets whose own projections are computed together."""


@njit(cache=True, nogil=True)
def _top(logit: np.float32) -> np.float32:
    """Return the base of the exponentials for a largest logit: on a grid of step 4, at most 4 above the logit."""
    return _F(np.ceil((logit - _F(2)) * _F(0.25)) * _F(4) + _F(2))


@njit(cache=True, nogil=True)
def _top_of(line: Float32s, begin: int, n: int) -> np.float32:
    """Return the `_top` of the largest of n logits from `begin` on."""
    most = line[begin]
    for k in range(begin + 1, begin + n):
        most = max(most, line[k])
    return _top(most)


@njit(cache=True, nogil=True)
def _weights(line: Float32s, begin: int, n: int, top: np.float32) -> float:
    """Replace the n logits from `begin` on by their exponentials relative to `top`, and return the sum of these.

    The buffer must have room for whole lanes. Each exponential is rounded as in `gather`, so the sum has no order.
    """
    lanes = (n + LANES - 1) // LANES * LANES
    for k in range(begin + n, begin + lanes):
        line[k] = top
    for block in range(begin, begin + lanes, LANES):
        exp(line, block, top, LANES)
    total = 0.0
    for k in range(begin, begin + n):
        total += (np.float64(line[k]) + GRAIN) - GRAIN
    return total


@njit(cache=True, nogil=True)
def _filled(rows: Int64s, which: Int64s, count: Int32s, begin: int, targets: Int64s) -> tuple[int, int]:
    """List the positions in `rows`, in order of `which` from `begin` on, whose window is not empty.

    Returns:
        The number of positions written to `targets`, and the position in `which` to continue from.
    """
    n, i = 0, begin
    while i < len(which) and n < len(targets):
        if i + AHEAD < len(which):
            prefetch(count, rows[which[i + AHEAD]])
        if count[rows[which[i]]] > 0:
            targets[n] = which[i]
            n += 1
        i += 1
    return n, i


@njit(cache=True, nogil=True)
def _next_sources(rows: Int64s, targets: Int64s, j: int, start: Int32s, count: Int32s) -> tuple[int, int]:
    """Return the begin of the window of target j and the number of its sources to prefetch; (0, 0) beyond the end."""
    if j >= len(targets):
        return 0, 0
    row = rows[targets[j]]
    return int(start[row]), min(int(count[row]), _CAPACITY)


@njit(cache=True, nogil=True)
def _prefetch_span(x: NDArray[Any], begin: int, numbers: int) -> None:
    """Prefetch some numbers of a flat array."""
    for line in range(begin, begin + numbers, 64 // x.itemsize):
        prefetch(x, line)


@njit(cache=True, nogil=True)
def _prefetch_sources(source: Int32s, begin: int, end: int, x: Float32s, width: int) -> None:
    """Prefetch the rows of some sources of the next target."""
    for k in range(begin, end):
        _prefetch_span(x, int(source[k]) * width, width)


@njit(cache=True, nogil=True)
def attend(
    heads: Size, channels: Size, wide: Size, rows: Int64s, which: Int64s, start: Int32s, count: Int32s, source: Int32s,
    projected: Float32s, x: Float32s, weight: Float32s, bias: Float32s, attention: Float32s,
    slot_of: Int32s, used: Int64s, sums: Float64s, out: Float32s,
) -> None:  # fmt: skip
    """Compute GATv2 attention: out[i] += attention of target rows[i] over its window, for i in `which`.

    It also stores the sums of each target for `move`: a row without a slot (slot_of[row] < 0) takes the next one from
    `used[0]`. See the module docstring for formula and shapes.
    """
    n_heads, each, width = len(heads), len(channels), len(wide)
    capacity, done, inputs, size = _CAPACITY, 0, len(weight), width + 2 * n_heads
    projected_, out_, attention_ = projected.reshape(-1), out.reshape(-1), attention.reshape(-1)
    x_, weight_, sums_ = x.reshape(-1), weight.reshape(-1), sums.reshape(-1)
    line, target_ = np.empty(n_heads * capacity, np.float32), np.empty(_TARGETS * width, np.float32)
    places = np.empty(_TARGETS, np.int64)
    while done < len(which):
        filled, done = _filled(rows, which, count, done, places)
        targets = places[:filled]
        for j in range(filled):
            prefetch(start, rows[targets[j]])
            prefetch(slot_of, rows[targets[j]])
        for j in range(filled):
            if j + 2 < filled:
                _prefetch_span(x_, rows[targets[j + 2]] * inputs, inputs)
            affine(x_, rows[targets[j]] * inputs, inputs, weight_, bias, target_, j * width, wide)
        for j in range(filled):
            if j + 2 < filled:
                prefetch(source, start[rows[targets[j + 2]]])
            i, row = targets[j], rows[targets[j]]
            begin, n = int(start[row]), int(count[row])
            if n > capacity:
                capacity = 2 * (n + LANES) // LANES * LANES  # whole lanes, as `exp` writes whole lanes
                line = np.empty(n_heads * capacity, np.float32)
            if slot_of[row] < 0:
                slot_of[row] = used[0]
                used[0] += 1
            slot = int(slot_of[row]) * size
            after, n_after = _next_sources(rows, targets, j + 1, start, count)
            shift, last = (after - begin, after + n_after - 1) if n_after else (0, begin)
            _prefetch_sources(source, after + n, after + n_after, projected_, width)
            # Each loop prefetches one cache line per source of the next target; two heads of 32 channels span four.
            for h in range(n_heads):
                head, first = h * each, h * capacity
                logits(
                    line, first - begin, projected_, head, source, width, begin, begin + n,
                    target_, j * width + head, attention_, head, shift, last, h * each // 2, channels,
                )  # fmt: skip
                top = _top_of(line, first, n)
                sums_[slot + width + h], sums_[slot + width + n_heads + h] = _weights(line, first, n, top), top
            sums_[slot : slot + width] = 0
            for h in range(n_heads):
                head = h * each
                gather(
                    sums_, slot + head, projected_, head, source, width, begin, begin + n,
                    line, h * capacity - begin, shift, last, (n_heads + h) * each // 2, channels,
                )  # fmt: skip
                share(out_, i * width + head, sums_, slot + head, sums_[slot + width + h], channels)


@njit(cache=True, nogil=True)
def split_changed(
    rows: Int64s, start: Int32s, count: Int32s, source: Int32s, changed: Int64s, computed: Int64s, base: int,
    previous: Int64s, slot_of: Int32s, new: Int32s, old: Int32s, ends: Int64s, whole: Int64s, moved: Int64s,
) -> tuple[int, int]:  # fmt: skip
    """Split targets into those that are recomputed in full and those whose sums are updated.

    A target's sums are updated if fewer than half of its sources changed, each once since the target was last computed.

    Args:
        rows: Target rows.
        start: First source of each window.
        count: Number of sources of each window.
        source: Source rows of all windows.
        changed: Number of the latest change per source.
        computed: Per target, the number that the next change had when it was last computed; −1: compute in full.
        base: Numbers from here on are in the list of previous projections.
        previous: Per change from `base` on, the number of the source's change before it.
        slot_of: Slot of the sums per target; −1 without.
        new: Receives the changed sources of the updated targets, one target after the other.
        old: Receives their positions in the list of previous projections.
        ends: Receives, per updated target, the end of its part of `new`.
        whole: Receives the positions in `rows` that are recomputed in full.
        moved: Receives the positions in `rows` whose sums are updated.

    Returns:
        The numbers of positions in `whole` and in `moved`.
    """
    n_whole = n_moved = end = 0
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            ahead = rows[i + AHEAD]
            prefetch(count, ahead)
            prefetch(start, ahead)
            prefetch(computed, ahead)
            prefetch(slot_of, ahead)
        if i + 4 < len(rows):
            prefetch(source, start[rows[i + 4]])
        row = rows[i]
        begin, n, known = start[row], count[row], computed[row]
        if n == 0:
            continue
        partial, next_end = known >= 0 and slot_of[row] >= 0, end
        for k in range(begin, begin + n if partial else begin):
            number = changed[source[k]]
            if number >= known:
                if number < base or previous[number - base] >= known:
                    partial = False
                    break
                new[next_end], old[next_end] = source[k], number - base
                next_end += 1
        if partial and 2 * (next_end - end) < n:
            end = next_end
            moved[n_moved], ends[n_moved] = i, end
            n_moved += 1
        else:
            whole[n_whole] = i
            n_whole += 1
    return n_whole, n_moved


@njit(cache=True, nogil=True)
def _top_stays(line: Float32s, new: int, old: int, n: int, top: np.float32) -> bool:
    """Return whether the top of a window is unchanged, judging by the new and old logits of the changed sources."""
    had = has = False
    for k in range(n):
        current = _top(line[new + k])
        if not current <= top:
            return False
        has |= current == top
        had |= _top(line[old + k]) == top
    return has or not had


@njit(cache=True, nogil=True)
def move(
    heads: Size, channels: Size, wide: Size, rows: Int64s, moved: Int64s, new: Int32s, old: Int32s, ends: Int64s,
    projected: Float32s, before: Float32s, x: Float32s, weight: Float32s, bias: Float32s, attention: Float32s,
    slot_of: Int32s, sums: Float64s, out: Float32s, failed: Int64s, window: int,
) -> int:  # fmt: skip
    """Update sums: subtract the old contributions of changed sources and add the new ones.

    `moved`, `new`, `old` and `ends` are the output of `split_changed`, `projected` and `before` the current projections
    and the list of previous ones `[k, hidden]`; `x` to `out` are as for `attend`. `failed` receives the positions in
    `rows` of targets whose top changed: they must be recomputed in full. `window`: maximum number of sources of a
    target.

    Returns:
        The number of positions in `failed`.
    """
    n_heads, each, width = len(heads), len(channels), len(wide)
    capacity, inputs, size, n_failed = (window + LANES) // LANES * LANES, len(weight), width + 2 * n_heads, 0
    projected_, before_, out_ = projected.reshape(-1), before.reshape(-1), out.reshape(-1)
    x_, weight_, sums_, attention_ = x.reshape(-1), weight.reshape(-1), sums.reshape(-1), attention.reshape(-1)
    line, target_ = np.empty(2 * n_heads * capacity, np.float32), np.empty(width, np.float32)
    for j in range(len(moved)):
        if j + AHEAD < len(moved):
            prefetch(slot_of, rows[moved[j + AHEAD]])
        if j + 2 < len(moved):
            ahead = rows[moved[j + 2]]
            _prefetch_span(sums_, int(slot_of[ahead]) * size, size)
            _prefetch_span(x_, ahead * inputs, inputs)
            _prefetch_sources(new, ends[j + 1], ends[j + 2], projected_, width)
            _prefetch_sources(old, ends[j + 1], ends[j + 2], before_, width)
        i, row, begin, end = moved[j], rows[moved[j]], ends[j - 1] if j else 0, ends[j]
        slot, n, stays = int(slot_of[row]) * size, end - begin, True
        if n:
            affine(x_, row * inputs, inputs, weight_, bias, target_, 0, wide)
        for h in range(n_heads if n else 0):
            head, now, then = h * each, 2 * h * capacity, (2 * h + 1) * capacity
            for first, values_, where in ((now, projected_, new), (then, before_, old)):
                logits(
                    line, first - begin, values_, head, where, width, begin, end,
                    target_, head, attention_, head, 0, begin, 0, channels,
                )  # fmt: skip
            stays &= _top_stays(line, now, then, n, _F(sums_[slot + width + n_heads + h]))
        if not stays:
            failed[n_failed] = i
            n_failed += 1
            continue
        for h in range(n_heads):
            head, now, then = h * each, 2 * h * capacity, (2 * h + 1) * capacity
            if n:
                top = _F(sums_[slot + width + n_heads + h])
                sums_[slot + width + h] += _weights(line, now, n, top) - _weights(line, then, n, top)
                line[then : then + n] *= _F(-1)
                for first, values_, where in ((now, projected_, new), (then, before_, old)):
                    gather(
                        sums_, slot + head, values_, head, where, width, begin, end,
                        line, first - begin, 0, begin, 0, channels,
                    )  # fmt: skip
            share(out_, i * width + head, sums_, slot + head, sums_[slot + width + h], channels)
    return n_failed


@njit(cache=True, nogil=True)
def number(rows: Int64s, changed: Int64s, base: int, following: int, previous: Int64s) -> int:
    """Assign the following change numbers to sources that have none from `base` on, and return the next number.

    `previous` receives the number that each source had, at the new number minus `base`.
    """
    for row in rows:
        if changed[row] < base:
            previous[following - base] = changed[row]
            changed[row] = following
            following += 1
    return following


@njit(cache=True, nogil=True)
def replace(
    wide: Size, x: Float32s, rows: Int64s, weight: Float32s, bias: Float32s, out: Float32s,
    changed: Int64s, base: int, first: int, before: Float32s,
) -> None:  # fmt: skip
    """Compute out[rows] = x[rows] @ weight + bias and keep previous outputs.

    For rows whose change has a number from `first` on, the previous output is copied to before[number − base].
    """
    width, inputs = len(wide), len(weight)
    x_, weight_, out_ = x.reshape(-1), weight.reshape(-1), out.reshape(-1)
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            _prefetch_span(x_, rows[i + AHEAD] * inputs, inputs)
            _prefetch_span(out_, rows[i + AHEAD] * width, width)
        row = rows[i]
        if changed[row] == first:  # changes are numbered in this order; a repeated row no longer matches
            before[first - base] = out[row]
            first += 1
        affine(x_, row * inputs, inputs, weight_, bias, out_, row * width, wide)


@njit(cache=True, nogil=True)
def attend_inputs(
    heads: Size, channels: Size, wide: Size, rows: Int64s, start: Int32s, count: Int32s, source: Int32s,
    x: Float32s, project: Float64s, project_bias: Float64s, own: Float32s, weight: Float64s, bias: Float64s,
    attention: Float32s, out: Float32s,
) -> None:  # fmt: skip
    """Compute GATv2 attention of the first layer, which projects the sources itself.

    With few inputs this is no slower than reading stored projections, and saves hidden · 4 bytes per source
    and relation. `project` and `project_bias` are those of the sources `x`, `weight` and `bias` those of the targets
    `own`; all four are float64.
    """
    n_heads, each, width = len(heads), len(channels), len(wide)
    capacity, inputs, owns = _CAPACITY, len(project), len(weight)
    x_, own_, out_, attention_ = x.reshape(-1), own.reshape(-1), out.reshape(-1), attention.reshape(-1)
    project_, weight_ = project.reshape(-1), weight.reshape(-1)
    line, target_ = np.empty(n_heads * capacity, np.float32), np.empty(width, np.float32)
    projected_, places = np.empty(capacity * width, np.float32), np.arange(capacity).astype(np.int32)
    sums_ = np.empty(width, np.float64)
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            prefetch(count, rows[i + AHEAD])
            prefetch(start, rows[i + AHEAD])
        if i + 2 < len(rows):
            prefetch(source, start[rows[i + 2]])
        if i + 1 < len(rows):
            for k in range(start[rows[i + 1]], start[rows[i + 1]] + min(count[rows[i + 1]], _CAPACITY)):
                prefetch(x_, np.int64(source[k]) * inputs)
        begin, n = int(start[rows[i]]), int(count[rows[i]])
        if n == 0:
            continue
        if n > capacity:
            capacity = 2 * (n + LANES) // LANES * LANES  # whole lanes, as `exp` writes whole lanes
            line = np.empty(n_heads * capacity, np.float32)
            projected_, places = np.empty(capacity * width, np.float32), np.arange(capacity).astype(np.int32)
        affine64(own_, rows[i] * owns, owns, weight_, bias, target_, 0, wide)
        for k in range(n):
            at = np.int64(source[begin + k]) * inputs
            affine64(x_, at, inputs, project_, project_bias, projected_, k * width, wide)
        for head in range(0, width, each):
            first = head // each * capacity
            logits(
                line, first, projected_, head, places, width, 0, n,
                target_, head, attention_, head, 0, 0, 0, channels,
            )  # fmt: skip
            total = _weights(line, first, n, _top_of(line, first, n))
            sums_[head : head + each] = 0
            gather(sums_, head, projected_, head, places, width, 0, n, line, first, 0, 0, 0, channels)
            share(out_, i * width + head, sums_, head, total, channels)
