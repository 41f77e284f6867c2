"""Start or resume a training: from a configuration and labelled files to a run folder."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from srucli.config import Config, with_settings
from srucli.data.dataset import Dataset, Split, read_split
from srucli.data.given import Source as Examples
from srucli.data.given import file_of
from srucli.errors import UsageError
from srucli.io.console import excerpt, say, shell_word, warn
from srucli.io.folders import OpenFolder
from srucli.io.memory import enough_memory
from srucli.io.streams import recorded_name
from srucli.kernels import backends
from srucli.model.encoders import ENCODERS
from srucli.ngrams.linear import NgramModel
from srucli.runs.choice import choose
from srucli.runs.claim import Source
from srucli.runs.facts import BaseFacts
from srucli.runs.model_card import write_card
from srucli.runs.run_dir import BASE_NGRAMS, RunDir, check_labels
from srucli.runs.training_state import keep_random_states
from srucli.runtime import cores, max_threads, use_device, use_threads
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.training import make_tokenizer
from srucli.training.base import (
    VECTORS_LINEAR,
    VECTORS_NETWORK,
    Base,
    from_base,
    from_recorded,
    old_task,
)
from srucli.training.build import build, restore
from srucli.training.defaults import check_settings, complete
from srucli.training.effects import Setup, given_settings, never_reached, no_effect
from srucli.training.interrupts import Interrupt
from srucli.training.memory import smaller_model, smaller_step
from srucli.training.ngrams import fit_ngrams
from srucli.training.resume import (
    SavedTraining,
    check_same,
    find_saved_training,
    recorded_sources,
    saved_training,
)
from srucli.training.trainer import OnEpoch, Trainer

# Trainings share the random number generators of their process.
_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Request:
    """What the caller asks for.

    sources: the train and dev examples. tokenizer: the given one; None to train one.
    settings: the dotted settings that the user gave. base: the run to fine-tune, if there is one
    and it can be read. force: allow other settings and examples.
    """

    config: Config
    device: torch.device
    sources: Mapping[str, Examples | None]
    tokenizer: Tokenizer | None
    settings: Sequence[str]
    stop: Interrupt
    base: Base | None = None
    force: bool = False
    on_epoch: OnEpoch | None = None

    @property
    def files(self) -> dict[str, str | None]:
        """The files of the examples; see `file_of`."""
        return {part: file_of(source) for part, source in self.sources.items()}


def train(
    config: Config,
    train_source: Examples,
    dev_source: Examples | None,
    output: Path,
    *,
    tokenizer: Path | None = None,
    base: Path | None = None,
    force: bool = False,
    on_epoch: OnEpoch | None = None,
    stop: Interrupt | None = None,
    reads: Sequence[Source] = (),
    below: OpenFolder | None = None,
) -> Path:
    """Train a classifier on labelled files or texts in memory, and return its folder.

    If the folder holds a training with the same settings and examples, it is resumed, unless
    `force` starts a new one. `base` is a run to fine-tune; it gives the tokenizer and the settings
    of the network. `on_epoch` is called with the number of each epoch, from 1, and its
    dev metrics; an exception in it ends the training. `stop` can request an early end. `reads` are
    other files that the command reads and that must not be replaced. `below` is the folder that
    contains the output, if it is held open. Calls in several threads train one after the other.
    Raises SrucliError of any kind.
    """
    if base and tokenizer:
        raise UsageError(f"--from {base}: has its own tokenizer; leave out --tokenizer")
    sources, settings = {"train": train_source, "dev": dev_source}, given_settings(config)
    device = check_settings(config)
    given = Tokenizer.load(tokenizer) if tokenizer else None
    files = (file_of(train_source), file_of(dev_source))
    reads = (*files, tokenizer, *reads, *recorded_sources(output))
    config, loaded = from_base(config, output, base, to_resume(output, force, reads))
    given = loaded.tokenizer if loaded else given
    stop = stop or Interrupt()
    request = Request(config, device, sources, given, settings, stop, loaded, on_epoch=on_epoch)
    with RunDir.claim(output, reads, below) as run:
        _train(run, to_resume(output, force, reads), request)
    return output


def to_resume(output: Path, force: bool, reads: Sequence[Source]) -> SavedTraining | None:
    """Return the training to resume, or None to start one. Raises OutputError if neither is ok.

    reads: files that the command reads and that must not be replaced.
    """
    saved = None if force else find_saved_training(output)
    if saved is None:
        RunDir.check_free(output, force=force, sources=reads)
    return saved


def resume(
    output: Path,
    settings: dict[str, object],
    train_source: str | None = None,
    dev_source: str | None = None,
    *,
    force: bool = False,
    stop: Interrupt | None = None,
    reads: Sequence[Source] = (),
) -> Path:
    """Resume the training in a folder, with some dotted `settings` replaced; return the folder.

    The examples are read from the recorded files, unless sources are given. `force` allows other
    settings and examples. Raises SrucliError of any kind.
    """
    # Read first, because a folder that is no run must not be touched.
    before = saved_training(RunDir(output)).facts.sources
    reads = (train_source, dev_source, *reads, *before.values())
    with RunDir.claim(output, reads) as run:
        saved = saved_training(run)
        config = _changed(saved.config, settings)
        if "train.threads" not in settings:
            config = _with_possible_threads(config, output)
        device = check_settings(config)
        config, base = from_recorded(config, output, saved)
        sources = _sources(saved, output, train_source, dev_source)
        stop, given = stop or Interrupt(), list(settings)
        request = Request(config, device, sources, saved.tokenizer, given, stop, base, force)
        _train(run, saved, request)
    return output


def _changed(config: Config, settings: dict[str, object]) -> Config:
    """Return a run's configuration with some settings replaced.

    Settings that default to the optimizer's or depend on the patience are reset with these.
    """
    reset: dict[str, object] = {}
    if settings.get("optim.name", config.optim.name) != config.optim.name:
        reset = {"optim.options": {}, "optim.lr": None, "optim.weight_decay": None}
    if settings.get("train.patience", config.train.patience) != config.train.patience:
        reset["train.use_checkpoint"] = None
    settings = {**reset, **settings}
    return with_settings(config, settings) if settings else config


def _with_possible_threads(config: Config, run: Path) -> Config:
    """Return a run's configuration with the default of threads if this machine allows no more."""
    threads = config.train.threads
    if threads <= max_threads():
        return config
    warn(
        f"{run}: was trained with {threads} threads, more than the {max_threads()} that are "
        f"allowed here; resumed with {cores()}, it ends with slightly different weights"
    )
    return with_settings(config, {"train.threads": 0})


def _sources(
    saved: SavedTraining, run: Path, train_source: str | None, dev_source: str | None
) -> dict[str, str | None]:
    """Return the given files, or the recorded ones. Raises UsageError for a recorded pipe."""
    sources = {"train": train_source, "dev": dev_source}
    for part, flag in (("train", ""), ("dev", "--dev ")):
        if sources[part] is not None:
            continue
        sources[part] = saved.facts.sources.get(part)
        if sources[part] == "-":
            raise UsageError(
                f"{run}: its {part} examples were not in a file; give them again: "
                f"srucli train --resume {shell_word(str(run))} {flag}FILE"
            )
    if sources["train"] is None:
        raise UsageError(f"{run}: does not say what it was trained on; name the file as TRAIN")
    return sources


def _train(run: RunDir, found: SavedTraining | None, request: Request) -> None:
    """Train in a claimed folder, with the configured number of threads."""
    threads, device = request.config.train.threads, request.device
    with _one_at_a_time, use_threads(threads), use_device(device), keep_random_states(device):
        saved = found if found and found.checkpoint else None
        base, recorded = (None, saved.facts.base) if saved else (request.base, None)
        known = saved.labels if saved and recorded else base.labels if base else ()
        with enough_memory("reading the examples", "train on fewer of them"):
            split = _read(request, known)
        labels = split.train.labels
        recorded = base.to_facts(labels) if base else recorded
        based = recorded is not None and recorded.labels_kept is not None
        config = complete(request.config, len(split.train), len(labels), based=based)
        if saved:
            check_same(run.path, saved, config, split, request.files, request.force)
        _warn_of_no_effect(request, split, based)
        tokenizer = _tokenizer(request, saved, split)
        ngrams = None
        if config.model.ngrams:
            with enough_memory("fitting the n-grams", "train on fewer examples"):
                old = base.ngrams(labels) if base else _base_ngrams(run, split, recorded)
                ngrams = fit_ngrams(split, tokenizer, config.train, old)
            if recorded and recorded.labels_kept is None:
                weight = VECTORS_LINEAR * ngrams.weight
                ngrams = ngrams._replace(network=VECTORS_NETWORK, weight=weight)
        if not saved:
            run.clear()
        run.check_logs()
        sizes = tokenizer.vocab_size, len(labels)
        with enough_memory("making the model", lambda: smaller_model(config, *sizes)):
            trainer = build(config, run, tokenizer, split, device, request.stop, ngrams, base)
            if saved and saved.checkpoint:
                restore(trainer, saved.checkpoint, config, saved.config)
        linear = (ngrams.model, ngrams.base) if ngrams else (None, None)
        facts = _facts(request, found, split, trainer, linear[0], recorded)
        run.begin(config, tokenizer, labels, facts, *linear)
        if base:
            say(base.describe(labels))
        _announce(trainer, config, saved, facts["parameters"])
        trainer.checkpoints.begin_diagnostics()
        task = None if trainer.is_over else old_task(request.base, recorded, labels)
        request.stop.checked = True
        with enough_memory("training", lambda: smaller_step(config, trainer)):
            _loop(run, config, trainer, request.on_epoch)
        if task:
            task.report(run)


def _base_ngrams(run: RunDir, split: Split, base: BaseFacts | None) -> NgramModel | None:
    """Return the linear model from which that of a resumed run was fitted, if there is one."""
    if base is None or not run.size(BASE_NGRAMS):
        return None
    return run.ngrams(len(split.train.labels), split.train.multi_label, BASE_NGRAMS)


def _loop(run: RunDir, config: Config, trainer: Trainer, on_epoch: OnEpoch | None) -> None:
    """Train, update the model card after each epoch, and say which checkpoint is used."""
    labels = trainer.loader.data.labels

    def after_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        write_card(run, config, labels, epoch)
        if on_epoch:
            on_epoch(epoch, metrics)

    if trainer.is_over:
        say(f"{run.path}: is finished; a larger {' and '.join(trainer.spent)} continues it")
        write_card(run, config, labels, trainer.loader.epoch_number)
    trainer.train(after_epoch)
    if note := choose(run, config.train.used_checkpoint, config.metric).note:
        say(note)


def _facts(
    request: Request,
    found: SavedTraining | None,
    split: Split,
    trainer: Trainer,
    ngrams: NgramModel | None,
    base: BaseFacts | None,
) -> dict[str, object]:
    """Return what run.json records about a training, besides the machine."""
    facts: dict[str, object] = {
        "parameters": trainer.step.parameters + (ngrams.parameters if ngrams else 0),
        "data": {
            "texts": len(split.train),
            "dev_texts": len(split.dev or ()),
            "without_labels": split.without_labels,
            "sha256": split.hashes,
        },
        "epochs": trainer.loader.epochs,
        "device": str(trainer.step.device),
        "sources": {part: name and recorded_name(name) for part, name in request.files.items()},
        "columns": split.columns._asdict(),
        "base": base and base.model_dump(),
    }
    if found is None:
        return facts
    if trainer.is_over:  # nothing is trained, so the recorded facts stay true
        same = split.hashes == found.facts.data.sha256
        return found.facts.model_dump() | ({"sources": facts["sources"]} if same else {})
    return facts | {"command": found.facts.command}


def _announce(
    trainer: Trainer, config: Config, saved: SavedTraining | None, parameters: object
) -> None:
    """Describe the model, and the checkpoint that is resumed."""
    device, encoder = trainer.step.device, str(config.model.encoder)
    if "train.kernel" in ENCODERS[encoder].settings:
        encoder += f" ({backends.choose(config.train.kernel, device.type)} kernel)"
    graphs = ", steps as CUDA graphs" if trainer.step.captured else ""
    say(f"model: {parameters:,} parameters, {encoder}, {device}{graphs}")
    warn(*never_reached(config.train, trainer.loader.planned_steps))
    if not saved:
        return
    for problem in saved.damaged:
        warn(f"skipped a damaged checkpoint: {problem}")
    if not trainer.is_over:
        done = trainer.loader.position
        say(f"resuming from step {done.step:,}, after {done.epoch} complete epochs")


def _tokenizer(request: Request, saved: SavedTraining | None, split: Split) -> Tokenizer:
    """Return the tokenizer of the run, the given one, or one trained on the examples."""
    given = request.tokenizer
    if saved:
        if given and given.model_bytes != saved.tokenizer.model_bytes:
            raise UsageError("--tokenizer: the run was trained with another one; leave it out")
        return saved.tokenizer
    data = split.train
    return given or make_tokenizer(request.config.tokenizer, data.texts, data.source).tokenizer


def _warn_of_no_effect(request: Request, split: Split, based: bool) -> None:
    """Name the given settings that have no effect."""
    setup = Setup(
        request.config,
        dev=split.dev is not None,
        held_out=not request.sources["dev"],
        given_tokenizer=request.tokenizer.model_type if request.tokenizer else None,
        soft=split.train.soft is not None,
        based=based,
    )
    warn(*no_effect(setup, request.settings))


def _read(request: Request, known: Sequence[str]) -> Split:
    """Read the examples and describe them. known: the labels of the run that is fine-tuned."""
    train, sources = request.config.train, request.sources
    assert sources["train"] is not None
    config = request.config.data
    split = read_split(sources["train"], sources["dev"], config, train, known)
    check_labels(split.train.labels, split.train.source)
    data, counts = split.train, split.train.label_counts()
    common = np.argsort(-counts, kind="stable")[:6].tolist()
    shown = ", ".join(f"{data.labels[n]}: {counts[n]:,}" for n in common if counts[n])
    more = ", ..." if len(data.labels) > 6 else ""
    dev = "" if split.dev is None else f", {len(split.dev):,} dev examples"
    dev += ", with soft labels" * (data.soft is not None)
    say(f"data: {len(data):,} examples{dev}, {len(data.labels):,} labels ({shown}{more})")
    _warn_of_rare_labels(data)
    if split.dev is not None and split.dev.soft is not None:
        warn(
            "examples are held out that have soft labels: metrics on them say how often the run "
            "agrees with the likeliest one, not how often it is right; --dev FILE measures that"
        )
    if data.multi_label and split.dev is None:
        warn(
            "no dev examples: every label has the threshold 0.5; a dev file or train.dev_share=0.1 "
            "lets the thresholds be fitted"
        )
    if not sources["dev"] and train.dev_share is not None:
        _warn_of_small_share(split, train.dev_share)
    return split


def _warn_of_rare_labels(data: Dataset) -> None:
    """Name the labels with one example: misspelled ones, a header's, those of a wrong column."""
    rare = [data.labels[n] for n in np.flatnonzero(data.label_counts() == 1)]
    if rare:
        names = ", ".join(map(excerpt, rare[:6])) + ", ..." * (len(rare) > 6)
        which = "1 label has" if len(rare) == 1 else f"{len(rare):,} labels have"
        warn(f"{which} one training example only: {names}")


def _warn_of_small_share(split: Split, share: float) -> None:
    """Say so if fewer examples are held out than `dev_share` asks for."""
    held = len(split.dev or ())
    total = len(split.train) + held
    wanted = round(total * share)
    why = "every label keeps an example" if wanted else "that is less than half an example"
    if share and not held:
        warn(
            f"train.dev_share={share:g} holds out none of {total:,} examples: {why}; give a "
            "larger share, more examples or --dev FILE"
        )
    elif held < wanted:
        warn(f"train.dev_share={share:g} holds out {held:,} examples, not {wanted:,}: {why}")
