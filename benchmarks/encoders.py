"""SRU beside LSTM, GRU, convolutions and a bag of n-grams: the same recipe, accuracy and seconds.

Usage: python -m benchmarks.encoders [--sets trec,sst2] [--encoders sru,lstm] [--ways alone,recipe]
       [--seeds N] [--data DIR] [-o runs/encoders.jsonl] [--table]

`recipe` is the default recipe with another encoder; `alone` is that without the linear model of
n-grams, so that the encoder has to do everything.

`srucli compare` chooses the peak learning rate of each set and encoder from RATES, by accuracy on
validation texts: the set's own file or a tenth of the training texts. The encoder is alone then; it
is trained without the linear model in both ways, so that one rate serves both. If there are more
than MAX_TEXTS training texts, a random MAX_TEXTS of them serve for that. Each comparison is kept in
a folder beside the results file, and is not repeated. As many of its trainings run at once as there
are cores, with one thread each, so their seconds mean nothing.

Then the encoder is trained with that rate on all training texts, 3 seeds, or 5 stratified folds
if the set has no split, one run at a time with all cores, and measured on the test texts. Seconds
are those of the training loop, without the tokenizer and the start; the table shows their median.
Every measurement is a line of the results file, and one that stands there is not repeated. The
table goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median

from benchmarks.accuracy import folders, parts, seeds_of
from benchmarks.results import (
    Cell,
    markdown,
    measure_and_show,
    measure_missing,
    parser_for,
    percent,
    some_of,
)
from benchmarks.sets import WAYS, Files, read_rows, srucli, write_rows

SETS = ("trec", "sst2", "mr", "nsmc_rebuilt")
ENCODERS = ("sru", "lstm", "gru", "cnn", "bag")
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
MAX_TEXTS = 30_000


def dev_flags(files: Files) -> list[object]:
    """Return the flag with the validation file, if the set has one."""
    return ["--dev", files.dev] if files.dev else []


def fewer(files: Files, scratch: Path) -> Files:
    """Return the files with at most MAX_TEXTS training examples."""
    rows = read_rows(files.train)
    if len(rows) <= MAX_TEXTS:
        return files
    short = scratch / f"{files.train.parent.name}-fewer.tsv"
    chosen = random.Random(0).sample(rows, MAX_TEXTS)
    write_rows(short, chosen)
    return files._replace(train=short)


def best_rate(files: Files, encoder: str, folder: Path, *flags: object) -> float:
    """Return the best of RATES for an encoder alone, by `srucli compare` in this folder."""
    command = ["compare", files.train, *dev_flags(files), "--test", files.test, "--seeds", 1]
    rates = "optim.lr=" + ",".join(f"{rate:g}" for rate in RATES)
    settings = [*WAYS["alone"], f"model.encoder={encoder}", *flags]
    found = srucli(*command, "--over", rates, "-o", folder, "--json", *settings)
    rate: float = json.loads(found)["rows"][0]["lr"]
    return rate


def measure(files: Files, cell: Cell, scratch: Path, *flags: object) -> Cell:
    """Train with all cores; measure test accuracy and seconds."""
    settings = [*WAYS[cell["way"]], f"model.encoder={cell['encoder']}", f"optim.lr={cell['rate']}"]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        run = Path(folder) / "run"
        seed = ["--seed", cell["seed"]]
        srucli("train", files.train, *dev_flags(files), *settings, *seed, "-o", run, *flags)
        records = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found = json.loads(srucli("eval", run, files.test, "--json"))
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return cell | {
        "accuracy": found["metrics"]["accuracy"],
        "seconds": json.loads(records[-1])["seconds"],
        "texts_per_second": found["texts_per_second"],
        "parameters": facts["parameters"],
    }


def measure_set(arguments: argparse.Namespace, name: str, folder: Path, scratch: Path) -> None:
    """Measure what is missing in the results file for a set."""
    output = arguments.output
    _, files = next(parts(folder, 0, scratch))
    shortened = fewer(files, scratch)
    for encoder, way in itertools.product(arguments.encoders, arguments.ways):
        compared = output.with_name(f"{output.stem}-{name}-{encoder}")
        rate = best_rate(shortened, encoder, compared)
        key: Cell = {"set": name, "way": way, "encoder": encoder, "rate": rate}
        for seed in seeds_of("srucli", folder, arguments.seeds):
            for fold, each in parts(folder, seed, scratch):
                cell = key | {"seed": seed, "fold": fold}
                measure_missing(output, cell, partial(measure, each, cell, scratch))


def run_missing(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure what is missing in the results file for all sets."""
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for name, folder in folders(arguments, scratch):
        measure_set(arguments, name, folder, scratch)


def show(measured: Sequence[Cell]) -> None:
    """Print the table, then one JSON line."""
    grouped: defaultdict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in measured:
        grouped[cell["set"], cell["way"], cell["encoder"]].append(cell)
    rows, means = [], []
    for (name, way, encoder), cells in grouped.items():
        seconds, rate, parameters = (
            median(cell[figure] for cell in cells)
            for figure in ("seconds", "texts_per_second", "parameters")
        )
        own = grouped.get((name, way, "sru"), cells)
        ratio = seconds / median(cell["seconds"] for cell in own)
        figures = [f"{cells[0]['rate']:g}", percent(cells, "accuracy"), f"{seconds:,.1f}"]
        figures += [f"{ratio:.2f}", f"{rate:,.0f}", f"{parameters / 1e6:.2f}"]
        rows.append([name, way, encoder, *figures])
        means.append({"set": name, "way": way, "encoder": encoder, "seconds": seconds})
        means[-1]["accuracy"] = fmean(cell["accuracy"] for cell in cells)
    head = ["set", "model", "encoder", "rate", "accuracy", "training, s", "relative to sru"]
    print(markdown([*head, "texts/s", "parameters, millions"], rows))
    print("\n" + json.dumps(means))


def main() -> None:
    """Measure what is missing, then print everything."""
    parser = parser_for(__doc__, SETS, "runs/encoders.jsonl")
    parser.add_argument("--encoders", type=some_of(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--ways", type=some_of(WAYS), default=list(WAYS))
    measure_and_show(parser.parse_args(), "encoders", run_missing, show)


if __name__ == "__main__":
    main()
