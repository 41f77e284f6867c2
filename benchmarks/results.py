"""The results file of a benchmark over sets: JSON lines, one per measurement; its flags and tables.

A cell is a measurement: what identifies it (set, system, seed and so on), and what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from benchmarks.sets import SHARED_DATA

Cell = dict[str, Any]


def comma_list(text: str) -> list[str]:
    """Split `a,b` into two words."""
    return text.split(",")


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that splits `a,b` into words, of which argparse refuses unknown ones."""
    allowed = list(known)

    def words(text: str) -> list[str]:
        found = comma_list(text)
        if unknown := [word for word in found if word not in allowed]:
            problem = f"unknown: {', '.join(unknown)}; known: {', '.join(allowed)}"
            raise argparse.ArgumentTypeError(problem)
        return found

    return words


def parser_for(
    document: str,
    sets: Sequence[str],
    output: str,
    seeds: str = "default: 3, cross-validation 1",
) -> argparse.ArgumentParser:
    """Return the parser of a benchmark over sets; `document` is its docstring."""
    parser = argparse.ArgumentParser(description=document.partition("\n")[0])
    parser.add_argument("--sets", type=comma_list, default=list(sets))
    parser.add_argument("--seeds", type=int, help=seeds)
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of the sets")
    parser.add_argument("-o", "--output", type=Path, default=Path(output))
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    return parser


def read_cells(file: Path) -> list[Cell]:
    """Return the measurements done so far."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def measure_missing(output: Path, cell: Cell, measured: Callable[[], Cell]) -> None:
    """Append a line to the results file, unless one for this cell stands there.

    cell: what identifies the measurement; `measured` makes it.
    """
    if any(cell.items() <= found.items() for found in read_cells(output)):
        return
    line = json.dumps(cell | measured())
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a", encoding="utf-8") as out:
        out.write(line + "\n")
    print(line, file=sys.stderr)


def measure_and_show(
    arguments: argparse.Namespace,
    name: str,
    run_missing: Callable[[argparse.Namespace, Path], None],
    show: Callable[[list[Cell]], None],
) -> None:
    """Measure what is missing, unless only the table is wanted; then print everything.

    name: of the benchmark. run_missing gets a folder for its files, which is removed at the end.
    """
    if not arguments.table:
        with tempfile.TemporaryDirectory(prefix=f"srucli-{name}-") as scratch:
            run_missing(arguments, Path(scratch))
    show(read_cells(arguments.output))


def spread(cells: Sequence[Cell], figure: str) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation over seeds or over folds of one seed, or None."""
    by_seed: defaultdict[int, list[float]] = defaultdict(list)
    for cell in cells:
        by_seed[cell["seed"]].append(cell[figure])
    values = [fmean(values) for values in by_seed.values()]
    if len(values) == 1:
        values = by_seed.popitem()[1]
    return fmean(values), stdev(values) if len(values) > 1 else None


def percent(cells: Sequence[Cell], figure: str, sign: Literal["", "+"] = "") -> str:
    """Format a share as '87.9 ± 0.4', in percent; `sign` '+' marks positive means."""
    if not cells:
        return ""
    mean, deviation = spread(cells, figure)
    return f"{100 * mean:{sign}.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
