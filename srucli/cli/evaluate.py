"""`srucli eval`: parse, call, print. What measures is `srucli/inference/evaluation.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from srucli.cli import options
from srucli.errors import GateError, OutputError, UsageError
from srucli.io.console import say
from srucli.io.folders import OpenFolder

if TYPE_CHECKING:
    from srucli.config import DataConfig
    from srucli.data.readers import Example
    from srucli.inference.evaluation import Evaluation, OnChunk, Scorer
    from srucli.inference.predictor import Predictor

# Metrics with the bounds that they have to reach; a metric may have several.
Gates = Sequence[tuple[str, float]]
COLUMNS = ("record", "line", "gold", "predicted", "probability", "text")


@options.reads_data("multi_label")
def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, as `srucli train` prints it.")
    ],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Labelled file; - is standard input.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write record and line (numbers from 1), gold, predicted, probability and text: "
            "JSON lines where FILE ends in .jsonl, else TSV (tabs and line ends in texts as \\t "
            "and \\n).",
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Draw confusion matrix, reliability diagram and learning curve, PNG and SVG.",
        ),
    ] = None,
    fail_under: options.FailUnder = None,
    device: options.Device = None,
    threads: options.Threads = None,
    *,
    data: options.Settings,
) -> None:
    """Measure a run on a labelled file.

    Prints figures with 95% intervals, the classes and their confusions.
    The file is read as the training file was, unless its ending, its header, a byte-order mark, a
    flag or the place of the run's labels in it says otherwise. Labels that the model does not know
    count as errors and are named.
    Of log_loss, hamming_loss and calibration_error the smaller is the better.
    """
    gates = parse_gates(fail_under or [])
    _check_paths(run, file, predictions, plots)
    from srucli.inference.predictor import Predictor
    from srucli.runtime import tune_process

    tune_process(threads or 0)
    predictor = Predictor.load(run, device or "auto")
    for sentence in predictor.said:
        say(sentence)
    check_gates(gates, predictor.multi_label)
    config = data_config(predictor.config.data, file, data)
    fresh = fresh_config(predictor.config.data, data)
    result = _evaluate(predictor, file, config, fresh, predictions, options.names(data))
    for note in result.notes:
        say(note)
    if as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        print(result.to_text())
    sys.stdout.flush()
    if plots is not None:
        from srucli.experiments.plots import draw
        from srucli.runs.run_dir import read_records

        for path in draw(result, read_records(run / "metrics.jsonl"), plots):
            print(path, file=sys.stderr)
    hold(gates, result.figures)


def parse_gates(wanted: Sequence[str]) -> Gates:
    """`["accuracy=0.9"]` -> [("accuracy", 0.9)]. Raises UsageError for wrong names or numbers."""
    if not wanted:
        return []
    from srucli.metrics import metric_named

    gates = []
    for gate in wanted:
        name, _, value = gate.partition("=")
        metric_named(name)
        try:
            bound = float(value)
        except ValueError:
            bound = float("nan")
        gates.append((name, bound))
        if bound != bound:
            raise UsageError(f"--fail-under {gate}: write METRIC=NUMBER, as accuracy=0.9")
    return gates


def check_gates(gates: Gates, multi_label: bool) -> None:
    """Raise UsageError for a metric that does not go with the task."""
    from srucli.metrics import metric_named

    for name, _ in gates:
        metric_named(name, multi_label)


def hold(gates: Gates, figures: Mapping[str, float]) -> None:
    """Raise GateError naming every gate that fails; a figure that is undefined fails."""
    from srucli.metrics import METRICS

    failed = []
    for name, bound in gates:
        value, larger = figures[name], METRICS[name].larger_is_better
        if not (value >= bound if larger else value <= bound):
            failed.append(
                f"{name} {value:.4f} is not {'at least' if larger else 'at most'} {bound:g}"
            )
    if failed:
        raise GateError("--fail-under: " + "; ".join(failed))


def data_config(trained: DataConfig, file: str, given: Mapping[str, object]) -> DataConfig:
    """How `file` is read: as the run's training file was, then as the flags `given` say.

    Where the file's ending names another format than the run's, the run's columns mean nothing.
    Raises UsageError.
    """
    from srucli.config import build
    from srucli.data.formats import format_by_ending

    named = format_by_ending(file)
    settings = trained.model_dump()
    same = named in (None, trained.format) or (named, trained.format) == ("tsv", "csv")
    if trained.format != "auto" and not same:
        kept = {"multi_label", "label_delimiter", "merge_labels"}
        settings = trained.model_dump(include=kept)
    settings |= {key.removeprefix("data."): value for key, value in given.items()}
    return build({"data": settings}, "flags").data


def fresh_config(trained: DataConfig, given: Mapping[str, object]) -> DataConfig:
    """How a file is read that is not like the run's training file: by itself, and by `given`."""
    from srucli.config import OF_LAYOUT, build

    settings = trained.model_dump(exclude=set(OF_LAYOUT))
    settings |= {key.removeprefix("data."): value for key, value in given.items()}
    return build({"data": settings}, "flags").data


def _check_paths(run: Path, file: str, predictions: Path | None, plots: Path | None) -> None:
    """Complain about names before the model is loaded, which takes seconds."""
    options.need_run(run)
    options.need_file(file)
    if predictions is not None and not predictions.absolute().parent.is_dir():
        raise OutputError(f"{predictions}: its folder does not exist; make it first")
    if predictions is not None and predictions.is_dir():
        raise OutputError(f"{predictions}: is a folder; name a file")
    if predictions is not None:
        from srucli.runs.claim import OWN, files_of, refuse_inputs
        from srucli.runs.run_dir import LAYOUT

        refuse_inputs([predictions], [file, *files_of(run, {**LAYOUT, **OWN})])
    if plots is not None:
        from srucli.experiments.plots import OF_EVALUATION, check_folder

        check_folder(plots, OF_EVALUATION)


def _evaluate(
    predictor: Predictor,
    file: str,
    config: DataConfig,
    fresh: DataConfig,
    predictions: Path | None,
    asked: Sequence[str],
) -> Evaluation:
    from tqdm import tqdm

    from srucli.data.readers import read_examples
    from srucli.inference.evaluation import evaluate

    source = "<stdin>" if file == "-" else file
    opened = nullcontext() if predictions is None else replacing(predictions)
    with opened as stream, tqdm(unit=" texts", disable=None, leave=False) as bar:
        write = None
        if predictions is not None and stream is not None:
            write = predictions_writer(stream, predictions, predictor, config.label_delimiter)

        def observe(examples: Sequence[Example], probabilities: Any) -> None:
            bar.update(len(examples))
            if write is not None:
                write(examples, probabilities)

        reading = read_examples(file, config, predictor.labels, fresh, predictor.names)
        examples = reading.told(say, asked)
        merge = config.merge_labels
        return evaluate(predictor, examples, source=source, observe=observe, merge=merge)


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the name `path` once it is complete and on disk; else nothing stays.

    What is no regular file, such as /dev/stdout, is written directly. Raises OutputError.
    """
    try:
        if path.exists() and not path.is_file():
            with open(path, "w", encoding="utf-8", newline="\n") as stream:
                yield stream
            return
        target = path.resolve()
        with (
            OpenFolder.at(target.parent) as folder,
            folder.replacing(target.name) as descriptor,
            open(descriptor, "w", encoding="utf-8", newline="\n", closefd=False) as stream,
        ):
            yield stream
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def predictions_writer(stream: TextIO, path: Path, predictor: Scorer, joiner: str) -> OnChunk:
    """What writes each chunk's predictions to `stream`, in the format that the ending of `path`
    names; where texts have several labels, TSV joins them, and their probabilities, by `joiner`."""
    from srucli.metrics import decide

    as_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    row = _json_row if as_json else _tsv_row
    numbers = count(1)
    if not as_json:
        stream.write("\t".join(COLUMNS) + "\n")

    def write(examples: Sequence[Example], probabilities: Any) -> None:
        decided = decide(probabilities, predictor.thresholds, predictor.multi_label)
        for example, p, choice in zip(examples, probabilities, decided, strict=True):
            chosen = choice.nonzero()[0] if predictor.multi_label else [choice]
            said = [(predictor.labels[index], float(p[index])) for index in chosen]
            several = joiner if predictor.multi_label else None
            stream.write(row(next(numbers), example, said, several))

    return write


Said = Sequence[tuple[str, float]]  # labels and their probabilities


def _json_row(number: int, example: Example, said: Said, joiner: str | None) -> str:
    columns: list[Any] = [list(example.labels), [name for name, _ in said], [p for _, p in said]]
    if joiner is None:
        columns = [column[0] for column in columns]
    values = (number, example.line, *columns, example.text)
    return json.dumps(dict(zip(COLUMNS, values, strict=True)), ensure_ascii=False) + "\n"


_ONE_LINE = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _tsv_row(number: int, example: Example, said: Said, joiner: str | None) -> str:
    columns = [example.labels, [name for name, _ in said], [f"{p:.6f}" for _, p in said]]
    joined = ((joiner or ",").join(column) for column in columns)
    cells = [str(number), str(example.line), *joined, example.text]
    return "\t".join(cell.translate(_ONE_LINE) for cell in cells) + "\n"
