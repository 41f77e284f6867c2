"""What raw text is worth beside few labels: srucli with and without it, and peers that use it.

Usage: python -m benchmarks.raw_text [--sets sst2,mr] [--systems srucli,taught] [--texts 100,1000]
       [--seeds N] [--data DIR] [-o runs/raw_text.jsonl] [--table]

The raw text of a set are its training texts without labels, without those that are tested. sst2 has
phrases too, without those that are part of a dev or test sentence. A set without a split is tested
on the first of five folds. Training texts are drawn as in `benchmarks.little_data`; `all` are all
of them, and the seed is then that of the training alone. No system gets dev texts.

`srucli` starts from nothing. `raw` starts from vectors of the raw text (`srucli pretrain`, `srucli
train --from`). `taught` is trained as `raw` is, on a random TAUGHT of the raw texts and the
probabilities that a run of `raw` gives their labels; it sees no given label. `raw-lstm` and
`raw-gru` are `raw` with another encoder. `fasttext-raw` is fastText's good setting with skip-gram
vectors of its own of the raw text. The other systems are those of `benchmarks.peers`.

The table shows mean and standard deviation over the draws, in percent. Every measurement is a line
of the results file as soon as it is done, and one that stands there is not repeated. Seconds are
wall-clock, without those of the vectors. The table goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks import extra
from benchmarks.accuracy import folders, measure_srucli, parts
from benchmarks.little_data import draw
from benchmarks.peers import PEERS, Figures, Fitted, Task, fit_fasttext_good, measure, read_task
from benchmarks.results import (
    Cell,
    comma_list,
    markdown,
    measure_and_show,
    measure_missing,
    parser_for,
    percent,
    some_of,
    spread,
)
from benchmarks.sets import Files, find, read_rows, srucli, write_rows

SETS = ("sst2", "mr", "nsmc_rebuilt", "korean_hate", "agnews_10k")
TEXTS = ("100", "1000", "all")
DRAWS, TAUGHT = 5, 30_000
ENCODERS = {"raw": "sru", "raw-lstm": "lstm", "raw-gru": "gru"}
SYSTEMS = ("srucli", *ENCODERS, "taught", "fasttext-raw", *PEERS)


class Source:
    """A set: its files, and its raw text with what is learned from it, made when first wanted."""

    def __init__(self, name: str, folder: Path, scratch: Path) -> None:
        """Find the files of a set, or make those of its first fold."""
        self.name, self.scratch = name, scratch
        _, self.files = next(parts(folder, 0, scratch))
        self.phrases = find(folder, "train_phrases")

    @cached_property
    def texts(self) -> list[str]:
        """The raw texts."""
        tested = [text for _, text in read_rows(self.files.test)]
        texts = [text for _, text in read_rows(self.files.train)]
        if self.phrases:
            held = tested + [text for _, text in read_rows(self.files.dev or self.files.test)]
            whole = "\n".join(f" {text} " for text in held)
            phrases = (text for _, text in read_rows(self.phrases))
            texts += [text for text in phrases if f" {text} " not in whole]
        known = set(tested)
        return [text for text in texts if text not in known]

    def _written(self, name: str, texts: Sequence[str]) -> Path:
        file = self.scratch / f"{self.name}-{name}.txt"
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="\n")
        return file

    @cached_property
    def raw(self) -> Path:
        """The file of raw text."""
        return self._written("raw", self.texts)

    @cached_property
    def some(self) -> Path:
        """The file of the raw texts that are labelled by a run."""
        count = min(TAUGHT, len(self.texts))
        return self._written("some", random.Random(0).sample(self.texts, count))

    @cached_property
    def vectors(self) -> Path:
        """The folder of vectors."""
        folder = self.scratch / f"{self.name}-vectors"
        srucli("pretrain", self.raw, "-o", folder)
        return folder

    @cached_property
    def fasttext_vectors(self) -> Path:
        """The file of fastText's vectors."""
        with extra():
            import fasttext

        threads = os.cpu_count() or 1
        model = fasttext.train_unsupervised(str(self.raw), "skipgram", thread=threads, verbose=0)
        file = self.scratch / f"{self.name}.vec"
        with file.open("w", encoding="utf-8", newline="\n") as out:
            out.write(f"{len(model.words)} {model.dim}\n")
            for word in model.words:
                out.write(f"{word} {' '.join(f'{x:.5f}' for x in model.get_word_vector(word))}\n")
        return file


def measure_taught(source: Source, files: Files, seed: int) -> Figures:
    """Train a run, let it label raw texts, and measure a run that is trained on these alone."""
    vectors, some = source.vectors, source.some  # made before the clock starts
    with tempfile.TemporaryDirectory(dir=source.scratch) as folder:
        teacher, labelled = Path(folder, "teacher"), Path(folder, "labelled.jsonl")
        start = perf_counter()
        srucli("train", files.train, "--from", vectors, "-o", teacher, "--seed", seed)
        found = srucli("predict", teacher, some, "--json")
        labelled.write_text(found, encoding="utf-8", newline="\n")
        seconds = perf_counter() - start
        own = files._replace(train=labelled)
        figures = measure_srucli(own, False, seed, source.scratch, "--from", vectors)
    return figures | {"train_seconds": seconds + figures["train_seconds"]}


def measure_system(source: Source, system: str, files: Files, seed: int) -> Figures:
    """Measure one system on drawn texts."""
    if system == "taught":
        return measure_taught(source, files, seed)
    if system in ("srucli", *ENCODERS):
        flags: list[Any] = []
        if system in ENCODERS:
            flags = ["--from", source.vectors, f"model.encoder={ENCODERS[system]}"]
        return measure_srucli(files, False, seed, source.scratch, *flags)
    task = read_task(files.train, files.test)
    if system == "fasttext-raw":
        vectors: dict[str, Any] = {"pretrainedVectors": str(source.fasttext_vectors), "dim": 100}

        def fit(task: Task, seed: int) -> Fitted:
            return fit_fasttext_good(task, seed, **vectors)

        return measure(fit, task, seed)
    return measure(PEERS[system], task, seed)


def run_missing(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure what is missing in the results file, and append a line each."""
    for name, folder in folders(arguments, scratch):
        source = Source(name, folder, scratch)
        rows = read_rows(source.files.train)
        for texts, seed in product(arguments.texts, range(arguments.seeds)):
            size = len(rows) if texts == "all" else int(texts)
            drawn = Files(scratch / f"{name}-{size}-{seed}.tsv", source.files.test, None)
            write_rows(drawn.train, rows if texts == "all" else draw(rows, size, seed))
            for system in arguments.systems:
                cell: Cell = {"set": name, "texts": size, "system": system, "seed": seed}
                measured = partial(measure_system, source, system, drawn, seed)
                measure_missing(arguments.output, cell, measured)


def show(cells: Sequence[Cell]) -> None:
    """Print a table of accuracy, one of seconds, then one JSON line of means."""
    grouped: defaultdict[tuple[str, int], defaultdict[str, list[Cell]]]
    grouped = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        grouped[cell["set"], cell["texts"]][cell["system"]].append(cell)
    systems = [system for system in SYSTEMS if any(system in own for own in grouped.values())]
    accuracies, seconds, means = [], [], []
    for (name, size), found in grouped.items():
        row = [name, f"{size:,}"]
        accuracies.append(row + [percent(found[system], "accuracy") for system in systems])
        times = {
            system: median(cell["train_seconds"] for cell in found[system])
            for system in systems
            if found[system]
        }
        seconds.append(row + [f"{times[each]:,.1f}" if each in times else "" for each in systems])
        means += [
            {"set": name, "texts": size, "system": system, "accuracy": mean, "deviation": deviation}
            for system in times
            for mean, deviation in [spread(found[system], "accuracy")]
        ]
    print(markdown(["set", "texts", *systems], accuracies))
    print("\n" + markdown(["training, s", "texts", *systems], seconds))
    print("\n" + json.dumps(means))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = parser_for(__doc__, SETS, "runs/raw_text.jsonl", f"draws, default: {DRAWS}")
    parser.add_argument("--systems", type=some_of(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--texts", type=comma_list, default=list(TEXTS))
    parser.set_defaults(seeds=DRAWS)
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, then print everything."""
    measure_and_show(parse(), "raw-text", run_missing, show)


if __name__ == "__main__":
    main()
