"""Unbalanced sets with balanced class weights beside without, and scikit-learn's the same way.

Usage: python -m benchmarks.imbalance [--sets made-40,atis] [--systems "NAME;NAME"] [--seeds N]
       [--data DIR] [-o runs/imbalance.jsonl] [--table]

made-S are made here: 5,000 texts of 10 words, 1 in 50 `rare`, and as many to test on. S percent of
a rare text's words come from a list of 20 that other texts take 5% of theirs from: the larger S,
the easier. Where a set has dev texts srucli gets them, and so do peers for the thresholds of
several labels; goemotions-0.5 is goemotions without them, every label given from one half on.
Peers: TF-IDF of character 1- to 5-grams within words, and logistic regression or a linear SVM; for
several labels, one for each label. All with one thread. Figures are those of the test files, means
over seeds.

Every measurement is a line of the results file, and one that stands there is not repeated. The
table goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import extra
from benchmarks.peers import (
    Figures,
    Task,
    fit_linear,
    judge_multi,
    judge_single,
    read_task,
    targets,
)
from benchmarks.results import (
    Cell,
    markdown,
    measure_and_show,
    measure_missing,
    parser_for,
    percent,
    spread,
)
from benchmarks.sets import Files, find, srucli

with extra():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.svm import LinearSVC

SETS = ("made-20", "made-40", "made-60", "atis", "goemotions", "goemotions-0.5")
MODELS: dict[str, Callable[[str | None], Any]] = {
    "logistic": lambda weights: LogisticRegression(class_weight=weights, max_iter=1000),
    "linear-svm": lambda weights: LinearSVC(class_weight=weights, random_state=0),
}
SYSTEMS = tuple(f"{name}{way}" for name in ("srucli", *MODELS) for way in ("", ", balanced"))
TEXTS, WORDS, MARKED, RARE, USUAL = 5_000, 10, 20, 0.02, 0.05


def made(share: float, seed: int, folder: Path) -> Files:
    """Write training and test files with a rare class."""
    draw = np.random.default_rng(seed)
    vocabulary = [first + second for first in "bdfgklmnprstvz" for second in ("ab", "eno", "iru")]
    vocabulary += [word + ending for word in vocabulary for ending in ("ta", "los", "mi", "que")]
    words = draw.permutation(vocabulary)
    marked, others = words[:MARKED], words[MARKED:]
    files = Files(folder / f"train-{share}-{seed}.tsv", folder / f"test-{share}-{seed}.tsv", None)
    for path in (files.train, files.test):
        rare = draw.random(TEXTS) < RARE
        chosen = draw.random((TEXTS, WORDS)) < np.where(rare, share, USUAL)[:, None]
        drawn = np.where(
            chosen, draw.choice(marked, chosen.shape), draw.choice(others, chosen.shape)
        )
        rows = zip(rare, drawn, strict=True)
        lines = (f"{'rare' if told else 'common'}\t{' '.join(text)}\n" for told, text in rows)
        path.write_text("".join(lines), encoding="utf-8")
    return files


def files_of(name: str, seed: int, data: Path, scratch: Path) -> Files:
    """Return the files of a set; create them for an artificial set."""
    if name.startswith("made-"):
        return made(int(name.removeprefix("made-")) / 100, seed, scratch)
    folder = data / name.removesuffix("-0.5")
    train, test = find(folder, "train"), find(folder, "test")
    if train is None or test is None:
        raise SystemExit(f"{folder}: neither train nor test (.tsv or .tsv.gz)")
    return Files(train, test, None if name.endswith("-0.5") else find(folder, "dev"))


def measure_srucli(files: Files, several: bool, weights: str, seed: int, scratch: Path) -> Figures:
    """Train and evaluate with the commands, as users do."""
    run = Path(tempfile.mkdtemp(dir=scratch)) / "run"
    dev = ["--dev", files.dev] if files.dev else []
    settings = [f"train.class_weights={weights}", f"data.multi_label={str(several).lower()}"]
    one = ("--threads", 1)
    srucli("train", files.train, *dev, "-o", run, "--seed", seed, *one, *settings)
    found = json.loads(srucli("eval", run, files.test, *one, "--json"))["metrics"]
    return {"accuracy": found["accuracy"], "macro_f1": found["macro_f1"]}


def measure_peer(task: Task, model: Any) -> Figures:
    """Fit a model of scikit-learn; labels are those with the highest score or above a threshold."""
    fitted = fit_linear(task, model, analyzer="char_wb")
    found = fitted.scores(task.test[0])
    if not task.multi_label:
        return judge_single(task, found)
    return judge_multi(task, fitted, found) if task.dev[0] else judge_halves(task, found)


def judge_halves(task: Task, scores: np.ndarray) -> Figures:
    """As `judge_multi`, with labels whose score is above zero."""
    said, wanted = scores > 0, targets(task.test[1], task.labels)
    macro = f1_score(wanted, said, average="macro", zero_division=0)
    return {"accuracy": float((said == wanted).all(axis=1).mean()), "macro_f1": float(macro)}


def measure(name: str, system: str, seed: int, data: Path, scratch: Path) -> Figures:
    """Make one measurement."""
    files, several = files_of(name, seed, data, scratch), name.startswith("goemotions")
    kind, _, way = system.partition(", ")
    if kind == "srucli":
        return measure_srucli(files, several, way or "none", seed, scratch)
    task = read_task(files.train, files.test, files.dev, several)
    return measure_peer(task, MODELS[kind](way or None))


def run_missing(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure what is missing in the results file; peers on real sets have no seed."""
    for name in arguments.sets:
        for system in arguments.systems:
            fixed = not name.startswith("made-") and not system.startswith("srucli")
            for seed in range(1 if fixed else arguments.seeds or 3):
                cell: Cell = {"set": name, "system": system, "seed": seed, "fold": None}
                measured = partial(measure, name, system, seed, arguments.data, scratch)
                measure_missing(arguments.output, cell, measured)


def show(cells: list[Cell]) -> None:
    """Print the table, then one JSON line of means."""
    grouped: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        grouped[cell["set"], cell["system"]].append(cell)
    names = [name for name in SETS if any(name == known for known, _ in grouped)]
    rows = [
        [name, figure.replace("_f1", "-F1")]
        + [percent(grouped.get((name, system), []), figure) for system in SYSTEMS]
        for name in names
        for figure in ("accuracy", "macro_f1")
    ]
    print(markdown(["set", "metric", *SYSTEMS], rows))
    means = {
        name: {
            system: {figure: spread(found, figure)[0] for figure in ("accuracy", "macro_f1")}
            for system in SYSTEMS
            if (found := grouped.get((name, system)))
        }
        for name in names
    }
    print("\n" + json.dumps(means))


def main() -> None:
    """Measure what is missing, then print everything."""
    parser = parser_for(__doc__, SETS, "runs/imbalance.jsonl")
    parser.add_argument("--systems", type=lambda text: text.split(";"), default=list(SYSTEMS))
    measure_and_show(parser.parse_args(), "imbalance", run_missing, show)


if __name__ == "__main__":
    main()
