"""From a configuration and labelled files to a run's folder, begun or gone on with."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from srucli.config import Config, with_settings
from srucli.data.dataset import Dataset, Split, read_split
from srucli.errors import InputMissingError, UsageError
from srucli.io.console import escaped, say
from srucli.io.folders import OpenFolder
from srucli.io.streams import is_piped
from srucli.kernels import backends
from srucli.model.encoders import ENCODERS
from srucli.runs.choice import choose
from srucli.runs.claim import Source
from srucli.runs.model_card import write_card
from srucli.runs.run_dir import RunDir
from srucli.runs.training_state import keep_random_states
from srucli.runtime import use_threads
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.training import make_tokenizer
from srucli.training.build import build, restore
from srucli.training.defaults import check, complete
from srucli.training.effects import Setup, asked_for, beyond, idle
from srucli.training.interrupts import Interrupt
from srucli.training.resume import Former, check_same, former, held, recorded
from srucli.training.trainer import Observer, Trainer


@dataclass(frozen=True)
class Request:
    """What a training is asked for, before its data are read.

    train, dev: the files of examples. tokenizer: the one that is given, if any. settings: those
    that somebody gave. force: whether a training goes on with other settings or examples.
    """

    config: Config
    device: torch.device
    train: str
    dev: str | None
    tokenizer: Tokenizer | None
    settings: Sequence[str]
    trains_tokenizer: bool
    force: bool = False
    observe: Observer | None = None
    stop: Interrupt = field(default_factory=Interrupt)

    @property
    def sources(self) -> dict[str, str | None]:
        """The files of examples by part."""
        return {"train": self.train, "dev": self.dev}


def train(
    config: Config,
    train_source: str,
    dev_source: str | None,
    output: Path,
    *,
    tokenizer: Path | None = None,
    force: bool = False,
    observe: Observer | None = None,
    stop: Interrupt | None = None,
    reads: Sequence[Source] = (),
    below: OpenFolder | None = None,
) -> Path:
    """Train a classifier and return its folder. Raises every kind of SrucliError.

    Where the folder holds a training with the same settings and texts, it goes on until it comes to
    its end, unless `force` begins anew. `observe` sees the number of each epoch, from 1, and its
    metrics on dev; what it raises ends the training. `stop` asks it to end before.
    `reads` are other files that the command reads, of which none is ever replaced; `below` is the
    folder that the output is in, where it is held.
    """
    device = check(config)
    _check_one_process()
    given = Tokenizer.load(tokenizer) if tokenizer else None
    reads = (train_source, dev_source, tokenizer, *reads, *recorded(output))
    _find(output, force, reads)
    request = Request(
        *(config, device, train_source, dev_source, given, asked_for(config)),
        trains_tokenizer=given is None,
        observe=observe,
        stop=stop or Interrupt(),
    )
    with RunDir.claim(output, reads, below) as run:
        _train(run, _find(output, force, reads), request)
    return output


def _find(output: Path, force: bool, reads: Sequence[Source]) -> Former | None:
    """The training to go on with, None to begin. Raises OutputError where neither may be."""
    found = None if force else held(output)
    if found is None:
        RunDir.check_free(output, force=force, sources=reads)
    return found


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
    """Go on with the training in a folder, with some `settings` of it replaced; return the folder.

    Its texts are where they were, unless sources say otherwise. Under `force` other settings and
    texts are taken. Raises every kind of SrucliError.
    """
    if not output.is_dir():
        raise InputMissingError(f"{output}: no such run; give the folder that `srucli train` made")
    before = former(RunDir(output)).facts.sources  # nothing is touched in what is no run's folder
    reads = (train_source, dev_source, *reads, *before.values())
    with RunDir.claim(output, reads) as run:
        found = former(run)
        config = _changed(found.config, settings)
        device = check(config)
        _check_one_process()
        train_source, dev_source = _sources(found, output, train_source, dev_source)
        given = found.tokenizer if found.checkpoint is None else None
        request = Request(
            *(config, device, train_source, dev_source, given, list(settings)),
            trains_tokenizer=False,
            force=force,
            stop=stop or Interrupt(),
        )
        _train(run, found, request)
    return output


def _changed(config: Config, settings: dict[str, object]) -> Config:
    """A run's configuration with some settings replaced.

    Another optimizer has its own defaults, and another patience its own checkpoint to use.
    """
    fresh: dict[str, object] = {}
    if settings.get("optim.name", config.optim.name) != config.optim.name:
        fresh = {"optim.options": {}, "optim.lr": None, "optim.weight_decay": None}
    if settings.get("train.patience", config.train.patience) != config.train.patience:
        fresh["train.use_checkpoint"] = None
    settings = {**fresh, **settings}
    return with_settings(config, settings) if settings else config


def _sources(
    found: Former, run: Path, train_source: str | None, dev_source: str | None
) -> tuple[str, str | None]:
    """Where the texts are: as given, or where they were. Raises UsageError for what was piped."""
    before = found.facts.sources
    for given, part, flag in ((train_source, "train", ""), (dev_source, "dev", "--dev ")):
        if given is None and before.get(part) == "-":
            raise UsageError(
                f"{run}: its {part} texts were piped in; give them again: "
                f"srucli train --resume {shlex.quote(str(run))} {flag}FILE"
            )
    train_source = train_source or before.get("train")
    if train_source is None:
        raise UsageError(f"{run}: does not say what it was trained on; name the file as TRAIN")
    return train_source, dev_source or before.get("dev")


def _check_one_process() -> None:
    """Several processes would write to one folder, and none would know of the others' gradients."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1"):
        raise UsageError("srucli trains in one process; start it with --nproc-per-node 1, or alone")


def _train(run: RunDir, found: Former | None, request: Request) -> None:
    """All that happens while the folder is locked, in the threads that the settings say."""
    with use_threads(request.config.train.threads), keep_random_states(request.device):
        split = _read(request)
        data = split.train
        config = complete(request.config, len(data), len(data.labels))
        kept = found if found and found.checkpoint else None
        if kept:
            hashes, sources = split.hashes, request.sources
            check_same(run.path, kept, config, data.labels, hashes, sources, request.force)
        _say_what_is_idle(request, split)
        tokenizer = _tokenizer(request, kept, data)
        if not kept:
            run.clear()
        run.check_logs()
        stop = request.stop
        trainer = build(config, run, tokenizer, data, split.dev, request.device, stop)
        if kept and kept.checkpoint:
            restore(trainer, kept.checkpoint, config, kept.config)
        facts = _facts(request, found, split, trainer)
        run.begin(config, tokenizer, data.labels, facts)
        _announce(trainer, config, kept)
        if not kept:
            trainer.checkpoints.begin_diagnostics()
        stop.checked = True
        _loop(run, config, trainer, request.observe)


def _loop(run: RunDir, config: Config, trainer: Trainer, observe: Observer | None) -> None:
    """Train, and keep the model card up to date; say which checkpoint is used in the end."""
    labels = trainer.loader.data.labels

    def after_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        write_card(run, config, labels, epoch)
        if observe:
            observe(epoch, metrics)

    if trainer.is_over:
        longer = [f"a longer {name}" for name in trainer.spent]
        say(f"{run.path}: is finished; {' and '.join(longer)} go{'es' * (len(longer) == 1)} on")
        write_card(run, config, labels, trainer.loader.epoch_number)
    trainer.train(after_epoch)
    if said := choose(run, config).said:
        say(said)


def _read(request: Request) -> Split:
    """Read the examples, and say what there is."""
    train, sources = request.config.train, (request.train, request.dev)
    split = read_split(*sources, request.config.data, train.dev_share, train.seed)
    _describe(split)
    if not request.dev:
        _say_what_is_held_out(split, train.dev_share)
    return split


def _facts(
    request: Request, found: Former | None, split: Split, trainer: Trainer
) -> dict[str, object]:
    """What run.json says of a training, besides the machine."""
    texts, dev_texts = len(split.train), len(split.dev or ())
    facts: dict[str, object] = {
        "parameters": trainer.step.parameters,
        "data": {"texts": texts, "dev_texts": dev_texts, "sha256": split.hashes},
        "epochs": trainer.loader.epochs,
        "device": str(trainer.step.device),
        "sources": {part: name and _place(name) for part, name in request.sources.items()},
        "columns": split.columns._asdict(),
    }
    if found is None:
        return facts
    if trainer.is_over:  # nothing is trained: what is said of the training stays true
        same = split.hashes == found.facts.data.sha256
        return found.facts.model_dump() | ({"sources": facts["sources"]} if same else {})
    return facts | {"command": found.facts.command}


def _announce(trainer: Trainer, config: Config, kept: Former | None) -> None:
    how = ", steps as CUDA graphs" if trainer.step.captured else ""
    device = trainer.step.device
    encoder = _encoder(config.model.encoder, config.train.kernel, device)
    say(f"model: {trainer.step.parameters:,} parameters, {encoder}, {device}{how}")
    for sentence in beyond(config.train, trainer.loader.planned_steps):
        say(sentence)
    for problem in kept.damaged if kept else ():
        say(f"passed over: {problem}")
    if kept and not trainer.is_over:
        done = trainer.loader.position
        say(f"going on from step {done.step:,}, after {done.epoch} whole epochs")


def _place(source: str) -> str:
    """Where a source is, from wherever the training may be gone on with; `-` for any pipe."""
    return "-" if is_piped(source) else os.path.abspath(source)


def _tokenizer(request: Request, kept: Former | None, data: Dataset) -> Tokenizer:
    """The one that the run has, or was given, or one trained on the texts."""
    given = request.tokenizer
    if kept:
        if given and given.model_bytes != kept.tokenizer.model_bytes:
            raise UsageError("--tokenizer: the run was trained with another one; leave it out")
        return kept.tokenizer
    if given:
        return given
    return make_tokenizer(request.config.tokenizer, data.texts, data.source).tokenizer


def _encoder(name: str, kernel: str, device: torch.device) -> str:
    """The encoder, and what runs it where there is a choice."""
    if "train.kernel" not in ENCODERS[name].settings:
        return name
    return f"{name} ({backends.choose(kernel, device.type)} kernel)"


def _say_what_is_idle(request: Request, split: Split) -> None:
    """Name the given settings that can have no effect."""
    kind = request.tokenizer.model_type if request.tokenizer else None
    has_dev, held_out = split.dev is not None, not request.dev
    setup = Setup(request.config, has_dev, held_out, request.trains_tokenizer, kind)
    for sentence in idle(setup, request.settings):
        say(sentence)


def _say_what_is_held_out(split: Split, share: float) -> None:
    """Where fewer texts are set aside than were asked for."""
    held = len(split.dev or ())
    texts_in_all = len(split.train) + held
    wanted = round(texts_in_all * share)
    why = "no label loses its last text" if wanted else "that is less than half a text"
    if share and not held:
        say(
            f"train.dev_share={share:g} sets none of {texts_in_all:,} texts aside: {why}; give a "
            "larger share, more texts or --dev FILE"
        )
    elif held < wanted:
        say(f"train.dev_share={share:g} sets {held:,} texts aside, not {wanted:,}: {why}")


def _describe(split: Split) -> None:
    data, counts = split.train, split.train.label_counts()
    common = np.argsort(-counts, kind="stable")[:6].tolist()
    shown = ", ".join(f"{escaped(data.labels[n])} {counts[n]:,}" for n in common if counts[n])
    more = ", ..." if len(data.labels) > 6 else ""
    held = "" if split.dev is None else f", {len(split.dev):,} dev texts"
    say(f"data: {len(data):,} texts{held}, {len(data.labels)} labels ({shown}{more})")
    if data.multi_label and split.dev is None:
        say(
            "no dev texts: labels are given from 0.5; a dev file or train.dev_share=0.1 lets their "
            "thresholds be chosen"
        )
