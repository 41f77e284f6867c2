"""Accuracy with 100 and 1,000 training texts: srucli beside its peers, on the same draws.

Usage: python -m benchmarks.little_data [--sets sst2,banking77] [--systems srucli,linear-sum]
       [--seeds N] [--data DIR] [-o runs/little_data.jsonl] [--table]

A draw takes texts at random from the training file of a set. Where that would lose a label, it
takes one text of each label first, and the others at random. Seed N is draw N of every system and
its own seed; there are 5. No system gets dev texts, and srucli no flag. All are tested on the whole
test file.

The table shows mean and standard deviation over the draws, in percent, with the best peer in bold.
Then comes by how much srucli is ahead of that peer: the mean and standard deviation of the
differences on the same draws.

Every measurement (set, texts, system, seed) is a line of the results file as soon as it is done,
and one that stands there is not repeated. The table goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks.accuracy import MULTI_LABEL, folders, measure_system
from benchmarks.peers import PEERS
from benchmarks.results import (
    Cell,
    markdown,
    measure_and_show,
    measure_missing,
    parser_for,
    percent,
    some_of,
    spread,
)
from benchmarks.sets import Files, need_split, read_rows, write_rows

SETS = ("sst2", "nsmc_rebuilt", "agnews_10k", "banking77")
SIZES = (100, 1_000)
DRAWS = 5
SYSTEMS = ("srucli", *PEERS)

Row = tuple[str, str]
Grouped = Mapping[tuple[str, int, str], list[Cell]]  # by set, number of texts, system


def draw(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """Return `size` of the (label, text) rows, with as many of the labels as there is room for."""
    order = random.Random(seed).sample(rows, len(rows))
    if {label for label, _ in order[:size]} != {label for label, _ in rows}:
        first = {label: index for index, (label, _) in reversed([*enumerate(order)])}
        others = set(range(len(order))).difference(first.values())
        order = [order[index] for index in (*sorted(first.values()), *sorted(others))]
    return order[:size]


def run_missing(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure what is missing in the results file, and append a line each."""
    for name, folder in folders(arguments, scratch):
        files = need_split(folder)
        rows = read_rows(files.train)
        for size, seed in product(SIZES, range(arguments.seeds)):
            if len(rows) < size:
                sys.exit(f"{files.train}: {len(rows):,} texts, fewer than {size:,}")
            drawn = Files(scratch / f"{name}-{size}-{seed}.tsv", files.test, None)
            write_rows(drawn.train, draw(rows, size, seed))
            for system in arguments.systems:
                cell: Cell = {"set": name, "texts": size, "system": system, "seed": seed}
                measured = partial(measure_system, name, system, drawn, seed, scratch)
                measure_missing(arguments.output, cell, measured)


def ahead(cells: Sequence[Cell], others: Sequence[Cell]) -> str:
    """Format by how much accuracies are higher than others of the same draws; '' without any."""
    found = {cell["seed"]: cell["accuracy"] for cell in others}
    differences = [
        {"seed": cell["seed"], "accuracy": cell["accuracy"] - found[cell["seed"]]}
        for cell in cells
        if cell["seed"] in found
    ]
    return percent(differences, "accuracy", sign="+")


def table(grouped: Grouped, sizes: Sequence[tuple[str, int]]) -> str:
    """Return a table with a row per set and number of texts, and a column per system."""
    rows = []
    for name, size in sizes:
        cells = {system: grouped.get((name, size, system), []) for system in SYSTEMS}
        shown = {system: percent(cells[system], "accuracy") for system in SYSTEMS}
        row_ahead = ""
        if peers := [system for system in PEERS if cells[system]]:
            best = max(peers, key=lambda system: spread(cells[system], "accuracy")[0])
            shown[best] = f"**{shown[best]}**"
            row_ahead = ahead(cells["srucli"], cells[best])
        rows.append([name, f"{size:,}", *shown.values(), row_ahead])
    return markdown(["set", "texts", "srucli", *PEERS, "srucli ahead by"], rows)


def show(cells: Sequence[Cell]) -> None:
    """Print the table, then one JSON line of means and standard deviations."""
    grouped: defaultdict[tuple[str, int, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        grouped[cell["set"], cell["texts"], cell["system"]].append(cell)
    sizes = list(dict.fromkeys((name, size) for name, size, _ in grouped))
    print(table(grouped, sizes))
    means = [
        {"set": name, "texts": size, "system": system, "accuracy": mean, "deviation": deviation}
        for (name, size, system), found in grouped.items()
        for mean, deviation in [spread(found, "accuracy")]
    ]
    print("\n" + json.dumps(means))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = parser_for(__doc__, SETS, "runs/little_data.jsonl", f"draws, default: {DRAWS}")
    parser.add_argument("--systems", type=some_of(SYSTEMS), default=list(SYSTEMS))
    parser.set_defaults(seeds=DRAWS)
    arguments = parser.parse_args()
    if several := MULTI_LABEL.intersection(arguments.sets):
        parser.error(f"{', '.join(several)}: peers need dev texts for multi-label sets")
    return arguments


def main() -> None:
    """Measure what is missing, then print everything."""
    measure_and_show(parse(), "little-data", run_missing, show)


if __name__ == "__main__":
    main()
