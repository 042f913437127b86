"""Tensor operations whose result for a row depends only on the row, on any device.

Each is a copy, a maximum, an elementwise operation, a pairwise sum (elementwise additions in an order that does not
depend on the shape), or a product of matrices on tiles of one fixed shape. So a row has the same bits alone and among
100,000 others, as in the compiled engine. Decision 0012 lists what is guaranteed and what is checked at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Float32s = NDArray[np.float32]
_SLOPE = 0.2
"""Negative slope of LeakyReLU in GATv2."""
_TILE = {"cpu": 32, "cuda": 2_048}
"""Rows of a product; the number of rows decides which BLAS kernel runs."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable TF32, bfloat16 and gradients within the context."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Transfers:
    """Copies arrays to and from one device, through pinned memory for a GPU; sending does not block."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pinned = device.type == "cuda"

    def host_buffer(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Allocate uninitialised host memory that `send` takes without another copy."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._pinned)

    def send(self, array: NDArray[Any] | Tensor) -> Tensor:
        """Copy an array to the device.

        A NumPy array may be changed at once; a tensor must come from `host_buffer` and must not be changed.
        """
        if isinstance(array, np.ndarray):
            # Torch does not reuse pinned memory before its copy is done.
            host = self.host_buffer(*array.shape, dtype=_TYPES[array.dtype.str[1:]])
            host.numpy()[...] = array
            array = host
        return array.to(self.device, non_blocking=True)

    def fetch(self, values: Tensor) -> NDArray[Any]:
        """Copy values to the host; waits for all earlier work of the device."""
        host = self.host_buffer(*values.shape, dtype=values.dtype)
        host.copy_(values, non_blocking=True)
        if self._pinned:
            torch.cuda.current_stream(self.device).synchronize()
        array: NDArray[Any] = host.numpy()
        return array


_TYPES = {"i4": torch.int32, "i8": torch.int64, "f4": torch.float32}


def next_power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below a number."""
    return 1 << max(0, number - 1).bit_length()


def pairwise_sum(values: Tensor, dim: int) -> Tensor:
    """Sum over a dimension: add the second half to the first until one is left.

    Zeros appended to the dimension do not change the result.
    """
    size = values.shape[dim]
    missing = next_power_of_two(size) - size
    if missing:
        shape = [*values.shape]
        shape[dim] = missing
        values = torch.cat([values, values.new_zeros(shape)], dim)
        size += missing
    while size > 1:
        size //= 2
        values = values.narrow(dim, 0, size) + values.narrow(dim, size, size)
    return values.squeeze(dim)


def elu(values: Tensor) -> Tensor:
    """Return ELU; torch's own uses other instructions, and gives other bits, for the last numbers of an array."""
    return torch.where(values > 0, values, torch.expm1(values.clamp(max=0)))


class Product:
    """Product with a bias: x `[n, F]` → x @ weight + bias `[n, width]`, tile by tile, each of the same shape.

    Attributes:
        in_order: Compute input by input instead; slower, for devices whose tiles are not exact.
    """

    def __init__(
        self, weight: Float32s, bias: Float32s, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self._weight = torch.from_numpy(weight).to(device, dtype)
        self._bias = torch.from_numpy(bias).to(device, dtype)
        self._tile = _TILE[device.type]
        self.in_order = False

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product of some rows, `[n, width]`, in the product's own dtype."""
        rows, inputs = x.shape
        x = x.to(self._weight.dtype)
        if self.in_order:
            return self._ordered(x)
        whole = -(-rows // self._tile) * self._tile
        if whole > rows:
            x = torch.cat([x, x.new_zeros(whole - rows, inputs)])
        out = x.new_empty(whole, self._weight.shape[1])
        for start in range(0, whole, self._tile):
            torch.mm(x[start : start + self._tile], self._weight, out=out[start : start + self._tile])
        return out[:rows].add_(self._bias)

    def _ordered(self, x: Tensor) -> Tensor:
        out = self._bias.expand(len(x), -1).clone()
        for number in range(x.shape[1]):
            out += x[:, number : number + 1] * self._weight[number]
        return out

    def check(self) -> bool:
        """Check that a row's product does not depend on its position in a tile nor on the other rows.

        No library guarantees this, so it is tried on random rows: shuffled, alone, and all equal. Sets `in_order` on
        failure.
        """
        source = torch.Generator().manual_seed(12)
        x = torch.randn(self._tile, self._weight.shape[0], generator=source).to(self._weight)
        order = torch.randperm(self._tile, generator=source).to(self._weight.device)
        straight = self(x)
        alone, alike = self(x[:1]), self(x[:1].expand(self._tile, -1).contiguous())
        same = torch.stack([
            (self(x[order]) == straight[order]).all(), (alone == straight[:1]).all(), (alike == straight[:1]).all(),
        ])  # fmt: skip
        self.in_order = not bool(same.all())
        return not self.in_order


def attend(projected: Tensor, sources: Tensor, degrees: Tensor, target: Tensor, attention: Tensor) -> Tensor:
    """Return GATv2 messages `[m, hidden]` of m windows; see `model/engine/cpu_attention.py` for the formula.

    Shapes:
        projected: Projections of all sources `[n, hidden]`.
        sources: Rows of `projected` `[m, W]`, W a power of two; the first `degrees` of each window count.
        degrees: Number of sources of each window `[m]`, at least 1.
        target: Projections of the targets `[m, hidden]`.
        attention: Attention vectors `[m, heads, channels]`.

    The result has the dtype of `target` and `attention`.
    """
    windows, width = sources.shape
    heads, channels = attention.shape[1:]
    values = projected.index_select(0, sources.reshape(-1)).view(windows, width, heads, channels).to(target.dtype)
    mixed = functional.leaky_relu_(values + target.view(windows, 1, heads, channels), _SLOPE)
    logits = pairwise_sum(mixed.mul_(attention[:, None]), 3)
    missing = torch.arange(width, device=sources.device, dtype=degrees.dtype) >= degrees[:, None]
    logits = logits.masked_fill_(missing[:, :, None], -torch.inf)
    weights = torch.exp_(logits.sub_(logits.amax(1, keepdim=True)))
    weights = weights / pairwise_sum(weights, 1)[:, None]
    return pairwise_sum(values.mul_(weights[..., None]), 1).view(windows, heads * channels)
