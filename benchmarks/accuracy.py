"""srucli's default recipe beside what a user would pick instead, on labelled sets.

Usage: python -m benchmarks.accuracy [--sets trec,sst2] [--systems srucli,fasttext] [--seeds N]
       [--data DIR] [-o runs/accuracy.jsonl] [--table]

A set is a folder with train, dev (or not) and test, or with `all`, each `.tsv` or `.tsv.gz`; if
there is no test, dev is the test. The sets `django` and `django_keep_all` are made by
data/django_locales.py on the way. srucli runs as a person would type it, with no flag but the file
of dev texts where the set has one (and data.multi_label=true for goemotions, which says what the
file is). `srucli-no-dev` is the same without the dev texts; it is measured where there are some.
Peers use dev only for thresholds of multi-label sets.

Seeds: 3 of each system that depends on one. A set without a split is cross-validated in 5
stratified folds, the folds drawn anew for each seed; by default one seed. The table shows mean and
standard deviation over seeds, or over folds where there is one seed.

Calibration errors in the table are those of srucli without dev texts, on single-label sets, beside
the mean error that a perfectly calibrated model with the same confidences would show. Below the
table is the mean over sets, each of which counts as much.

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
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter

from benchmarks import extra
from benchmarks.calibration import calibrated_error, read_predictions
from benchmarks.peers import PEERS, Figures, measure, read_task
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
from benchmarks.sets import (
    ROOT,
    Files,
    find,
    read_rows,
    split_files,
    srucli,
    write_rows,
)

with extra():
    from sklearn.model_selection import StratifiedKFold

MADE: dict[str, list[str]] = {"django": [], "django_keep_all": ["--keep-all"]}
SETS = (
    *(*MADE, "trec", "sst2", "cr", "mr", "subj", "mpqa", "banking77", "agnews_10k"),
    *("nsmc_rebuilt", "sms_spam", "goemotions", "atis", "tatoeba_langid", "movie_reviews_2k"),
    *("wisesight", "waimai_10k", "korean_hate", "tweeteval_emotion", "xlmt_sentiment"),
    *("bbc_news", "trec_fine"),
)
MULTI_LABEL = {"goemotions"}
LONG = {"movie_reviews_2k", "bbc_news"}
MACRO_F1_TOO = {"sms_spam", "goemotions", "korean_hate", "tweeteval_emotion", "xlmt_sentiment"}
FOLDS = 5
SEEDS = 3
SEEDLESS = {"linear-svm", "linear-svm-good", "linear-sum"}
NO_DEV = "srucli-no-dev"
SYSTEMS = ("srucli", NO_DEV, *PEERS)
CALIBRATION = ("calibration_error", "calibrated_error")

Grouped = dict[tuple[str, str], list[Cell]]  # by set and system


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
            write_rows(path, (rows[i] for i in chosen))
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
    own = ("tokenizer.model", "ngrams.safetensors", "labels.json", "config.yaml", "run.json")
    files = [run / name for name in own]
    files += [checkpoint / name for name in ("model.safetensors", "state.json", "manifest.json")]
    return sum(file.stat().st_size for file in files) / 1e6


def measure_srucli(
    files: Files, multi_label: bool, seed: int, scratch: Path, *flags: object
) -> Figures:
    """Train, with these flags, and evaluate with the commands, as users do.

    `with_dev` is 1 if there were dev texts. Calibration errors are those of single-label sets.
    """
    dev = ["--dev", files.dev] if files.dev else []
    several = ["data.multi_label=true"] if multi_label else []
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        run, predictions = Path(folder, "run"), Path(folder, "predictions.jsonl")
        start = perf_counter()
        srucli("train", files.train, *dev, *several, *flags, "-o", run, "--seed", seed)
        seconds = perf_counter() - start
        printed = srucli("eval", run, files.test, "--json", "--predictions", predictions)
        found = json.loads(printed)
        figures = {
            "accuracy": found["metrics"]["accuracy"],
            "macro_f1": found["metrics"]["macro_f1"],
            "train_seconds": seconds,
            "texts_per_second": found["texts_per_second"],
            "parameters": json.loads((run / "run.json").read_text(encoding="utf-8"))["parameters"],
            "megabytes": prediction_megabytes(run),
            "with_dev": int(files.dev is not None),
        }
        if not multi_label:
            errors = (
                found["metrics"]["calibration_error"],
                calibrated_error(read_predictions(predictions)),
            )
            figures |= zip(CALIBRATION, errors, strict=True)
    return figures


def measure_system(name: str, system: str, files: Files, seed: int, scratch: Path) -> Figures:
    """Measure one system on one set's files."""
    multi_label = name in MULTI_LABEL
    if system == NO_DEV:
        files = files._replace(dev=None)
    if system in ("srucli", NO_DEV):
        return measure_srucli(files, multi_label, seed, scratch)
    task = read_task(files.train, files.test, files.dev, multi_label, name in LONG)
    return measure(PEERS[system], task, seed)


def seeds_of(system: str, folder: Path, wanted: int | None) -> range:
    """Return the seeds of a system on a set."""
    folded = find(folder, "all") is not None
    return range(1 if system in SEEDLESS else wanted or (1 if folded else SEEDS))


def folders(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield the sets that are there, with their folders."""
    for name in arguments.sets:
        if folder := set_folder(name, arguments.data, scratch):
            yield name, folder
        else:
            print(f"{name}: not in {arguments.data}, left out", file=sys.stderr)


def run_missing(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure what is missing in the results file, and append a line each."""
    for name, folder in folders(arguments, scratch):
        for system in arguments.systems:
            for seed in seeds_of(system, folder, arguments.seeds):
                for fold, files in parts(folder, seed, scratch):
                    if system == NO_DEV and files.dev is None:
                        continue  # as `srucli` runs
                    cell: Cell = {"set": name, "system": system, "seed": seed, "fold": fold}
                    measured = partial(measure_system, name, system, files, seed, scratch)
                    measure_missing(arguments.output, cell, measured)


def calibration(grouped: Grouped, name: str) -> tuple[float, float] | None:
    """Return the calibration error without dev texts, and that of a calibrated model.

    None for a multi-label set, and if that was not measured.
    """
    cells = [cell for system in ("srucli", NO_DEV) for cell in grouped.get((name, system), [])]
    cells = [cell for cell in cells if cell.get("with_dev") == 0 and CALIBRATION[0] in cell]
    if not cells:
        return None
    error, calibrated = (spread(cells, figure)[0] for figure in CALIBRATION)
    return error, calibrated


def pooled_calibration(grouped: Grouped, names: Sequence[str]) -> Figures:
    """Return mean calibration errors over the sets that have them; empty if none has."""
    errors = [found for name in names if (found := calibration(grouped, name))]
    if not errors:
        return {}
    error, calibrated = map(fmean, zip(*errors, strict=True))
    figures = zip(CALIBRATION, (error, calibrated), strict=True)
    return {**dict(figures), "excess": error - calibrated, "sets": len(errors)}


def quality_table(grouped: Grouped, names: Sequence[str]) -> str:
    """Return a table with a row per set and a column per system, and the calibration of srucli."""
    rows = []
    for name in names:
        errors = [f"{error:.3f}" for error in calibration(grouped, name) or ()] or ["", ""]
        for figure in ("accuracy", "macro_f1")[: 2 if name in MACRO_F1_TOO else 1]:
            row = [percent(grouped.get((name, system), []), figure) for system in SYSTEMS]
            row += errors if figure == "accuracy" else ["", ""]
            rows.append([name, figure.replace("_f1", "-F1"), *row])
    return markdown(["set", "metric", *SYSTEMS, "calibration error", "if calibrated"], rows)


def cost_table(grouped: Grouped, names: Sequence[str]) -> str:
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
    print(quality_table(grouped, names))
    pooled = pooled_calibration(grouped, names)
    if pooled:
        print(
            "\ncalibration error without dev texts, mean over {sets} single-label sets: "
            "{calibration_error:.3f}; perfectly calibrated models {calibrated_error:.3f}, "
            "excess {excess:.3f}".format(**pooled)
        )
    print("\n" + cost_table(grouped, names))
    means: defaultdict[str, dict[str, Figures]] = defaultdict(dict)
    for (name, system), group in grouped.items():
        figures = set.intersection(*map(set, group)) - {"set", "system", "seed", "fold", "with_dev"}
        means[name][system] = {figure: spread(group, figure)[0] for figure in sorted(figures)}
    if pooled:
        means["single-label sets"]["srucli without dev texts"] = pooled
    print("\n" + json.dumps(means))


def main() -> None:
    """Measure what is missing, then print everything."""
    parser = parser_for(__doc__, SETS, "runs/accuracy.jsonl")
    parser.add_argument("--systems", type=some_of(SYSTEMS), default=list(SYSTEMS))
    measure_and_show(parser.parse_args(), "accuracy", run_missing, show)


if __name__ == "__main__":
    main()
