"""Arithmetic of the network in plain torch whose result for a row depends on nothing but the row, on any device.

Everything here is a copy, a maximum, an elementwise operation, a sum by halves (elementwise additions whose order does
not depend on the shape), or a product of matrices on tiles of always the same shape. So a row has the same bits alone
and among 100,000 others, as on the engine's compiled kernels; decision 0012 says what is guaranteed and what checked.
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
"""Of GATv2's leaky ReLU."""
_TILE = {"cpu": 32, "cuda": 2_048}
"""Rows of a product; only this decides which kernel of a BLAS runs."""


@contextmanager
def precisely(device: torch.device) -> Iterator[None]:
    """No TF32, no bfloat16, no gradients; what the process had set comes back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Transfers:
    """Arrays to and from one device: through pinned memory if it is another than the CPU, without waiting to send."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pinned = device.type == "cuda"

    def room(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Memory on the host, not initialised, that `send` takes without another copy."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._pinned)

    def send(self, array: NDArray[Any] | Tensor) -> Tensor:
        """The array on the device; it may be changed at once. A tensor comes from `room` and may not."""
        if isinstance(array, np.ndarray):
            # Torch keeps pinned memory from being given out again before its copy is done.
            host = self.room(*array.shape, dtype=_TYPES[array.dtype.str[1:]])
            host.numpy()[...] = array
            array = host
        return array.to(self.device, non_blocking=True)

    def fetch(self, values: Tensor) -> NDArray[Any]:
        """The values on the host; waits for all that was asked of the device before."""
        host = self.room(*values.shape, dtype=values.dtype)
        host.copy_(values, non_blocking=True)
        if self._pinned:
            torch.cuda.current_stream(self.device).synchronize()
        array: NDArray[Any] = host.numpy()
        return array


_TYPES = {"i4": torch.int32, "i8": torch.int64, "f4": torch.float32}


def power(number: int) -> int:
    """The smallest power of two that is not below a number."""
    return 1 << max(0, number - 1).bit_length()


def halved(values: Tensor, dim: int) -> Tensor:
    """The sum over a dimension: its second half is added to the first until one is left. Zeros behind do not matter."""
    size = values.shape[dim]
    missing = power(size) - size
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
    """ELU; torch's own takes other instructions for the last few numbers of an array, and so gives other bits there."""
    return torch.where(values > 0, values, torch.expm1(values.clamp(max=0)))


class Product:
    """x `[n, F]` → x @ weight + bias `[n, width]`, tile by tile, each of the same shape.

    in_order: input by input instead, which is slower, where the device's tiles do not keep what they promise.
    """

    def __init__(
        self, weight: Float32s, bias: Float32s, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self._weight = torch.from_numpy(weight).to(device, dtype)
        self._bias = torch.from_numpy(bias).to(device, dtype)
        self._tile = _TILE[device.type]
        self.in_order = False

    def __call__(self, x: Tensor) -> Tensor:
        """The product of some rows, `[n, width]`, in the product's own type of number."""
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
        """Whether a row's product does not depend on its place in a tile nor on the others; else it is taken in order.

        Libraries do not promise it, so it is tried on random rows: shuffled, alone, and all the same.
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
    """GATv2 messages `[m, H]` of m windows.

    projected: `[n, H]`. sources: `[m, W]` rows of it, W a power of two, the first degrees `[m]` ≥ 1 of each in their
    fixed order. target: `[m, H]`. attention: `[m, heads, channels]`; as precise as these two all is computed.
    """
    windows, width = sources.shape
    heads, channels = attention.shape[1:]
    values = projected.index_select(0, sources.reshape(-1)).view(windows, width, heads, channels).to(target.dtype)
    mixed = functional.leaky_relu_(values + target.view(windows, 1, heads, channels), _SLOPE)
    logits = halved(mixed.mul_(attention[:, None]), 3)
    missing = torch.arange(width, device=sources.device, dtype=degrees.dtype) >= degrees[:, None]
    logits = logits.masked_fill_(missing[:, :, None], -torch.inf)
    weights = torch.exp_(logits.sub_(logits.amax(1, keepdim=True)))
    weights = weights / halved(weights, 1)[:, None]
    return halved(values.mul_(weights[..., None]), 1).view(windows, heads * channels)
