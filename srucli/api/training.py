"""Train a classifier from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srucli.api.jobs import Job, OnEpoch, in_process, in_thread
from srucli.api.sources import KEYS, is_file, is_multi_label, labels_of, source_of, texts_of
from srucli.config import dotted, resolve, with_settings
from srucli.data.given import Source
from srucli.errors import InterruptedRun, UsageError
from srucli.io.console import say
from srucli.io.folders import temporary_folder

if TYPE_CHECKING:
    from srucli.api.classifier import Classifier

Name = str | os.PathLike[str]


def train(
    texts: Any,
    labels: Any = None,
    *,
    weights: Any = None,
    dev: Any = None,
    raw: Any = None,
    base: Name | None = None,
    tokenizer: Name | None = None,
    config: Name | None = None,
    output: Name | None = None,
    force: bool = False,
    process: bool = False,
    quiet: bool = False,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> Classifier:
    """Train a classifier, as `srucli train` does, and return it.

    texts: a list of strings with `labels`; or a table (pandas, Polars, Arrow, Hugging Face
    datasets, a dict of columns, a list of dicts); or the name of a labelled file.
    labels: for each text a label, a list of labels (multi-label), or a dict of the probability of
    each label. Labels that are numbers become strings.
    weights: for each text, as how many it counts.
    dev: texts to evaluate on after each epoch: a pair (texts, labels), a table or a file. By
    default a tenth of the texts is held out.
    raw: unlabelled texts to learn vectors from first: a list of strings, or a file with a text in
    each line. base: a run to start from, or what `srucli pretrain` made. tokenizer: a SentencePiece
    model. config: settings in YAML.
    output: the folder of the run. The same call resumes a training that was stopped there. Without
    it the run is in a temporary folder, which `Classifier.save` copies.
    force: replace a run in that folder.
    process: train in a process of its own that is set up for speed, as a command is. It leaves the
    calling one alone, and on a busy machine it is several times as fast.
    quiet: show warnings, but no notes and no progress.
    on_epoch: is called with the number of each epoch, from 1, and its dev metrics. An exception in
    it ends the training.
    settings: any setting by its name in `srucli info settings` or the last part of it, as in
    `epochs=5, optimizer="lion", dropout=0.2`; `text`, `label` and `weight` name the columns of a
    table.

    KeyboardInterrupt leaves a run in `output` that the same call resumes. Raises UsageError for
    wrong settings, DataError for texts and labels that cannot be used, InputMissingError,
    OutputError, DivergedError and OutOfMemoryError, which are all SrucliError.

    >>> classifier = srucli.train(texts, labels, output="runs/reviews", epochs=5)
    >>> classifier.predict(["what a lovely film"])
    ['positive']
    """
    if base and raw is not None:
        raise UsageError("base= and raw=: give one of them")
    if on_epoch is not None and not callable(on_epoch):
        raise UsageError("on_epoch: a function of an epoch's number and its metrics is needed")
    labels = None if labels is None else labels_of(labels)  # once, since it may be a generator
    given = settings_of(settings, labels, weights=weights)
    settled = with_settings(resolve(Path(config) if config else None), given)
    sources = source_of(texts, labels, weights=weights), _dev(dev)
    with ExitStack() as unless_trained:
        temporary = None if output else temporary_folder()
        if temporary:
            unless_trained.callback(temporary.cleanup)
        job = Job(
            settled,
            *sources,
            Path(output or Path(temporary.name if temporary else "", "run")),
            raw=raw if raw is None else os.fspath(raw) if is_file(raw) else texts_of(raw, "raw"),
            base=Path(base) if base else None,
            tokenizer=Path(tokenizer) if tokenizer else None,
            force=force,
            quiet=quiet,
        )
        tell = tell_what_is_kept if output else tell_that_nothing_is
        tell = (lambda _: None) if quiet else tell
        if process:
            in_thread(lambda stop: in_process(job, on_epoch, stop), tell)
        else:
            in_thread(lambda stop: job.run(stop, on_epoch), tell)
        from srucli.api.classifier import Classifier

        classifier = Classifier(job.output, device=settled.train.device, temporary=temporary)
        unless_trained.pop_all()
        return classifier


def tell_what_is_kept(stopped: InterruptedRun | None) -> None:
    """Say how to resume what was stopped. stopped: None if nothing was saved."""
    if stopped is not None:
        say(f"{stopped.stopped}; the same call resumes" if stopped.how else stopped.stopped)


def tell_that_nothing_is(_: InterruptedRun | None) -> None:
    """Say that what was stopped was in a temporary folder."""
    say("stopped; nothing is kept: with output='runs/mine' the same call could resume")


def settings_of(settings: Mapping[str, Any], labels: Any, **beside: Any) -> dict[str, Any]:
    """Return dotted settings, with those that labels and what is beside them imply.

    beside: see `source_of`. Raises UsageError.
    """
    given = dotted(settings)
    for what, values in beside.items():
        if values is not None:
            given[f"data.{KEYS[what]}"] = KEYS[what]
    if labels is not None and is_multi_label(labels):
        given.setdefault("data.multi_label", True)
    return given


def _dev(dev: Any) -> Source | None:
    """Return the texts to evaluate on: of a pair, a table or a file. Raises UsageError."""
    if dev is None:
        return None
    if isinstance(dev, tuple):
        if len(dev) != 2:
            raise UsageError(f"dev: a pair (texts, labels) is needed, not {len(dev)} values")
        return source_of(*dev, name="dev")
    return source_of(dev, name="dev")
