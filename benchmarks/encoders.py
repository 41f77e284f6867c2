"""SRU beside LSTM, GRU, convolutions and a bag of n-grams: the same recipe, accuracy and seconds.

Usage: python -m benchmarks.encoders [--sets trec,sst2] [--encoders sru,lstm] [--ways alone,recipe]
       [--seeds N] [--data DIR] [-o runs/encoders.jsonl] [--table]

`recipe` is the default recipe with another encoder; `alone` is that without its branches of hashed
n-grams, so that the encoder has to do everything.

The peak learning rate is chosen for every set, way and encoder: the one of RATES, doubled or halved
further while the best is at an edge, with the highest accuracy on the dev file (where the set has
none on a tenth of the training texts), and with the smallest loss there among equals. Where there
are more than MAX_TEXTS training texts, a random MAX_TEXTS of them serve to choose it. Those runs
take a thread each, as many at once as there are cores, so their seconds mean nothing.

Then the encoder is trained with that rate on all training texts, 3 seeds, or 5 stratified folds
where the set has no split, one run at a time with all cores, and measured on the test texts.
Seconds are those of the training loop, without the tokenizer and the start; the table shows their
median. Every measurement is a line of the results file, and one that stands there is not repeated.
The table goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.accuracy import (
    Cell,
    Files,
    comma_list,
    markdown,
    parser_for,
    parts,
    percent,
    read_cells,
    seeds_of,
    srucli,
)
from benchmarks.peers import read_rows

SETS = ("trec", "sst2", "mr", "nsmc_rebuilt")
ENCODERS = ("sru", "lstm", "gru", "cnn", "bag")
WAYS = {"alone": ("model.wide=false", "model.characters=false"), "recipe": ()}
RATES = (1e-3, 2e-3, 4e-3)
MIN_RATE, MAX_RATE = 2.5e-4, 3.2e-2
MAX_TEXTS = 30_000


def train(files: Files, cell: Cell, run: Path, *flags: object) -> dict[str, Any]:
    """Train what a cell says; the last line of the run's metrics."""
    settings = [*WAYS[cell["way"]], f"model.encoder={cell['encoder']}", f"optim.lr={cell['rate']}"]
    srucli("train", files.train, *settings, *flags, "-o", run)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last: dict[str, Any] = json.loads(lines[-1])
    return last


def measure_dev(files: Files, cell: Cell, scratch: Path) -> Cell:
    """Accuracy and loss on dev texts after training with one thread."""
    dev = ["--dev", files.dev] if files.dev else ["train.dev_share=0.1"]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        found = train(files, cell, Path(folder) / "run", *dev, "--threads", 1, "--seed", 0)["dev"]
    return cell | {"accuracy": found["accuracy"], "loss": found["log_loss"]}


def measure_test(files: Files, cell: Cell, scratch: Path) -> Cell:
    """Accuracy on test texts, and seconds, after training with all cores."""
    dev = ["--dev", files.dev] if files.dev else []
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        run = Path(folder) / "run"
        seconds = train(files, cell, run, *dev, "--seed", cell["seed"])["seconds"]
        found = json.loads(srucli("eval", run, files.test, "--json"))
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return cell | {
        "accuracy": found["metrics"]["accuracy"],
        "seconds": seconds,
        "texts_per_second": found["texts_per_second"],
        "parameters": facts["parameters"],
    }


def fewer(files: Files, scratch: Path) -> Files:
    """The files, with at most MAX_TEXTS training texts."""
    rows = read_rows(files.train)
    if len(rows) <= MAX_TEXTS:
        return files
    short = scratch / f"{files.train.parent.name}-fewer.tsv"
    chosen = random.Random(0).sample(rows, MAX_TEXTS)
    lines = (f"{label}\t{text}\n" for label, text in chosen)
    short.write_text("".join(lines), encoding="utf-8", newline="\n")
    return files._replace(train=short)


class Record:
    """The results file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells = read_cells(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    def find(self, **wanted: object) -> list[Cell]:
        """The measurements that have these values."""
        return [cell for cell in self.cells if wanted.items() <= cell.items()]

    def add(self, cell: Cell) -> None:
        """One more measurement."""
        self.cells.append(cell)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(cell) + "\n")
        print(json.dumps(cell), file=sys.stderr)


def best_rate(tried: Sequence[Cell]) -> float:
    """The rate with the highest accuracy, and the smallest loss among equals."""
    rate: float = max(tried, key=lambda cell: (cell["accuracy"], -cell["loss"]))["rate"]
    return rate


def next_rates(tried: Sequence[Cell]) -> list[float]:
    """Those of RATES at first; then the one beyond the edge at which the best rate lies, if any."""
    rates = sorted(cell["rate"] for cell in tried)
    if missing := [rate for rate in RATES if rate not in rates]:
        return missing
    best = best_rate(tried)
    if best == rates[0] and best / 2 >= MIN_RATE:
        return [best / 2]
    if best == rates[-1] and best * 2 <= MAX_RATE:
        return [best * 2]
    return []


def choose_rates(files: Files, keys: Sequence[Cell], record: Record, scratch: Path) -> None:
    """Try rates for every one of `keys` (set, way, encoder) until none is missing."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while True:
            wanted = [
                key | {"stage": "dev", "rate": rate}
                for key in keys
                for rate in next_rates(record.find(stage="dev", **key))
            ]
            if not wanted:
                return
            for cell in pool.map(lambda cell: measure_dev(files, cell, scratch), wanted):
                record.add(cell)


def missing_tests(
    keys: Sequence[Cell], record: Record, folder: Path, seeds: int | None, scratch: Path
) -> Iterator[tuple[Files, Cell]]:
    """What is to be measured on test texts, and the files of each."""
    for seed in seeds_of("srucli", folder, seeds):
        for fold, files in parts(folder, seed, scratch):
            for key in keys:
                rate = best_rate(record.find(stage="dev", **key))
                cell = key | {"stage": "test", "rate": rate, "seed": seed, "fold": fold}
                if not record.find(**cell):
                    yield files, cell


def run_missing(arguments: argparse.Namespace, record: Record, scratch: Path) -> None:
    """Measure whatever the results file lacks."""
    for name in arguments.sets:
        folder = arguments.data / name
        if not folder.is_dir():
            print(f"{name}: not in {arguments.data}, left out", file=sys.stderr)
            continue
        keys = [
            {"set": name, "way": way, "encoder": encoder}
            for way in arguments.ways
            for encoder in arguments.encoders
        ]
        _, files = next(parts(folder, 0, scratch))
        choose_rates(fewer(files, scratch), keys, record, scratch)
        for files, cell in missing_tests(keys, record, folder, arguments.seeds, scratch):
            record.add(measure_test(files, cell, scratch))


def show(record: Record) -> None:
    """Print the table, then one JSON line."""
    grouped: defaultdict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in record.find(stage="test"):
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
    head = ["set", "way", "encoder", "rate", "accuracy", "training, s", "times sru's"]
    print(markdown([*head, "texts/s", "parameters, millions"], rows))
    print("\n" + json.dumps(means))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = parser_for(__doc__, SETS, "runs/encoders.jsonl")
    parser.add_argument("--encoders", type=comma_list, default=list(ENCODERS))
    parser.add_argument("--ways", type=comma_list, default=list(WAYS))
    arguments = parser.parse_args()
    for names, known in ((arguments.encoders, ENCODERS), (arguments.ways, WAYS)):
        if unknown := set(names) - set(known):
            parser.error(f"unknown {sorted(unknown)}; known: {', '.join(known)}")
    return arguments


def main() -> None:
    """Measure what is missing, then print everything."""
    arguments = parse()
    record = Record(arguments.output)
    if not arguments.table:
        with tempfile.TemporaryDirectory(prefix="srucli-encoders-") as scratch:
            run_missing(arguments, record, Path(scratch))
    show(record)


if __name__ == "__main__":
    main()
