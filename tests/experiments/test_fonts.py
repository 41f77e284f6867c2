"""Fonts for labels: installed ones, ones installed since matplotlib's list was made, none."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from matplotlib import font_manager
from matplotlib.figure import Figure

from srucli.experiments.fonts import BOXES, OWN, families
from srucli.experiments.plots import styled

# Of a private area, so that no font of the machine has them.
LABEL = "\U0010fe01\U0010fe02"


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, the only one where fonts can be installed."""
    monkeypatch.setattr(font_manager, "X11FontDirectories", [str(tmp_path)])
    return tmp_path


def install(folder: Path, name: str, characters: str) -> None:
    """Install a font whose characters are all the same triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((500, 0), (250, 700)):
        pen.lineTo(corner)
    pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "triangle"])
    made.setupCharacterMap(dict.fromkeys(map(ord, characters), "triangle"))
    made.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "triangle": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (500, 0), "triangle": (500, 0)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": name, "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(folder / f"{name}.ttf")


def draw(folder: Path) -> None:
    """Draw the label; a missing glyph is an error."""
    figure = Figure()
    figure.text(0.5, 0.5, LABEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(folder / "label.png")


def test_labels_of_latin_letters_need_no_other_font(capsys: pytest.CaptureFixture[str]) -> None:
    with families(["Ärger, größte", "две \n\u200b\ufe0f"]) as found:
        assert found == [OWN]
    assert capsys.readouterr().err == ""


def test_a_font_installed_later_is_found_and_not_kept(
    fonts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(font_manager.fontManager.ttflist)
    install(fonts, "One", LABEL[0])
    install(fonts, "Two", LABEL[1])
    (fonts / "damaged.ttf").write_bytes(b"no font")
    with families([LABEL]) as found:
        assert found == [OWN, "One", "Two"]
    with styled(LABEL):
        draw(fonts)
    assert font_manager.fontManager.ttflist == before
    assert capsys.readouterr().err == ""


def test_threads_do_not_keep_the_fonts_of_each_other(fonts: Path) -> None:
    before = list(font_manager.fontManager.ttflist)
    install(fonts, "One", LABEL)
    entered, left = Event(), Event()

    def enter() -> list[str]:
        with families([LABEL]) as found:
            entered.set()
            left.wait()
            return found

    with ThreadPoolExecutor(1) as other:
        with families([LABEL]) as found:
            others = other.submit(enter)
            waited = not entered.wait(0.1)
        left.set()
        assert waited
        assert others.result() == found == [OWN, "One"]
    assert font_manager.fontManager.ttflist == before


def test_matplotlibs_own_font_may_be_missing(
    fonts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a font of a weight that matplotlib does not know."""
    odd = font_manager.FontEntry(fname="odd.ttf", name="Odd", weight="unknown")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [odd])
    monkeypatch.setattr(font_manager, "_get_fontconfig_fonts", list)
    with families(["cat"]) as found:
        assert found == [OWN]
    assert "no installed font has 3 of the labels' characters (a c t)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("label", "package"),
    [
        ("\U0010fe01", "fonts-noto-core"),
        ("\U000323b0", "fonts-noto-core"),
        ("\U0001f984", "fonts-symbola"),
        ("\uac00", "fonts-noto-cjk"),
        ("\u304b\u6f22", "fonts-noto-cjk"),
        ("\u0e01", "fonts-noto-core"),
        ("\u0915", "fonts-noto-core"),
        ("\u0915\uac00\u0e01", "fonts-noto-cjk fonts-noto-core"),
    ],
)
def test_characters_that_no_font_has(
    fonts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    label: str,
    package: str,
) -> None:
    """As on a machine with matplotlib's own fonts alone."""
    manager = font_manager.fontManager
    own = [font for font in manager.ttflist if font.name == OWN or font.name.startswith(BOXES)]
    monkeypatch.setattr(manager, "ttflist", own)
    monkeypatch.setattr(font_manager, "_get_fontconfig_fonts", list)
    with families(["cat", label]) as found:
        assert found == [OWN]
    said = capsys.readouterr().err
    assert f"no installed font has {len(label)} of the labels' characters (" in said
    assert said.endswith(f"install fonts that do, on Debian {package}\n")
