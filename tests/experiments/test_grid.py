"""The grid of learning rates: its rates, its extension, the choice of the best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srucli.config import resolve
from srucli.experiments import grid
from srucli.experiments.trials import Candidate, Folder, Plan, Trial
from tests.experiments.support import ADAMS, finish, plan


def searched(folder: Path, accuracy: Callable[[float], float | None], **more: Any) -> list[float]:
    """Return the rates that are tried for adam if dev accuracy is this function of the rate."""
    wanted = plan(**more)
    while True:
        missing, results = grid.search(Folder(folder), wanted, wanted.candidates[0])
        if not missing:
            return [result.trial.lr for result in results]
        for trial in missing:
            finish(folder, trial, accuracy(trial.lr))


def test_the_grid_is_logarithmic_around_the_default() -> None:
    assert plan(grid=5).rates(ADAMS[0]) == [0.0002, 0.000632, 0.002, 0.00632, 0.02]
    assert plan(grid=2).rates(ADAMS[0]) == [0.002, 0.00632]
    assert plan(grid=1).rates(ADAMS[1]) == [3.0]
    assert plan().rates(Candidate("0.5", {"optim.lr": 0.5})) == [0.5]


@pytest.mark.parametrize(
    ("best", "wanted"),
    [
        (0.002, [0.000632, 0.002, 0.00632]),
        (0.02, [0.000632, 0.002, 0.00632, 0.02, 0.0632]),
        (6.32e-5, [2e-05, 6.32e-05, 0.0002, 0.000632, 0.002, 0.00632]),
        (1e9, [0.000632, 0.002, 0.00632, 0.02, 0.0632, 0.2, 0.632]),
    ],
)
def test_the_grid_is_extended_while_the_best_rate_is_at_its_edge(
    tmp_path: Path, best: float, wanted: list[float]
) -> None:
    rates = searched(tmp_path, lambda rate: 1 / (1 + abs(rate - best)))
    assert rates == pytest.approx(wanted, rel=2e-3)


def test_the_grid_is_extended_downwards_if_rates_diverge(tmp_path: Path) -> None:
    rates = searched(tmp_path, lambda rate: None if rate > 3e-4 else 0.5 + rate)
    assert rates == pytest.approx([6.32e-5, 0.0002, 0.000632, 0.002, 0.00632], rel=2e-3)


def test_a_grid_of_one_rate_is_not_extended(tmp_path: Path) -> None:
    assert searched(tmp_path, lambda rate: rate, grid=1) == [0.002]


def test_a_smaller_loss_is_better(tmp_path: Path) -> None:
    wanted = Plan(resolve(), ADAMS, "log_loss", 3, 1, None)
    for rate, accuracy in zip(wanted.rates(ADAMS[0]), (0.2, 0.9, 0.3), strict=True):
        finish(tmp_path, Trial("adam", rate, 0), accuracy)
    missing, results = grid.search(Folder(tmp_path), wanted, ADAMS[0])
    assert not missing
    best = grid.best_of(wanted, results)
    assert best is not None
    assert best.trial.lr == 0.002


def test_the_lowest_of_equally_good_rates_is_best(tmp_path: Path) -> None:
    wanted = plan(grid=3, seeds=1)
    for rate, accuracy in zip(wanted.rates(ADAMS[0]), (0.8, 0.9, 0.9), strict=True):
        finish(tmp_path, Trial("adam", rate, 0), accuracy)
    best = grid.best_of(wanted, grid.search(Folder(tmp_path), wanted, ADAMS[0])[1])
    assert best is not None
    assert best.trial.lr == 0.002


def test_seeds_start_at_train_seed(tmp_path: Path) -> None:
    wanted = Plan(resolve(overrides=["train.seed=5"]), ADAMS, "accuracy", 1, 2, None)
    finish(tmp_path, Trial("adam", 0.002, 5), 0.5)
    trials = grid.seed_trials(Folder(tmp_path), wanted, ADAMS[0])
    assert [trial.seed for trial in trials] == [5, 6]
