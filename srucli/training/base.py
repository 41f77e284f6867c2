"""What a training starts from: an earlier run, or vectors of tokens that were pretrained."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.config import Config, given
from srucli.data.dataset import Dataset, default_share
from srucli.data.labels import Known
from srucli.data.readers import Example, read_examples
from srucli.errors import SrucliError, UsageError
from srucli.inference.predictor import Predictor
from srucli.io.console import say, shell_word
from srucli.io.memory import enough_memory
from srucli.metrics import Outcome, metric_named
from srucli.model.classifier import Classifier
from srucli.model.transfer import biases, fill, places
from srucli.ngrams.linear import NgramModel
from srucli.runs.checkpoints import MODEL
from srucli.runs.facts import BaseFacts
from srucli.runs.pretrained_dir import FACTS as PRETRAINED
from srucli.runs.pretrained_dir import PretrainedDir
from srucli.runs.run_dir import RunDir
from srucli.tokenizer.model import Tokenizer
from srucli.training.resume import SavedTraining

# The settings of a network that its weights do not depend on.
FREE = ("dropout", "word_dropout", "ngrams")
# The scale of pretrained vectors in a network. It makes up for Adam's steps, which do not depend on
# the scale: at 0.1, as for new embeddings, they are soon forgotten.
VECTORS_STD = 0.8
# The prior weight of such a network, and the share that is left of the prior weight of a linear
# model beside it. With 1,000 labels of three sets, and linear models that alone want 0.8 to 1.2,
# the best weights are 0.94 and 0.17, 0.75 and 0.50, 0.71 and 0.53; with 100 labels of the first and
# linear models that want 0.2 to 0.5, they are 0.88 and 0.13.
VECTORS_NETWORK, VECTORS_LINEAR = 0.8, 0.4


class Base(ABC):
    """What a run starts from.

    path: its folder. sha256: of what is taken from it. labels: those of an earlier run.
    """

    path: Path
    sha256: str
    tokenizer: Tokenizer
    labels: Sequence[str] = ()
    notes: Sequence[str] = ()

    @abstractmethod
    def configured(self, config: Config) -> Config:
        """Return a configuration with the settings of what is taken. Raises UsageError."""

    @abstractmethod
    def to_facts(self, labels: Sequence[str]) -> BaseFacts:
        """Return what run.json records of it, in a run with these labels."""

    @abstractmethod
    def describe(self, labels: Sequence[str]) -> str:
        """Return a sentence on what a run with these labels takes from it."""

    @abstractmethod
    def fill(self, model: Classifier, data: Dataset) -> None:
        """Copy the weights to a new network for these training examples."""

    def ngrams(self, labels: list[str]) -> NgramModel | None:
        """Return its linear model with the columns of these labels, if it has one of them."""
        return None


class EarlierRun(Base):
    """A run that is fine-tuned. sha256: of its tokenizer and of the weights it predicts with."""

    def __init__(self, path: Path, device: str) -> None:
        """Load a run as `predict` does. Raises UsageError, InputMissingError, DataError."""
        run = RunDir.open(path)
        self.path, self.facts, self.predictor = path, run.facts(), Predictor.load(path, device)
        self.tokenizer, self.labels = self.predictor.tokenizer, self.predictor.labels
        self.notes = self.predictor.notes
        digest = sha256(self.tokenizer.model_bytes)
        digest.update(run.checkpoints.read(self.predictor.choice.name, MODEL))
        self.sha256 = digest.hexdigest()

    def configured(self, config: Config) -> Config:
        return with_base(config, self.predictor.config, self.path)

    def labels_kept(self, labels: Iterable[str]) -> int:
        """Return how many of these labels the run has."""
        return len({*self.labels}.intersection(labels))

    def to_facts(self, labels: Sequence[str]) -> BaseFacts:
        run, kept = os.path.abspath(self.path), self.labels_kept(labels)
        return BaseFacts(run=run, sha256=self.sha256, labels_kept=kept)

    def describe(self, labels: Sequence[str]) -> str:
        kept = self.labels_kept(labels)
        heads = f"{kept:,} labels kept, {len(labels) - kept:,} new"
        if not kept:
            heads = f"none of its labels occurs, so all {len(labels):,} are new"
        return f"from {self.path}: tokenizer, embedding and encoder kept; {heads}"

    def fill(self, model: Classifier, data: Dataset) -> None:
        shares = data.label_counts() / len(data)
        new = biases(shares, data.multi_label)
        weights = {name: each.cpu() for name, each in self.predictor.model.state_dict().items()}
        fill(model, weights, places(self.labels, data.labels), new)

    def ngrams(self, labels: list[str]) -> NgramModel | None:
        found, model = places(self.labels, labels), self.predictor.ngrams
        if model is None or (found < 0).all():
            return None
        return model.with_labels(found, multi_label=self.predictor.multi_label)


class Vectors(Base):
    """Vectors of tokens from `srucli pretrain`. sha256: of the tokenizer and the vectors."""

    def __init__(self, path: Path) -> None:
        """Load them. Raises InputMissingError, DataError."""
        self.path, found = path, PretrainedDir(path).read()
        self.tokenizer, self.vectors = found.tokenizer, found.vectors
        digest = sha256(self.tokenizer.model_bytes)
        digest.update(self.vectors.numpy().tobytes())
        self.sha256 = digest.hexdigest()

    def configured(self, config: Config) -> Config:
        size, wanted = self.vectors.shape[1], config.model.embedding_size
        if "embedding_size" in given(config.model) and wanted != size:
            raise UsageError(
                f"--from {self.path}: model.embedding_size is {wanted}, but vectors there have "
                f"{size} numbers; leave model.embedding_size out"
            )
        model = config.model.model_copy(update={"embedding_size": size})
        return config.model_copy(update={"model": model})

    def to_facts(self, labels: Sequence[str]) -> BaseFacts:
        return BaseFacts(run=os.path.abspath(self.path), sha256=self.sha256)

    def describe(self, labels: Sequence[str]) -> str:
        return f"from {self.path}: tokenizer kept, and the vectors of its tokens as embedding"

    @torch.no_grad()
    def fill(self, model: Classifier, data: Dataset) -> None:
        scale = VECTORS_STD / float(self.vectors.std().clamp(min=1e-12))
        model.embedding.weight.copy_(self.vectors * scale)


def load_base(path: Path, device: str) -> Base:
    """Load a run or vectors, which may come from anybody.

    Raises UsageError, InputMissingError, DataError.
    """
    return Vectors(path) if (path / PRETRAINED).is_file() else EarlierRun(path, device)


def with_base(config: Config, base: Config, path: Path) -> Config:
    """Return a configuration with the tokenizer's and the network's settings of an earlier run.

    A dropout that is not given depends on the new data. Raises UsageError for given settings that
    differ, and for another task.
    """
    if base.data.multi_label and not config.data.multi_label:
        raise UsageError(f"--from {path}: this run is multi-label; add --multi-label")
    if config.data.multi_label and not base.data.multi_label:
        raise UsageError(f"--from {path}: this run is single-label; leave out --multi-label")
    for name in ("model", "tokenizer"):
        section, old = getattr(config, name), getattr(base, name)
        for key in given(section):
            now, was = getattr(section, key), getattr(old, key)
            if now != was and not (name == "model" and key in FREE):
                raise UsageError(
                    f"--from {path}: {name}.{key} is {now}, but the run was trained with {was}; "
                    f"leave {name}.{key} out, or train without --from"
                )
    own = {key: getattr(config.model, key) for key in FREE if key in given(config.model)}
    model = base.model.model_copy(update={"dropout": None} | own)
    return config.model_copy(update={"model": model, "tokenizer": base.tokenizer})


def from_base(
    config: Config, output: Path, path: Path | None, saved: SavedTraining | None
) -> tuple[Config, Base | None]:
    """Return the configuration and the run that --from names, if it does, before data are read.

    saved: the training to resume in `output`, which needs its own folder only: then the other run
    is None if it cannot be read. Raises UsageError, InputMissingError, DataError.
    """
    base = None
    if path is not None:
        own, other = (Path(os.path.realpath(each)) for each in (output, path))
        if other in (own, *own.parents):
            raise UsageError(f"-o {output}: is in the run that --from names; choose another -o")
        try:
            base = load_base(path, config.train.device)
        except SrucliError:
            if saved is None:
                raise
    if saved:
        _check_same_base(output, saved.facts.base, path, base)
    elif base:
        say(*base.notes)
    if path is None:
        return config, None
    if base:
        return base.configured(config), base
    assert saved is not None
    return with_base(config, saved.config, path), None


def from_recorded(config: Config, output: Path, saved: SavedTraining) -> tuple[Config, Base | None]:
    """As `from_base`, for the run that another one recorded, which may be gone or have changed."""
    if (recorded := saved.facts.base) is None:
        return config, None
    if saved.checkpoint is None:
        return from_base(config, output, Path(recorded.run), None)
    with suppress(SrucliError):
        base = load_base(Path(recorded.run), config.train.device)
        if base.sha256 == recorded.sha256:
            return config, base
    return config, None


def _check_same_base(
    run: Path, recorded: BaseFacts | None, path: Path | None, base: Base | None
) -> None:
    """Check that the run in a folder was made from what --from names. Raises UsageError.

    path: what --from names. base: the run there, if it can still be read; then its hash decides.
    """
    if recorded is None:
        if path is not None:
            raise UsageError(
                f"{run}: was trained without --from; leave it out, or choose another -o"
            )
        return
    if path is None:
        word = shell_word(recorded.run)
        raise UsageError(f"{run}: was trained with --from {word}; add that, or choose another -o")
    place = os.path.abspath(path)
    if base.sha256 != recorded.sha256 if base else place != recorded.run:
        which = "which has changed since" if place == recorded.run else f"not from {path}"
        raise UsageError(
            f"{run}: was trained from {recorded.run}, {which}; to go on as it began: "
            f"srucli train --resume {shell_word(str(run))}; or choose another -o, or add --force"
        )


def old_task(
    base: Base | None, recorded: BaseFacts | None, labels: Iterable[str]
) -> OldTask | None:
    """Return the task of the recorded run, if a run with these labels has any of its labels.

    base: the run, if it can be read.
    """
    if base is None and recorded and recorded.labels_kept:
        _not_measured(recorded.run, "it is gone or has changed")
    run = base if isinstance(base, EarlierRun) else None
    return OldTask(run) if run and run.labels_kept(labels) else None


def _not_measured(run: Path | str, why: object) -> None:
    say(f"{run}: what a new run forgets of its task is not measured: {why}")


class OldTask:
    """The dev examples of an earlier run, on which a fine-tuned run shows what it has forgotten."""

    def __init__(self, base: EarlierRun) -> None:
        """Measure the earlier run, or say why that is not possible."""
        self.base, self.metric = base, base.predictor.config.metric
        self.dev: Dataset | None = None
        try:
            with enough_memory("reading its examples", "free some of it"):
                self.dev = _dev_examples(base)
            self.before = self._measure(base.predictor)
            self._say(self.before)
        except SrucliError as error:
            self.dev = None
            _not_measured(base.path, error)

    def report(self, run: RunDir) -> None:
        """Measure the new run."""
        if self.dev is not None:
            after = self._measure(Predictor(run, self.base.predictor.device))
            self._say(f"{self.before} before, {after} after")

    def _say(self, words: str) -> None:
        # A run learns the n-grams of the examples that it holds out of its training file, too.
        learned = self.dev is not None and self.dev.part and self.base.predictor.ngrams
        which = "dev examples, whose n-grams it has learned" if learned else "dev examples"
        say(f"{self.base.path} on its own {which}: {self.metric} {words}")

    def _measure(self, predictor: Predictor) -> str:
        assert self.dev is not None
        targets = _renumbered(self.dev.targets, self.dev.labels, predictor.labels)
        found = predictor.probabilities(self.dev.texts)
        outcome = Outcome(found, targets, predictor.thresholds, predictor.at_least_one)
        metric = metric_named(self.metric)
        return f"{metric(outcome):.{'1%' if metric.larger_is_better else '4f'}}"


def _renumbered(targets: NDArray[Any], old: list[str], new: list[str]) -> NDArray[Any]:
    """Return targets of `old` labels with the numbers of `new` ones; other labels come after them.

    All labels that are not among the old ones count as one.
    """
    number = {label: at for at, label in enumerate(dict.fromkeys([*new, *old]))}
    moved = np.array([number[label] for label in old] + [len(number)])
    if targets.ndim == 1:
        return np.asarray(moved[targets.clip(max=len(old))])
    unknown = targets[:, len(old) :].any(axis=1, keepdims=True)
    found = np.zeros((len(targets), len(number) + 1), bool)
    found[:, moved] = np.concatenate((targets[:, : len(old)] > 0, unknown), axis=1)
    return found if unknown.any() else found[:, :-1]


def _renamed(example: Example, known: Known, multi_label: bool) -> Example:
    soft = example.soft
    if soft:
        soft = soft.renamed({name: known.name(name) for name in soft.names}, multi_label)
    return example._replace(labels=known.names(example.labels), soft=soft)


def _dev_examples(base: EarlierRun) -> Dataset:
    """Return the dev examples of a run, read again without messages. Raises SrucliError.

    Only a regular file is read, because its name comes from the run.
    """
    facts, own = base.facts, base.predictor
    config, labels = own.config, own.labels
    is_dev = bool(facts.sources.get("dev"))
    part = "dev" if is_dev else "train"
    file = facts.sources.get(part)
    if not facts.data.dev_texts:
        raise SrucliError("it had no dev examples")
    if file is None or not Path(file).is_file():
        raise SrucliError(f"its {part} examples were not in a file, or are not there any more")
    known = Known(labels, merge=config.data.merge_labels)
    names = own.names if is_dev else None
    given = labels if is_dev else ()
    reading = read_examples(file, config.data, given, names=names, training=not is_dev)
    examples = [_renamed(each, known, own.multi_label) for each in reading]
    data = Dataset.make(examples, labels, own.multi_label, file)
    if data.sha256 != facts.data.sha256.get(part):
        raise SrucliError(f"{file} has changed since")
    if is_dev:
        return data
    share = config.train.dev_share
    share = default_share(len(data), len(labels)) if share is None else share
    _, held = data.split(share, config.train.seed)
    if held is None or len(held) != facts.data.dev_texts:
        raise SrucliError("another version has held out other examples")
    return held
