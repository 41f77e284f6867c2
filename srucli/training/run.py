"""From a configuration and labelled files to a run's folder, begun or gone on with."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from srucli.config import Config, with_settings
from srucli.data.dataset import Corpus, data_hash, find_labels, hold_out, read_held_out, read_texts
from srucli.data.layout import Names
from srucli.data.readers import Example
from srucli.errors import InputMissingError, UsageError
from srucli.io.console import escaped, say
from srucli.io.folders import OpenFolder
from srucli.io.streams import display_name, is_piped
from srucli.kernels.backends import choose
from srucli.model.encoders import ENCODERS
from srucli.runs import choice
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


class Asked(NamedTuple):
    """The settings that somebody gave, and whether those of a tokenizer among them can matter."""

    settings: Sequence[str]
    trains_tokenizer: bool


@dataclass(frozen=True)
class Texts:
    """What is trained on, held out and called what."""

    train: list[Example]
    dev: list[Example]
    labels: list[str]
    hashes: dict[str, str]
    columns: Names

    @classmethod
    def read(cls, config: Config, train_source: str, dev_source: str | None) -> Texts:
        """Read both, or hold the configured share out. Raises DataError and InputMissingError."""
        train, names = read_texts(train_source, config.data)
        labels = find_labels(train, display_name(train_source))
        dev = read_held_out(dev_source, config.data, labels, names) if dev_source else []
        hashes = {"train": data_hash(train), "dev": data_hash(dev)}
        if not dev_source and config.train.dev_share:
            train, dev = hold_out(train, config.train.dev_share, config.train.seed)
        return cls(train, dev, labels, hashes, names)

    def corpora(
        self, several: bool, train_source: str, dev_source: str | None
    ) -> tuple[Corpus, Corpus | None]:
        """Both with numbered labels, and named as messages name them."""
        source = display_name(train_source)
        held = display_name(dev_source) if dev_source else f"{source}, held out"
        dev = Corpus.make(self.dev, self.labels, several, held) if self.dev else None
        return Corpus.make(self.train, self.labels, several, source), dev


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
    figures on dev; what it raises ends the training. `stop` asks it to end before.
    `reads` are other files that the command reads, of which none is ever replaced; `below` is the
    folder that the output is in, where it is held.
    """
    device = check(config)
    _check_one_process()
    given = Tokenizer.load(tokenizer) if tokenizer else None
    reads = (train_source, dev_source, tokenizer, *reads, *recorded(output))
    _find(output, force, reads)
    stop = stop or Interrupt()
    with RunDir.claim(output, reads, below) as run:
        found = _find(output, force, reads)
        asked = Asked(asked_for(config), given is None)
        with use_threads(config.train.threads), keep_random_states(device):
            sources = train_source, dev_source
            _train(run, found, config, device, *sources, given, asked, observe, stop)
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
    stop = stop or Interrupt()
    with RunDir.claim(output, reads) as run:
        found = former(run)
        config = _changed(found.config, settings)
        device = check(config)
        _check_one_process()
        train_source, dev_source = _sources(found, output, train_source, dev_source)
        given = found.tokenizer if found.checkpoint is None else None
        asked = Asked(list(settings), trains_tokenizer=False)
        sources = train_source, dev_source
        with use_threads(config.train.threads), keep_random_states(device):
            _train(run, found, config, device, *sources, given, asked, None, stop, force)
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


def _train(
    run: RunDir,
    found: Former | None,
    config: Config,
    device: torch.device,
    train_source: str,
    dev_source: str | None,
    given: Tokenizer | None,
    asked: Asked,
    observe: Observer | None,
    stop: Interrupt,
    force: bool = False,
) -> None:
    """All that happens while the folder is locked. `given` is the tokenizer, where there is one."""
    texts = Texts.read(config, train_source, dev_source)
    plain, config = config, complete(config, len(texts.train), len(texts.labels))
    _describe(texts, config.data.multi_label)
    kept = found if found and found.checkpoint else None
    if kept:
        sources = {"train": train_source, "dev": dev_source}
        check_same(run.path, kept, config, texts.labels, texts.hashes, sources, force)
    if not dev_source:
        _say_what_is_held_out(texts, config.train.dev_share)
    kind = given.model_type if given else None
    setup = Setup(plain, bool(texts.dev), not dev_source, asked.trains_tokenizer, kind)
    for sentence in idle(setup, asked.settings):
        say(sentence)
    corpus, dev = texts.corpora(config.data.multi_label, train_source, dev_source)
    pieces = _tokenizer(kept, given, config, corpus)
    if not kept:
        run.clear()
    run.check_logs()
    trainer = build(config, run, pieces, corpus, dev, len(texts.labels), device, stop)
    if kept and kept.checkpoint:
        restore(trainer, kept.checkpoint, config, kept.config)
    facts = _facts(texts, trainer, {"train": train_source, "dev": dev_source})
    if found:
        facts["command"] = found.facts.command
    if found and trainer.is_over:  # nothing is trained: what is said of the training stays true
        same = texts.hashes == found.facts.data.sha256
        facts = found.facts.model_dump() | ({"sources": facts["sources"]} if same else {})
    run.begin(config, pieces, texts.labels, facts)
    _announce(trainer, config, kept)
    if not kept:
        trainer.checkpoints.begin_diagnostics()
    stop.checked = True

    def after_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        write_card(run, config, texts.labels, epoch)
        if observe:
            observe(epoch, metrics)

    if trainer.is_over:
        longer = [f"a longer {name}" for name in trainer.spent]
        say(f"{run.path}: is finished; {' and '.join(longer)} go{'es' * (len(longer) == 1)} on")
        write_card(run, config, texts.labels, trainer.loader.epoch_number)
    trainer.train(after_epoch)
    if said := choice.choose(run, config).said:
        say(said)


def _facts(texts: Texts, trainer: Trainer, sources: dict[str, str | None]) -> dict[str, object]:
    """What run.json says of a training, besides the machine."""
    data = {"texts": len(texts.train), "dev_texts": len(texts.dev), "sha256": texts.hashes}
    return {
        "parameters": trainer.step.parameters,
        "data": data,
        "epochs": trainer.loader.epochs,
        "device": str(trainer.step.device),
        "sources": {part: name and _place(name) for part, name in sources.items()},
        "columns": texts.columns._asdict(),
    }


def _announce(trainer: Trainer, config: Config, kept: Former | None) -> None:
    how = ", steps as CUDA graphs" if trainer.step.captured else ""
    device = trainer.step.device
    parts = f"{trainer.step.parameters:,} parameters, {_encoder(config, device)}, {device}{how}"
    say(f"model: {parts}")
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


def _tokenizer(
    kept: Former | None, given: Tokenizer | None, config: Config, corpus: Corpus
) -> Tokenizer:
    """The one that the run has, or was given, or one trained on the texts."""
    if kept:
        if given and given.model_bytes != kept.tokenizer.model_bytes:
            raise UsageError("--tokenizer: the run was trained with another one; leave it out")
        return kept.tokenizer
    if given:
        return given
    return make_tokenizer(config.tokenizer, corpus.texts, corpus.source).tokenizer


def _encoder(config: Config, device: torch.device) -> str:
    """The encoder, and what runs it where there is a choice."""
    if "train.kernel" not in ENCODERS[config.model.encoder].settings:
        return config.model.encoder
    return f"{config.model.encoder} ({choose(config.train.kernel, device.type)} kernel)"


def _say_what_is_held_out(texts: Texts, share: float) -> None:
    """Where fewer texts are set aside than were asked for."""
    texts_in_all = len(texts.train) + len(texts.dev)
    wanted = round(texts_in_all * share)
    why = "no label loses its last text" if wanted else "that is less than half a text"
    if share and not texts.dev:
        say(
            f"train.dev_share={share:g} sets none of {texts_in_all:,} texts aside: {why}; give a "
            "larger share, more texts or --dev FILE"
        )
    elif len(texts.dev) < wanted:
        say(f"train.dev_share={share:g} sets {len(texts.dev):,} texts aside, not {wanted:,}: {why}")


def _describe(texts: Texts, several: bool) -> None:
    counts = Counter(label for example in texts.train for label in example.labels)
    common = ", ".join(f"{escaped(label)} {count:,}" for label, count in counts.most_common(6))
    more = ", ..." if len(texts.labels) > 6 else ""
    held = f", {len(texts.dev):,} dev texts" if texts.dev else ""
    say(f"data: {len(texts.train):,} texts{held}, {len(texts.labels)} labels ({common}{more})")
    if several and not texts.dev:
        say(
            "no dev texts: labels are given from 0.5; a dev file or train.dev_share=0.1 lets their "
            "thresholds be chosen"
        )
