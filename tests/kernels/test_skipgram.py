"""The skip-gram kernel, compared with the same steps in float64 with the same random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srucli.kernels.cpu_skipgram import learn
from srucli.training.skipgram import alias_table

MASK = 2**64 - 1


class Random:
    """splitmix64, as its authors publish it."""

    def __init__(self, state: int) -> None:
        self.state = state

    def bits(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        mixed = ((self.state ^ (self.state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        return mixed ^ (mixed >> 31)

    def below(self, most: int) -> int:
        return (self.bits() >> 32) * most >> 32

    def uniform(self) -> float:
        return (self.bits() >> 40) / 2**24


def reference(task: dict[str, Any], inputs: NDArray[Any], outputs: NDArray[Any]) -> float:
    """Take the steps of the kernel in float64; return the loss."""
    random, loss, done = Random(int(task["state"][0])), 0.0, 0
    total = (task["stops"] - task["starts"]).sum()
    for start, stop in zip(task["starts"], task["stops"], strict=True):
        text = [t for t in task["ids"][start:stop] if random.uniform() < task["kept"][t]]
        rate = task["rates"][0] + (task["rates"][1] - task["rates"][0]) * done / total
        done += stop - start
        for place, token in enumerate(text):
            reach = 1 + random.below(task["window"])
            for near in range(max(0, place - reach), min(len(text), place + reach + 1)):
                if near == place:
                    continue
                change = np.zeros(inputs.shape[1])
                targets = [(text[near], 1.0)]
                for _ in range(task["negatives"]):
                    drawn = random.below(len(task["sure"]))
                    if random.uniform() >= task["sure"][drawn]:
                        drawn = task["other"][drawn]
                    targets += [(drawn, 0.0)] if drawn != text[near] else []
                for target, truth in targets:
                    likely = 1 / (1 + np.exp(-inputs[token] @ outputs[target]))
                    loss -= np.log(likely if truth else 1 - likely)
                    step = rate * (truth - likely)
                    change += step * outputs[target]
                    outputs[target] += step * inputs[token]
                inputs[token] += change
    return loss


@pytest.mark.parametrize("negatives", [0, 5])
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_steps_are_those_of_the_reference(negatives: int, seed: int) -> None:
    draw = np.random.default_rng(3)
    vocab, size, lengths = 20, 7, [9, 0, 1, 30]
    stops = np.cumsum(lengths)
    sure, other = alias_table(draw.random(vocab))
    task: dict[str, Any] = {
        "ids": draw.integers(0, vocab, stops[-1]).astype(np.int32),
        "starts": stops - lengths,
        "stops": stops,
        "kept": draw.uniform(0.4, 1.2, vocab).astype(np.float32),
        "sure": sure,
        "other": other,
        "rates": np.array([0.3, 0.1]),
        "window": 4,
        "negatives": negatives,
    }
    inputs, outputs = draw.normal(0, 0.5, (2, vocab, size)).astype(np.float32)
    wanted = inputs.astype(np.float64), outputs.astype(np.float64)
    before = inputs.copy()
    task["state"] = np.array([seed], np.uint64)
    expected = reference(task, *wanted)
    arguments = [value for key, value in task.items() if key != "state"]
    loss, pairs = learn(*arguments, inputs, outputs, task["state"])
    assert pairs > 20
    assert loss == pytest.approx(expected, rel=1e-5)
    assert not np.allclose(inputs, before, atol=1e-3)
    np.testing.assert_allclose(inputs, wanted[0], atol=1e-5)
    np.testing.assert_allclose(outputs, wanted[1], atol=1e-5)


def test_large_scores_are_finite() -> None:
    ids, vectors = np.array([0, 1, 0, 1], np.int32), np.full((2, 4), 100.0, np.float32)
    table = np.ones(2, np.float32), *alias_table(np.ones(2))
    signs = np.array([[1.0], [-1.0]], np.float32)
    inputs, outputs = vectors * signs, vectors.copy()
    state = np.array([1], np.uint64)
    bounds = np.array([0]), np.array([4])
    loss, pairs = learn(ids, *bounds, *table, np.array([0.1, 0.1]), 2, 3, inputs, outputs, state)
    assert np.isfinite(loss)
    assert pairs
    assert np.isfinite(inputs).all()
    assert np.isfinite(outputs).all()
