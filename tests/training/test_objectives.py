"""Losses are compared with float64 formulas and scikit-learn, and depend only on shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight
from torch._subclasses.fake_tensor import FakeTensorMode

from srucli.config import TrainConfig
from srucli.training.objectives import Objective, balanced, loss_function

TASKS = ("single", "multi")
WEIGHTS = ("none", "balanced")
SMOOTHING = (0.0, 0.1)
each_loss = pytest.mark.parametrize(
    ("task", "weights", "smoothing"),
    [(task, kind, s) for task in TASKS for kind in WEIGHTS for s in SMOOTHING],
)


def settings(weights: str = "none", smoothing: float = 0.1) -> TrainConfig:
    return TrainConfig.model_validate({"class_weights": weights, "label_smoothing": smoothing})


def all_targets(task: str) -> NDArray[Any]:
    """Return targets of 60 examples with 4 classes, of which the last has no example."""
    draw = np.random.default_rng(0)
    if task == "single":
        return draw.choice(3, 60, p=[0.8, 0.15, 0.05])
    return (draw.random((60, 4)) < [0.8, 0.3, 0.05, 0.0]).astype(np.float32)


def loss_of(task: str, config: TrainConfig) -> Objective:
    return loss_function(config, all_targets(task), 4, multi_label=task == "multi")


def logits_and_targets(task: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a batch of 9 examples: logits from -60 to 60 with a row of zeros, and targets."""
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(9, 4)) * np.geomspace(0.1, 60, 9)[:, None]
    logits[4] = 0
    return logits, all_targets(task)[-9:]


def expected(
    task: str, logits: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any], smoothing: float
) -> tuple[float, NDArray[Any]]:
    """Return the loss and its gradient in float64, from the formulas."""
    classes = logits.shape[1]
    if task == "single":
        wanted = (1 - smoothing) * np.eye(classes)[targets] + smoothing / classes
        losses = -(wanted * log_softmax(logits, axis=1)).sum(axis=1)
        of_example = weights[targets]
        gradient = of_example[:, None] * (softmax(logits, axis=1) - wanted)
        return (of_example * losses).sum() / of_example.sum(), gradient / of_example.sum()
    wanted = (1 - smoothing) * targets + smoothing / classes
    losses = np.logaddexp(0, logits) - logits * wanted
    of_label = np.where(targets == 1, weights[1], weights[0])
    total = of_label.sum() / classes
    return (of_label * losses).sum() / total, of_label * (expit(logits) - wanted) / total


# --- formulas ----------------------------------------------------------------------------------


@each_loss
def test_loss_and_gradient_equal_the_formulas(task: str, weights: str, smoothing: float) -> None:
    everything = all_targets(task)
    loss = loss_of(task, settings(weights, smoothing))
    given, targets = logits_and_targets(task)
    factors = balanced(everything, 4, task == "multi") if weights == "balanced" else np.ones((2, 4))
    if task == "single" and weights == "none":
        factors = np.ones(4)
    value, slope = expected(task, given, targets, factors, smoothing)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        logits = torch.tensor(given, dtype=dtype, requires_grad=True)
        found = loss(logits, torch.tensor(targets))
        found.backward()
        assert found.item() == pytest.approx(value, rel=tolerance)
        assert logits.grad is not None
        assert logits.grad.numpy() == pytest.approx(slope, rel=tolerance, abs=tolerance)


def test_losses_by_hand() -> None:
    """Computed on paper, to four digits."""
    row = torch.tensor([[2.0, -1.0, 0.0]])
    several = loss_function(settings(), np.zeros((1, 3)), 3, multi_label=True)
    assert float(several(row, torch.tensor([[1.0, 0.0, 0.0]]))) == pytest.approx(1.3000, abs=5e-5)
    single = loss_function(settings(), np.zeros(1, int), 3, multi_label=False)
    assert float(single(row, torch.tensor([0]))) == pytest.approx(0.3365, abs=5e-5)
    # Three texts of class 0 and one of class 1 weigh 2/3 and 2; the losses are ln 2 and, unsmoothed
    # at logits (0, ln 3), ln 4 for class 0 and ln 4/3 for class 1.
    plain = loss_function(settings("balanced", 0.0), np.array([0, 0, 0, 1]), 2, multi_label=False)
    logits = torch.tensor([[0.0, 0.0], [0.0, np.log(3)], [0.0, np.log(3)]], dtype=torch.float32)
    wanted = (2 / 3 * np.log(2) + 2 / 3 * np.log(4) + 2 * np.log(4 / 3)) / (2 / 3 + 2 / 3 + 2)
    assert float(plain(logits, torch.tensor([0, 0, 1]))) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_of_a_common_example_is_lowest_if_its_label_is_likely(task: str) -> None:
    """With torch's own weights and smoothing, it is lowest at p(rare) = 0.56."""
    everything: Any = np.array([0] * 24 + [1])
    targets: Any = torch.tensor([0])
    if task == "multi":
        everything, targets = np.eye(2, dtype=np.float32)[everything], torch.tensor([[1.0, 0.0]])
    loss = loss_function(settings("balanced", 0.1), everything, 2, multi_label=task == "multi")
    rare = np.linspace(0.01, 0.99, 99)
    at = [torch.tensor([[np.log(1 - p) - np.log(p), np.log(p) - np.log(1 - p)]]) for p in rare]
    if task == "single":
        at = [logits / 2 for logits in at]
    assert rare[np.argmin([float(loss(logits, targets)) for logits in at])] == pytest.approx(0.05)


@each_loss
def test_losses_and_weights_of_several_batches_add_up(
    task: str, weights: str, smoothing: float
) -> None:
    """The mean over several batches is the mean over all their examples."""
    loss = loss_of(task, settings(weights, smoothing))
    logits, targets = map(torch.tensor, logits_and_targets(task))
    cuts = ((0, 2), (2, 3), (3, 9))
    total = sum(loss.losses(logits[a:b], targets[a:b]) for a, b in cuts)
    weight = sum(loss.weight(targets[a:b]) for a, b in cuts)
    torch.testing.assert_close(total / weight, loss(logits, targets), rtol=1e-6, atol=0)


# --- soft labels and weights of examples -------------------------------------------------------


def soft_loss(task: str, config: TrainConfig, everything: NDArray[Any]) -> Objective:
    return loss_function(config, everything, 4, multi_label=task == "multi", soft=True)


def soft_targets(task: str) -> NDArray[np.float32]:
    """Return targets of 60 examples; every third is 0 or 1."""
    draw = np.random.default_rng(2)
    soft = draw.dirichlet([0.5] * 4, 60) if task == "single" else draw.random((60, 4)) ** 2
    hard = all_targets(task)
    soft[::3] = (np.eye(4)[hard] if task == "single" else hard)[::3]
    return soft.astype(np.float32)


@each_loss
def test_hard_distributions_have_the_loss_of_the_labels(
    task: str, weights: str, smoothing: float
) -> None:
    config = settings(weights, smoothing)
    given, hard = logits_and_targets(task)
    as_rows = (lambda y: np.eye(4, dtype=np.float32)[y]) if task == "single" else (lambda y: y)
    soft = soft_loss(task, config, as_rows(all_targets(task)))
    logits = torch.tensor(given, requires_grad=True)
    other = logits.detach().clone().requires_grad_()
    one = loss_of(task, config)(logits, torch.tensor(hard))
    two = soft(other, torch.tensor(as_rows(hard)))
    one.backward()
    two.backward()
    torch.testing.assert_close(one, two, rtol=1e-6, atol=0)
    torch.testing.assert_close(logits.grad, other.grad, rtol=1e-6, atol=1e-9)


@each_loss
def test_soft_labels_are_labels_with_these_weights(
    task: str, weights: str, smoothing: float
) -> None:
    """In float64: an example counts once with each label, by its target. No smoothing of these."""
    config, everything = settings(weights, smoothing), soft_targets(task)
    loss = soft_loss(task, config, everything)
    given = logits_and_targets(task)[0][:6]
    targets = everything[[1, 2, 4, 5, 7, 8]].astype(float)
    factors = balanced(everything, 4, task == "multi") if weights == "balanced" else None
    if task == "single":
        factors = np.ones(4) if factors is None else factors
        losses = -(factors * targets * log_softmax(given, axis=1)).sum()
        total = (factors * targets).sum()
    else:
        false, true = np.ones((2, 4)) if factors is None else factors
        losses = (true * targets * np.logaddexp(0, -given)).sum()
        losses += (false * (1 - targets) * np.logaddexp(0, given)).sum()
        total = (true * targets + false * (1 - targets)).sum() / 4
    found = loss(torch.tensor(given), torch.tensor(targets))
    assert found.item() == pytest.approx(losses / total, rel=1e-6)


def test_soft_labels_have_the_loss_of_torch() -> None:
    given, targets = logits_and_targets("single")[0], soft_targets("single")[:9]
    for kind in ("none", "balanced"):
        loss = soft_loss("single", settings(kind, 0.0), soft_targets("single"))
        logits, wanted = torch.tensor(given), torch.tensor(targets, dtype=torch.float64)
        theirs = torch.nn.functional.cross_entropy(
            logits, wanted, weight=loss.weights.double(), reduction="sum"
        )
        torch.testing.assert_close(loss.losses(logits, wanted), theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("soft", [False, True])
@each_loss
def test_a_weight_of_2_is_an_example_twice_and_of_0_none(
    task: str, weights: str, smoothing: float, soft: bool
) -> None:
    config = settings(weights, smoothing)
    loss = soft_loss(task, config, soft_targets(task)) if soft else loss_of(task, config)
    targets = torch.tensor(soft_targets(task)[:9] if soft else logits_and_targets(task)[1])
    own = torch.tensor([2.0, 1, 0, 1, 1, 0, 2, 1, 1])
    rows = torch.repeat_interleave(torch.arange(9), own.long())
    logits = torch.tensor(logits_and_targets(task)[0], requires_grad=True)
    other = logits.detach().clone().requires_grad_()
    one, two = loss(logits, targets, own), loss(other[rows], targets[rows])
    one.backward()
    two.backward()
    torch.testing.assert_close(one, two, rtol=1e-6, atol=0)
    torch.testing.assert_close(logits.grad, other.grad, rtol=1e-6, atol=1e-9)
    nothing = loss(logits, targets, torch.zeros(9))
    assert nothing.item() == 0  # and not NaN


def test_balanced_weights_count_expected_labels() -> None:
    """Three examples of one half each count as one and a half."""
    targets = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]], np.float32)
    assert balanced(targets, 2, False) == pytest.approx([4 / 3, 4 / 5])
    hard = all_targets("single")
    rows = np.eye(4, dtype=np.float32)[hard]
    assert balanced(rows, 4, False) == pytest.approx(balanced(hard, 4, False))


# --- weights -----------------------------------------------------------------------------------


def test_balanced_weights_equal_scikit_learn_and_multi_label_ones_their_roots() -> None:
    targets = all_targets("single")
    assert balanced(targets, 3, False) == pytest.approx(
        compute_class_weight("balanced", classes=np.arange(3), y=targets)
    )
    assert balanced(np.array([0, 0, 0, 1]), 3, False).tolist() == pytest.approx(
        [4 / 9, 4 / 3, 4 / 3]
    )
    several = all_targets("multi")
    for label in range(3):
        wanted = compute_class_weight("balanced", classes=np.arange(2), y=several[:, label])
        assert balanced(several, 4, True)[:, label] == pytest.approx(np.sqrt(wanted))


@pytest.mark.parametrize("rare", [1, 2, 100])
def test_multi_label_weights_of_rare_labels(rare: int) -> None:
    """Down to one example of 10,000. A label that is never or always true has weight 1."""
    targets = np.zeros((10_000, 3), np.float32)
    targets[:rare, 0] = targets[:, 1] = 1
    false, true = balanced(targets, 3, True)
    halves = true[0] ** 2 * rare, false[0] ** 2 * (10_000 - rare)
    assert halves == pytest.approx((5_000, 5_000))
    assert (true[1], false[2]) == (1, 1)
    assert np.isfinite([false, true]).all()


@pytest.mark.parametrize("task", TASKS)
def test_without_class_weights_all_examples_have_weight_1(task: str) -> None:
    loss = loss_of(task, settings())
    _, targets = logits_and_targets(task)
    assert float(loss.weight(torch.tensor(targets))) == pytest.approx(len(targets))


@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_a_balanced_fit_equals_scikit_learn(smoothing: float) -> None:
    """With one feature and no penalty; smoothing becomes additional examples."""
    draw = np.random.default_rng(0)
    labels = (draw.random(300) < 0.1).astype(int)
    x = draw.normal(size=300) + labels
    loss = loss_function(settings("balanced", smoothing), labels, 2, multi_label=False)
    weight = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor(np.stack([x, np.ones(300)], axis=1))
    lbfgs = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-9)
    optimizer: torch.optim.Optimizer = lbfgs  # its own `step` has no types

    def closure() -> Any:
        optimizer.zero_grad()
        value = loss(rows @ weight, torch.tensor(labels))
        value.backward()
        return value

    optimizer.step(closure)
    of_example = balanced(labels, 2, False)[labels]
    own, other = of_example * (1 - smoothing / 2), of_example * smoothing / 2
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.concatenate([x, x])[:, None],
        np.concatenate([labels, 1 - labels]),
        sample_weight=np.concatenate([own, other]),
    )
    line = (weight[:, 1] - weight[:, 0]).detach().numpy()
    assert line == pytest.approx([peer.coef_[0, 0], peer.intercept_[0]], abs=1e-3)


# --- shapes ------------------------------------------------------------------------------------


def _one_pass(loss: Objective, hard: bool, device: str) -> None:
    logits = torch.zeros(5, 4, device=device, requires_grad=True)
    kind = torch.int64 if hard else torch.float32
    shape = (5,) if hard else (5, 4)
    targets = torch.zeros(shape, dtype=kind, device=device)
    value = loss(logits, targets, torch.ones(5, device=device))
    value.backward()
    assert value.shape == ()
    assert logits.grad is not None
    assert logits.grad.shape == (5, 4)


@each_loss
def test_a_loss_depends_only_on_shapes(task: str, weights: str, smoothing: float) -> None:
    """So a CUDA graph can hold it: no value is read, and no shape depends on values."""
    config = settings(weights, smoothing)
    soft = soft_loss(task, config, soft_targets(task))
    for loss, hard in ((loss_of(task, config), task == "single"), (soft, False)):
        with FakeTensorMode(allow_non_fake_inputs=True):
            _one_pass(loss, hard, "cpu")
        _one_pass(loss.to("meta"), hard, "meta")
