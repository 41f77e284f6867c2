"""Make the demo's data set: identify the language of a short text, from Django's translations.

Usage: python data/django_locales.py OUT_DIR [--keep-all]

Django's wheel (BSD-3-Clause) contains its messages in about a hundred locales, as compiled
catalogues. This script reads them from the installed package and writes `train.tsv`, `dev.tsv` and
`test.tsv` (label, tab, text). It downloads nothing and contains no text of its own.

- A translation is kept if it has at least eight characters, at least two letters outside format
  placeholders and markup, and, outside English, differs from all of Django's English texts: a text
  equal to one of them was not translated.
- The split is by the English source (80/10/10, by a hash of its letters), so that all translations
  of one message are in the same split. A row occurs in one split only.
- Two locales become one label if more than half of the training messages that both translate have
  the same translation. Chains of such pairs are merged as well.

With `--keep-all` every locale is a label and the split is by text. Some locales are copies of each
other there, and translations of one message are in several splits.
"""

from __future__ import annotations

import argparse
import gettext
import hashlib
import importlib.util
import itertools
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PARTS = ("train", "dev", "test")
PART_OF_TENTH = ("train",) * 8 + ("dev", "test")
SAME_SHARE = 0.5
SHORTEST = 8
PLACEHOLDER = re.compile(r"%\(\w*\)[a-z]|%[a-z]|\{\w*\}|<[^>]+>|&\w+;")

Row = tuple[str, str]
Parts = dict[str, list[Row]]


class Translation(NamedTuple):
    """One message of one locale. `source` is the English text without its context."""

    locale: str
    source: str
    text: str


def digest(text: str) -> int:
    """Return a hash that is the same on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def letters(text: str) -> str:
    """Return the case-folded letters of a text, so that 'Monday' and 'monday:' are one message."""
    return "".join(filter(str.isalpha, PLACEHOLDER.sub("", text).casefold()))


def is_english(locale: str) -> bool:
    """Return whether a locale is English."""
    return locale.partition("_")[0] == "en"


def read_catalogue(path: Path) -> Iterator[Translation]:
    """Yield the messages of a compiled catalogue, each plural form as a translation of its own."""
    locale = path.parent.parent.name
    with path.open("rb") as file:
        # gettext offers no public way to list a catalogue.
        messages = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    for key, text in messages.items():
        message = key[0] if isinstance(key, tuple) else key
        if message:
            source = message.rpartition("\x04")[2]
            yield Translation(locale, source, " ".join(text.split()))


def read_translations(package: Path) -> list[Translation]:
    """Return the usable translations of a Django package, without duplicates, in a fixed order."""
    paths = sorted(package.glob("**/locale/*/LC_MESSAGES/*.mo"))
    found = dict.fromkeys(itertools.chain.from_iterable(map(read_catalogue, paths)))
    english = {letters(t.source) for t in found}
    english |= {letters(t.text) for t in found if is_english(t.locale)}
    return [
        t
        for t in found
        if len(t.text) >= SHORTEST
        and len(letters(t.text)) >= 2
        and (is_english(t.locale) or letters(t.text) not in english)
    ]


def part_of(key: str) -> str:
    """Return the split of a key: train, dev or test, by its hash."""
    return PART_OF_TENTH[digest(key) % len(PART_OF_TENTH)]


def same_shares(translations: Iterable[Translation]) -> dict[tuple[str, str], float]:
    """Return, for each pair of locales, the share of common messages with the same translation."""
    texts: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for locale, source, text in translations:
        texts[locale][source].add(text)
    shares = {}
    for one, other in itertools.combinations(sorted(texts), 2):
        shared = texts[one].keys() & texts[other].keys()
        same = sum(texts[one][source] == texts[other][source] for source in shared)
        shares[one, other] = same / len(shared) if shared else 0.0
    return shares


def merge_locales(translations: Iterable[Translation], threshold: float) -> dict[str, str]:
    """Return the label of each locale: its name, or the names of merged locales joined with '+'."""
    shares = same_shares(translations)
    groups = {locale: {locale} for pair in shares for locale in pair}
    for (one, other), share in shares.items():
        if share > threshold and groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for locale in groups[other]:
                groups[locale] = groups[one]
    return {locale: "+".join(sorted(group)) for locale, group in groups.items()}


def split_by_source(translations: Iterable[Translation]) -> tuple[Parts, dict[str, str]]:
    """Return the rows of each split, and the label of each locale, merged by the training split."""
    parts: defaultdict[str, list[Translation]] = defaultdict(list)
    for translation in translations:
        parts[part_of(letters(translation.source))].append(translation)
    labels = merge_locales(parts["train"], SAME_SHARE)
    rows = {
        part: [(labels[t.locale], t.text) for t in parts[part] if t.locale in labels]
        for part in PARTS
    }
    return rows, labels


def split_by_text(translations: Iterable[Translation]) -> Parts:
    """Return the rows of each split, with every locale as a label."""
    rows: Parts = {part: [] for part in PARTS}
    for translation in translations:
        rows[part_of(translation.text)].append((translation.locale, translation.text))
    return rows


def without_repetitions(parts: Mapping[str, list[Row]]) -> Parts:
    """Return each row once, in the first split that has it, in an order that mixes the labels."""
    seen: set[Row] = set()
    unique = {}
    for part in PARTS:
        new = set(parts[part]) - seen
        seen |= new
        unique[part] = sorted(new, key=lambda row: digest("\t".join(row)))
    return unique


def write_parts(parts: Mapping[str, list[Row]], folder: Path) -> None:
    """Write `train.tsv`, `dev.tsv` and `test.tsv`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        lines = (f"{label}\t{text}\n" for label, text in rows)
        (folder / f"{part}.tsv").write_text("".join(lines), encoding="utf-8", newline="\n")


def installed_django() -> Path:
    """Return the folder of the installed Django without importing it."""
    spec = importlib.util.find_spec("django")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("Django is not installed; run: pip install 'srucli[demo]'")
    return Path(spec.submodule_search_locations[0])


def report(translations: list[Translation], parts: Parts, labels: Mapping[str, str]) -> None:
    """Print to stderr what was read, merged and written."""
    locales = {t.locale for t in translations}
    print(f"{len(translations):,} translations in {len(locales)} locales", file=sys.stderr)
    for label in sorted({label for label in labels.values() if "+" in label}):
        print(f"merged: {label}", file=sys.stderr)
    for part, rows in parts.items():
        counts = Counter(label for label, _ in rows)
        print(f"{part}: {len(rows):,} texts, {len(counts)} labels", file=sys.stderr)


def main() -> None:
    """Read the catalogues of the installed Django and write the three splits."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    parser.add_argument("--keep-all", action="store_true", help="no merging; split by text")
    arguments = parser.parse_args()
    translations = read_translations(installed_django())
    labels: dict[str, str] = {}
    if arguments.keep_all:
        parts = split_by_text(translations)
    else:
        parts, labels = split_by_source(translations)
    parts = without_repetitions(parts)
    write_parts(parts, arguments.folder)
    report(translations, parts, labels)


if __name__ == "__main__":
    main()
