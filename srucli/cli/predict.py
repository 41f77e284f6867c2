"""`srucli predict`: the flags and the output of `srucli/inference/stream.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srucli.cli import options
from srucli.errors import UsageError
from srucli.io.console import say, warn

if TYPE_CHECKING:
    from srucli.inference.predictor import Predictor
    from srucli.inference.stream import Style


class Command(options.Command):
    """The flags of `srucli predict` that stand for settings."""

    settings = ("data", "train.device", "train.threads")
    labelled = False
    often = ("--probability", "--top", "--threshold", "--reject", "--json", "--with-input")
    examples = (
        "srucli predict runs/reviews new.txt > labels.txt",
        "echo 'a good film' | srucli predict runs/reviews --probability",
        "srucli predict runs/reviews new.csv --text body --json",
    )
    without = options.OF_LABELS


def command(
    context: typer.Context,
    run: options.RunFolder,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Texts, with or without labels; - is stdin.")
    ] = "-",
    probability: Annotated[
        bool, typer.Option("-p", "--probability", help="Add the label's probability.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            "-k",
            "--top",
            min=1,
            metavar="K",
            help="Print the K most probable labels, with probabilities.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Print the reject label if the highest probability is below P, from 0 to 1.",
        ),
    ] = None,
    reject: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL", help="Label of texts below the threshold. [default: unknown]"
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per line: the numbers of record and line in the input, the "
            "text, and the probabilities of all labels, or of K. `srucli train -` reads it.",
        ),
    ] = False,
    with_input: Annotated[
        bool,
        typer.Option(
            "--with-input",
            help="Print the input's whole record after the label (line ends in it as \\n).",
        ),
    ] = False,
) -> None:
    """Label texts: one line of output for each text, in order.

    Labels are printed on stdout, notes on stderr. A line may have several labels of a multi-label
    run, separated by its label delimiter; a text without any label is an empty line.

    A file whose ending names a format, such as .tsv or .jsonl, is read as `train` and `eval` read
    it: labels are ignored, and blank lines are skipped. In stdin and in other files, each line is a
    text, blank lines too. Exceptions: a flag such as --format says otherwise, or the first line is
    a header, a JSON object with a text, in fastText format, or starts with a label of the run.

    Texts of an endless stream are labelled as soon as they arrive.
    """
    if with_input and as_json:
        raise UsageError("--with-input adds the record as text; leave it out with --json")
    if top is not None and threshold is not None and not as_json:
        raise UsageError("--threshold rejects a single label; with --top it needs --json")
    if reject is not None and {*reject} & {*"\t\r\n"}:
        raise UsageError("--reject: a label is on one line and has no tab; choose another")
    if reject is not None and threshold is None:
        raise UsageError("--reject needs --threshold, below which a text gets that label")
    from srucli.runs.claim import need_run

    need_run(run)
    options.need_files(file)
    from srucli.inference.stream import Style

    data = options.of_data(context.obj)
    predictor = options.load_predictor(run, context.obj)
    if probability and (as_json or top is not None):
        warn("--probability has no effect: --json and --top give probabilities anyway")
    if threshold is not None and predictor.multi_label:
        raise UsageError("--threshold is for a single label a text; this run has its own for each")
    known = len(predictor.labels)
    if top is not None and top > known:
        say(f"--top {top}: the run has {known} labels, so all {known} are given")
    style = Style(
        probability=probability,
        top=top,
        threshold=threshold,
        reject="" if threshold is None else _reject_label(reject, predictor.labels),
        as_json=as_json,
        with_input=with_input,
        delimiter=predictor.config.data.label_delimiter,
    )
    _print_records(predictor, file, data, style)


def _print_records(predictor: Predictor, file: str, data: dict[str, Any], style: Style) -> None:
    """Print a record for each text of a file, which is read as the flags in `data` say."""
    from srucli.data.formats import data_config, format_by_ending, fresh_config
    from srucli.data.readers import read_inputs
    from srucli.inference.stream import records
    from srucli.io.streams import display_name
    from srucli.tokenizer.truncation import Notices

    is_plain = not data.keys() - options.OF_LINES and format_by_ending(file) is None
    config = data_config(predictor.config.data, file, data)
    inputs = read_inputs(
        file,
        config,
        plain=config if is_plain else None,
        known=predictor.labels,
        requested=fresh_config(predictor.config.data, data),
        names=predictor.names,
    )
    notices = Notices(display_name(file))
    try:
        read = inputs.reported(say, data)
        for group in records(predictor, read, style, display_name(file)):
            sys.stdout.write("".join(f"{line}\n" for line in group))
            sys.stdout.flush()
            say(*notices.first(predictor.tally))
    finally:
        say(*notices.last(predictor.tally))


def _reject_label(wanted: str | None, labels: Sequence[str]) -> str:
    """Return the label of texts below the threshold. Raises UsageError if the run has it."""
    from srucli.data.labels import Known, shown

    known, name = Known(labels, merge=True), "unknown" if wanted is None else wanted
    same = known.name(name)
    if same in known.labels:
        free = (f"reject{number or ''}" for number in range(len(labels) + 1))
        other = next(each for each in free if known.name(each) not in known.labels)
        problem = f"the run has the label {shown(same)}, which looks the same"
        raise UsageError(f"--reject {shown(name)}: {problem}; choose another, as --reject {other}")
    return name
