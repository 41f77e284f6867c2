"""The table and the conclusions of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from srucli.config import resolve
from srucli.errors import SrucliError
from srucli.experiments import compare, report
from srucli.experiments.trials import Candidate, Folder, Plan, Trial
from tests.experiments.support import ADAMS, finish, plan


class Seeds(NamedTuple):
    """Results of a candidate's seeds: the metric on dev and test, and the steps until then."""

    dev: list[float]
    test: list[float]
    steps: list[int]


def same(*values: float) -> Seeds:
    """Return seeds with these metrics on dev and test, after 10 steps."""
    return Seeds(list(values), list(values), [10] * len(values))


def conclusions(folder: Path, metric: str, texts: int, candidates: dict[str, Seeds]) -> list[str]:
    """Return the sentences on candidates with one rate; `texts` in dev, twice as many in test."""
    names = ("adam", "sgd", "lion")
    settings = tuple(Candidate(name, {"optim.name": name}) for name in candidates)
    assert set(candidates) <= set(names)
    wanted = Plan(resolve(), settings, metric, 1, len(candidates["adam"].dev), None)
    (folder / "data").mkdir()
    (folder / "data" / "dev.jsonl").write_text("{}\n" * texts)
    (folder / "data" / "test.jsonl").write_text("{}\n" * 2 * texts)
    for candidate in settings:
        (rate,) = wanted.rates(candidate)
        for seed, (dev, test, steps) in enumerate(zip(*candidates[candidate.name], strict=True)):
            finish(folder, Trial(candidate.name, rate, seed), dev, test, (steps, steps / 10))
    return list(report.sentences(compare.summary(Folder(folder), wanted)))


HIGH, LOW = (0.90, 0.91, 0.92), (0.60, 0.61, 0.62)
LEADS = "adam leads on dev with 91.0 ± 1.0 accuracy (test 91.0 ± 1.0), at a learning rate of 0.002."
TIMES = "adam after 10 steps and 1.0 seconds"
SENTENCES: dict[str, tuple[str, int, dict[str, Seeds], list[str]]] = {
    "far apart": (
        *("accuracy", 1000, {"adam": same(*HIGH), "sgd": same(*LOW)}),
        [
            LEADS,
            "On these texts it is better than sgd (61.0 ± 1.0).",
            f"86.4 on dev is reached by {TIMES} (means over seeds, at the ends of epochs).",
            "Not every seed reached 86.4: sgd.",
        ],
    ),
    "within their spread": (
        *("accuracy", 1000, {"adam": same(*HIGH), "sgd": same(0.89, 0.90, 0.91)}),
        [
            LEADS,
            "Whether it is better than sgd (90.0 ± 1.0) cannot be told: over seeds the difference "
            "of 1 points has the 95% interval -1.27 to 3.27.",
            f"86.4 on dev is reached by {TIMES}, sgd after 10 steps and 1.0 seconds (means over "
            "seeds, at the ends of epochs).",
            "Whether adam or sgd is the first cannot be told: they are level with every seed.",
        ],
    ),
    "one seed": (
        *("accuracy", 1000, {"adam": same(0.9), "sgd": same(0.2), "lion": same(0.3)}),
        [
            "adam leads on dev with 90.0 accuracy (test 90.0), at a learning rate of 0.002.",
            "Whether it is better than lion (30.0) or sgd (20.0) cannot be told: there is only one "
            "seed.",
            f"85.5 on dev is reached by {TIMES} (means over seeds, at the ends of epochs).",
            "Not every seed reached 85.5: lion, sgd.",
        ],
    ),
    "few texts": (
        *("accuracy", 45, {"adam": same(0.9, 0.9), "sgd": same(0.8, 0.8)}),
        [
            "adam leads on dev with 90.0 ± 0.0 accuracy (test 90.0 ± 0.0), at a learning rate of "
            "0.002.",
            "Whether it is better than sgd (80.0 ± 0.0) cannot be told: the difference is about "
            "4.5 of 45 texts.",
            f"85.5 on dev is reached by {TIMES} (means over seeds, at the ends of epochs).",
            "Not every seed reached 85.5: sgd.",
        ],
    ),
    "macro-F1 of few texts": (
        *("macro_f1", 20, {"adam": same(0.899, 0.899), "sgd": same(0.85, 0.85)}),
        [
            "adam leads on dev with 89.9 ± 0.0 macro_f1 (test 89.9 ± 0.0), at a learning rate of "
            "0.002.",
            "Whether it is better than sgd (85.0 ± 0.0) cannot be told: the difference is about "
            "1.0 of 20 texts.",
            f"85.4 on dev is reached by {TIMES} (means over seeds, at the ends of epochs).",
            "Not every seed reached 85.4: sgd.",
        ],
    ),
    "a loss": (
        *("log_loss", 1000, {"adam": same(*HIGH), "sgd": same(0.88, 0.9, 0.92)}),
        [
            "adam leads on dev with 0.090 ± 0.010 log_loss (test 0.090 ± 0.010), at a learning "
            "rate of 0.002.",
            "Whether it is better than sgd (0.100 ± 0.020) cannot be told: over seeds the "
            "difference of 0.01 has the 95% interval -0.0516 to 0.0316.",
            "Not every seed reached 0.095: adam, sgd.",
        ],
    ),
    "a loss that all reach": (
        *("log_loss", 1000, {"adam": same(0.9, 0.9), "sgd": same(0.5, 0.5)}),
        [
            "adam leads on dev with 0.100 ± 0.000 log_loss (test 0.100 ± 0.000), at a learning "
            "rate of 0.002.",
            "On these texts it is better than sgd (0.500 ± 0.000).",
            f"0.105 on dev is reached by {TIMES} (means over seeds, at the ends of epochs).",
            "Not every seed reached 0.105: sgd.",
        ],
    ),
    "a loss that another has on test": (
        "log_loss",
        1000,
        {
            "adam": Seeds([0.9, 0.9], [0.5, 0.5], [10, 10]),
            "sgd": Seeds([0.5, 0.5], [0.9, 0.9], [10, 10]),
        },
        [
            "adam leads on dev with 0.100 ± 0.000 log_loss (test 0.500 ± 0.000), at a learning "
            "rate of 0.002.",
            "On these texts it is better than sgd (0.500 ± 0.000).",
            "On the test texts, which chose no learning rate, sgd leads with 0.100 ± 0.000.",
            "On these texts it is better than adam (0.500 ± 0.000).",
        ],
    ),
    "few dev texts, enough of test": (
        "accuracy",
        50,
        {
            "adam": Seeds([0.9, 0.9], [0.8, 0.8], [10, 10]),
            "sgd": Seeds([0.8, 0.8], [0.9, 0.9], [10, 10]),
        },
        [
            "adam leads on dev with 90.0 ± 0.0 accuracy (test 80.0 ± 0.0), at a learning rate of "
            "0.002.",
            "Whether it is better than sgd (80.0 ± 0.0) cannot be told: the difference is about "
            "5.0 of 50 texts.",
            "On the test texts, which chose no learning rate, sgd leads with 90.0 ± 0.0.",
            "On these texts it is better than adam (80.0 ± 0.0).",
        ],
    ),
    "better than one of two": (
        "accuracy",
        1000,
        {"adam": same(*HIGH), "sgd": same(*LOW), "lion": same(0.89, 0.90, 0.91)},
        [
            LEADS,
            "On these texts it is better than sgd (61.0 ± 1.0).",
            "Whether it is better than lion (90.0 ± 1.0) cannot be told: over seeds the difference "
            "of 1 points has the 97.5% interval -1.85 to 3.85.",
        ],
    ),
    "two level, one below": (
        "accuracy",
        1000,
        {"adam": same(*HIGH), "sgd": same(*HIGH), "lion": same(*LOW)},
        [
            "adam and sgd are level on dev, all of them with 91.0 accuracy.",
            "On these texts adam is better than lion (61.0 ± 1.0).",
        ],
    ),
    "two dev texts": (
        "log_loss",
        2,
        {"adam": same(0.9, 0.9), "sgd": same(0.5, 0.5)},
        [
            "adam leads on dev with 0.100 ± 0.000 log_loss (test 0.100 ± 0.000), at a learning "
            "rate of 0.002.",
            "Whether it is better than sgd (0.500 ± 0.000) cannot be told: there are only 2 texts.",
        ],
    ),
    "another on test": (
        "accuracy",
        1000,
        {
            "adam": Seeds(list(HIGH), [0.80, 0.81, 0.82], [10] * 3),
            "sgd": Seeds([0.7, 0.7, 0.7], [0.90, 0.91, 0.92], [10] * 3),
        },
        [
            "adam leads on dev with 91.0 ± 1.0 accuracy (test 81.0 ± 1.0), at a learning rate of "
            "0.002.",
            "On these texts it is better than sgd (70.0 ± 0.0).",
            "On the test texts, which chose no learning rate, sgd leads with 91.0 ± 1.0.",
            "On these texts it is better than adam (81.0 ± 1.0).",
        ],
    ),
    "another on test, perhaps": (
        "accuracy",
        1000,
        {
            "adam": Seeds(list(HIGH), [0.80, 0.81, 0.82], [10] * 3),
            "sgd": Seeds([0.7, 0.7, 0.7], [0.81, 0.82, 0.83], [10] * 3),
        },
        [
            "adam leads on dev with 91.0 ± 1.0 accuracy (test 81.0 ± 1.0), at a learning rate of "
            "0.002.",
            "On these texts it is better than sgd (70.0 ± 0.0).",
            "On the test texts, which chose no learning rate, sgd leads with 82.0 ± 1.0.",
            "Whether it is better than adam (81.0 ± 1.0) cannot be told: over seeds the difference "
            "of 1 points has the 95% interval -1.27 to 3.27.",
        ],
    ),
    "faster": (
        "accuracy",
        1000,
        {
            "adam": Seeds(list(HIGH), list(HIGH), [60, 60, 70]),
            "sgd": Seeds(list(HIGH), list(HIGH), [20, 30, 20]),
        },
        [
            "adam and sgd are level on dev, all of them with 91.0 accuracy.",
            "86.4 on dev is reached by sgd after 23 steps and 2.3 seconds, adam after 63 steps and "
            "6.3 seconds (means over seeds, at the ends of epochs).",
        ],
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_conclusions(case: str, tmp_path: Path) -> None:
    metric, texts, candidates, wanted = SENTENCES[case]
    said = conclusions(tmp_path, metric, texts, candidates)
    assert said[: len(wanted)] == wanted


def test_the_number_of_seeds_that_reached_the_target(tmp_path: Path) -> None:
    wanted = Plan(resolve(), ADAMS, "accuracy", 1, 3, 0.8)
    for seed, accuracy in enumerate((0.7, 0.8, 0.9)):
        finish(tmp_path, Trial("adam", 0.002, seed), accuracy)
        finish(tmp_path, Trial("sgd", 3.0, seed), 0.5)
    first, second = report.table_rows(compare.summary(Folder(tmp_path), wanted))
    assert first[4:6] == ["by 2 of 3 seeds"] * 2
    assert second[4:6] == ["never"] * 2


def test_a_metric_that_is_undefined_on_dev(tmp_path: Path) -> None:
    """As AUC on dev texts of one class."""
    wanted = Plan(resolve(), ADAMS, "auc", 1, 1, None)
    for candidate in ADAMS:
        finish(tmp_path, Trial(candidate.name, wanted.rates(candidate)[0], 0), 0.5)
    said = r"auc is not defined on the dev texts, because of their labels; give a --dev file"
    with pytest.raises(SrucliError, match=said):
        compare.summary(Folder(tmp_path), wanted)


def test_a_metric_that_is_undefined_on_test(tmp_path: Path) -> None:
    for candidate in ADAMS:
        trial = Trial(candidate.name, plan(grid=1).rates(candidate)[0], 0)
        finish(tmp_path, trial, 0.5)
        file = tmp_path / trial.folder / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "test": {}}))
    with pytest.raises(SrucliError, match="accuracy is not defined on the test texts"):
        compare.summary(Folder(tmp_path), plan(grid=1, seeds=1))


@pytest.mark.parametrize(
    ("metric", "target", "reached"),
    [
        ("accuracy", 0.9, True),
        ("accuracy", 0.91, False),
        ("log_loss", 0.1, True),
        ("log_loss", 0.09, False),
    ],
)
def test_a_target_that_is_met_exactly_counts(
    tmp_path: Path, metric: str, target: float, reached: bool
) -> None:
    wanted = Plan(resolve(), ADAMS[:1], metric, 1, 1, target)
    finish(tmp_path, Trial("adam", 0.002, 0), 0.9)
    result = json.loads((tmp_path / Trial("adam", 0.002, 0).folder / "result.json").read_text())
    result["history"][1]["dev"] = {"accuracy": 0.9, "log_loss": 0.1}
    (tmp_path / Trial("adam", 0.002, 0).folder / "result.json").write_text(json.dumps(result))
    (row,) = compare.summary(Folder(tmp_path), wanted).rows
    assert row.to_target == ((10, 2.0) if reached else None)
