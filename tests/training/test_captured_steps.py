"""No step that says that a CUDA graph can hold it waits for the GPU, whatever the settings.

Steps run on meta tensors, from which no value can be read, just as none should be read from a GPU's
tensors. torch supports neither optimizers as on a GPU nor autocast there, so both are patched in.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.optim
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from srucli import optim
from srucli.config import Config, resolve
from srucli.data.batch import Batch
from srucli.kernels import backends
from srucli.model.classifier import Classifier
from srucli.model.encoders import ENCODERS
from srucli.optim import OPTIMIZERS
from srucli.training.objectives import CrossEntropy, loss_function
from srucli.training.step import Step, can_be_captured
from tests.training import test_step
from tests.training.test_step import CLASSES, VOCABULARY, settings

TEXTS, TOKENS = 8, 100
POOLINGS = ("[max,mean,last]", "[last]", "[max]", "[mean]", "[attention]")
LOSSES = (
    *("train.class_weights=none", "train.class_weights=balanced"),
    *("data.multi_label=true", "data.multi_label=true train.class_weights=balanced"),
)
PRECISIONS = ("float32", "bf16")
# These add in any order on a GPU. `scatter_add` does too, and the gradient of `gather` in the loss
# contains it, but it adds one number to each place there.
UNORDERED = {
    *("index_add", "index_add_", "scatter_reduce", "scatter_reduce_", "put_", "histc", "bincount"),
    *("index_put that accumulates", "index_put_ that accumulates", "_index_put_impl_"),
}


class Autocast(TorchFunctionMode):
    """torch.autocast on meta tensors, for the operators that it computes in bfloat16."""

    within: ClassVar[bool] = False

    def __init__(self, device: str, dtype: torch.dtype, enabled: bool) -> None:
        super().__init__()
        self.dtype, self.enabled = dtype, enabled

    def __enter__(self) -> Any:
        Autocast.within = self.enabled
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        Autocast.within = False
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.enabled and func in (nn.functional.linear, torch.conv1d):
            args = [each.to(self.dtype) if isinstance(each, Tensor) else each for each in args]
        return func(*args, **(kwargs or {}))


# Operators that launch nothing, beside views.
WITHOUT_KERNEL = {
    *("empty", "empty_like", "new_empty", "promote_types"),
    *("_record_function_enter_new", "_record_function_exit"),
}


class Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of the operators that run, and counts those that may launch kernels."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()
        self.launches = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.launches += not func.is_view and name not in WITHOUT_KERNEL
        accumulates = name.startswith("index_put") and len(args) > 3 and args[3]
        self.names.add(f"{name} that accumulates" if accumulates else name)
        if name.startswith("_fused_"):  # one kernel of an optimizer, which not all have for meta
            return None
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _meta_is_like_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let meta tensors take the same way through torch's optimizers as a GPU's."""
    supported: dict[str, Callable[..., list[str]]] = {
        "_get_capturable_supported_devices": lambda **_: ["meta"],
        "_get_foreach_kernels_supported_devices": lambda: ["meta"],
        "_get_fused_kernels_supported_devices": lambda: ["meta"],
    }
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith(("torch.optim.", "torch.utils._foreach_utils"))
    ]
    for module, (name, function) in itertools.product(modules, supported.items()):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, function)
    for name, row in OPTIMIZERS.items():
        if "cuda" in row.fused:
            monkeypatch.setitem(OPTIMIZERS, name, replace(row, fused=row.fused | {"meta"}))
    monkeypatch.setattr(torch, "autocast", Autocast)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: Autocast.within)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    choose = backends.choose
    monkeypatch.setattr(
        backends,
        "choose",
        lambda kernel, device, *rest: (
            "triton" if (kernel, device) == ("auto", "cuda") else choose(kernel, device, *rest)
        ),
    )


def make_step(config: Config) -> Step:
    step = test_step.make_step(config, "meta")
    if optim.can_be_captured(config.optim):
        step.optimizer = optim.build(config.optim, step.model, captured=True)
    return step


def take(step: Step, weighted: bool = False) -> Seen:
    """Take a step; return what was seen of the operators. Raises where it waits."""
    if not isinstance(step.objective, CrossEntropy):
        targets = torch.zeros(TEXTS, CLASSES, device="meta")
    else:
        targets = torch.zeros(TEXTS, dtype=torch.int64, device="meta")
    offsets = torch.zeros(TEXTS + 1, dtype=torch.int64, device="meta")
    tokens = torch.zeros(TOKENS, dtype=torch.int64, device="meta")
    seen = Seen()
    with seen:
        weights = torch.zeros(TEXTS, device="meta") if weighted else None
        step([Batch(tokens, offsets, targets, weights=weights)], lr_factor=0.5)
    return seen


def says_yes(config: Config) -> bool:
    model = Classifier(config.model, VOCABULARY, CLASSES)
    return can_be_captured(config.train, config.optim, model)


DROPS = ("model.dropout=0.5", "model.word_dropout=0.1")


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_which_steps_wait(encoder: str, pooling: str) -> None:
    """With every loss, and in both precisions that can be captured."""
    for loss, precision in itertools.product(LOSSES, PRECISIONS):
        config = settings(
            *DROPS,
            *(f"model.encoder={encoder}", f"model.pooling={pooling}"),
            *(f"train.precision={precision}", *loss.split()),
        )
        if says_yes(config):
            take(make_step(config))
        else:
            assert ENCODERS[encoder].waits
            with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
                take(make_step(config))


@pytest.mark.parametrize("setting", ["head=mlp", "dropout=0"])
def test_other_layers_do_not_wait(setting: str) -> None:
    config = settings(*DROPS, f"model.{setting}")
    assert says_yes(config)
    take(make_step(config))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_and_soft_labels_do_not_wait(loss: str, soft: bool) -> None:
    config = settings(*DROPS, *loss.split())
    step, several = make_step(config), config.data.multi_label
    if soft:
        given = np.full((9, CLASSES), 1 / CLASSES, np.float32)
        made = loss_function(config.train, given, CLASSES, multi_label=several, soft=True)
        step.objective = made.to("meta")
    assert not take(step, weighted=True).names & UNORDERED


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_captured_optimizer_waits_or_counts_in_python(name: str) -> None:
    """A replay does not run Python, so nothing that a step changes may be a number of Python."""
    config = settings(f"optim.name={name}", "optim.clip=0.5")
    if not says_yes(config):
        return
    step = make_step(config)
    before = [dict(group) for group in step.optimizer.param_groups]
    names = take(step).names
    assert any(each.startswith(("_fused_", "_foreach_")) for each in names)
    for group, old in zip(step.optimizer.param_groups, before, strict=True):
        assert {key for key in group if group[key] is not old[key]} == set()
    for state in step.optimizer.state.values():
        assert all(isinstance(value, Tensor) for value in state.values())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("encoder", ["sru", "bag"])
def test_steps_add_in_a_fixed_order(encoder: str, pooling: str) -> None:
    """So reruns on a GPU are equal to the bit."""
    config = settings(*DROPS, f"model.encoder={encoder}", f"model.pooling={pooling}")
    names = take(make_step(config)).names
    assert not names & UNORDERED
    without_gradient = (encoder, pooling) == ("bag", "[last]")  # its output is all zeros
    assert ("sum_rows" in names) != without_gradient


@pytest.mark.parametrize(("precision", "most"), [("float32", 75), ("bf16", 91)])
def test_a_default_step_has_few_operators(precision: str, most: int) -> None:
    """Each is a node of its CUDA graph, or more; one sets the learning rate before the graph."""
    config = resolve(overrides=[f"train.precision={precision}"])
    step = make_step(config)
    take(step)  # makes the optimizer's state
    assert take(step).launches <= most
