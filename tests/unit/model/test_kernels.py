"""The compiled kernels by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from model import kernels, vector

HEADS, CHANNELS, INPUTS = 2, 32, 5


def test_the_cache_knows_of_the_operations() -> None:
    """Whoever changes them must change the file that numba's cache looks at."""
    found = crc32(Path(vector.__file__).read_bytes())
    assert found == kernels.VECTOR, f"write VECTOR = 0x{found:08x} into model/kernels.py"


@pytest.mark.parametrize("kernel", [kernels.linear(64), kernels.attend(2, 32), kernels.settle(64), kernels.score(64)])
def test_the_cache_is_found_again(kernel: Any) -> None:
    """What a kernel encloses is part of its name there; a compiled function has another name in each process."""
    enclosed = [cell.cell_contents for cell in kernel.py_func.__closure__ or ()]
    assert enclosed
    assert not any(isinstance(value, Dispatcher) for value in enclosed)


@pytest.mark.parametrize("n", [1, 16, 64, 65, 1_000, 20_000])
def test_attention_has_no_order(n: int) -> None:
    """A window's sources in any order give the same bits, and the softmax of GATv2."""
    rng = np.random.default_rng(n)
    width = HEADS * CHANNELS
    hashes = rng.permutation(np.arange(1, 2 * n + 1)).astype(np.uint64)
    projected = rng.normal(size=(2 * n, width)).astype(np.float32)
    x, weight = rng.normal(size=(1, INPUTS)).astype(np.float32), rng.normal(size=(INPUTS, width)).astype(np.float32)
    bias, attention = rng.normal(size=width).astype(np.float32), rng.normal(size=(HEADS, CHANNELS)).astype(np.float32)
    source = rng.permutation(2 * n)[:n].astype(np.int32)
    one, start, count = np.zeros(1, np.int64), np.zeros(1, np.int32), np.full(1, n, np.int32)
    outs = []
    for order in (np.arange(n), np.argsort(hashes[source]), rng.permutation(n)):
        out = np.zeros((1, width), np.float32)
        window = np.ascontiguousarray(source[order])
        kernels.attend(HEADS, CHANNELS)(
            one, start, count, window, hashes, projected, x, weight, bias, attention, out
        )  # fmt: skip
        outs.append(out[0])
    assert outs[0].tobytes() == outs[1].tobytes() == outs[2].tobytes()
    mixed = (projected[source].astype(np.float64) + x.astype(np.float64) @ weight + bias).reshape(n, HEADS, CHANNELS)
    logits = (np.where(mixed > 0, mixed, 0.2 * mixed) * attention).sum(2)
    share = np.exp(logits - logits.max(0))
    share /= share.sum(0)
    expected = (share[:, :, None] * projected[source].reshape(n, HEADS, CHANNELS)).sum(0).reshape(-1)
    assert np.abs(outs[0] - expected).max() <= 1e-5
