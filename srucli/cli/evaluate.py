"""`srucli eval`: the flags and the output of `srucli/inference/evaluation.py`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from srucli.cli import options
from srucli.errors import DataError, GateError, OutputError, UsageError
from srucli.io.console import progress_bar, put, say, warn
from srucli.io.json_text import json_text

if TYPE_CHECKING:
    from srucli.data.readers import Example
    from srucli.inference.comparison import Comparison, Labelled
    from srucli.inference.evaluation import Evaluation, OnChunk, Scorer
    from srucli.inference.predictor import Predictor

# Metrics, and the value that each has to reach. A metric may occur twice.
Gates = Sequence[tuple[str, float]]
COLUMNS = ("record", "line", "gold", "predicted", "probability", "text")
ONE_LINE = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Command(options.Command):
    """The flags of `srucli eval` that stand for settings."""

    settings = ("data", "train.device", "train.threads")
    without = ("data.multi_label", "data.weight", "data.group")
    often = ("--predictions", "--plots", "--fail-under", "--json")
    examples = (
        "srucli eval runs/reviews test.tsv",
        "srucli eval runs/reviews test.tsv --fail-under accuracy=0.9",
    )


def command(
    context: typer.Context,
    run: options.RunFolder,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Labelled file; - is standard input.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write record and line (numbers from 1), gold, predicted, probability and text: "
            "JSON lines if FILE ends in .jsonl, else TSV (tabs and line ends in texts as \\t "
            "and \\n).",
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Draw confusion matrix, reliability diagram and learning curve as PNG and SVG.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Compare with another run on the same examples: the difference of each metric "
            "with a 95% interval, and McNemar's test. Predictions, plots and the gate are those "
            "of the first run.",
        ),
    ] = None,
    fail_under: options.FailUnder = None,
) -> None:
    """Evaluate a run on a labelled file.

    Metrics with 95% intervals, metrics of each class and the most frequent confusions are printed
    on stdout, notes on stderr. The exit code is 3 if --fail-under fails.

    The file is read like the training file, unless a flag, its ending, its header, a byte-order
    mark or the column with the run's labels shows otherwise. Labels that the model does not know
    count as errors and are listed.

    Smaller values of log_loss, hamming_loss and calibration_error are better.
    """
    gates = parse_gates(fail_under, _task(run) if fail_under else None)
    _check_paths(run, file, predictions, plots)
    if against is not None:
        _check_against(against, file)
    predictor = options.load_predictor(run, context.obj)
    if against is None:
        result, _ = _evaluate(predictor, file, options.of_data(context.obj), predictions)
        say(*result.notes)
        if as_json:  # else they are a part of the report
            warn(*(f"{result.source}: {remark}" for remark in result.remarks))
        shown: Evaluation | Comparison = result
    else:
        shown = _compare((run, against), predictor, file, context.obj, predictions)
        result = shown.one
    if as_json:
        print(json_text(shown.to_json()))
    else:
        put(*shown.to_text().split("\n"))
    sys.stdout.flush()
    if plots is not None:
        from srucli.experiments.plots import draw
        from srucli.runs.run_dir import read_records

        say(*map(str, draw(result, read_records(run / "metrics.jsonl"), plots)))
    check_gates(gates, result.metrics)


def _task(run: Path) -> bool | None:
    """Return whether a run is multi-label; None if there is no run."""
    from srucli.runs.run_dir import RunDir

    return RunDir.open(run).config().data.multi_label if (run / "run.json").is_file() else None


def parse_gates(wanted: Sequence[str] | None, multi_label: bool | None = None) -> Gates:
    """Return [("accuracy", 0.9)] for ["accuracy=0.9"].

    Raises UsageError, also for a metric that only the other task, multi-label, has.
    """
    from srucli.metrics import metric_named

    gates = []
    for gate in wanted or ():
        name, _, value = gate.partition("=")
        metric_named(name, multi_label, "--fail-under")
        try:
            bound = float(value)
        except ValueError:
            bound = math.nan
        if not math.isfinite(bound):
            raise UsageError(f"--fail-under {gate}: write METRIC=NUMBER, such as accuracy=0.9")
        gates.append((name, bound))
    return gates


def check_gates(gates: Gates, values: Mapping[str, float]) -> None:
    """Raise GateError for metrics that are worse than their gates, or undefined (NaN)."""
    from srucli.metrics import METRICS

    failed = []
    for name, bound in gates:
        value, larger = values[name], METRICS[name].larger_is_better
        if not (value >= bound if larger else value <= bound):
            failed.append(
                f"{name} {value:.4f} is not {'at least' if larger else 'at most'} {bound:g}"
            )
    if failed:
        raise GateError("--fail-under: " + "; ".join(failed))


def _check_paths(run: Path, file: str, predictions: Path | None, plots: Path | None) -> None:
    """Refuse wrong paths before the model is loaded, which takes seconds."""
    from srucli.runs.claim import OWN, files_of, need_run, refuse_inputs

    need_run(run)
    options.need_files(file)
    if predictions is not None:
        if not predictions.absolute().parent.is_dir():
            raise OutputError(f"{predictions}: its folder does not exist; make it first")
        if predictions.is_dir():
            raise OutputError(f"{predictions}: is a folder; name a file")
        from srucli.runs.run_dir import LAYOUT

        refuse_inputs([predictions], [file, *files_of(run, {**LAYOUT, **OWN})])
    if plots is not None:
        from srucli.experiments.plots import OF_EVALUATION, check_folder

        check_folder(plots, OF_EVALUATION)


def _check_against(run: Path, file: str) -> None:
    from srucli.io.streams import is_piped
    from srucli.runs.claim import need_run

    need_run(run)
    if is_piped(file):
        raise UsageError(f"--against reads the examples twice; give a file instead of {file}")


def _compare(
    runs: tuple[Path, Path],
    predictor: Predictor,
    file: str,
    flags: Mapping[str, Any],
    predictions: Path | None,
) -> Comparison:
    """Evaluate two runs, the first of which is loaded, each with its own reading of the file."""
    from srucli.inference.comparison import Comparison, check_same_examples, check_same_labels
    from srucli.io.streams import display_name

    names, data = (str(runs[0]), str(runs[1])), options.of_data(flags)
    other = options.load_predictor(runs[1], flags)
    check_same_labels(predictor, other, names)
    one, examples = _evaluate(predictor, file, data, predictions)
    try:
        two, same = _evaluate(other, file, data, None)
    except DataError as error:  # the file is right for the first run
        problem = f"read for {names[1]}: {error.problem}"
        raise DataError(error.source, error.line, problem, error.remedy) from error
    check_same_examples(display_name(file), examples, same, names)
    say(*dict.fromkeys([*one.notes, *two.notes]))
    for name, each in zip(names, (one, two), strict=True):
        warn(*(f"{name} on {each.source}: {remark}" for remark in each.remarks))
    return Comparison(names, one, two)


def _evaluate(
    predictor: Predictor, file: str, data: dict[str, Any], predictions: Path | None
) -> tuple[Evaluation, list[Labelled]]:
    """Evaluate on a file, and write the predictions if a path for them is given.

    Return the line and the labels of each example too.
    """
    from srucli.data.formats import data_config, fresh_config
    from srucli.data.readers import read_examples
    from srucli.inference.evaluation import evaluate
    from srucli.io.streams import display_name

    config = data_config(predictor.config.data, file, data)
    fresh = fresh_config(predictor.config.data, data)
    seen: list[Labelled] = []
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(unit=" texts"))
        write: OnChunk | None = None
        if predictions is not None:
            stream = stack.enter_context(replacing(predictions))
            write = predictions_writer(stream, predictions, predictor, config.label_delimiter)

        def on_chunk(examples: Sequence[Example], probabilities: Any) -> None:
            bar.update(len(examples))
            seen.extend((example.line, example.labels) for example in examples)
            if write is not None:
                write(examples, probabilities)

        reading = read_examples(file, config, predictor.labels, fresh, predictor.names)
        result = evaluate(
            predictor,
            reading.reported(say, data),
            source=display_name(file),
            on_chunk=on_chunk,
            merge=config.merge_labels,
        )
    return result, seen


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a text file for a block, at whose end it is on disk and replaces `path`.

    If the block raises, nothing remains of it. What is not a regular file, such as /dev/stdout, is
    written directly. Raises OutputError.
    """
    from srucli.io.files import unwritable
    from srucli.io.folders import OpenFolder

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
        raise unwritable(path, error) from error


def predictions_writer(stream: TextIO, path: Path, predictor: Scorer, delimiter: str) -> OnChunk:
    """Return a function that writes each chunk's predictions to `stream`.

    The format is JSON lines if the ending of `path` says so, else TSV. There, labels of a
    multi-label text are joined by `delimiter`, and so are their probabilities.
    """
    from srucli.metrics import decide

    as_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    numbers = count(1)
    if not as_json:
        stream.write("\t".join(COLUMNS) + "\n")

    rule = predictor.thresholds, predictor.multi_label, predictor.at_least_one

    def write(examples: Sequence[Example], probabilities: Any) -> None:
        decided = decide(probabilities, *rule)
        for example, p, choice in zip(examples, probabilities, decided, strict=True):
            chosen = choice.nonzero()[0] if predictor.multi_label else [choice]
            predicted = [predictor.labels[index] for index in chosen]
            likely = [float(p[index]) for index in chosen]
            columns: list[Any] = [list(example.labels), predicted, likely]
            if not as_json:
                columns[2] = [f"{value:.6f}" for value in likely]
                columns = [delimiter.join(column) for column in columns]
            elif not predictor.multi_label:
                columns = [column[0] for column in columns]
            row = (next(numbers), example.line, *columns, example.text)
            if as_json:
                line = json_text(dict(zip(COLUMNS, row, strict=True)))
            else:
                line = "\t".join(str(cell).translate(ONE_LINE) for cell in row)
            stream.write(line + "\n")

    return write
