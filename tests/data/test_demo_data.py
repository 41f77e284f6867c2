"""The demo's data script, on small catalogues written here and on the installed Django."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from data import django_locales as demo
from tests.support import ROOT

HEADER = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n"


def write_catalogue(
    package: Path, locale: str, messages: Mapping[str, str], domain: str = "django"
) -> None:
    """Write a compiled catalogue: header, table of sources, table of translations, texts."""
    pairs = sorted((k.encode(), v.encode()) for k, v in {"": HEADER, **messages}.items())
    start = 28 + 16 * len(pairs)
    tables: tuple[list[bytes], list[bytes]] = ([], [])
    texts = b""
    for column in (0, 1):
        for pair in pairs:
            tables[column].append(struct.pack("<2I", len(pair[column]), start + len(texts)))
            texts += pair[column] + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start)
    path = Path(package, "contrib", "app", "locale", locale, "LC_MESSAGES", f"{domain}.mo")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + b"".join(tables[0] + tables[1]) + texts)


def texts_of(package: Path, locale: str) -> list[str]:
    return [t.text for t in demo.read_translations(package) if t.locale == locale]


def part_of(source: str) -> str:
    return demo.part_of(demo.letters(source))


def numbered(word: str, numbers: Iterable[int]) -> dict[str, str]:
    """Return messages `Message aaa` ... with a different translation of each."""
    names = list(map("".join, itertools.product("abcdefghij", repeat=3)))
    return {f"Message {names[i]}": f"{word} {names[i]}" for i in numbers}


def test_both_kinds_of_catalogues_are_read_with_contexts_and_plurals(tmp_path: Path) -> None:
    write_catalogue(
        tmp_path,
        "xx",
        {"menu\x04Open file": "avata tiedoston", "one day\0days": "yksi päivä\0päiviä"},
    )
    write_catalogue(tmp_path, "xx", {"Close the window": "sulje\tse\n ikkuna"}, "djangojs")
    found = set(demo.read_translations(tmp_path))
    assert found == {
        demo.Translation("xx", "Open file", "avata tiedoston"),
        demo.Translation("xx", "one day", "yksi päivä"),
        demo.Translation("xx", "Close the window", "sulje se ikkuna"),
    }


def test_non_texts_and_untranslated_messages_are_left_out(tmp_path: Path) -> None:
    write_catalogue(
        tmp_path,
        "xx",
        {
            "Save and go on": "Save and go on",
            "save and go on!": "SAVE AND GO ON",
            "%(count)s of %(total)s": "%(count)s / %(total)s",
            "Monday": "lundi",
            "%(name)s was not found": "%(name)s ei löytynyt",
            "Another message": "Colour of it",
        },
    )
    write_catalogue(
        tmp_path, "en_XX", {"Save and go on": "Save and go on", "Color": "Colour of it"}
    )
    assert texts_of(tmp_path, "xx") == ["%(name)s ei löytynyt"]
    assert sorted(texts_of(tmp_path, "en_XX")) == ["Colour of it", "Save and go on"]


def test_locales_that_agree_on_more_than_half_are_merged_in_chains(tmp_path: Path) -> None:
    write_catalogue(tmp_path, "aa", numbered("kissa", range(100)))
    write_catalogue(
        tmp_path, "bb", numbered("kissa", range(60)) | numbered("koira", range(60, 100))
    )
    write_catalogue(
        tmp_path, "cc", numbered("kissa", range(20)) | numbered("koira", range(20, 100))
    )
    write_catalogue(
        tmp_path, "dd", numbered("kissa", range(45)) | numbered("hevonen", range(45, 100))
    )
    labels = demo.merge_locales(demo.read_translations(tmp_path), 0.5)
    assert labels == {"aa": "aa+bb+cc", "bb": "aa+bb+cc", "cc": "aa+bb+cc", "dd": "dd"}


def test_locales_without_a_common_message_stay_apart(tmp_path: Path) -> None:
    write_catalogue(tmp_path, "aa", numbered("kissa", range(10)))
    write_catalogue(tmp_path, "bb", numbered("kissa", range(10, 20)))
    labels = demo.merge_locales(demo.read_translations(tmp_path), 0.5)
    assert labels == {"aa": "aa", "bb": "bb"}


def test_merging_uses_training_messages_only(tmp_path: Path) -> None:
    messages = numbered("kissa", range(400))
    write_catalogue(tmp_path, "aa", messages)
    for locale, differs_in_train in (("bb", False), ("cc", True)):
        changed = {
            source: f"x{text}" if (part_of(source) == "train") == differs_in_train else text
            for source, text in messages.items()
        }
        write_catalogue(tmp_path, locale, changed)
    _, labels = demo.split_by_source(demo.read_translations(tmp_path))
    assert labels == {"aa": "aa+bb", "bb": "aa+bb", "cc": "cc"}


@pytest.fixture(scope="module")
def django() -> list[demo.Translation]:
    pytest.importorskip("django", reason="Django is not installed: pip install 'srucli[demo]'")
    return demo.read_translations(demo.installed_django())


def test_no_message_is_in_two_splits_of_django(django: list[demo.Translation]) -> None:
    rows, labels = demo.split_by_source(django)
    rows = demo.without_repetitions(rows)
    assert not any(set(rows[a]) & set(rows[b]) for a, b in itertools.combinations(demo.PARTS, 2))
    sources: dict[demo.Row, set[str]] = {}
    for locale, source, text in django:
        sources.setdefault((labels[locale], text), set()).add(source.casefold())
    parts_of: dict[str, set[str]] = {}
    for part in demo.PARTS:
        for row in rows[part]:
            if len(sources[row]) == 1:
                (source,) = sources[row]
                parts_of.setdefault(source, set()).add(part)
    assert len(parts_of) > 800
    assert all(len(parts) == 1 for parts in parts_of.values())


def test_the_script_is_deterministic(django: list[demo.Translation], tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "data" / "django_locales.py")]
    done = subprocess.run([*script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "98 locales" in done.stderr
    assert "merged: en_AU+en_GB" in done.stderr
    rows, _ = demo.split_by_source(django)
    for part, wanted in demo.without_repetitions(rows).items():
        lines = (tmp_path / f"{part}.tsv").read_text(encoding="utf-8").split("\n")[:-1]
        assert [tuple(line.split("\t")) for line in lines] == wanted
    sizes = [len((tmp_path / f"{part}.tsv").read_bytes().split(b"\n")) for part in demo.PARTS]
    assert 40_000 < sum(sizes) < 52_000
    assert 0.75 < sizes[0] / sum(sizes) < 0.9


def test_keep_all_has_every_locale_and_splits_by_text(django: list[demo.Translation]) -> None:
    rows = demo.without_repetitions(demo.split_by_text(django))
    assert len({label for part in rows.values() for label, _ in part}) == 98
    texts = [{text for _, text in rows[part]} for part in demo.PARTS]
    assert not any(a & b for a, b in itertools.combinations(texts, 2))


def test_without_django_the_script_names_the_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-I", ROOT / "data" / "django_locales.py", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install 'srucli[demo]'" in done.stderr
    assert not (tmp_path / "out").exists()
