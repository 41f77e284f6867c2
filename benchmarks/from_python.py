"""Training and prediction from Python beside the same command, in pairs.

Usage: python -m benchmarks.from_python [--sets trec,sst2] [--rounds N] [--busy N] [--data DIR]

Each round runs, for each set, `srucli train` and `srucli predict`, and two programs that do the
same with `srucli.train`, of lists, and `Classifier.predict`: one in its own process, one with
`process=True`. Each is a process of its own, whose whole time counts. Their order changes from
round to round. The texts that are predicted are those of the training file, REPEATED times.

`--busy N` keeps N processes computing meanwhile. `ratio` is the median, with quartiles, of the time
of a program divided by that of the command in the same round. The table goes to stdout, then one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from benchmarks.results import comma_list, markdown
from benchmarks.sets import SHARED_DATA, command, environment, need_split, read_rows, write_rows

SETS = ("trec", "sst2")
REPEATED = 10
TRAIN = """
import sys
import srucli
rows = [line.rstrip("\\n").partition("\\t") for line in open(sys.argv[1], encoding="utf-8")]
labels, _, texts = zip(*rows)
srucli.train(texts, labels, output=sys.argv[2], force=True, process={process})
"""
PREDICT = """
import sys
import srucli
texts = open(sys.argv[2], encoding="utf-8").read().splitlines()
with open(sys.argv[3], "w", encoding="utf-8") as out:
    out.writelines(f"{label}\\n" for label in srucli.load(sys.argv[1]).predict(texts))
"""
WAYS = ("command", "Python", "process=True")

Job = Callable[[], Path]  # returns what it wrote


def run(words: Sequence[object], output: Path | None = None) -> None:
    """Run a process, with its stdout in a file."""
    with open(output or "/dev/null", "wb") as out:
        given = list(map(str, words))
        subprocess.run(given, stdout=out, stderr=subprocess.DEVNULL, env=environment(), check=True)


def trained(way: str, file: Path, folder: Path) -> Path:
    """Train in a way; return the run."""
    output = folder / f"run-{WAYS.index(way)}"
    if way == "command":
        run(command("train", file, "-o", output, "--force"))
    else:
        code = TRAIN.format(process=way == "process=True")
        run([sys.executable, "-c", code, file, output])
    return output


def predicted(way: str, model: Path, file: Path, folder: Path) -> Path:
    """Predict in a way; return the file of labels."""
    output = folder / f"labels-{WAYS.index(way)}.txt"
    if way == "command":
        run(command("predict", model, file), output)
    else:
        run([sys.executable, "-c", PREDICT, model, file, output])
    return output


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep processes computing during a block."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def timed(jobs: Mapping[str, Job], rounds: int) -> Iterator[tuple[str, float]]:
    """Yield the seconds of each job, round by round."""
    names = list(jobs)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = perf_counter()
            jobs[name]()
            yield name, perf_counter() - start


def check_same(outputs: Sequence[Path]) -> None:
    """Raise ValueError if the labels in these files are not the same."""
    if len({output.read_bytes() for output in outputs}) != 1:
        raise ValueError("the command and Python do not predict the same labels")


def measure(
    file: Path, arguments: argparse.Namespace, folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each task and way, round by round."""
    rows = read_rows(file)
    labelled, texts = folder / "train.tsv", folder / "texts.txt"
    write_rows(labelled, rows)
    texts.write_text("".join(f"{text}\n" for _, text in rows) * REPEATED, encoding="utf-8")
    training = {way: partial(trained, way, labelled, folder) for way in WAYS}
    model = training["command"]().rename(folder / "model")  # and kernels are compiled
    predicting = {way: partial(predicted, way, model, texts, folder) for way in WAYS[:2]}
    check_same([job() for job in predicting.values()])
    found: dict[str, dict[str, list[float]]] = {}
    for task, jobs in (("train", training), ("predict", predicting)):
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        with busy(arguments.busy):
            for way, taken in timed(jobs, arguments.rounds):
                seconds[way].append(taken)
        found[task] = seconds
    return found


def ratio(seconds: Sequence[float], others: Sequence[float]) -> str:
    """Format the median and the quartiles of the ratios of pairs."""
    ratios = [own / other for own, other in zip(seconds, others, strict=True)]
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    low, middle, high = quantiles(ratios, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def table(found: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Return a table with a row per set, task and way."""
    rows = [
        [name, task, way, f"{median(seconds):.1f}", ratio(seconds, ways["command"])]
        for name, tasks in found.items()
        for task, ways in tasks.items()
        for way, seconds in ways.items()
    ]
    return markdown(["set", "task", "way", "median, s", "ratio to the command"], rows)


def main() -> None:
    """Measure everything, then print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", type=comma_list, default=list(SETS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of the sets")
    arguments = parser.parse_args()
    found = {}
    for name in arguments.sets:
        files = need_split(arguments.data / name)
        with tempfile.TemporaryDirectory(prefix="srucli-from-python-") as folder:
            found[name] = measure(files.train, arguments, Path(folder))
            print(json.dumps({name: found[name]}), file=sys.stderr)
    print(table(found))
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
