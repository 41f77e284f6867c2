"""Make the Korean tutorial's data set: which part of Django does a message belong to?

Usage: python data/django_components.py LOCALE OUT_DIR

Django's wheel (BSD-3-Clause) contains its messages in about a hundred locales, as compiled
catalogues, one for each of its components. This script reads those of one locale from the installed
package and writes `train.tsv` and `test.tsv` (component, tab, text) and `raw.txt` (a text on each
line). It downloads nothing and contains no text of its own.

- A message is kept if it has at least two letters outside placeholders and markup, and was
  translated. A text of two components has no single answer and is left out.
- A component is a label if it has at least 40 texts to train on. Texts of the others are in
  `raw.txt` only, with those of `train.tsv`; no text of `test.tsv` is there.
- The split is by the English source (80/20, by a hash of its letters), as in `django_locales.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))  # also from another folder

from data.django_locales import Row, digest, installed_django, letters, part_of, read_catalogue

FEWEST = 40


class Message(NamedTuple):
    """A translated message of a component, in the split of its English source."""

    component: str
    text: str
    tested: bool


class Files(NamedTuple):
    """What is written: labelled texts to train and to test, texts without labels."""

    train: list[Row]
    test: list[Row]
    raw: list[str]


def read_messages(package: Path, locale: str) -> Iterator[Message]:
    """Yield the usable messages of one locale, with the component of each."""
    for path in sorted(package.glob(f"**/locale/{locale}/LC_MESSAGES/*.mo")):
        for _, source, text in read_catalogue(path):
            if len(letters(text)) >= 2 and letters(text) != letters(source):
                tested = part_of(letters(source)) != "train"
                yield Message(path.parents[3].name, text, tested)


def divide(messages: Iterable[Message]) -> tuple[Files, int]:
    """Return the rows of each file, mixed, and how many texts of two components were left out."""
    found: defaultdict[str, list[Message]] = defaultdict(list)
    for message in messages:
        found[message.text].append(message)
    alone = [same for same in found.values() if len({each.component for each in same}) == 1]
    # One text may translate two sources: it is trained on if one of them is.
    rows = [(same[0].component, same[0].text, all(each.tested for each in same)) for same in alone]
    rows.sort(key=lambda row: digest(row[1]))
    sizes = Counter(component for component, _, tested in rows if not tested)
    labels = {component for component, size in sizes.items() if size >= FEWEST}
    train = [(component, text) for component, text, tested in rows if not tested]
    test = [(component, text) for component, text, tested in rows if tested and component in labels]
    others = [text for component, text, tested in rows if tested and component not in labels]
    raw = [text for _, text in train] + others
    train = [row for row in train if row[0] in labels]
    return Files(train, test, raw), len(found) - len(alone)


def write(files: Files, folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        "train.tsv": ["\t".join(row) for row in files.train],
        "test.tsv": ["\t".join(row) for row in files.test],
        "raw.txt": files.raw,
    }
    for name, each in lines.items():
        text = "".join(f"{line}\n" for line in each)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Read the catalogues of the installed Django, write the files, and report their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("locale", metavar="LOCALE", help="such as ko")
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    arguments = parser.parse_args()
    files, left_out = divide(read_messages(installed_django(), arguments.locale))
    if not files.train:
        sys.exit(f"Django has too few messages in {arguments.locale!r}; give a locale such as ko")
    write(files, arguments.folder)
    for name, rows in (("train", files.train), ("test", files.test)):
        counts = Counter(label for label, _ in rows)
        shown = ", ".join(f"{label} {count}" for label, count in counts.most_common())
        print(f"{name}: {len(rows):,} texts ({shown})", file=sys.stderr)
    print(f"raw: {len(files.raw):,} texts", file=sys.stderr)
    print(f"left out: {left_out} texts of two or more components", file=sys.stderr)


if __name__ == "__main__":
    main()
