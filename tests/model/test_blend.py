"""The weights of branches, fitted to validation data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from srucli.model.blend import fit_weights, loss


def made(texts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return targets (B,), and logits (2, B, 3) of a good branch and of noise."""
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, 3, texts)
    logits = draw.normal(size=(2, texts, 3))
    logits[0, np.arange(texts), targets] += 2
    return logits, targets


def log_loss(weights: list[float], logits: np.ndarray, targets: np.ndarray) -> float:
    total = np.tensordot(weights, logits, axes=1)
    total = total - np.log(np.exp(total).sum(axis=1, keepdims=True))
    return float(-total[np.arange(len(targets)), targets].mean())


def test_noise_gets_a_small_weight_and_a_good_branch_a_large_one() -> None:
    logits, targets = made(2_000)
    good, noise = fit_weights(logits, targets, multi_label=False)
    assert noise < 0.1 < 1 < good


def test_other_weights_have_more_loss() -> None:
    logits, targets = made(20_000)
    best = fit_weights(logits, targets, multi_label=False)
    least = log_loss(best, logits, targets)
    for step in (-0.05, 0.05):
        for place in range(2):
            other = list(best)
            other[place] += step
            assert min(other) < 0 or log_loss(other, logits, targets) > least


@pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])
@pytest.mark.parametrize("texts", [1, 50])
def test_the_gradient_equals_finite_differences(texts: int, multi_label: bool) -> None:
    """Few examples and weights away from the mean, so that the prior matters."""
    logits, targets = made(texts)
    if multi_label:
        targets = np.eye(3, dtype=bool)[targets]
    weights = np.array([1.3, 0.2])
    by_differences = approx_fprime(weights, lambda at: loss(at, logits, targets, multi_label)[0])
    _, gradient = loss(weights, logits, targets, multi_label)
    assert gradient == pytest.approx(by_differences, rel=1e-5)


@pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])
def test_the_loss_is_the_sum_of_log_losses_and_prior(multi_label: bool) -> None:
    """By hand: the prior is the squared distance from the mean in units of 1/n."""
    logits, targets = made(4)
    weights = np.array([1.3, 0.2])
    total = np.tensordot(weights, logits, axes=1)
    if multi_label:
        targets = np.eye(3, dtype=bool)[targets]
        p = 1 / (1 + np.exp(-total))
        own = -np.log(np.where(targets, p, 1 - p)).sum()
    else:
        own = 4 * log_loss([1.3, 0.2], logits, targets)
    prior = (2 * (1.3 - 0.5)) ** 2 + (2 * (0.2 - 0.5)) ** 2
    assert loss(weights, logits, targets, multi_label)[0] == pytest.approx(own + prior)


def test_the_gradient_is_zero_at_the_fitted_weights() -> None:
    logits, targets = made(5)
    weights = np.array(fit_weights(logits, targets, multi_label=False))
    assert min(weights) > 0
    assert loss(weights, logits, targets, False)[1] == pytest.approx([0, 0], abs=1e-3)


def test_few_examples_change_little() -> None:
    logits, targets = made(1)
    assert fit_weights(logits, targets, multi_label=False) == pytest.approx([0.5, 0.5], abs=0.25)


def test_overconfident_logits_are_scaled_down() -> None:
    logits, targets = made(5_000)
    one, two = fit_weights(logits, targets, multi_label=False)
    sure = fit_weights(10 * logits, targets, multi_label=False)
    assert sure == pytest.approx([one / 10, two / 10], abs=0.03)


def test_unknown_labels_are_left_out() -> None:
    logits, targets = made(500)
    more = np.concatenate((logits, logits), axis=1)
    unknown = np.concatenate((targets, np.full(500, 3)))
    assert fit_weights(more, unknown, multi_label=False) == pytest.approx(
        fit_weights(logits, targets, multi_label=False)
    )
    assert fit_weights(logits, np.full(500, 3), multi_label=False) == [0.5, 0.5]


def test_multi_label() -> None:
    draw = np.random.default_rng(0)
    targets = draw.random((2_000, 4)) < 0.3
    logits = draw.normal(size=(2, 2_000, 4))
    logits[0] += np.where(targets, 2, -2)
    good, noise = fit_weights(logits, targets, multi_label=True)
    assert noise < 0.15 < 1 < good


def test_sides_weight_false_and_true_labels() -> None:
    """Computed label by label; the fit depends on them."""
    draw = np.random.default_rng(0)
    targets = draw.random((40, 2)) < 0.3
    logits = draw.normal(size=(2, 40, 2)) + np.where(targets, 1, -1)
    weights, sides = np.array([1.3, 0.2]), np.array([[1.0, 2.0], [5.0, 3.0]])
    total = np.tensordot(weights, logits, axes=1)
    p = 1 / (1 + np.exp(-total))
    own = 0.0
    for text, label in np.ndindex(40, 2):
        true = targets[text, label]
        own -= sides[int(true), label] * np.log(p[text, label] if true else 1 - p[text, label])
    prior = (2 * (1.3 - 0.5)) ** 2 + (2 * (0.2 - 0.5)) ** 2
    value, gradient = loss(weights, logits, targets, True, sides)
    assert value == pytest.approx(own + prior)
    by_differences = approx_fprime(weights, lambda at: loss(at, logits, targets, True, sides)[0])
    assert gradient == pytest.approx(by_differences, rel=1e-5)
    found = fit_weights(logits, targets, True, sides)
    assert found != pytest.approx(fit_weights(logits, targets, True), rel=0.01)
    assert loss(np.array(found), logits, targets, True, sides)[0] < value


def test_no_weight_is_negative() -> None:
    logits, targets = made(2_000)
    logits[1] = -logits[0] + logits[1]
    assert min(fit_weights(logits, targets, multi_label=False)) >= 0


@pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])
def test_soft_targets(multi_label: bool) -> None:
    """Hard rows have the loss of labels; else it is the expected one, and its gradient is right."""
    logits, targets = made(40)
    hard: np.ndarray = np.eye(3)[targets]
    weights, sides = np.array([1.3, 0.2]), np.array([[1.0, 2.0, 0.5], [3.0, 1.0, 1.0]])
    labels = hard.astype(bool) if multi_label else targets
    known = loss(weights, logits, labels, multi_label, sides)
    assert loss(weights, logits, hard, multi_label, sides)[0] == pytest.approx(known[0])
    assert loss(weights, logits, hard, multi_label, sides)[1] == pytest.approx(known[1])
    soft = 0.7 * hard + 0.3 * np.eye(3)[(targets + 1) % 3]
    other = loss(
        *(weights, logits, np.roll(hard, 1, axis=1) > 0 if multi_label else (targets + 1) % 3),
        *(multi_label, sides),
    )
    found = loss(weights, logits, soft, multi_label, sides)
    assert found[0] == pytest.approx(0.7 * known[0] + 0.3 * other[0])
    assert found[1] == pytest.approx(0.7 * known[1] + 0.3 * other[1])
    assert min(fit_weights(logits, soft, multi_label, sides)) >= 0
