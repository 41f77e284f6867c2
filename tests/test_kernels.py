"""Every back end against a float64 reference, and the reference against hand and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from srucli.kernels import BACK_ENDS, ragged_pool, sru_recurrence

LENGTHS = [[3], [0], [1, 0, 5, 2], [63, 1, 0, 17], [130]]


def case(
    lengths: list[int], units: int, directions: int, planes: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(units * 31 + planes)
    width, rows, texts = units * directions, sum(lengths), len(lengths)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = {
        "u": draw(rows, planes, width),
        "v": draw(2, width),
        "bias": draw(2, width),
        "initial": draw(texts, width),
        "mask": (draw(texts, width) > 0).to(dtype) * 2,
        "offsets": torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]),
    }
    if planes == 3:
        tensors["x"] = draw(rows, width)
    return tensors


def results(tensors: dict[str, Tensor], directions: int, tanh: bool, kernel: str) -> list[Tensor]:
    """Outputs, last states and every gradient, for gradients arriving at both outputs."""
    inputs = {k: t.clone().requires_grad_() for k, t in tensors.items() if k not in FIXED}
    h, last = sru_recurrence(
        inputs["u"],
        inputs.get("x"),
        inputs["v"],
        inputs["bias"],
        tensors["offsets"],
        directions=directions,
        initial=inputs["initial"],
        mask=tensors["mask"],
        tanh=tanh,
        alpha=1.3,
        kernel=kernel,  # type: ignore[arg-type]
    )
    weights = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).reshape(h.shape)
    loss = (h * weights).sum() + (last * last).sum() / 2
    grads = torch.autograd.grad(loss, list(inputs.values()), materialize_grads=True)
    return [h, last, *grads]


FIXED = {"offsets", "mask"}


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel forgets to write shows as NaN."""
    empty = torch.empty

    def poisoned(*args: object, **kwargs: object) -> Tensor:
        made: Tensor = empty(*args, **kwargs)  # type: ignore[call-overload]
        return made.fill_(math.nan) if made.dtype.is_floating_point else made

    monkeypatch.setattr(torch, "empty", poisoned)


def test_two_steps_by_hand() -> None:
    """One unit, two tokens, v = 0 and biases 0: both gates are sigmoid(0) = 1/2 at both steps.

    c1 = 1/2 * 2 + 1/2 * 4 = 3 from the initial state 2 and u0 = 4; h1 = 1/2 * 3 + 1/2 * 10 = 6.5.
    c2 = 1/2 * 3 + 1/2 * (-1) = 1; h2 = 1/2 * 1 + 1/2 * 20 = 10.5.
    """
    u = torch.tensor([[[4.0], [0.0], [0.0], [10.0]], [[-1.0], [0.0], [0.0], [20.0]]])
    zero = torch.zeros(2, 1)
    for kernel in BACK_ENDS:
        h, last = sru_recurrence(
            u,
            None,
            zero,
            zero,
            torch.tensor([0, 2]),
            initial=torch.tensor([[2.0]]),
            kernel=kernel,  # type: ignore[arg-type]
        )
        assert h.flatten().tolist() == pytest.approx([6.5, 10.5], abs=1e-6)
        assert last.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("planes", [3, 4])
@pytest.mark.parametrize("directions", [1, 2])
def test_reference_gradients(directions: int, planes: int, tanh: bool) -> None:
    tensors = case([2, 0, 1, 3], 2, directions, planes, torch.float64)
    names = [name for name in tensors if name not in FIXED]

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(names, values, strict=True))
        return sru_recurrence(
            given["u"],
            given.get("x"),
            given["v"],
            given["bias"],
            tensors["offsets"],
            directions=directions,
            initial=given["initial"],
            mask=tensors["mask"],
            tanh=tanh,
            alpha=0.7,
            kernel="reference",
        )

    assert torch.autograd.gradcheck(run, [tensors[name].requires_grad_() for name in names])


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("planes", [3, 4])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("units", [1, 7, 128])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("kernel", [name for name in BACK_ENDS if name != "reference"])
def test_against_float64(
    kernel: str, lengths: list[int], units: int, directions: int, planes: int, tanh: bool
) -> None:
    """Errors are at most twice those of the float32 reference, plus 5e-6 of the largest value."""
    exact = case(lengths, units, directions, planes, torch.float64)
    single = {k: t.float() if t.is_floating_point() else t for k, t in exact.items()}
    exact = {k: t.double() if t.is_floating_point() else t for k, t in single.items()}
    wanted = results(exact, directions, tanh, "reference")
    plain = results(single, directions, tanh, "reference")
    got = results(single, directions, tanh, kernel)
    again = results(single, directions, tanh, kernel)
    for w, p, g, a in zip(wanted, plain, got, again, strict=True):
        assert torch.equal(g, a)
        if w.numel():
            floor = 5e-6 * max(1.0, w.abs().max().item())
            assert (g - w).abs().max() <= 2 * (p - w).abs().max() + floor


@pytest.mark.parametrize("kernel", list(BACK_ENDS))
def test_a_text_alone_equals_itself_in_a_batch(kernel: str) -> None:
    tensors = case([5, 0, 9], 7, 2, 4, torch.float32)
    h, last = sru_recurrence(
        tensors["u"],
        None,
        tensors["v"],
        tensors["bias"],
        tensors["offsets"],
        directions=2,
        kernel=kernel,  # type: ignore[arg-type]
    )
    alone, end = sru_recurrence(
        tensors["u"][5:],
        None,
        tensors["v"],
        tensors["bias"],
        torch.tensor([0, 9]),
        directions=2,
        kernel=kernel,  # type: ignore[arg-type]
    )
    assert torch.equal(h[5:], alone)
    assert torch.equal(last[2:], end)


@pytest.mark.parametrize("kernel", list(BACK_ENDS))
def test_nan_stays_nan_and_spoils_only_its_text(kernel: str) -> None:
    tensors = case([3, 4], 5, 1, 4, torch.float32)
    tensors["u"][1, 0, 2] = math.nan
    h, last = sru_recurrence(
        tensors["u"],
        None,
        tensors["v"],
        tensors["bias"],
        tensors["offsets"],
        kernel=kernel,  # type: ignore[arg-type]
    )
    assert h[1:3, 2].isnan().all()
    assert last[0, 2].isnan()
    assert not h[3:].isnan().any()
    largest, _ = ragged_pool(h, tensors["offsets"], kernel)  # type: ignore[arg-type]
    assert largest[0, 2].isnan()


@pytest.mark.parametrize("kernel", list(BACK_ENDS))
def test_pooling(kernel: str) -> None:
    h = torch.tensor([[1.0, 5.0], [3.0, -2.0], [2.0, 7.0]], requires_grad=True)
    offsets = torch.tensor([0, 2, 2, 3])
    largest, mean = ragged_pool(h, offsets, kernel)  # type: ignore[arg-type]
    assert largest.tolist() == [[3.0, 5.0], [0.0, 0.0], [2.0, 7.0]]
    assert mean.tolist() == [[2.0, 1.5], [0.0, 0.0], [2.0, 7.0]]
    (grad,) = torch.autograd.grad((10 * largest + mean).sum(), h)
    assert grad.tolist() == [[0.5, 10.5], [10.5, 0.5], [11.0, 11.0]]


def test_operator_contract() -> None:
    tensors = case([3, 0, 2], 4, 2, 3, torch.float32)
    arguments = (
        tensors["u"].requires_grad_(),
        tensors["x"].requires_grad_(),
        tensors["v"].requires_grad_(),
        tensors["bias"].requires_grad_(),
        tensors["initial"].requires_grad_(),
        tensors["mask"],
        tensors["offsets"],
        2,
        False,
        1.5,
        "cpu",
    )
    torch.library.opcheck(torch.ops.srucli.sru.default, arguments)
    permuted = tensors["u"].detach().permute(2, 1, 0).contiguous().permute(2, 1, 0)
    torch.library.opcheck(torch.ops.srucli.sru.default, (permuted.requires_grad_(), *arguments[1:]))


def test_wrong_shapes_are_refused() -> None:
    tensors = case([3], 4, 1, 3, torch.float32)
    with pytest.raises(ValueError, match="planes"):
        sru_recurrence(tensors["u"], None, tensors["v"], tensors["bias"], tensors["offsets"])
    with pytest.raises(ValueError, match="must be"):
        sru_recurrence(
            tensors["u"], tensors["x"], tensors["v"][:1], tensors["bias"], tensors["offsets"]
        )
