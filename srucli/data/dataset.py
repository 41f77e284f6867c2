"""What is trained on: texts with numbered labels, and the share held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

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


@dataclass(frozen=True)
class Corpus:
    """Texts, their targets (B,) int64, or (B, K) float32 for several labels, and their lines.

    K >= C: labels that the training texts lack come last. `source` is what messages call the file.
    """

    texts: list[str]
    targets: NDArray[Any]
    lines: list[int]
    source: str

    @classmethod
    def make(
        cls, examples: Sequence[Example], labels: list[str], multi_label: bool, source: str
    ) -> Corpus:
        """Number the labels. Those that the training texts lack fall outside the C classes."""
        targets, _ = encode([example.labels for example in examples], labels, multi_label)
        if multi_label:
            targets = targets.astype(np.float32)
        texts, lines = [each.text for each in examples], [each.line for each in examples]
        return cls(texts, targets, lines, source)


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
    """Set a random `share` of the texts aside: (the rest, those). No label loses its last text."""
    count = round(len(examples) * share)
    left = Counter(label for example in examples for label in example.labels)
    chosen = np.zeros(len(examples), bool)
    for index in np.random.default_rng(seed).permutation(len(examples)):
        if count and all(left[label] > 1 for label in examples[index].labels):
            left.subtract(examples[index].labels)
            chosen[index], count = True, count - 1
    rest = [example for example, out in zip(examples, chosen, strict=True) if not out]
    return rest, [example for example, out in zip(examples, chosen, strict=True) if out]


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 of the labels and texts in their order, whatever file format they came in."""
    digest = sha256()
    for example in examples:
        digest.update("\t".join((*example.labels, example.text, "\n")).encode())
    return digest.hexdigest()
