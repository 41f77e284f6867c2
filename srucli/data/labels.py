"""Labels that look the same: what is one label, what is refused, what is named in a warning.

A label is read in Unicode's NFC, without the white space and the invisible characters at its ends:
nobody can see these, and no script needs them. Beyond that there are two kinds of likeness:

- Labels look the same if they differ in invisible characters, in the kind or number of inner
  blanks, in full- or half-width forms, in letters that several scripts share (a Cyrillic and a
  Latin "a"), or are whole numbers with and without a decimal part (1 and 1.0). In a training file
  two of these are refused.
- Labels are alike if they also differ in case, compatibility forms, dashes, quotation marks,
  joiners, the spelling of a number, or as true and 1. These are named in a warning.

`data.merge_labels` takes both kinds for one label, the most common one. Where labels are known
already, as those of a run are for `eval`, the known ones decide. Nothing is merged without a word:
`notes` has the sentences. Texts are never changed. Reading files is `readers.py`.
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
# Sentences of one kind that are said; of more there is only the number.
MAX_SAID = 6

_JOINERS = "\u200c\u200d"
# Soft hyphen, bidirectional marks, zero-width space, word joiner, byte-order mark, fillers, ...:
# controls, and what Unicode calls default ignorable, but joiners and the tags of flags.
_INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e0fff]"
)
# Of the invisible ones, what changes the character before it.
_SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_BLANKS = re.compile(r"[\s\u2800]+")
# Tags of Unicode's decompositions to what looks the same, nearly or quite.
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
# Yeh and kaf as Arabic and as Persian keyboards have them: alike in most places of a word.
_YEH_AND_KAF = str.maketrans("\u064a\u0649\u0643", "\u06cc\u06cc\u06a9")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,6})?")
_TRUTH = {"true": "1", "false": "0"}
# What pandas, R, Excel, SQL and others write where there is no value, in small letters.
_MISSING = {
    *("nan", "-nan", "na", "<na>", "n/a", "n.a.", "#n/a", "#n/a n/a", "#na", "#nv", "nat"),
    *("none", "<none>", "(none)", "null", "<null>", "(null)", "#null!", "nil", "\\n", "undefined"),
    *("missing", "(blank)", "(empty)", "-", "--", "---", "?", ".", "1.#ind", "1.#qnan", "-1.#ind"),
    *("-1.#qnan", "#value!", "#ref!", "#div/0!", "#name?", "#num!"),
}


class Bare(str):
    """A label that JSON writes without quotes, as 1 or true."""

    __slots__ = ()


def _shapes(neighbour: str) -> bool:
    """Whether a zero-width joiner beside this character can be seen: scripts that join, emoji."""
    return (
        unicodedata.bidirectional(neighbour) == "AL"
        or unicodedata.combining(neighbour) == 9  # viramas
        or unicodedata.category(neighbour) == "So"
        or "\U0001f3fb" <= neighbour <= "\U0001f3ff"  # skin tones
    )


def clean(label: str) -> str:
    """A label in NFC, without white space and what is invisible at its ends."""
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
    """Whether a character at an end can go: `selects` where it may select the form of `inner`."""
    if end == "\u200d" and inner:
        return not _shapes(inner)
    if selects and inner and _SELECTORS.fullmatch(end):
        return False
    return end.isspace() or end in _JOINERS or bool(_INVISIBLE.fullmatch(end))


def same_key(label: str) -> str:
    """Equal for labels that look the same."""
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
    """Without the joiners that nobody can see."""
    if not any(joiner in label for joiner in _JOINERS):
        return label
    return "".join(
        c for i, c in enumerate(label) if c not in _JOINERS or (i > 0 and _shapes(label[i - 1]))
    )


def alike_key(label: str) -> str:
    """Equal for labels that are alike, so also for those that look the same."""
    key = unicodedata.normalize("NFKC", same_key(label)).casefold()
    key = unicodedata.normalize("NFKC", key).translate(_DASHES_AND_QUOTES)
    key = key.translate(_YEH_AND_KAF).translate(dict.fromkeys(map(ord, _JOINERS)))
    if len(key) <= 40 and _NUMBER.fullmatch(key):
        number = Decimal(key)
        return str(number.normalize()) if number else "0"
    return _TRUTH.get(key, key)


def is_missing(label: str) -> bool:
    """Whether a label reads like a missing value."""
    return label.casefold() in _MISSING


def shown(label: str, beside: str | None = None) -> str:
    """A label as messages have it: in quotes and short; as it is where JSON has no quotes for it.

    What is not in `beside`, a label that looks the same, is written as an escape.
    """
    if isinstance(label, Bare):
        return str(label)
    if beside is None:
        return excerpt(label)
    kept = label[:40]
    escaped = (
        c if c.isprintable() and (c in beside or c.isascii()) else ascii(c)[1:-1] for c in kept
    )
    return f"'{''.join(escaped)}'{'...' if kept != label else ''}"


class Labelled(Protocol):
    """What is counted of a text: its labels as they are written, and its line."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def line(self) -> int: ...


class Seen:
    """How many texts have a label, and the first line of them."""

    def __init__(self, line: int) -> None:
        self.texts, self.line = 0, line

    def __str__(self) -> str:
        return f"{self.texts:,} {'text' if self.texts == 1 else 'texts'}, first in line {self.line}"


class Spellings:
    """How often, and from which line on, labels are written in each way in a file.

    repeated: texts that name a label twice.
    """

    def __init__(self, texts: Iterable[Labelled] = ()) -> None:
        self._seen: dict[tuple[str, type[str]], Seen] = {}
        self.repeated = 0
        for text in texts:
            self.add(text)

    def add(self, text: Labelled) -> None:
        """Count the labels of one text."""
        self.repeated += len(set(text.labels)) < len(text.labels)
        for label in text.labels:
            key = label, type(label)
            seen = self._seen.get(key) or self._seen.setdefault(key, Seen(text.line))
            seen.texts += 1

    def __iter__(self) -> Iterator[tuple[str, Seen]]:
        """Each way of writing a label, in order of appearance."""
        return ((kind(label), seen) for (label, kind), seen in self._seen.items())

    def by(self, name: Callable[[str], str]) -> dict[str, Seen]:
        """How often there is each of the names that `name` gives to labels."""
        found: dict[str, Seen] = {}
        for label, seen in self:
            total = found.setdefault(name(label), Seen(seen.line))
            total.texts += seen.texts
        return found


def _groups(names: Mapping[str, Seen], key: Callable[[str], str]) -> list[list[str]]:
    """Different names with the same key, the most common first."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    several = (sorted(group, key=lambda name: -names[name].texts) for group in found.values())
    return [group for group in several if len(group) > 1]


def agreed(spellings: Spellings, source: str, *, merge: bool) -> dict[str, str]:
    """The label that each one as written stands for, in a file that decides what labels there are.

    Raises DataError where two look the same, unless they are to be merged.
    """
    names = spellings.by(clean)
    if merge:
        chosen = {name: group[0] for group in _groups(names, alike_key) for name in group}
    else:
        _refuse(_groups(names, same_key), names, source)
        chosen = {}
    return {str(label): chosen.get(clean(label), clean(label)) for label, _ in spellings}


def _refuse(groups: Sequence[Sequence[str]], names: Mapping[str, Seen], source: str) -> None:
    if not groups:
        return
    common, rare = groups[0][:2]
    first, second = names[common], names[rare]
    more = f" (and {len(groups) - 1} more such pairs)" if len(groups) > 1 else ""
    problem = (
        f"the label {shown(rare, common)} ({second}) looks the same as {shown(common, rare)} "
        f"({first}){more}"
    )
    remedy = f"write them alike, or pass {MERGE_FLAG} to read them as one"
    raise DataError(source, second.line, problem, remedy)


class Known:
    """Labels that are known already: those of a run, or of the texts that are trained on."""

    def __init__(self, labels: Iterable[str], *, merge: bool) -> None:
        self.labels, self.merge = set(labels), merge
        self._clean = _unique(self.labels, clean)
        self._same = _unique(self.labels, same_key)
        self._alike = _unique(self.labels, alike_key)

    def name(self, label: str) -> str:
        """The label that one stands for: a known one, or itself without what cannot be seen.

        Runs of older versions may know labels that are not clean: what is written so is meant so.
        """
        label = str(label)
        tidy = clean(label)
        for name in (label, label.strip(), tidy):
            if name in self.labels:
                return name
        return self._clean.get(tidy) or (self.like(label) if self.merge else None) or tidy

    def names(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The labels of a text, each once."""
        return tuple(dict.fromkeys(map(self.name, labels)))

    def like(self, label: str) -> str | None:
        """The one known label that looks the same, or else is alike."""
        return self._same.get(same_key(label)) or self._alike.get(alike_key(label))


def _unique(labels: Iterable[str], key: Callable[[str], str]) -> dict[str, str]:
    """Labels by a key, without those that share theirs."""
    found: dict[str, list[str]] = {}
    for label in labels:
        found.setdefault(key(label), []).append(label)
    return {common: group[0] for common, group in found.items() if len(group) == 1}


def notes(
    spellings: Spellings,
    name: Callable[[str], str],
    known: Known | None = None,
    joiner: str | None = None,
) -> Iterator[str]:
    """What a person should know of a file's labels, in sentences.

    `name` gives the label that each one as written stands for; `joiner` is what joins the labels of
    a text where there may be several.
    """
    names = spellings.by(name)
    new = names if known is None else {n: s for n, s in names.items() if n not in known.labels}
    yield from _few(_read_as(spellings, name))
    yield from _few(_resembling(new, known))
    yield from _few(
        f"the label {shown(label)} ({seen}) reads like a missing value; if it is one, take these "
        "texts out"
        for label, seen in new.items()
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


def _few(sentences: Iterable[str]) -> Iterator[str]:
    """The first sentences, and the number of the others."""
    every = list(sentences)
    yield from every[:MAX_SAID]
    if len(every) > MAX_SAID:
        yield f"... and {len(every) - MAX_SAID:,} more labels like these"


def _read_as(spellings: Spellings, name: Callable[[str], str]) -> Iterator[str]:
    """Labels that are written in several ways, or in another way than they are read."""
    ways: dict[str, list[tuple[str, Seen]]] = {}
    for label, seen in spellings:
        ways.setdefault(name(label), []).append((label, seen))
    for label, written in ways.items():
        if len(written) > 1 or str(written[0][0]) != label:
            each = " and ".join(f"{shown(way, label)} ({seen})" for way, seen in written)
            yield f"labels read as {shown(label)}: {each}"


def _resembling(names: Mapping[str, Seen], known: Known | None) -> Iterator[str]:
    """Labels that are alike, or like known ones, and yet kept apart."""
    if known is None:
        for group in _groups(names, alike_key):
            each = " and ".join(f"{shown(name)} ({names[name]})" for name in group)
            yield f"labels that may be one: {each}; {MERGE_FLAG} reads them as one"
        return
    for label, seen in names.items():
        if like := known.like(label):
            yield (
                f"the label {shown(label, like)} ({seen}) is not known, but {shown(like, label)} "
                f"is; {MERGE_FLAG} takes them for one"
            )
