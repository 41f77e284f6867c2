"""Looked-up rows, and the sums of their gradients, on a CPU. Triton's are in `test_triton.py`."""

from __future__ import annotations

import pytest
import torch

from srucli.kernels.rows import take_rows


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_rows_and_their_gradients(kernel: str) -> None:
    table = torch.arange(8.0, dtype=torch.float64).view(4, 2).requires_grad_()
    index = torch.tensor([3, 0, 3, 1])
    rows = take_rows(table, index, kernel)
    assert rows.tolist() == [[6, 7], [0, 1], [6, 7], [2, 3]]
    (grad,) = torch.autograd.grad((rows * torch.tensor([[1.0], [2], [3], [4]])).sum(), table)
    assert grad.tolist() == [[2, 2], [4, 4], [0, 0], [4, 4]]


def test_the_operators_are_registered_right() -> None:
    table, index = torch.randn(4, 2, requires_grad=True), torch.tensor([3, 0, 3])
    torch.library.opcheck(torch.ops.srucli.take_rows.default, (table, index, "auto"))
    grad = torch.randn(3, 2)
    torch.library.opcheck(torch.ops.srucli.sum_rows.default, (grad, index, 4, "auto"))
