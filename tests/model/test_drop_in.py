"""`SRU` against `nn.LSTM` and a plain loop; converted weights against the `sru` package."""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import product
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    unpack_sequence,
)

from srucli import SRU
from srucli.model.convert import from_sru_weights
from srucli.model.sru import SRULayer
from tests.support import ROOT

pytestmark = [  # of the `sru` package
    pytest.mark.filterwarnings("ignore:Running SRU on CPU"),
    pytest.mark.filterwarnings("ignore:use_tanh = True is deprecated"),
]
LENGTHS = [3, 7, 1, 7, 2]
both_ways = pytest.mark.parametrize("bidirectional", [False, True])


def made(*sizes: int, seed: int = 0, **arguments: Any) -> SRU:
    """Return an SRU with random weights and biases."""
    torch.manual_seed(seed)
    module = SRU(*sizes, **arguments)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def texts_of(lengths: list[int], size: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, size, generator=generator, dtype=dtype) for n in lengths]


# --- Layouts ------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("shape", [(6, 4, 5), (1, 1, 5), (6, 5), (1, 5)], ids=str)
def test_shapes_equal_those_of_lstm(
    shape: tuple[int, ...], layers: int, batch_first: bool, bidirectional: bool
) -> None:
    arguments: dict[str, Any] = {"batch_first": batch_first, "bidirectional": bidirectional}
    lstm = nn.LSTM(5, 3, layers, **arguments)
    sru = SRU(5, 3, layers, **arguments)
    x = torch.randn(shape)
    wanted, (_, wanted_c) = lstm(x)
    output, c_n = sru(x)
    assert output.shape == wanted.shape
    assert c_n.shape == wanted_c.shape
    assert batch_first or output.is_contiguous()
    output, again = sru(x, torch.zeros_like(c_n))
    assert torch.equal(again, c_n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@both_ways
def test_no_texts_and_no_steps(bidirectional: bool, dtype: torch.dtype) -> None:
    """nn.LSTM refuses texts without a step; here their states do not change."""
    sru = SRU(5, 3, 2, bidirectional=bidirectional, dtype=dtype)
    c_0 = torch.randn(2 * (1 + bidirectional), 4, 3, dtype=dtype)
    output, c_n = sru(torch.zeros(0, 4, 5, dtype=dtype), c_0)
    assert output.shape == (0, 4, 3 * (1 + bidirectional))
    assert torch.equal(c_n, c_0)
    output, c_n = sru(torch.zeros(6, 0, 5, dtype=dtype))
    assert output.shape == (6, 0, 3 * (1 + bidirectional))
    assert c_n.shape == (2 * (1 + bidirectional), 0, 3)


@pytest.mark.parametrize("sort", [False, True])
@both_ways
def test_a_packed_batch_equals_each_text_alone(bidirectional: bool, sort: bool) -> None:
    sru = made(5, 3, 2, bidirectional=bidirectional, activation="tanh")
    texts = texts_of(sorted(LENGTHS, reverse=True) if sort else LENGTHS, 5)
    packed = pack_sequence(texts, enforce_sorted=sort)
    c_0 = torch.randn(2 * (1 + bidirectional), len(texts), 3)
    output, c_n = sru(packed, c_0)
    wanted, (_, wanted_c) = nn.LSTM(5, 3, 2, bidirectional=bidirectional)(packed)
    assert isinstance(output, PackedSequence)
    assert output.data.shape == wanted.data.shape
    assert c_n.shape == wanted_c.shape
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        mine, theirs = getattr(output, name), getattr(packed, name)
        assert mine is theirs or torch.equal(mine, theirs)
    for number, (text, h) in enumerate(zip(texts, unpack_sequence(output), strict=True)):
        alone, last = sru(text, c_0[:, number])
        torch.testing.assert_close(h, alone, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(c_n[:, number], last, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("batch_first", [False, True])
def test_packing_a_padded_rectangle(batch_first: bool) -> None:
    sru = made(4, 4, bidirectional=True, batch_first=batch_first)
    padded = nn.utils.rnn.pad_sequence(texts_of(LENGTHS, 4), batch_first, padding_value=math.nan)
    packed = pack_padded_sequence(padded, torch.tensor(LENGTHS), batch_first, enforce_sorted=False)
    output, lengths = pad_packed_sequence(sru(packed)[0], batch_first)
    assert lengths.tolist() == LENGTHS
    rows = output if batch_first else output.transpose(0, 1)
    for text, length, row in zip(texts_of(LENGTHS, 4), LENGTHS, rows, strict=True):
        alone = sru(text)[0]
        torch.testing.assert_close(row[:length], alone, atol=2e-6, rtol=1e-5)
        assert not row[length:].any()


def test_a_text_in_parts_with_states_equals_the_whole_text() -> None:
    sru = made(4, 3, 2)
    x = torch.randn(9, 2, 4)
    whole, last = sru(x)
    first, between = sru(x[:5])
    second, end = sru(x[5:], between)
    torch.testing.assert_close(torch.cat((first, second)), whole)
    torch.testing.assert_close(end, last)


# --- Values -------------------------------------------------------------------------------------


def plain(sru: SRU, x: Tensor, c_0: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 3 to 7 of the paper, step by step: x (L, B, input_size), c_0 as `SRU` takes it."""
    hidden, lasts = sru.hidden_size, []
    directions = 2 if sru.bidirectional else 1
    for number, layer in enumerate(sru.stack.layers):
        assert isinstance(layer, SRULayer)
        planes = layer.weight.view(-1, directions, hidden, x.shape[2])
        outputs = []
        for way in range(directions):
            units = slice(way * hidden, (way + 1) * hidden)
            (v_f, v_r), (b_f, b_r) = layer.v[:, units], layer.bias[:, units]
            c = c_0[number * directions + way]
            h = x.new_empty(x.shape[0], x.shape[1], hidden)
            for t in reversed(range(x.shape[0])) if way else range(x.shape[0]):
                u0, u1, u2 = (x[t] @ plane[way].T for plane in planes[:3])
                alpha = math.sqrt(1 + 2 * math.exp(sru.highway_bias)) if sru.rescale else 1
                skip = x[t] @ planes[3, way].T if len(planes) == 4 else alpha * x[t, :, units]
                f = 1 / (1 + torch.exp(-(u1 + v_f * c + b_f)))
                r = 1 / (1 + torch.exp(-(u2 + v_r * c + b_r)))
                c = f * c + (1 - f) * u0
                g = torch.tanh(c) if sru.activation == "tanh" else c
                h[t] = r * g + (1 - r) * skip
            outputs.append(h)
            lasts.append(c)
        x = torch.cat(outputs, dim=2)
    return x, torch.stack(lasts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("activation", "rescale"), [("tanh", True), ("identity", False)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("size", [5, 6])
@both_ways
def test_values_equal_a_plain_loop(
    bidirectional: bool, size: int, layers: int, activation: str, rescale: bool, dtype: torch.dtype
) -> None:
    """Size 6 is the width of the layer or, with one direction, half of it."""
    hidden = 3 if bidirectional else 6
    options: dict[str, Any] = {"activation": activation, "highway_bias": -1.5, "rescale": rescale}
    sru = made(size, hidden, layers, bidirectional=bidirectional, dtype=dtype, **options)
    x = torch.randn(7, 4, size, dtype=dtype)
    c_0 = torch.randn(layers * (1 + bidirectional), 4, hidden, dtype=dtype)
    with torch.no_grad():
        output, c_n = sru(x, c_0)
        wanted, wanted_c = plain(sru.double(), x.double(), c_0.double())
    assert output.dtype == c_n.dtype == dtype
    atol, rtol = (1e-12, 0.0) if dtype == torch.float64 else (1e-5, 1e-5)
    torch.testing.assert_close(output.double(), wanted, atol=atol, rtol=rtol)
    torch.testing.assert_close(c_n.double(), wanted_c, atol=atol, rtol=rtol)


@pytest.mark.parametrize("activation", ["identity", "tanh"])
@both_ways
def test_gradients_reach_input_states_and_parameters(bidirectional: bool, activation: str) -> None:
    how: dict[str, Any] = {"bidirectional": bidirectional, "activation": activation}
    sru = made(3, 2, 2, dtype=torch.float64, **how)
    packed = pack_sequence(texts_of([2, 3, 1], 3, torch.float64), enforce_sorted=False)
    c_0 = torch.randn(2 * (1 + bidirectional), 3, 2, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*sru.named_parameters(), strict=True)

    def run(data: Tensor, c_0: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        given = packed._replace(data=data)
        mine = dict(zip(names, values, strict=True))
        output, c_n = torch.func.functional_call(sru, mine, (given, c_0))
        return output.data, c_n

    inputs = (packed.data.clone().requires_grad_(), c_0, *parameters)
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    sru = made(6, 3, 2, bidirectional=True, dtype=dtype)
    x = torch.randn(5, 2, 6).to(dtype)
    output, c_n = sru(x, torch.randn(4, 2, 3).to(dtype))
    assert output.dtype == c_n.dtype == dtype
    sru.zero_grad()
    output.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in sru.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = sru.float()(x.float())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, sru(x.float())[0], atol=0.1, rtol=0.1)


# --- A module among others ----------------------------------------------------------------------


def test_state_dict_round_trip() -> None:
    arguments: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "activation": "tanh"}
    one, other = made(5, 4, **arguments), made(5, 4, seed=1, **arguments)
    x = torch.randn(6, 3, 5)
    assert not torch.equal(one(x)[0], other(x)[0])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x)[0], other(x)[0])


def test_dropout_is_between_layers_and_in_training_only() -> None:
    x = torch.randn(6, 3, 8)
    sru = made(8, 4, 2, bidirectional=True, dropout=0.5)
    assert not torch.equal(sru(x)[0], sru(x)[0])
    without = made(8, 4, 2, bidirectional=True)
    assert torch.equal(sru.eval()(x)[0], without(x)[0])
    assert torch.equal(sru.train()(x)[1][:2], without(x)[1][:2])
    alone = made(8, 4, 1, bidirectional=True, dropout=0.5)
    assert torch.equal(alone(x)[0], alone(x)[0])


def test_repr_shows_what_differs_from_the_defaults() -> None:
    assert SRU(3, 4).extra_repr() == "3, 4"
    sru = SRU(3, 4, 2, batch_first=True, dropout=0.1, bidirectional=True, activation="tanh")
    said = (
        "3, 4, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True, activation='tanh'"
    )
    assert sru.extra_repr() == said
    assert SRU(3, 4, highway_bias=-2.0, rescale=False).extra_repr() == (
        "3, 4, highway_bias=-2.0, rescale=False"
    )


@pytest.mark.parametrize(
    ("x", "c_0", "said"),
    [
        (torch.zeros(5), None, "1 dimensions"),
        (torch.zeros(2, 2, 2, 5), None, "4 dimensions"),
        (torch.zeros(6, 2, 4), None, "4 features, it must have 5"),
        (torch.zeros(6, 4), None, "4 features, it must have 5"),
        (pack_sequence([torch.zeros(2, 4)]), None, "4 features, it must have 5"),
        (torch.zeros(6, 2, 5).double(), None, "float64 and the weights are torch.float32"),
        (torch.zeros(6, 2, 5), torch.zeros(4, 3, 3), r"it must be \(4, 2, 3\): .*batch"),
        (torch.zeros(6, 2, 5), torch.zeros(2, 2, 6), r"it must be \(4, 2, 3\)"),
        (torch.zeros(6, 2, 5), torch.zeros(4, 3), r"it must be \(4, 2, 3\)"),
        (torch.zeros(6, 2, 5), (torch.zeros(4, 2, 3), torch.zeros(4, 2, 3)), "not a tuple"),
        (torch.zeros(6, 5), torch.zeros(4, 1, 3), r"it must be \(4, 3\): .*directions, hidden"),
        (pack_sequence([torch.zeros(2, 5)]), torch.zeros(4, 2, 3), r"must be \(4, 1, 3\)"),
    ],
)
def test_wrong_inputs_are_refused(x: Any, c_0: Tensor | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SRU(5, 3, 2, bidirectional=True)(x, c_0)


@pytest.mark.parametrize(
    ("sizes", "arguments", "said"),
    [
        ((0, 3), {}, "at least 1"),
        ((3, 3, 0), {}, "at least 1"),
        ((3, 3), {"dropout": 1.0}, "dropout is 1.0"),
        ((3, 3), {"activation": "relu"}, "activation is 'relu'"),
    ],
)
def test_wrong_arguments_are_refused(
    sizes: tuple[int, ...], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        SRU(*sizes, **arguments)


def test_the_package_imports_torch_late_and_dynamo_never() -> None:
    """torch._dynamo takes as long to import as torch."""
    code = """import sys, srucli
assert "torch" not in sys.modules
layer = srucli.SRU(2, 3)
import torch
layer(torch.zeros(4, 1, 2))
assert "torch._dynamo" not in sys.modules
srucli.nothing"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("AttributeError: module 'srucli' has no")


def test_the_code_in_the_guide_runs() -> None:
    guide = (ROOT / "srucli" / "guide.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["output"].shape == (20, 4, 256)
    assert names["c_n"].shape == (4, 3, 128)
    assert names["packed"].data.shape == (30, 256)


# --- Weights of the `sru` package ---------------------------------------------------------------

CONFIGURATIONS = [
    {"num_layers": layers, "bidirectional": bidirectional, "input_size": size, **options}
    for layers, bidirectional, size in product([1, 2, 3], [False, True], [8, 5])
    for options in (
        {},
        {"rescale": True, "highway_bias": -2.0},
        {"use_tanh": True, "rescale": True},
        {"projection_size": 3, "highway_bias": 1.0},
        {"v1": True},
    )
]


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    """Return the `sru` package with its loop in torch, without compiling anything."""
    if importlib.util.find_spec("sru") is None:
        pytest.skip("the `sru` package is not installed: pip install sru==2.6.0")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr("torch.utils.cpp_extension.load", lambda **_: None)
        patch.setattr("torch.jit.script", lambda function: function)
        return importlib.import_module("sru")


Make = Callable[..., nn.Module]


@pytest.fixture
def theirs(peer: ModuleType) -> Make:
    """Return an `sru.SRU` whose biases are random too."""

    def make(input_size: int = 5, hidden: int = 4, **arguments: Any) -> nn.Module:
        torch.manual_seed(3)
        peers = peer.SRU(input_size, hidden, **arguments)
        assert isinstance(peers, nn.Module)
        with torch.no_grad():
            for name, weight in peers.named_parameters():
                if name.endswith(".bias"):
                    weight.add_(torch.randn_like(weight))
        return peers

    return make


def unseen(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of sru that its weights do not show."""
    return {k: v for k, v in arguments.items() if k in ("bidirectional", "use_tanh", "dropout")}


@pytest.mark.parametrize("arguments", CONFIGURATIONS, ids=str)
def test_outputs_equal_the_sru_package(theirs: Make, arguments: dict[str, Any]) -> None:
    directions = 2 if arguments["bidirectional"] else 1
    hidden, layers = 8 // directions, arguments["num_layers"]
    module = theirs(hidden=hidden, nn_rnn_compatible_return=True, **arguments)
    sru = from_sru_weights(module.state_dict(), **unseen(arguments))
    assert (sru.input_size, sru.hidden_size) == (arguments["input_size"], hidden)
    assert sru.num_layers == layers
    if arguments.get("rescale"):
        assert sru.highway_bias == pytest.approx(arguments.get("highway_bias", 0.0), abs=1e-5)
    x = torch.randn(9, 3, arguments["input_size"], requires_grad=True)
    mine = x.detach().clone().requires_grad_()
    c_0 = torch.randn(layers * directions, 3, hidden)
    # What it takes is ordered (layer, text, direction), unlike what it was asked to return.
    joined = c_0.view(layers, directions, 3, hidden).transpose(1, 2).reshape(layers, 3, 8)
    for before in (None, c_0):
        wanted, wanted_c = module(x, None if before is None else joined)
        output, c_n = sru(mine, before)
        torch.testing.assert_close(output, wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(c_n, wanted_c, atol=1e-5, rtol=0)
    wanted.square().sum().backward()
    output.square().sum().backward()
    torch.testing.assert_close(mine.grad, x.grad, atol=1e-4, rtol=1e-4)


@both_ways
def test_packed_outputs_equal_the_sru_package(theirs: Make, bidirectional: bool) -> None:
    module = theirs(bidirectional=bidirectional, nn_rnn_compatible_return=True)
    sru = from_sru_weights(module.state_dict(), bidirectional=bidirectional)
    packed = pack_sequence(texts_of(LENGTHS, 5), enforce_sorted=False)
    (wanted, wanted_c), (output, c_n) = module(packed), sru(packed)
    for one, other in zip(unpack_sequence(output), unpack_sequence(wanted), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    torch.testing.assert_close(c_n, wanted_c, atol=1e-5, rtol=0)


def test_arguments_dtype_and_a_prefix_are_kept(theirs: Make) -> None:
    model = nn.ModuleDict({"rnn": theirs(dropout=0.2), "head": nn.Linear(4, 2)}).double()
    sru = from_sru_weights(model.state_dict(), prefix="rnn.", batch_first=True, dropout=0.2)
    assert (sru.batch_first, sru.dropout) == (True, 0.2)
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    wanted = model["rnn"].eval()(x.transpose(0, 1))[0].transpose(0, 1)
    torch.testing.assert_close(sru.eval()(x)[0], wanted, atol=1e-12, rtol=0)
    again = SRU(5, 4, 2, batch_first=True, rescale=False, dtype=torch.float64)
    again.load_state_dict(sru.state_dict())
    assert torch.equal(again(x)[0], sru(x)[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer_norm": True}, "layer_norm"),
        ({"layer_norm": True, "normalize_after": True}, "layer_norm"),
        ({"proj_input_to_hidden_first": True}, "proj_input_to_hidden_first"),
        ({"has_skip_term": False}, "has_skip_term"),
        ({"custom_m": nn.Linear(4, 12), "input_size": 4}, "custom_m"),
    ],
)
def test_unsupported_options_are_refused(
    theirs: Make, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        from_sru_weights(theirs(**arguments).state_dict())


def interleaved(size: int, width: int, planes: int) -> dict[str, Tensor]:
    """Return a layer in the layout of `sru`: a column is (direction, unit, plane)."""
    generator = torch.Generator().manual_seed(5)
    return {
        "rnn_lst.0.weight": torch.randn(size, width * planes, generator=generator),
        "rnn_lst.0.weight_c": torch.randn(2 * width, generator=generator),
        "rnn_lst.0.bias": torch.randn(2 * width, generator=generator),
        "rnn_lst.0.scale_x": torch.tensor([1.0]),
    }


@pytest.mark.parametrize(("size", "planes"), [(6, 3), (5, 4)])
@both_ways
def test_the_interleaved_layout_by_a_plain_loop(
    bidirectional: bool, size: int, planes: int
) -> None:
    """The definition of the conversion, unit by unit, without the package."""
    weights = interleaved(size, 6, planes)
    sru = from_sru_weights(weights, bidirectional=bidirectional, use_tanh=True)
    x = torch.randn(4, size)
    weight, peephole, bias, _ = (tensor.tolist() for tensor in weights.values())
    output, c_n = sru(x)
    for unit in range(6):
        backwards, c = bidirectional and unit >= 3, 0.0
        for t in reversed(range(4)) if backwards else range(4):
            columns = range(unit * planes, (unit + 1) * planes)
            u = [sum(x[t, i].item() * weight[i][j] for i in range(size)) for j in columns]
            f = 1 / (1 + math.exp(-(u[1] + peephole[unit] * c + bias[unit])))
            r = 1 / (1 + math.exp(-(u[2] + peephole[6 + unit] * c + bias[6 + unit])))
            c = f * c + (1 - f) * u[0]
            h = r * math.tanh(c) + (1 - r) * (u[3] if planes == 4 else x[t, unit].item())
            assert output[t, unit].item() == pytest.approx(h, abs=1e-5)
        assert c_n.flatten()[unit].item() == pytest.approx(c, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, {"rnn_dropout": 0.1}, "rnn_dropout"),
        ({}, {"has_skip_term": False}, "has_skip_term"),
        ({"rnn_lst.0.weight": torch.zeros(5, 18)}, {}, "has_skip_term"),
        ({"rnn_lst.0.weight": torch.zeros(6, 24)}, {}, r"weight is \(6, 24\), not \(6, 18\)"),
        ({"rnn_lst.0.bias": torch.zeros(6)}, {}, r"bias is \(6,\), not \(12,\)"),
        ({"rnn_lst.0.scale_x": torch.zeros(1)}, {}, "scale_x"),
        ({"rnn_lst.0.weight_c": torch.zeros(10)}, {"bidirectional": True}, "bidirectional: 5"),
        ({"rnn_lst.2.bias": torch.zeros(12)}, {}, "rnn_lst.1.weight is missing"),
        ({"head.weight": torch.zeros(1)}, {}, "head.weight is not a weight"),
        ({"rnn_lst.0.attention.weight": torch.zeros(1)}, {}, "attention.weight is not a weight"),
        ({}, {"prefix": "rnn."}, "rnn.rnn_lst.0.weight is missing"),
        ({3: torch.zeros(1)}, {}, "3 is not the name of a weight"),
        ({"rnn_lst.00.bias": torch.zeros(12)}, {}, "rnn_lst.00.bias is not a weight"),
        ({f"rnn_lst.{'9' * 5000}.bias": torch.zeros(12)}, {}, r"^rnn_lst.9{40,60}\.\.. is not a"),
        ({"rnn_lst.0.weight": [[1.0]]}, {}, "weight is not a tensor"),
        ({"rnn_lst.0.weight": torch.zeros(6, 18, device="meta")}, {}, "weight is not a tensor"),
        ({"rnn_lst.0.weight": torch.zeros(6, 18).to_sparse()}, {}, "weight is not a tensor"),
        ({"rnn_lst.0.weight": torch.zeros(6, 18, dtype=torch.int64)}, {}, "the dtype torch.int64"),
        ({"rnn_lst.0.bias": torch.zeros(12, dtype=torch.float64)}, {}, "bias has another dtype"),
        ({"rnn_lst.0.weight": torch.zeros(())}, {}, r"weight has the shape \(\); it must be of 2"),
        ({"rnn_lst.0.weight": torch.zeros(6, 3, 6)}, {}, r"weight has the shape \(6, 3, 6\); it"),
        ({"rnn_lst.0.weight_c": torch.zeros(0)}, {}, r"weight_c has the shape \(0,\); it must be"),
        (
            {"rnn_lst.0.weight_c": torch.zeros(2, 6)},
            {},
            r"weight_c has the shape \(2, 6\); ",
        ),
        ({"rnn_lst.0.scale_x": torch.ones(3)}, {}, r"scale_x has the shape \(3,\); .* one number"),
        ({"rnn_lst.0.bias": torch.full((12,), math.nan)}, {}, "bias has values that are NaN"),
        ({"rnn_lst.0.weight_proj": torch.ones(4, 5)}, {}, "weight_proj has 5 columns, but the w"),
    ],
)
def test_other_weights_are_refused(
    changes: dict[str, Tensor], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        from_sru_weights(interleaved(6, 6, 3) | changes, **arguments)


def test_shapes_of_weights_are_checked_before_memory_is_taken() -> None:
    weights = interleaved(6, 6, 3)
    second = {name.replace("lst.0", "lst.1"): tensor for name, tensor in weights.items()}
    wide = {"rnn_lst.0.weight_c": torch.zeros(2**21)}  # 2^20 units: 12 TiB in the second layer
    with pytest.raises(ValueError, match=r"rnn_lst.0.weight is \(6, 18\), not \(6, 4194304\)"):
        from_sru_weights(weights | second | wide)


def test_the_first_weight_is_checked_whatever_the_order() -> None:
    weights = interleaved(6, 6, 3) | {"rnn_lst.0.weight": None}
    with pytest.raises(ValueError, match="weight is not a tensor"):
        from_sru_weights(dict(reversed(weights.items())))  # type: ignore[arg-type]
