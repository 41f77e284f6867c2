"""srucli's default recipe beside what a user would pick instead, on labelled sets.

Usage: python -m benchmarks.accuracy [--sets trec,sst2] [--systems srucli,fasttext] [--seeds N]
       [--data DIR] [-o runs/accuracy.jsonl] [--table]

A set is a folder with train, dev (or not) and test, or with `all`, each `.tsv` or `.tsv.gz`; the
sets `django` and `django_keep_all` are made by data/django_locales.py on the way. srucli runs as a
person would type it, with no flag but the file of dev texts where the set has one (and
data.multi_label=true for goemotions, which says what the file is). Peers use dev only for
thresholds of multi-label sets.

Seeds: 3 of each system that depends on one. A set without a split is cross-validated in 5
stratified folds, the folds drawn anew for each seed; by default one seed. The table shows mean and
standard deviation over seeds, or over folds where there is one seed.

Every measurement (set, system, seed, fold) is a line of the results file as soon as it is done, and
one that stands there is not repeated. Seconds are wall-clock: for srucli the whole command. The
table goes to stdout, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from time import perf_counter
from typing import Any

from sklearn.model_selection import StratifiedKFold

from benchmarks.peers import PEERS, Figures, measure, read_task
from benchmarks.sets import ROOT, SHARED_DATA, Files, find, read_rows, split_files, srucli

MADE: dict[str, list[str]] = {"django": [], "django_keep_all": ["--keep-all"]}
SETS = (
    *(*MADE, "trec", "sst2", "cr", "mr", "subj", "mpqa", "banking77", "agnews_10k"),
    *("nsmc_rebuilt", "sms_spam", "goemotions", "atis", "tatoeba_langid", "movie_reviews_2k"),
)
MULTI_LABEL = {"goemotions"}
LONG = {"movie_reviews_2k"}
MACRO_F1_TOO = {"sms_spam", "goemotions"}
FOLDS = 5
SEEDS = 3
SEEDLESS = {"linear-svm", "linear-svm-good", "linear-sum"}
SYSTEMS = ("srucli", *PEERS)

Cell = dict[str, Any]


def set_folder(name: str, data: Path, scratch: Path) -> Path | None:
    """Return the folder of a set, None if it is missing; the demo's set is created."""
    folder = data / name
    if name in MADE and not folder.is_dir():
        folder = scratch / name
        if not folder.is_dir():
            script = ROOT / "data" / "django_locales.py"
            subprocess.run([sys.executable, script, folder, *MADE[name]], check=True)
    return folder if folder.is_dir() else None


def write_folds(file: Path, seed: int, folder: Path) -> list[Files]:
    """Write the training and test files of stratified folds, drawn by `seed`."""
    rows = read_rows(file)
    labels = [label for label, _ in rows]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(rows, labels)
    written = []
    for fold, (train, test) in enumerate(folds):
        files = Files(folder / f"train-{seed}-{fold}.tsv", folder / f"test-{seed}-{fold}.tsv", None)
        for path, chosen in ((files.train, train), (files.test, test)):
            lines = (f"{rows[i][0]}\t{rows[i][1]}\n" for i in chosen)
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
        written.append(files)
    return written


def parts(folder: Path, seed: int, scratch: Path) -> Iterator[tuple[int | None, Files]]:
    """Yield the measurements of a set and seed: fold (None for a set with a split) and files."""
    if everything := find(folder, "all"):
        place = scratch / f"{folder.name}-folds"
        place.mkdir(exist_ok=True)
        yield from enumerate(write_folds(everything, seed, place))
    elif files := split_files(folder):
        yield None, files
    else:
        sys.exit(f"{folder}: neither train and test nor all (.tsv or .tsv.gz)")


def prediction_megabytes(run: Path) -> float:
    """Return the size of what prediction needs: tokenizer, labels, settings, one checkpoint."""
    checkpoint = run / "checkpoints" / (run / "last").read_text(encoding="utf-8").strip()
    files = [run / name for name in ("tokenizer.model", "labels.json", "config.yaml", "run.json")]
    files += [checkpoint / name for name in ("model.safetensors", "state.json", "manifest.json")]
    return sum(file.stat().st_size for file in files) / 1e6


def measure_srucli(files: Files, multi_label: bool, seed: int, scratch: Path) -> Figures:
    """Train and evaluate with the commands, as users do."""
    run = Path(tempfile.mkdtemp(dir=scratch)) / "run"
    dev = ["--dev", files.dev] if files.dev else []
    several = ["data.multi_label=true"] if multi_label else []
    start = perf_counter()
    srucli("train", files.train, *dev, *several, "-o", run, "--seed", seed)
    seconds = perf_counter() - start
    found = json.loads(srucli("eval", run, files.test, "--json"))
    return {
        "accuracy": found["metrics"]["accuracy"],
        "macro_f1": found["metrics"]["macro_f1"],
        "train_seconds": seconds,
        "texts_per_second": found["texts_per_second"],
        "parameters": json.loads((run / "run.json").read_text(encoding="utf-8"))["parameters"],
        "megabytes": prediction_megabytes(run),
    }


def measure_system(name: str, system: str, files: Files, seed: int, scratch: Path) -> Figures:
    """Measure one system on one set's files."""
    multi_label = name in MULTI_LABEL
    if system == "srucli":
        return measure_srucli(files, multi_label, seed, scratch)
    task = read_task(files.train, files.test, files.dev, multi_label, name in LONG)
    return measure(system, task, seed)


def read_cells(file: Path) -> list[Cell]:
    """Return the measurements done so far."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def key(cell: Cell) -> tuple[Any, ...]:
    """Return what identifies a measurement."""
    return cell["set"], cell["system"], cell["seed"], cell["fold"]


def seeds_of(system: str, folder: Path, wanted: int | None) -> range:
    """Return the seeds of a system on a set."""
    folded = find(folder, "all") is not None
    return range(1 if system in SEEDLESS else wanted or (1 if folded else SEEDS))


def run_missing(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure what is missing in the results file, and append a line each."""
    done = {key(cell) for cell in read_cells(arguments.output)}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets:
        folder = set_folder(name, arguments.data, scratch)
        if folder is None:
            print(f"{name}: not in {arguments.data}, left out", file=sys.stderr)
            continue
        for system in arguments.systems:
            for seed in seeds_of(system, folder, arguments.seeds):
                for fold, files in parts(folder, seed, scratch):
                    cell: Cell = {"set": name, "system": system, "seed": seed, "fold": fold}
                    if key(cell) in done:
                        continue
                    cell |= measure_system(name, system, files, seed, scratch)
                    with arguments.output.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(cell) + "\n")
                    print(json.dumps(cell), file=sys.stderr)


def spread(cells: Sequence[Cell], figure: str) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation over seeds or over folds of one seed, or None."""
    by_seed: defaultdict[int, list[float]] = defaultdict(list)
    for cell in cells:
        by_seed[cell["seed"]].append(cell[figure])
    values = [fmean(values) for values in by_seed.values()]
    if len(values) == 1:
        values = by_seed.popitem()[1]
    return fmean(values), stdev(values) if len(values) > 1 else None


def percent(cells: Sequence[Cell], figure: str) -> str:
    """Format a share as '87.9 ± 0.4', in percent."""
    if not cells:
        return ""
    mean, deviation = spread(cells, figure)
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quality_table(grouped: dict[tuple[str, str], list[Cell]], names: list[str]) -> str:
    """Return a table with a row per set and a column per system."""
    rows = []
    for name in names:
        for figure in ("accuracy", "macro_f1")[: 2 if name in MACRO_F1_TOO else 1]:
            row = [percent(grouped.get((name, system), []), figure) for system in SYSTEMS]
            rows.append([name, figure.replace("_f1", "-F1"), *row])
    return markdown(["set", "metric", *SYSTEMS], rows)


def cost_table(grouped: dict[tuple[str, str], list[Cell]], names: list[str]) -> str:
    """Return a table of the mean costs of each system."""
    rows = []
    for name in names:
        for system in SYSTEMS:
            if cells := grouped.get((name, system)):
                seconds, rate, parameters, megabytes = (
                    fmean(cell[figure] for cell in cells)
                    for figure in ("train_seconds", "texts_per_second", "parameters", "megabytes")
                )
                sizes = [f"{parameters / 1e6:,.2f}", f"{megabytes:,.1f}"]
                rows.append([name, system, f"{seconds:,.1f}", f"{rate:,.0f}", *sizes])
    return markdown(["set", "system", "training, s", "texts/s", "parameters, millions", "MB"], rows)


def show(cells: list[Cell]) -> None:
    """Print the tables, then one JSON line of means."""
    grouped: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        grouped[cell["set"], cell["system"]].append(cell)
    found = {name for name, _ in grouped}
    names = [name for name in SETS if name in found] + sorted(found - set(SETS))
    print(quality_table(grouped, names), cost_table(grouped, names), sep="\n\n")
    means: defaultdict[str, dict[str, Figures]] = defaultdict(dict)
    for (name, system), group in grouped.items():
        figures = group[0].keys() - {"set", "system", "seed", "fold"}
        means[name][system] = {figure: spread(group, figure)[0] for figure in sorted(figures)}
    print("\n" + json.dumps(means))


def comma_list(text: str) -> list[str]:
    """Split `a,b` into two words."""
    return text.split(",")


def parser_for(document: str, sets: Sequence[str], output: str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark over sets; `document` is its docstring."""
    parser = argparse.ArgumentParser(description=document.partition("\n")[0])
    parser.add_argument("--sets", type=comma_list, default=list(sets))
    parser.add_argument("--seeds", type=int, help="default: 3, cross-validation 1")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of the sets")
    parser.add_argument("-o", "--output", type=Path, default=Path(output))
    parser.add_argument("--table", action="store_true", help="only print what is measured")
    return parser


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = parser_for(__doc__, SETS, "runs/accuracy.jsonl")
    parser.add_argument("--systems", type=comma_list, default=list(SYSTEMS))
    arguments = parser.parse_args()
    if unknown := set(arguments.systems) - set(SYSTEMS):
        parser.error(f"unknown systems {sorted(unknown)}; known: {', '.join(SYSTEMS)}")
    return arguments


def main() -> None:
    """Measure what is missing, then print everything."""
    arguments = parse()
    if not arguments.table:
        with tempfile.TemporaryDirectory(prefix="srucli-accuracy-") as scratch:
            run_missing(arguments, Path(scratch))
    show(read_cells(arguments.output))


if __name__ == "__main__":
    main()
