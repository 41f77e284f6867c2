"""Convert weights of the `sru` package, version 2.6.0, to a `srucli.SRU`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from srucli.io.console import beginning, excerpt
from srucli.model.drop_in import SRU
from srucli.model.sru import SRULayer

_NEEDED = ("weight", "weight_c", "bias", "scale_x")
# A layer's number has at most three digits.
_KEY = re.compile(rf"rnn_lst\.(0|[1-9]\d{{0,2}})\.({'|'.join(_NEEDED)}|weight_proj)")
_DIMENSIONS = {"weight": 2, "weight_proj": 2, "weight_c": 1, "bias": 1}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Parts of names of weights that belong to unsupported options.
_REFUSED = {
    "layer_norm": "layer_norm=True: the layers here have no layer normalization",
    "custom_m": "custom_m: a module in place of the weight is not supported",
    "input_to_hidden": "proj_input_to_hidden_first=True: take this weight out, convert the rest, "
    "and put it into an nn.Linear before the SRU",
}


def from_sru_weights(
    weights: Mapping[str, Tensor],
    *,
    bidirectional: bool = False,
    use_tanh: bool = False,
    dropout: float = 0.0,
    rnn_dropout: float = 0.0,
    has_skip_term: bool = True,
    batch_first: bool = False,
    prefix: str = "",
) -> SRU:
    """Return a module with the same outputs and last states as `sru.SRU` with these weights.

    weights: its state dict, or that of a model in which its names start with `prefix`.
    bidirectional, use_tanh, dropout, rnn_dropout, has_skip_term: the arguments and defaults of
    `sru.SRU`, since weights do not show them: one direction of 2 H units has the same shapes as
    two directions of H. The weights show the sizes, `rescale`, `highway_bias`, `projection_size`
    and `v1`. A projection becomes one matrix of full rank, and the zeros of `v1` become
    parameters: outputs are the same, but further training differs. In training, `sru` applies
    dropout to (g(c) - x'), this module only to g(c).

    Raises ValueError for options that would change outputs (layer_norm, custom_m,
    proj_input_to_hidden_first, has_skip_term=False), for `rnn_dropout`, and for weights that are
    incomplete, not finite, or of other shapes or dtypes.
    """
    if not has_skip_term:
        raise ValueError("has_skip_term=False: the layers here always have a highway")
    if rnn_dropout:
        raise ValueError("rnn_dropout is not supported; leave it out to use the weights without it")
    cells = _cells(weights, prefix)
    scale = _scale(cells)
    weight, width = cells[0]["weight"], cells[0]["weight_c"].numel() // 2
    directions = 2 if bidirectional else 1
    if width % directions:
        raise ValueError(f"bidirectional: {width} units cannot be divided among two directions")

    def build(device: torch.device) -> SRU:
        return SRU(
            cells[0].get("weight_proj", weight).shape[0],
            width // directions,
            len(cells),
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            activation="tanh" if use_tanh else "identity",
            highway_bias=math.log((scale**2 - 1) / 2) if scale > 1 else 0.0,
            rescale=scale > 1,
            device=device,
            dtype=weight.dtype,
        )

    # Without memory at first: one wrong shape could make a layer of any size.
    with torch.device("meta") as meta:
        skeleton = build(meta)
    for number, (layer, cell) in enumerate(_pairs(skeleton, cells)):
        _check_shapes(layer, cell, f"{prefix}rnn_lst.{number}")
    module = build(weight.device)
    for layer, cell in _pairs(module, cells):
        _copy(layer, cell)
    return module


def _pairs(
    module: SRU, cells: Sequence[Mapping[str, Tensor]]
) -> Iterator[tuple[SRULayer, Mapping[str, Tensor]]]:
    """Yield each layer with the tensors for it."""
    for layer, cell in zip(module.stack.layers, cells, strict=True):
        assert isinstance(layer, SRULayer)
        yield layer, cell


def _cells(weights: Mapping[str, Tensor], prefix: str) -> list[dict[str, Tensor]]:
    """Return the tensors of each layer by their names in it, the lowest layer first."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        if not isinstance(name, str):
            raise ValueError(f"{excerpt(name)} is not the name of a weight")
        if not name.startswith(prefix):
            continue
        for part in name.removeprefix(prefix).split("."):
            if part in _REFUSED:
                raise ValueError(f"{name} belongs to {_REFUSED[part]}")
        key = _KEY.fullmatch(name.removeprefix(prefix))
        if key is None:
            raise ValueError(f"{beginning(name)} is not a weight of sru 2.6.0; is `prefix` right?")
        found.setdefault(int(key[1]), {})[key[2]] = tensor
    for number in range(max(found, default=0) + 1):
        for name in _NEEDED:
            if name not in found.get(number, {}):
                raise ValueError(f"{prefix}rnn_lst.{number}.{name} is missing")
    cells = [found[number] for number in sorted(found)]
    like = cells[0]["weight"]
    _check(like, f"{prefix}rnn_lst.0.weight", like, _DIMENSIONS["weight"])
    for number, cell in enumerate(cells):
        for part, tensor in cell.items():
            _check(tensor, f"{prefix}rnn_lst.{number}.{part}", like, _DIMENSIONS.get(part))
    return cells


def _check(tensor: Tensor, name: str, like: Tensor, dimensions: int | None) -> None:
    """Raise ValueError for a tensor that cannot be converted. dimensions: None for one number."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta:
        raise ValueError(f"{name} is not a tensor with values")
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"{name} has the dtype {tensor.dtype}, not one of floating point")
    if (tensor.dtype, tensor.device) != (like.dtype, like.device):
        raise ValueError(f"{name} has another dtype or device than the first weight")
    fits = tensor.numel() == 1 if dimensions is None else tensor.dim() == dimensions
    if not fits or not tensor.numel():
        wanted = "one number" if dimensions is None else f"of {dimensions} dimensions, not empty"
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}; it must be {wanted}")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} has values that are NaN or Inf")


def _scale(cells: Sequence[Mapping[str, Tensor]]) -> float:
    """Return the highway's scale: 1 without `rescale`, else sqrt(1 + 2 exp(highway_bias))."""
    scales = {cell["scale_x"].item() for cell in cells}
    scale = min(scales)
    if len(scales) > 1 or not 1 <= scale < math.inf:
        raise ValueError(f"scale_x is {sorted(scales)}; it must be one number, at least 1")
    return scale


def _check_shapes(layer: SRULayer, cell: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError for tensors that do not fit a layer, which may be on the meta device."""
    weight, planes, width = cell["weight"], layer.planes, layer.output_size
    inner, size = weight.shape[0], layer.weight.shape[1]
    rows, columns = cell["weight_proj"].shape if "weight_proj" in cell else (inner, inner)
    if columns != inner:
        raise ValueError(f"{name}.weight_proj has {columns} columns, but the weight {inner} rows")
    shape, wanted = (rows, weight.shape[1]), (size, planes * width)
    if planes == 4 and shape == (size, 3 * width):
        raise ValueError(f"{name}.weight has no highway: has_skip_term=False is not supported")
    if shape != wanted:
        raise ValueError(f"{name}.weight is {shape}, not {wanted}")
    for part in ("weight_c", "bias"):
        if cell[part].shape != (2 * width,):
            raise ValueError(f"{name}.{part} is {tuple(cell[part].shape)}, not {(2 * width,)}")


@torch.no_grad()
def _copy(layer: SRULayer, cell: Mapping[str, Tensor]) -> None:
    """Copy weights; `sru` interleaves its k planes: a column is (direction, unit, plane)."""
    weight, planes, width = cell["weight"], layer.planes, layer.output_size
    if "weight_proj" in cell:
        weight = (cell["weight_proj"].double() @ weight.double()).to(weight.dtype)
    size = layer.weight.shape[1]
    planar = weight.reshape(size, width, planes).permute(2, 1, 0)
    layer.weight.copy_(planar.reshape(planes * width, size))
    layer.v.copy_(cell["weight_c"].reshape(2, width))
    layer.bias.copy_(cell["bias"].reshape(2, width))
