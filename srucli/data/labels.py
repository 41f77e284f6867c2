"""Labels that look the same: which are one label, which are refused, which cause a warning.

Labels are read in Unicode's NFC, without white space and invisible characters at both ends. Two
labels may still resemble each other in two ways:

- They look the same if they differ only in invisible characters, the kind or number of inner
  spaces, full-width or half-width forms, letters that several scripts share (a Cyrillic and a Latin
  "a"), or a decimal part of zero (1 and 1.0). In a training file this is an error.
- They are alike if they also differ in case, compatibility forms, dashes, quotation marks, joiners,
  the notation of a number, or as true and 1. This causes a warning.

With `data.merge_labels`, labels that resemble each other in either way become the most common one,
or the known one if the labels are known, as those of a run are. `notes` reports what was merged.
Texts are never changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from srucli.errors import DataError
from srucli.io.console import excerpt

MERGE_FLAG = "--merge-labels"
# Of more messages of one kind, only the number is reported.
MAX_NOTES = 6

_JOINERS = "\u200c\u200d"
# Soft hyphen, bidirectional marks, zero-width space, word joiner, byte-order mark, fillers, ...:
# controls, and what Unicode calls default ignorable, except joiners and the tags of flags.
_INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e0fff]"
)
# Invisible characters that change the character before them.
_SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_BLANKS = re.compile(r"[\s\u2800]+")
# Tags of Unicode's decompositions that look the same, or nearly so.
_SAME_FORM = re.compile("<(wide|narrow|noBreak|small|isolated|initial|medial|final|compat)>")
_SHARED = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухԁԛԝһΑΒΕΖΗΙΚΜΝΟΡΤΥΧο",
    "ABESIJKMHOPCTYXaesijopcyxdqwhABEZHIKMNOPTYXo",
)
_DASHES_AND_QUOTES = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212`\u00b4\u2018\u2019\u201a\u201b\u2032"
    "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb",
    "-------'''''''\"\"\"\"\"\"\"",
)
# Yeh and kaf of Arabic and Persian keyboards: alike in most positions of a word.
_YEH_AND_KAF = str.maketrans("\u064a\u0649\u0643", "\u06cc\u06cc\u06a9")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,6})?")
_TRUTH = {"true": "1", "false": "0"}
# What pandas, R, Excel, SQL and others write for a missing value, in lower case.
_MISSING = {
    *("nan", "-nan", "na", "<na>", "n/a", "n.a.", "#n/a", "#n/a n/a", "#na", "#nv", "nat"),
    *("none", "<none>", "(none)", "null", "<null>", "(null)", "#null!", "nil", "\\n", "undefined"),
    *("missing", "(blank)", "(empty)", "-", "--", "---", "?", ".", "1.#ind", "1.#qnan", "-1.#ind"),
    *("-1.#qnan", "#value!", "#ref!", "#div/0!", "#name?", "#num!"),
}


class UnquotedLabel(str):
    """A label that is not a string in JSON, as 1 or true."""

    __slots__ = ()


def _shapes(neighbour: str) -> bool:
    """Whether a zero-width joiner next to this character is visible: scripts that join, emoji."""
    return (
        unicodedata.bidirectional(neighbour) == "AL"
        or unicodedata.combining(neighbour) == 9  # viramas
        or unicodedata.category(neighbour) == "So"
        or "\U0001f3fb" <= neighbour <= "\U0001f3ff"  # skin tones
    )


def clean(label: str) -> str:
    """Return a label in NFC, without white space and invisible characters at both ends."""
    if label.isascii() and label.isprintable():
        return label.strip()
    label = unicodedata.normalize("NFC", label)
    start, end = 0, len(label)
    while start < end and _is_edge(label[start], label[start + 1 : start + 2], selects=False):
        start += 1
    while start < end and _is_edge(label[end - 1], label[end - 2 : end - 1], selects=True):
        end -= 1
    return label[start:end]


def _is_edge(end: str, inner: str, *, selects: bool) -> bool:
    """Whether a character at an end is removed. selects: it may select the form of `inner`."""
    if end == "\u200d" and inner:
        return not _shapes(inner)
    if selects and inner and _SELECTORS.fullmatch(end):
        return False
    return end.isspace() or end in _JOINERS or bool(_INVISIBLE.fullmatch(end))


def same_key(label: str) -> str:
    """Return a key that is equal for labels that look the same."""
    label = _INVISIBLE.sub("", clean(label))
    if not label.isascii():
        label = "".join(map(_plain_form, _without_joiners(label)))
        label = unicodedata.normalize("NFC", label).translate(_SHARED)
    label = _BLANKS.sub(" ", label).strip()
    whole = _WHOLE.fullmatch(label)
    return whole[1] if whole else label


def _plain_form(character: str) -> str:
    if _SAME_FORM.match(unicodedata.decomposition(character)) and character != "\u017f":  # long s
        return unicodedata.normalize("NFKC", character)
    return character


def _without_joiners(label: str) -> str:
    return "".join(
        c for i, c in enumerate(label) if c not in _JOINERS or (i > 0 and _shapes(label[i - 1]))
    )


def alike_key(label: str) -> str:
    """Return a key that is equal for labels that are alike, or look the same."""
    key = unicodedata.normalize("NFKC", same_key(label)).casefold()
    key = unicodedata.normalize("NFKC", key).translate(_DASHES_AND_QUOTES)
    key = key.translate(_YEH_AND_KAF).translate(dict.fromkeys(map(ord, _JOINERS)))
    if len(key) <= 40 and _NUMBER.fullmatch(key):
        number = Decimal(key)
        return str(number.normalize()) if number else "0"
    return _TRUTH.get(key, key)


def is_missing(label: str) -> bool:
    """Whether a label looks like a missing value."""
    return label.casefold() in _MISSING


def shown(label: str, beside: str | None = None) -> str:
    """Return a label for messages: short and in quotes, unless JSON writes it without quotes.

    Characters that are not in `beside`, a label that looks the same, are escaped.
    """
    if isinstance(label, UnquotedLabel):
        return str(label)
    if beside is None:
        return excerpt(label)
    start = label[:40]
    escaped = (
        c if c.isprintable() and (c in beside or c.isascii()) else ascii(c)[1:-1] for c in start
    )
    return f"'{''.join(escaped)}'{'...' if start != label else ''}"


class Labelled(Protocol):
    """An example: its labels as written, all labels that it names, and its line."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def named(self) -> tuple[str, ...]: ...
    @property
    def line(self) -> int: ...


class Occurrences:
    """How many texts have a label, and the line of the first of them."""

    def __init__(self, line: int) -> None:
        self.texts, self.line = 0, line

    def __str__(self) -> str:
        return f"{self.texts:,} {'text' if self.texts == 1 else 'texts'}, first in line {self.line}"


class Spellings:
    """The occurrences of each label as written. repeated: how many texts name a label twice."""

    def __init__(self, examples: Iterable[Labelled] = ()) -> None:
        self._occurrences: dict[tuple[str, type[str]], Occurrences] = {}
        self.repeated = 0
        for example in examples:
            self.add(example)

    def add(self, example: Labelled) -> None:
        """Count the labels that one example names."""
        self.repeated += len(set(example.labels)) < len(example.labels)
        for label in example.named:
            new = Occurrences(example.line)
            self._occurrences.setdefault((label, type(label)), new).texts += 1

    def __iter__(self) -> Iterator[tuple[str, Occurrences]]:
        """Yield each label as written, in order of appearance."""
        return ((kind(label), found) for (label, kind), found in self._occurrences.items())

    def by(self, name: Callable[[str], str]) -> dict[str, Occurrences]:
        """Return the occurrences of each name that `name` returns for a label."""
        totals: dict[str, Occurrences] = {}
        for label, found in self:
            totals.setdefault(name(label), Occurrences(found.line)).texts += found.texts
        return totals


def _by_key(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _groups(names: Mapping[str, Occurrences], key: Callable[[str], str]) -> list[list[str]]:
    """Return names with the same key, the most common first."""
    groups = [group for group in _by_key(names, key).values() if len(group) > 1]
    return [sorted(group, key=lambda name: -names[name].texts) for group in groups]


def resolve_labels(spellings: Spellings, source: str, known: Known) -> dict[str, str]:
    """Return the label for each label as written, in a file that defines labels besides known ones.

    Raises DataError for two that look the same, unless `known` merges them.
    """
    names = spellings.by(known.name)
    merged: dict[str, str] = {}
    if known.merge:
        new = {name: found for name, found in names.items() if name not in known.labels}
        merged = {name: group[0] for group in _groups(new, alike_key) for name in group}
    elif groups := _groups(names, same_key):
        raise _ambiguous(groups, names, source)
    return {str(label): merged.get(name := known.name(label), name) for label, _ in spellings}


def _ambiguous(
    groups: Sequence[Sequence[str]], names: Mapping[str, Occurrences], source: str
) -> DataError:
    common, rare = groups[0][:2]
    first, second = names[common], names[rare]
    more = f" (and {len(groups) - 1} more such pairs)" if len(groups) > 1 else ""
    problem = (
        f"the label {shown(rare, common)} ({second}) looks the same as {shown(common, rare)} "
        f"({first}){more}"
    )
    remedy = f"write them alike, or pass {MERGE_FLAG} to read them as one"
    return DataError(source, second.line, problem, remedy)


class Known:
    """Labels that are known already, as those of a run or of the training examples."""

    def __init__(self, labels: Iterable[str], *, merge: bool) -> None:
        self.labels, self.merge = set(labels), merge
        self._clean, self._same, self._alike = (
            {common: names[0] for common, names in groups.items() if len(names) == 1}
            for groups in (_by_key(self.labels, key) for key in (clean, same_key, alike_key))
        )

    def name(self, label: str) -> str:
        """Return the known label that one stands for, or else the cleaned label.

        Runs of older versions may have labels that are not clean; an exact match is preferred.
        """
        label = str(label)
        tidy = clean(label)
        for name in (label, label.strip(), tidy):
            if name in self.labels:
                return name
        return self._clean.get(tidy) or (self.like(label) if self.merge else None) or tidy

    def names(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return the names of these labels, each once."""
        return tuple(dict.fromkeys(map(self.name, labels)))

    def like(self, label: str) -> str | None:
        """Return the only known label that looks the same, or else is alike."""
        return self._same.get(same_key(label)) or self._alike.get(alike_key(label))


def notes(
    spellings: Spellings,
    name: Callable[[str], str],
    known: Known | None = None,
    joiner: str | None = None,
) -> Iterator[str]:
    """Yield messages about a file's labels.

    name: returns the label for a label as written. joiner: what joins the labels of a text in
    multi-label output.
    """
    names = spellings.by(name)
    new = names if known is None else {n: s for n, s in names.items() if n not in known.labels}
    yield from _few(_read_as(spellings, name))
    yield from _few(_resembling(new, known))
    yield from _few(
        f"the label {shown(label)} ({found}) looks like a missing value; if it is one, "
        "remove these texts"
        for label, found in new.items()
        if is_missing(label)
    )
    if joiner is not None:
        yield from _few(
            f"the label {shown(label)} holds {shown(joiner)}, which joins labels: "
            "predict --json tells them apart"
            for label in new
            if joiner in label
        )
    if spellings.repeated:
        yield f"{spellings.repeated:,} texts name a label twice, which counts once"


def _few(messages: Iterable[str]) -> Iterator[str]:
    every = list(messages)
    yield from every[:MAX_NOTES]
    if len(every) > MAX_NOTES:
        yield f"... and {len(every) - MAX_NOTES:,} more labels like these"


def _read_as(spellings: Spellings, name: Callable[[str], str]) -> Iterator[str]:
    """Report labels that are written in several ways, or not as they are read."""
    ways: dict[str, list[tuple[str, Occurrences]]] = {}
    for label, found in spellings:
        ways.setdefault(name(label), []).append((label, found))
    for label, written in ways.items():
        if len(written) > 1 or str(written[0][0]) != label:
            each = " and ".join(f"{shown(way, label)} ({found})" for way, found in written)
            yield f"labels read as {shown(label)}: {each}"


def _resembling(names: Mapping[str, Occurrences], known: Known | None) -> Iterator[str]:
    """Report labels that are alike, or like known ones, and yet are not merged."""
    if known is None:
        for group in _groups(names, alike_key):
            each = " and ".join(f"{shown(name)} ({names[name]})" for name in group)
            yield f"labels that may be one: {each}; {MERGE_FLAG} reads them as one"
        return
    for label, found in names.items():
        if like := known.like(label):
            yield (
                f"the label {shown(label, like)} ({found}) is not known, but {shown(like, label)} "
                f"is; {MERGE_FLAG} treats them as one"
            )
