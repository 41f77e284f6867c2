"""Fonts that have the characters of a plot's labels; matplotlib's own lacks most scripts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import RLock

from srucli.experiments.drawing import (
    FontEntry,
    findSystemFonts,
    fontManager,
    get_font,
    weight_dict,
)
from srucli.io.console import escaped, warn

OWN = "DejaVu Sans"
# Tried before other installed fonts, as they are made to be read in labels.
PREFERRED = (
    *("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans KR", "NanumGothic", "Nanum Gothic"),
    *("Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic", "UnDotum", "Baekmuk Gulim"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "Arial Unicode MS"),
    *("Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Devanagari", "FreeSans"),
)
# Draws a box with the name of a script in the place of each character.
BOXES = "Last Resort"
# Categories of control and format characters, halves of surrogate pairs, and spaces.
UNDRAWN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}
SHOWN = 5
# Held while matplotlib's list of fonts, of which there is one per process, has more than before.
_changing = RLock()


@contextmanager
def families(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the font families that have the characters of these texts, for a block.

    matplotlib keeps a list of the fonts that were installed when it first ran. If a character is
    in none of them, newer fonts are used too, in the block alone; if it is in none of these either,
    a sentence says so. Other threads wait for the end of the block.
    """
    wanted = {character for text in texts for character in text if _is_drawn(character)}
    with _changing:
        wanted -= _characters(OWN)
        known = list(fontManager.ttflist)
        chosen = [OWN, *_covering(wanted)]
        try:
            if wanted and _add_new_fonts():
                chosen += [name for name in _covering(wanted) if name not in chosen]
            if wanted:
                warn(_missing(wanted))
            yield chosen
        finally:
            fontManager.ttflist[:] = known


def _is_drawn(character: str) -> bool:
    """Return whether a character needs a glyph; selectors of a glyph's variant need none."""
    selects = 0xFE00 <= ord(character) <= 0xFE0F
    return unicodedata.category(character) not in UNDRAWN and not selects


def _characters(family: str) -> set[str]:
    """Return the characters of a font family; none if it is not listed or cannot be read."""
    faces = [face for face in fontManager.ttflist if face.name == family]
    with suppress(OSError, RuntimeError, ValueError):
        upright = min(faces, key=lambda face: (face.style != "normal", _boldness(face)))
        return set(map(chr, get_font(upright.fname).get_charmap()))
    return set()


def _boldness(face: FontEntry) -> int:
    """Return how far a face's weight is from the normal one."""
    return abs(int(weight_dict.get(str(face.weight), face.weight)) - weight_dict["normal"])


def _covering(wanted: set[str]) -> Iterator[str]:
    """Yield installed families that have wanted characters, and remove these from `wanted`."""
    installed = {font.name for font in fontManager.ttflist if not font.name.startswith(BOXES)}
    preferred = [name for name in PREFERRED if name in installed]
    for name in (*preferred, *sorted(installed.difference(preferred))):
        if not wanted:
            return
        if found := wanted & _characters(name):
            wanted -= found
            yield name


def _add_new_fonts() -> bool:
    """Add the installed fonts that matplotlib does not list; return whether there are any."""
    listed = {font.fname for font in fontManager.ttflist}
    new = sorted({*findSystemFonts()} - listed)
    for file in new:
        # What FreeType says of a damaged font, or matplotlib of one made of pixels.
        with suppress(OSError, RuntimeError, ValueError, LookupError, NotImplementedError):
            fontManager.addfont(file)
    return bool(new)


def _missing(characters: set[str]) -> str:
    """Return the sentence for characters that no font has."""
    some = sorted(characters)
    shown = " ".join(map(escaped, some[:SHOWN])) + (" ..." if len(some) > SHOWN else "")
    return (
        f"no installed font has {len(some):,} of the labels' characters ({shown}), so they are "
        f"boxes in the PNG plots; the SVG plots have them, or install fonts that do, on Debian "
        f"{' '.join(sorted(set(map(_package, some))))}"
    )


def _package(character: str) -> str:
    """Return a package of Debian and Ubuntu with a font for a character."""
    name, kind = unicodedata.name(character, ""), unicodedata.category(character)
    if name.startswith(("HANGUL", "CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO")):
        return "fonts-noto-cjk"
    return "fonts-symbola" if kind.startswith("S") else "fonts-noto-core"
