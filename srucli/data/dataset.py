"""Labelled examples with numbered labels, their hash, and the validation split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.config import DataConfig, TrainConfig, given
from srucli.data.given import Source, display_name
from srucli.data.labels import Known, Spellings, clean, notes, resolve_labels
from srucli.data.layout import NO_NAMES, ColumnNames
from srucli.data.readers import Example, read_examples
from srucli.data.targets import soft_targets
from srucli.errors import DataError
from srucli.io.console import excerpt, say, warn
from srucli.metrics import check_size, encode

# What is held out of the training examples by default: this share, at most so many examples, and
# at most so many pairs of example and label; nothing of fewer than FEW, because so few held-out
# examples measure nothing well, and the others are needed.
HELD_OUT, MAX_HELD_OUT, MAX_SCORES, FEW = 0.1, 2_000, 2**25, 200


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of a file, or a part of them.

    texts and lines: B strings and their line numbers. targets (B,) int64, or (B, K) float32 for
    multi-label. labels: the C labels of a model. Labels that the training examples lack have
    numbers from C on, so K >= C. source: the file's name in messages. sha256: of all examples of
    the file. part: which of them these are, "" for all. soft (B, C) float32: the targets that are
    learned instead, if some examples have probabilities; `targets` are the most likely labels then.
    weights (B,) float32: how many examples each counts as in training, if not all count as one.
    """

    texts: list[str]
    targets: NDArray[Any]
    lines: list[int]
    labels: list[str]
    source: str
    sha256: str
    part: str = ""
    soft: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None

    @classmethod
    def make(
        cls,
        examples: Sequence[Example],
        labels: list[str],
        multi_label: bool,
        source: str,
        settings: TrainConfig | None = None,
    ) -> Dataset:
        """Number the labels of all examples of a file, and hash the examples.

        settings: of soft labels; default those of `TrainConfig`. Raises DataError for more than
        memory can hold.
        """
        truth = [example.labels for example in examples]
        targets, _ = encode(truth, labels, multi_label, source)
        if multi_label:
            targets = targets.astype(np.float32)
        texts, lines = [each.text for each in examples], [each.line for each in examples]
        soft = weights = None
        if any(each.soft for each in examples):
            check_size(len(examples), len(labels), True, source)
            how = settings or TrainConfig()
            soft = soft_targets(examples, targets, labels, how, multi_label)
        if any(each.weight != 1 for each in examples):
            weights = np.array([each.weight for each in examples], np.float32)
        sha256 = data_hash(examples)
        return cls(texts, targets, lines, labels, source, sha256, soft=soft, weights=weights)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have any number of labels."""
        return self.targets.ndim == 2

    @property
    def learned(self) -> NDArray[Any]:
        """The targets of training: (B,) int64, or (B, C) float32 if soft or multi-label."""
        return self.targets if self.soft is None else self.soft

    @property
    def identity(self) -> str:
        """A name that differs for different examples."""
        return f"{self.sha256} {self.part}".rstrip()

    @property
    def without_labels(self) -> int:
        """The number of examples that have no label (multi-label only)."""
        return int((~self.targets.any(axis=1)).sum()) if self.multi_label else 0

    def label_counts(self) -> NDArray[Any]:
        """Return the number of examples with each of the C labels (C,)."""
        classes = len(self.labels)
        if self.multi_label:
            return np.asarray(np.count_nonzero(self.targets[:, :classes], axis=0))
        return np.bincount(self.targets, minlength=classes)[:classes]

    def split(self, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
        """Hold out a random share. Return the rest and these, None without any; see `held_out`."""
        labels = [[label] for label in self.targets.tolist()]
        if self.multi_label:
            labels = [np.flatnonzero(row).tolist() for row in self.targets]
        out = held_out(labels, share, seed)
        if not out.any():
            return self, None
        drawn = f"{out.sum()} of {len(self)} drawn by seed {seed}"
        held = replace(self._part(out, drawn), source=f"{self.source}, held out")
        return self._part(~out, f"without {drawn}"), held

    def _part(self, chosen: NDArray[np.bool_], part: str) -> Dataset:
        numbers = np.flatnonzero(chosen)
        texts, lines = [self.texts[n] for n in numbers], [self.lines[n] for n in numbers]
        soft, weights = (
            None if rows is None else rows[numbers] for rows in (self.soft, self.weights)
        )
        own: dict[str, Any] = {"targets": self.targets[numbers], "soft": soft, "weights": weights}
        return replace(self, texts=texts, lines=lines, part=part, **own)


class Split(NamedTuple):
    """The examples for training and validation. columns: their names in the training file."""

    train: Dataset
    dev: Dataset | None
    columns: ColumnNames

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes of the examples of both files; without a dev file, of no examples."""
        dev = data_hash([]) if self.dev is None or self.dev.part else self.dev.sha256
        return {"train": self.train.sha256, "dev": dev}

    @property
    def without_labels(self) -> int:
        """The number of examples of the training file that have no label (multi-label only)."""
        parts = [self.train, self.dev] if self.dev and self.dev.part else [self.train]
        return sum(part.without_labels for part in parts)


def read_split(
    train: Source,
    dev: Source | None,
    config: DataConfig,
    settings: TrainConfig,
    known: Sequence[str] = (),
) -> Split:
    """Read both files, or split the first, by default with `default_share`.

    known: the labels of an earlier run; see `find_labels`. Raises what `read_texts` raises, and
    DataError if all examples for training have the weight 0.
    """
    split = _read_split(train, dev, config, settings, known)
    weights = split.train.weights
    if weights is not None and not weights.any():
        problem = "all training examples have the weight 0"
        raise DataError(display_name(train), None, problem, "give some a larger one")
    return split


def _read_split(
    train: Source,
    dev: Source | None,
    config: DataConfig,
    settings: TrainConfig,
    known: Sequence[str],
) -> Split:
    examples, columns = read_texts(train, config, known)
    source = display_name(train)
    labels, multi_label = find_labels(examples, source, known), config.multi_label
    data = Dataset.make(examples, labels, multi_label, source, settings)
    if not dev:
        share = settings.dev_share
        wanted = default_share(len(data), len(labels)) if share is None else share
        return Split(*data.split(wanted, settings.seed), columns)
    held = read_held_out(dev, config, labels, columns)
    return Split(data, Dataset.make(held, labels, multi_label, display_name(dev)), columns)


def default_share(examples: int, labels: int) -> float:
    """Return the share that is held out by default: a tenth, at most MAX_HELD_OUT examples.

    With many labels it is less, because there is a score of each example for each label. With
    fewer than FEW examples it is 0.
    """
    if examples < FEW:
        return 0.0
    return min(HELD_OUT, min(MAX_HELD_OUT, MAX_SCORES / labels) / examples)


def read_texts(
    source: Source, config: DataConfig, labels: Sequence[str] = ()
) -> tuple[list[Example], ColumnNames]:
    """Return the labelled texts of a training file, and the names of its columns.

    The file defines the labels, besides those of an earlier run. Reports merged labels. Raises what
    `read_examples` raises, and DataError for labels that look the same.
    """
    examples, columns = read_as_written(source, config)
    return with_names(examples, source, config, labels), columns


def read_as_written(source: Source, config: DataConfig) -> tuple[list[Example], ColumnNames]:
    """Return the labelled texts of a training file with labels as written, and its columns."""
    reading = read_examples(source, config, training=True)
    examples = list(reading.reported(say, given(config)))
    return examples, reading.layout.names if reading.layout else NO_NAMES


def with_names(
    examples: Sequence[Example], source: Source, config: DataConfig, labels: Sequence[str] = ()
) -> list[Example]:
    """Return training examples with their labels' names instead of labels as written.

    labels: those of an earlier run. Reports merged labels. Raises DataError for labels that look
    the same.
    """
    known = Known(labels, merge=config.merge_labels)
    spellings = Spellings(examples)
    names = resolve_labels(spellings, display_name(source), known)
    if not config.multi_label:
        _report_joined(set(names.values()), source, config.label_delimiter)
    name = names.__getitem__
    return _named(examples, spellings, name, source, config, known if labels else None)


def _report_joined(labels: set[str], source: Source, joiner: str) -> None:
    joined = sorted(
        name
        for name in labels
        if joiner in name and labels >= {clean(part) for part in name.split(joiner)}
    )
    if joined:
        many = f"{len(joined):,} of {len(labels):,} labels are others joined by '{joiner}'"
        shown = f"such as {excerpt(joined[0])}"
        say(f"{display_name(source)}: {many}, {shown}; --multi-label splits them")


def read_held_out(
    source: Source, config: DataConfig, labels: Iterable[str], names: ColumnNames | None = None
) -> list[Example]:
    """Read a validation or test file, whose labels are known. names: see `Split.columns`."""
    known = Known(labels, merge=config.merge_labels)
    reading = read_examples(source, config, known.labels, names=names)
    examples = list(reading.reported(say, given(config)))
    named = _named(examples, Spellings(examples), known.name, source, config, known)
    unknown = [[label for label in each.labels if label not in known.labels] for each in named]
    counts = Counter(label for labels in unknown for label in labels)
    if counts:
        shown = ", ".join(f"{name} ({n:,})" for name, n in counts.most_common(6))
        more = ", ..." if len(counts) > 6 else ""
        warn(
            f"{display_name(source)}: {sum(map(bool, unknown)):,} of {len(named):,} texts "
            f"have labels that the training texts lack, which count as errors: {shown}{more}"
        )
    return named


def _named(
    examples: Sequence[Example],
    spellings: Spellings,
    name: Callable[[str], str],
    source: Source,
    config: DataConfig,
    known: Known | None = None,
) -> list[Example]:
    joiner = config.label_delimiter if config.multi_label else None
    for note in notes(spellings, name, known, joiner):
        say(f"{display_name(source)}: {note}")
    names = {label: name(label) for label, _ in spellings}
    return [
        example._replace(
            labels=tuple(dict.fromkeys(map(names.__getitem__, example.labels))),
            soft=example.soft and example.soft.renamed(names, config.multi_label),
        )
        for example in examples
    ]


def find_labels(examples: Sequence[Example], source: str, known: Sequence[str] = ()) -> list[str]:
    """Return all labels, sorted, with those of an earlier run if at least one of them occurs.

    Raises DataError if there are fewer than two.
    """
    groups = {(each.labels, each.soft.names if each.soft else ()) for each in examples}
    own = {label for group in groups for names in group for label in names}
    labels = sorted(own if own.isdisjoint(known) else own.union(known))
    if len(labels) < 2:
        found = f"only the label '{labels[0]}'" if labels else "no label"
        remedy = "a classifier needs two or more; check --label and --format"
        raise DataError(source, None, f"{found} in {len(examples)} texts", remedy)
    return labels


def hold_out(
    examples: list[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Hold out a random share of examples. Return the rest and these; see `held_out`."""
    out = held_out([example.labels for example in examples], share, seed)
    return list(compress(examples, ~out)), list(compress(examples, out))


def held_out(labels: Sequence[Sequence[Any]], share: float, seed: int) -> NDArray[np.bool_]:
    """Return which of B examples are held out at random (B,). No label loses its last example."""
    count = round(len(labels) * share)
    left = Counter(label for own in labels for label in own)
    chosen = np.zeros(len(labels), bool)
    for index in np.random.default_rng(seed).permutation(len(labels)):
        if count and all(left[label] > 1 for label in labels[index]):
            left.subtract(labels[index])
            chosen[index], count = True, count - 1
    return chosen


def data_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples, in order, whatever their file format."""
    digest = sha256()
    for example in examples:
        digest.update("\t".join((*example.labels, example.text, "\n")).encode())
        if example.soft:
            names, values, beside = example.soft
            digest.update("\t".join((*names, str(beside), "\n")).encode() + values.tobytes())
        if example.weight != 1:
            digest.update(f"{example.weight!r}\t\n".encode())
    return digest.hexdigest()
