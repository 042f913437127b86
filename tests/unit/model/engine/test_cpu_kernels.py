"""The compiled kernels by themselves."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

from model.engine import cpu_attention, cpu_kernels, cpu_layers, simd

HEADS, CHANNELS, INPUTS = 2, 32, 5
SIZES = simd.size(HEADS), simd.size(CHANNELS), simd.size(HEADS * CHANNELS)
WIDTH = 16
F = np.float32


@pytest.mark.parametrize(
    ("module", "name", "others"),
    [
        (cpu_kernels, "VECTOR", (simd,)),
        (cpu_attention, "VECTOR", (simd,)),
        (cpu_layers, "KERNELS", (simd, cpu_attention, cpu_kernels)),
    ],
)
def test_the_cache_knows_of_the_operations(module: ModuleType, name: str, others: tuple[ModuleType, ...]) -> None:
    """A change of what a module calls must change the file that numba's cache depends on."""
    found = crc32(b"".join(Path(str(other.__file__)).read_bytes() for other in others))
    assert found == getattr(module, name), f"write {name} = 0x{found:08X} into {module.__file__}"


@pytest.mark.parametrize(
    "kernel", [cpu_layers.project(64), cpu_layers.layer1(2, 32), cpu_layers.layer2(2, 32), cpu_layers.head(64)]
)
def test_the_cache_is_found_again(kernel: Any) -> None:
    """Closure values are part of a kernel's cache key; a compiled function has another key in each process."""
    enclosed = [cell.cell_contents for cell in kernel.py_func.__closure__ or ()]
    assert enclosed
    assert not any(isinstance(value, Dispatcher) for value in enclosed)


def orders(rng: np.random.Generator, source: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return one window in several orders."""
    return [source, source[::-1].copy(), np.sort(source), *(rng.permutation(source) for _ in range(3))]


def attended(values: NDArray[F], towards: NDArray[np.float64], vectors: NDArray[F]) -> NDArray[np.float64]:
    """Return GATv2 attention by its definition, in float64."""
    n = len(values)
    mixed = (values.astype(np.float64) + towards).reshape(n, HEADS, CHANNELS)
    logits = (np.where(mixed > 0, mixed, 0.2 * mixed) * vectors).sum(2)
    share = np.exp(logits - logits.max(0))
    share /= share.sum(0)
    found: NDArray[np.float64] = (share[:, :, None] * values.reshape(n, HEADS, CHANNELS)).sum(0).reshape(-1)
    return found


WINDOWS = [1, 2, 16, 64, 65, 1_000, 20_000]
ONE, START = np.zeros(1, np.int64), np.zeros(1, np.int32)


def attends(
    window: NDArray[np.int32], projected: NDArray[F], towards: tuple[NDArray[F], ...], vectors: NDArray[F]
) -> NDArray[F]:
    """Return the attention output of one target; towards: its x, weight and bias."""
    out, sums = np.zeros((1, HEADS * CHANNELS), F), np.zeros((1, HEADS * CHANNELS + 2 * HEADS))
    cpu_attention.attend(
        *SIZES, ONE, ONE, START, np.full(1, len(window), np.int32), window, projected, *towards, vectors,
        np.full(1, -1, np.int32), np.zeros(1, np.int64), sums, out,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("peaked", [1, 25])
@pytest.mark.parametrize("n", WINDOWS)
def test_attention_has_no_order(n: int, peaked: int) -> None:
    """A window's sources in any order give the same bits, and the softmax of GATv2."""
    rng = np.random.default_rng(n)
    width = HEADS * CHANNELS
    projected = rng.normal(size=(2 * n, width)).astype(F)
    x, weight = rng.normal(size=(1, INPUTS)).astype(F), rng.normal(size=(INPUTS, width)).astype(F)
    bias, vectors = rng.normal(size=width).astype(F), (peaked * rng.normal(size=(HEADS, CHANNELS))).astype(F)
    source = rng.permutation(2 * n)[:n].astype(np.int32)
    outs = [attends(window, projected, (x, weight, bias), vectors) for window in orders(rng, source)]
    assert len({out.tobytes() for out in outs}) == 1
    expected = attended(projected[source], x.astype(np.float64) @ weight + bias, vectors)
    assert np.abs(outs[0][0] - expected).max() <= 1e-5 * peaked


@pytest.mark.parametrize("n", WINDOWS)
def test_attention_over_inputs_has_no_order(n: int) -> None:
    """The same where sources are projected on the way."""
    rng = np.random.default_rng(n)
    width = HEADS * CHANNELS
    x, own = rng.normal(size=(2 * n, INPUTS)).astype(F), rng.normal(size=(1, 3)).astype(F)
    project, weight = rng.normal(size=(INPUTS, width)), rng.normal(size=(3, width))
    shift, bias = rng.normal(size=(2, width))
    vectors = rng.normal(size=(HEADS, CHANNELS)).astype(F)
    source, count = rng.permutation(2 * n)[:n].astype(np.int32), np.full(1, n, np.int32)
    outs = set()
    for window in orders(rng, source):
        out = np.zeros((1, width), F)
        cpu_attention.attend_inputs(
            *SIZES, ONE, START, count, window, x, project, shift, own, weight, bias, vectors, out
        )
        outs.add(out.tobytes())
    assert len(outs) == 1
    expected = attended((x[source] @ project + shift).astype(F), own @ weight + bias, vectors)
    assert np.abs(out[0] - expected).max() <= 1e-5


def test_halves_of_a_grain_have_no_order() -> None:
    """Values that need one bit more than the sums: each product is rounded before it is added."""
    rng = np.random.default_rng(3)
    width = HEADS * CHANNELS
    projected = (np.repeat(rng.integers(1, 1 << 21, (8, 1)), width, axis=1) * 2.0**-30).astype(F)
    nothing, vectors = np.zeros((1, width), F), np.zeros((HEADS, CHANNELS), F)
    towards = nothing[:, :1], nothing, nothing[0]
    outs = [attends(window, projected, towards, vectors) for window in orders(rng, np.arange(8, dtype=np.int32))]
    assert len({out.tobytes() for out in outs}) == 1


def settled(old: NDArray[F], new: NDArray[F], tolerance: float) -> tuple[NDArray[F], list[int]]:
    """Return the rows after the kernel, and those that moved."""
    kept, changed = old.copy(), np.empty(len(old), np.int64)
    n = cpu_kernels.commit_moved(simd.size(old.shape[1]), np.arange(len(old)), new, kept, F(tolerance), changed)
    return kept, changed[:n].tolist()


def exactly(new: NDArray[F]) -> NDArray[F]:
    """Return the rows that the kernel writes over NaN."""
    return settled(np.full_like(new, np.nan), new, 0.0)[0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), tolerance=st.sampled_from([0.0, 1e-3, 0.01, 0.1]), steps=st.integers(1, 30))
def test_what_is_held_back_adds_up(seed: int, tolerance: float, steps: int) -> None:
    """Over many small steps no number deviates by more than the tolerance; a row moves as a whole or not at all."""
    rng = np.random.default_rng(seed)
    new = rng.normal(scale=0.5, size=(8, WIDTH)).astype(F)
    kept = exactly(new)
    for _ in range(steps):
        new = new + rng.normal(scale=rng.choice([0.0, 1e-4, 1e-2]), size=new.shape).astype(F)
        before, exact = kept, exactly(new)
        kept, changed = settled(before, new, tolerance)
        assert np.abs(kept - exact).max() <= F(tolerance)
        far = (np.abs(exact - before) > F(tolerance)).any(1)
        assert changed == np.flatnonzero(far).tolist()
        assert kept.tobytes() == np.where(far[:, None], exact, before).tobytes()


def test_a_steady_drift_is_passed_on() -> None:
    """With steps of a tenth of the tolerance in one number, every eleventh step moves the row."""
    new, moved = np.full((1, WIDTH), 0.5, F), []
    kept = exactly(new)
    for step in range(1, 45):
        new[0, 3] = 0.5 + 0.001 * step
        kept, changed = settled(kept, new, 0.0101)
        moved += [step] * len(changed)
    assert moved == [11, 22, 33, 44]


@pytest.mark.parametrize("tolerance", [0.0, 0.01, 1.0])
def test_what_is_no_number_moves(tolerance: float) -> None:
    """A NaN and a change to or from infinity count as moved at any tolerance; an unchanged infinity does not."""
    fine, none, infinite = np.full((3, WIDTH), 0.5, F)
    none[5], infinite[7] = np.nan, np.inf
    old = np.stack([none, none, fine, infinite, infinite])
    new = np.stack([fine, infinite, infinite, infinite, fine])
    kept, changed = settled(old, new, tolerance)
    assert changed == [0, 1, 2, 4]
    np.testing.assert_array_equal(kept, new)


def test_no_tolerance_compares_bits() -> None:
    """The smallest step of one number counts as moved; equal bits do not."""
    new = np.abs(np.random.default_rng(1).normal(size=(50, WIDTH))).astype(F)
    old = exactly(new)
    new[7, 2], new[9, 15] = np.nextafter(new[7, 2], F(9)), np.nextafter(new[9, 15], F(0))
    kept, changed = settled(old, new, 0.0)
    assert changed == [7, 9]
    assert kept.tobytes() == new.tobytes()
