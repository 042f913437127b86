"""Operations whose result for a row depends only on the row, even if a library's products do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.engine.torch_ops import Product, attend, elu, full_precision, next_power_of_two, pairwise_sum

CPU = torch.device("cpu")


def product(inputs: int = 33, width: int = 20) -> Product:
    """A product by random weights."""
    random = np.random.default_rng(1)
    weight, bias = random.standard_normal((inputs, width)), random.standard_normal(width)
    return Product(weight.astype(np.float32), bias.astype(np.float32), CPU)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 100, 1_000])
def test_halved_is_the_sum_whatever_zeros_follow(size: int) -> None:
    """Sums are right, and those over the next powers of two have the same bits."""
    values = torch.randn(5, size, 3, generator=torch.Generator().manual_seed(size))
    total = pairwise_sum(values, 1)
    torch.testing.assert_close(total, values.double().sum(1).float(), atol=1e-4, rtol=1e-6)
    for more in (0, 1, 3):
        wider = torch.cat([values, torch.zeros(5, next_power_of_two(size) * 2**more - size, 3)], 1)
        assert torch.equal(pairwise_sum(wider, 1), total)


@pytest.mark.parametrize("operation", [elu, torch.exp, torch.expm1], ids=["elu", "exp", "expm1"])
def test_elementwise_operations_do_not_mind_where_a_number_stands(operation: object) -> None:
    """The last numbers of an array are computed like the others."""
    values = -3 * torch.randn(20_011, generator=torch.Generator().manual_seed(2)).abs()
    assert callable(operation)
    whole = operation(values)
    for size in (1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 100, 5_003):
        for start in (0, 1, 6, 4_999):
            assert torch.equal(operation(values[start : start + size].clone()), whole[start : start + size])


@pytest.mark.parametrize("rows", [0, 1, 2, 31, 32, 33, 500])
def test_product_of_a_row_is_the_same_among_others(rows: int) -> None:
    """A row has the same bits whatever rows surround it."""
    tried = product()
    x = torch.randn(600, 33, generator=torch.Generator().manual_seed(3))
    whole = tried(x)
    assert tried.check()
    assert torch.equal(tried(x[7 : 7 + rows]), whole[7 : 7 + rows])
    assert torch.allclose(
        whole.double(), torch.addmm(tried._bias.double(), x.double(), tried._weight.double()), atol=1e-5
    )


def test_a_library_whose_products_depend_on_the_place_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products fall back to input by input, with the same bits for a row in any position."""
    real = torch.mm

    def uneven(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        real(x, weight, out=out)
        out[1::2] = torch.nextafter(out[1::2], torch.tensor(torch.inf))
        return out

    x = torch.randn(100, 33, generator=torch.Generator().manual_seed(4))
    right = product()(x)
    tried = product()
    monkeypatch.setattr(torch, "mm", uneven)
    assert not torch.equal(tried(x[1:]), tried(x)[1:])
    assert not tried.check()
    assert tried.in_order
    assert torch.equal(tried(x[1:]), tried(x)[1:])
    assert torch.allclose(tried(x), right, atol=1e-5)


def test_settings_of_the_process_neither_count_nor_change() -> None:
    """Reduced precision and autocast do not change the numbers, and both settings are restored afterwards."""
    tried, x = product(), torch.randn(64, 33, generator=torch.Generator().manual_seed(5))
    right = tried(x)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with full_precision(CPU):
                assert torch.get_float32_matmul_precision() == "highest"
                assert torch.equal(tried(x), right)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_attention_does_not_mind_the_room_of_a_window() -> None:
    """Windows of 3 with a capacity of 4, 16 or 64: the same bits for any contents of the empty slots."""
    source = torch.Generator().manual_seed(6)
    projected, target = torch.randn(50, 12, generator=source), torch.randn(9, 12, generator=source)
    attention = torch.randn(9, 3, 4, generator=source)
    slots = torch.randint(0, 50, (9, 64), generator=source, dtype=torch.int32)
    degrees = torch.full((9,), 3, dtype=torch.int32)
    found = [attend(projected, slots[:, :room], degrees, target, attention) for room in (4, 16, 64)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], attend(projected, slots[:, :4], degrees + 1, target, attention))
