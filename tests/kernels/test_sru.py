"""Every back end against a float64 reference; the reference against autograd and by hand."""

from __future__ import annotations

import importlib
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from srucli.kernels.backends import BACKENDS
from srucli.kernels.operator import is_watched
from srucli.kernels.pool import ragged_pool
from srucli.kernels.reference import Recurrence
from srucli.kernels.sru import sru_layer
from srucli.model.sru import SRUStack
from srucli.runtime import use_threads

# Triton's kernels have their own test file, since its interpreter needs a separate process.
KERNELS = [name for name in BACKENDS if name != "triton"]
LENGTHS = [[3], [0], [1, 0, 5, 2], [63, 1, 0, 17], [130]]
FIXED = {"offsets", "mask"}


def case(
    lengths: list[int], units: int, directions: int, planes: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return a back end's inputs, and the gradients of its outputs."""
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
        "grad_h": draw(rows, width),
        "grad_last": draw(texts, width),
    }
    if planes == 3:
        tensors["x"] = draw(rows, width)
    return tensors


def results(tensors: dict[str, Tensor], directions: int, tanh: bool, kernel: str) -> list[Tensor]:
    """Return outputs, last states and every gradient of a back end, given u."""
    module = importlib.import_module(BACKENDS[kernel].sru)
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    u, x = copies["u"], copies.get("x")
    fields = (copies[name] for name in ("v", "bias", "initial", "mask", "offsets"))
    v, bias, initial, mask, offsets = fields
    given = Recurrence(v, bias, initial, mask, offsets, directions, tanh, 1.3)
    h, c, last = module.forward(u, x, given, True)
    grads = module.backward(copies["grad_h"], copies["grad_last"], u, x, c, given)
    without, _, end = module.forward(tensors["u"].clone(), x, given, False)
    torch.testing.assert_close((h, last), (without, end), rtol=0, atol=0, equal_nan=True)
    return [h, last, *grads]


def largest_errors(
    tensors: dict[str, Tensor], directions: int, tanh: bool, kernel: str
) -> list[tuple[float, float]]:
    """Return the error and the allowed error of each result.

    Allowed is twice the error of the reference in float32, plus 5e-6 of the largest value.
    """
    single = {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}
    exact = {k: t.double() if t.is_floating_point() else t for k, t in single.items()}
    wanted = results(exact, directions, tanh, "reference")
    plain = results(single, directions, tanh, "reference")
    got = results(single, directions, tanh, kernel)
    errors = []
    for w, p, g in zip(wanted, plain, got, strict=True):
        assert g.shape == w.shape
        if w.numel():
            allowed = 2 * (p - w).abs().max() + 5e-6 * max(1.0, w.abs().max().item())
            errors.append(((g - w).abs().max().item(), float(allowed)))
    return errors


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new memory with NaN, which shows if a kernel does not write all of it."""
    with torch.device("cpu"):  # torch lists what takes a device at the first use of one
        empty = torch.empty
        empty(0)

    def poisoned(*args: object, **kwargs: object) -> Tensor:
        made: Tensor = empty(*args, **kwargs)  # type: ignore[call-overload]
        return made.fill_(math.nan) if made.dtype.is_floating_point else made

    monkeypatch.setattr(torch, "empty", poisoned)


def layer(
    kernel: str, lengths: list[int], size: int, units: int, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Return arguments of `sru_layer` with two directions."""
    torch.manual_seed(size)
    rows, width = sum(lengths), 2 * units
    planes = 3 if size == width else 4
    return {
        "x": torch.randn(rows, size, dtype=dtype),
        "weight": torch.randn(planes * width, size, dtype=dtype) / size**0.5,
        "v": torch.randn(2, width, dtype=dtype),
        "bias": torch.randn(2, width, dtype=dtype),
        "offsets": torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]),
        "directions": 2,
        "initial": torch.randn(len(lengths), width, dtype=dtype),
        "mask": torch.rand(len(lengths), width, dtype=dtype),
        "alpha": 0.7,
        "kernel": kernel,
    }


TRAINED = ("x", "weight", "v", "bias", "initial")


def outputs_and_gradients(arguments: dict[str, Any]) -> list[Tensor]:
    """Return h and the last states of `sru_layer`, and all gradients."""
    given = {**arguments, **{k: arguments[k].detach().requires_grad_() for k in TRAINED}}
    h, last = sru_layer(**given)
    weights = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).reshape(h.shape)
    loss = (h * weights).sum() + (last * last).sum() / 2
    return [h, last, *torch.autograd.grad(loss, [given[name] for name in TRAINED])]


def test_two_steps_by_hand() -> None:
    """One unit, two tokens, v = 0 and biases 0: both gates are sigmoid(0) = 1/2 at both steps.

    c1 = 1/2 * 2 + 1/2 * 4 = 3 from the initial state 2 and u0 = 4; h1 = 1/2 * 3 + 1/2 * 10 = 6.5.
    c2 = 1/2 * 3 + 1/2 * (-1) = 1; h2 = 1/2 * 1 + 1/2 * 20 = 10.5.
    """
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    zero = torch.zeros(2, 1)
    for kernel in KERNELS:
        h, last = sru_layer(
            torch.tensor([[4.0, 10.0], [-1.0, 20.0]]),
            weight,
            zero,
            zero,
            torch.tensor([0, 2]),
            initial=torch.tensor([[2.0]]),
            kernel=kernel,
        )
        assert h.flatten().tolist() == pytest.approx([6.5, 10.5], abs=1e-6)
        assert last.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("v", [1.0, 0.0])
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("size", [4, 3])
@pytest.mark.parametrize("directions", [1, 2])
def test_reference_gradients(directions: int, size: int, tanh: bool, v: float) -> None:
    """With k = 3 planes (an input as wide as the output) and with 4."""
    units = 4 // directions
    arguments = layer("reference", [2, 0, 1, 3], size, units=2, dtype=torch.float64)
    assert arguments["v"].shape[1] == directions * units
    arguments |= {"directions": directions, "tanh": tanh}
    arguments["v"] *= v

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        return sru_layer(**{**arguments, **dict(zip(TRAINED, values, strict=True))})

    inputs = [arguments[name].requires_grad_() for name in TRAINED]
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("planes", [3, 4])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("units", [1, 7, 63, 128])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "reference"])
def test_against_float64(
    kernel: str, lengths: list[int], units: int, directions: int, planes: int, tanh: bool
) -> None:
    tensors = case(lengths, units, directions, planes, torch.float32)
    for error, allowed in largest_errors(tensors, directions, tanh, kernel):
        assert error <= allowed
    got = results(tensors, directions, tanh, kernel)
    again = results(tensors, directions, tanh, kernel)
    assert all(map(torch.equal, got, again))


@pytest.mark.parametrize("planes", [3, 4])
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "reference"])
def test_long_and_wide_inputs_against_float64(kernel: str, planes: int) -> None:
    tensors = case([512, 0, 63, 1], 500, 2, planes, torch.float32)
    for error, allowed in largest_errors(tensors, 2, True, kernel):
        assert error <= allowed


@pytest.mark.parametrize("size", [14, 5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_strided_inputs(kernel: str, size: int) -> None:
    """Results for strided tensors equal those for contiguous copies."""
    arguments = layer(kernel, [4, 0, 9], size, 7)
    wanted = outputs_and_gradients(arguments)
    strided = {
        name: value.t().contiguous().t()
        if isinstance(value, Tensor) and value.dim() == 2
        else value
        for name, value in arguments.items()
    }
    assert not strided["x"].is_contiguous()
    for one, other in zip(wanted, outputs_and_gradients(strided), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_text_alone_equals_itself_in_a_batch(kernel: str) -> None:
    """To the bit, given the same u."""
    tensors = case([5, 0, 9], 7, 2, 4, torch.float32)
    names = "u", "initial", "mask", "grad_h", "grad_last"
    rows = {name: slice(5, None) if name in ("u", "grad_h") else slice(2, None) for name in names}
    alone = {**tensors, **{name: tensors[name][at] for name, at in rows.items()}}
    alone["offsets"] = torch.tensor([0, 9])
    h, last, grad_u, _, _, _, grad_initial = results(tensors, 2, True, kernel)
    own_h, own_last, own_u, _, _, _, own_initial = results(alone, 2, True, kernel)
    assert torch.equal(h[5:], own_h)
    assert torch.equal(last[2:], own_last)
    assert torch.equal(grad_u[5:], own_u)
    assert torch.equal(grad_initial[2:], own_initial)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    tensors = case([5, 0, 9, 30, 1, 2], 33, 2, 3, torch.float32)
    one, many = list[Tensor](), list[Tensor]()
    for threads, found in ((1, one), (5, many)):
        with use_threads(threads):
            found.extend(results(tensors, 2, False, "cpu"))
    assert all(map(torch.equal, one, many))


@pytest.mark.parametrize("kernel", KERNELS)
def test_nan_stays_nan_and_affects_only_its_text(kernel: str) -> None:
    tensors = case([3, 4], 5, 1, 4, torch.float32)
    tensors["u"][1, 0, 2] = math.nan
    h, last, *_ = results(tensors, 1, False, kernel)
    assert h[1:3, 2].isnan().all()
    assert last[0, 2].isnan()
    assert not h[3:].isnan().any()
    largest, _ = ragged_pool(h, tensors["offsets"], kernel)
    assert largest[0, 2].isnan()


@pytest.mark.parametrize("kernel", KERNELS)
def test_extreme_gates(kernel: str) -> None:
    """Gates are 0 or 1 for inputs whose exponential overflows in float32, infinity included."""
    tensors = case([6], 1, 1, 4, torch.float32)
    tensors["u"][:, 1, 0] = torch.tensor([1e4, -1e4, 100.0, -100.0, math.inf, -math.inf])
    tensors["u"][:, 2, 0] = tensors["u"][:, 1, 0].flip(0)
    wanted = results(tensors, 1, False, "reference")
    for w, g in zip(wanted, results(tensors, 1, False, kernel), strict=True):
        torch.testing.assert_close(g, w, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("size", [14, 5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_shared_rows_equal_copied_rows(kernel: str, size: int, product: bool) -> None:
    """With `index` instead of copied rows, and with a known product instead of weights."""
    arguments = layer(kernel, [3, 1, 0, 4], size, 7)
    index = torch.tensor([2, 2, 0, 1, 3, 0, 2, 3])
    distinct = arguments["x"][:4]
    plain = outputs_and_gradients({**arguments, "x": distinct[index]})
    shared = {**arguments, "x": distinct, "index": index}
    if product:
        known = nn.functional.linear(distinct, arguments["weight"])
        h, last = sru_layer(**shared, product=known)
        torch.testing.assert_close((h, last), tuple(plain[:2]))
        return
    summed = torch.zeros_like(distinct).index_add(0, index, plain[2])
    wanted = [*plain[:2], summed, *plain[3:]]
    for one, other in zip(wanted, outputs_and_gradients(shared), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", KERNELS)
def test_backward_twice_with_a_retained_graph(kernel: str) -> None:
    arguments = layer(kernel, [3, 2], 5, 4)
    arguments["x"].requires_grad_()
    h, _ = sru_layer(**arguments)
    loss = h.square().sum()
    first = torch.autograd.grad(loss, arguments["x"], retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(loss, arguments["x"])[0])


class Names(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of the operators that are dispatched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_way_without_the_dispatcher_is_the_same_to_the_bit(kernel: str) -> None:
    """A dispatch mode, which must see the operators, makes the layer call them."""
    arguments = layer(kernel, [3, 0, 2], 5, 4)
    direct = outputs_and_gradients(arguments)
    with Names() as names:
        dispatched = outputs_and_gradients(arguments)
    assert {"srucli.sru.default", "srucli.sru_backward.default"} <= names.seen
    assert all(map(torch.equal, direct, dispatched))


def test_what_is_watched() -> None:
    x = torch.zeros(2)
    assert not is_watched(x, nn.Parameter(x))
    with Names():
        assert is_watched(x)
    assert is_watched(x, _Subclass(x))
    seen = []

    def look(row: Tensor) -> Tensor:
        seen.append(is_watched(x))
        return row + 1

    torch.func.vmap(look)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(look, x, check_trace=False)  # type: ignore[no-untyped-call]
    assert seen == [True, True]


class _Subclass(Tensor):
    pass


def test_no_gradient_of_an_input_that_needs_none() -> None:
    arguments = layer("cpu", [3, 2], 5, 4)
    arguments["weight"].requires_grad_()
    h, _ = sru_layer(**arguments)
    torch.autograd.backward(h.sum())
    assert arguments["weight"].grad.isfinite().all()
    assert arguments["x"].grad is None


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [8, 5])
@pytest.mark.parametrize("shared", [False, True])
def test_operator_contract(kernel: str, size: int, shared: bool) -> None:
    arguments = layer(kernel, [3, 0, 2], size, 4)
    x, weight, v, bias, initial = (arguments[name].requires_grad_() for name in TRAINED)
    index = torch.tensor([0, 0, 4, 2, 1]) if shared else None
    rest = arguments["mask"], arguments["offsets"], 2, False, 1.5, True, False, kernel
    given = (x, weight, None, index, v, bias, initial, *rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # opcheck's own tracing warns
        torch.library.opcheck(torch.ops.srucli.sru.default, given)
        permuted = x.detach().t().contiguous().t().requires_grad_()
        torch.library.opcheck(torch.ops.srucli.sru.default, (permuted, *given[1:]))


def test_compiled_stack_has_no_graph_break() -> None:
    stack = SRUStack(6, 4, 2)
    x, offsets = torch.randn(5, 6), torch.tensor([0, 3, 5])
    with torch._dynamo.config.patch(suppress_errors=False):
        compiled = torch.compile(stack, backend="aot_eager", fullgraph=True)
        h, last = compiled(x, offsets)
    wanted, end = stack(x, offsets)
    torch.testing.assert_close((h, last), (wanted, end))
    parameters = list(stack.parameters())
    grads = torch.autograd.grad(h.square().sum(), parameters)
    torch.testing.assert_close(grads, torch.autograd.grad(wanted.square().sum(), parameters))


def test_wrong_shapes_are_refused() -> None:
    arguments = layer("auto", [3], 4, 3)
    with pytest.raises(ValueError, match="weight is"):
        sru_layer(**{**arguments, "weight": arguments["weight"][:18]})
    with pytest.raises(ValueError, match="must be"):
        sru_layer(**{**arguments, "v": arguments["v"][:1]})
    with pytest.raises(ValueError, match="a product needs the index"):
        sru_layer(**arguments, product=torch.zeros(3, 24))
    with pytest.raises(ValueError, match="initial and mask"):
        sru_layer(**{**arguments, "mask": arguments["mask"][:0]})
