"""Labelled examples with numbered labels, as a training holds them, and the share held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.config import DataConfig, given
from srucli.data.labels import Known, Spellings, agreed, clean, notes
from srucli.data.layout import NAMELESS, Names
from srucli.data.readers import Example, read_examples
from srucli.errors import DataError
from srucli.io.console import escaped, excerpt, say
from srucli.io.streams import Source, display_name
from srucli.metrics import encode


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of a file, or a part of them.

    texts and lines: B strings and their line numbers. targets (B,) int64, or (B, K) float32 for
    multi-label examples. labels: the C that a model knows; those that the training examples lack
    are numbered from C on, so that K >= C. source: what messages call the file. sha256: of all
    examples of the file; part: which of them these are, empty for all.
    """

    texts: list[str]
    targets: NDArray[Any]
    lines: list[int]
    labels: list[str]
    source: str
    sha256: str
    part: str = ""

    @classmethod
    def make(
        cls, examples: Sequence[Example], labels: list[str], multi_label: bool, source: str
    ) -> Dataset:
        """Number the labels of all examples of a file, and hash them."""
        targets, _ = encode([example.labels for example in examples], labels, multi_label)
        if multi_label:
            targets = targets.astype(np.float32)
        texts, lines = [each.text for each in examples], [each.line for each in examples]
        return cls(texts, targets, lines, labels, source, data_hash(examples))

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels, or none."""
        return self.targets.ndim == 2

    @property
    def identity(self) -> str:
        """A name that no other examples have."""
        return f"{self.sha256} {self.part}".rstrip()

    def former_digest(self, more: bytes) -> str:
        """SHA-256 of the texts, one a line, and of `more`: how older checkpoints name examples."""
        digest = sha256()
        for number, text in enumerate(self.texts):
            digest.update(("\n" * bool(number) + text).encode())
        digest.update(more)
        return digest.hexdigest()

    def label_counts(self) -> NDArray[Any]:
        """How many examples each of the C labels has (C,)."""
        classes = len(self.labels)
        if self.multi_label:
            counts: NDArray[Any] = np.count_nonzero(self.targets[:, :classes], axis=0)
            return counts
        return np.bincount(self.targets, minlength=classes)[:classes]

    def split(self, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
        """Hold a random share of the examples out: (the rest, those, None if there are none).

        No label loses its last example.
        """
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
        return replace(self, texts=texts, lines=lines, targets=self.targets[numbers], part=part)


class Split(NamedTuple):
    """What a training trains on and is measured on. columns: what the training file calls them."""

    train: Dataset
    dev: Dataset | None
    columns: Names

    @property
    def hashes(self) -> dict[str, str]:
        """Of the examples of both files; without a dev file, of no examples."""
        dev = data_hash([]) if self.dev is None or self.dev.part else self.dev.sha256
        return {"train": self.train.sha256, "dev": dev}


def read_split(
    train: Source, dev: Source | None, config: DataConfig, share: float, seed: int
) -> Split:
    """Read both files, or hold a share of the training examples out where there is no dev file.

    Raises DataError and InputMissingError.
    """
    examples, columns = read_texts(train, config)
    source = display_name(train)
    labels, several = find_labels(examples, source), config.multi_label
    data = Dataset.make(examples, labels, several, source)
    if not dev:
        return Split(*data.split(share, seed), columns)
    held = read_held_out(dev, config, labels, columns)
    return Split(data, Dataset.make(held, labels, several, display_name(dev)), columns)


def read_texts(source: Source, config: DataConfig) -> tuple[list[Example], Names]:
    """The labelled texts of a file that decides what labels there are, and what it calls them.

    Says what became of the labels.

    Raises what `read_examples` does, and DataError where two labels look the same.
    """
    reading = read_examples(source, config)
    examples = list(reading.told(say, given(config)))
    columns = reading.layout.used if reading.layout else NAMELESS
    spellings = Spellings(examples)
    names = agreed(spellings, display_name(source), merge=config.merge_labels)
    if not config.multi_label:
        _say_joined(set(names.values()), source, config.label_delimiter)
    return _named(examples, spellings, names.__getitem__, source, config), columns


def _say_joined(labels: set[str], source: Source, joiner: str) -> None:
    """Name labels that seem to be several."""
    joined = sorted(
        name
        for name in labels
        if joiner in name and labels >= {clean(part) for part in name.split(joiner)}
    )
    if joined:
        many = f"{len(joined):,} of {len(labels):,} labels are others joined by '{joiner}'"
        shown = f"such as {excerpt(joined[0])}"
        say(f"{escaped(display_name(source))}: {many}, {shown}; --multi-label takes them apart")


def read_held_out(
    source: Source, config: DataConfig, labels: Iterable[str], names: Names | None = None
) -> list[Example]:
    """The labelled texts of a file to measure on, where `labels` are known already.

    names: what the training file calls its columns.
    """
    known = Known(labels, merge=config.merge_labels)
    reading = read_examples(source, config, known.labels, names=names)
    examples = list(reading.told(say, given(config)))
    named = _named(examples, Spellings(examples), known.name, source, config, known)
    lacking = Counter(label for each in named for label in each.labels if label not in known.labels)
    if lacking:
        shown = ", ".join(f"{escaped(name)} ({n:,})" for name, n in lacking.most_common(6))
        more = ", ..." if len(lacking) > 6 else ""
        texts = sum(not known.labels.issuperset(each.labels) for each in named)
        name = escaped(display_name(source))
        say(
            f"{name}: {texts:,} of {len(named):,} texts have labels that the training texts lack, "
            f"which count as errors: {shown}{more}"
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
    """Examples with the labels that those which are written stand for."""
    joiner = config.label_delimiter if config.multi_label else None
    for note in notes(spellings, name, known, joiner):
        say(f"{escaped(display_name(source))}: {note}")
    names = {label: name(label) for label, _ in spellings}
    return [
        example._replace(labels=tuple(dict.fromkeys(map(names.__getitem__, example.labels))))
        for example in examples
    ]


def find_labels(examples: Sequence[Example], source: str) -> list[str]:
    """All labels, sorted. Raises DataError where there are fewer than two."""
    labels = sorted({label for example in examples for label in example.labels})
    if len(labels) < 2:
        found = f"only the label '{labels[0]}'" if labels else "no label"
        remedy = "a classifier needs two or more; check --label and --format"
        raise DataError(source, None, f"{found} in {len(examples)} texts", remedy)
    return labels


def hold_out(
    examples: list[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Hold a random share of examples out: (the rest, those). No label loses its last example."""
    out = held_out([example.labels for example in examples], share, seed)
    rest = [example for example, chosen in zip(examples, out, strict=True) if not chosen]
    return rest, [example for example, chosen in zip(examples, out, strict=True) if chosen]


def held_out(labels: Sequence[Sequence[Any]], share: float, seed: int) -> NDArray[np.bool_]:
    """Which of B examples with these labels are held out (B,), as `hold_out` does it."""
    count = round(len(labels) * share)
    left = Counter(label for own in labels for label in own)
    chosen = np.zeros(len(labels), bool)
    for index in np.random.default_rng(seed).permutation(len(labels)):
        if count and all(left[label] > 1 for label in labels[index]):
            left.subtract(labels[index])
            chosen[index], count = True, count - 1
    return chosen


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 of the labels and texts in their order, whatever file format they came in."""
    digest = sha256()
    for example in examples:
        digest.update("\t".join((*example.labels, example.text, "\n")).encode())
    return digest.hexdigest()
