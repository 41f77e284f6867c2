"""Labels that look the same: merged, refused, or reported in a warning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from srucli.config import DataConfig
from srucli.data.dataset import read_held_out, read_texts
from srucli.data.labels import Known, alike_key, clean, same_key
from srucli.data.readers import Example
from srucli.errors import DataError
from tests.support import QUICK, RunMain, Tiny, sentences, write_tsv

NFC, NFD = "caf\xe9", "cafe\u0301"
ZWSP, ZWNJ, ZWJ, SHY, BOM, WJ, LRM, NBSP = (
    *("\u200b", "\u200c", "\u200d", "\xad", "\ufeff", "\u2060", "\u200e", "\xa0"),
)


def notes(capsys: Capture) -> str:
    """Return the messages about labels, which follow the layout."""
    layout, _, rest = capsys.readouterr().err.partition("\n")
    assert "label = " in layout or "fasttext" in layout
    return rest


def texts(*labels: str, start: int = 1) -> list[Example]:
    return [Example("t", (label,), line) for line, label in enumerate(labels, start)]


CLEAN = {
    "ASCII blanks": (" pos\t", "pos"),
    "NFD": (NFD, NFC),
    "NFD Hangul": ("\u1112\u1161\u11ab", "한"),
    "no-break space": (f"{NBSP}pos\u202f", "pos"),
    "ideographic space": ("\u3000긍정\u3000", "긍정"),
    "zero-width space": (f"pos{ZWSP}", "pos"),
    "joiners": (f"{ZWNJ}pos{ZWJ}", "pos"),
    "soft hyphen": (f"pos{SHY}", "pos"),
    "byte-order mark": (f"{BOM}pos", "pos"),
    "word joiner": (f"{WJ}pos{WJ}", "pos"),
    "bidi marks": (f"\u2067{LRM}שלום\u2069\u200f", "שלום"),
    "several, mixed": (f" {ZWSP}{NBSP}pos{BOM} ", "pos"),
    "inside stays": (f"a{ZWSP}b", f"a{ZWSP}b"),
    "a Persian joiner stays": (f"می{ZWNJ}خواهم", f"می{ZWNJ}خواهم"),
    "a joiner that shapes the last letter stays": (f"ه{ZWJ}", f"ه{ZWJ}"),
    "an emoji's parts stay": ("👩\u200d💻", "👩\u200d💻"),
    "an emoji's selector stays": ("❤\ufe0f", "❤\ufe0f"),
    "a flag's tags stay": ("🏴\U000e0067\U000e007f", "🏴\U000e0067\U000e007f"),
    "nothing that can be seen": (f"{ZWSP}{NBSP}", ""),
}


@pytest.mark.parametrize(("label", "expected"), CLEAN.values(), ids=CLEAN)
def test_clean(label: str, expected: str) -> None:
    assert clean(label) == expected
    assert clean(expected) == expected


SAME = {
    "zero-width space": (f"p{ZWSP}os", "pos"),
    "joiner in Latin": (f"po{ZWJ}s", "pos"),
    "soft hyphen": (f"posi{SHY}tive", "positive"),
    "bidi mark": (f"po{LRM}s", "pos"),
    "no-break space": (f"very{NBSP}good", "very good"),
    "two blanks": ("very  good", "very good"),
    "ideographic space": ("a\u3000b", "a b"),
    "full width": ("ＡＢＣ１", "ABC1"),
    "half width, with its mark": ("ｶﾞ", "ガ"),
    "no-break hyphen": ("e\u2011mail", "e\u2010mail"),
    "ligature": ("ﬁne", "fine"),
    "Cyrillic letters": ("роs", "pos"),
    "Greek letters": ("ΑΒ", "AB"),
    "whole number": ("1.0", "1"),
    "negative number": ("-1.00", "-1"),
    "emoji selector": ("❤\ufe0f", "❤"),
    "Hangul fillers": ("한\u1160국", "한국"),
    "controls of notation": ("po\U0001d173s\U0001bca0", "pos"),
    "language tag": ("po\U000e0001s", "pos"),
    "control character": ("po\x08s", "pos"),
}
ALIKE = {
    "case": ("Spam", "spam"),
    "sharp s": ("STRASSE", "straße"),
    "apostrophe": ("don’t", "don't"),
    "dash": ("a – b", "a - b"),
    "circled": ("①", "1"),
    "leading zero": ("01", "1"),
    "exponent": ("1e3", "1000"),
    "decimals": ("2.50", "2.5"),
    "truth and number": ("true", "1"),
    "truth in Python": ("False", "false"),
    "Persian joiner": (f"می{ZWNJ}خواهم", "میخواهم"),
    "Arabic digits": ("١", "1"),
    "Arabic and Persian letters": ("كتابي", "کتابی"),
}
DIFFERENT = {
    "letters": ("pos", "neg"),
    "numbers": ("1", "10"),
    "sign": ("1", "-1"),
    "accent": ("café", "cafe"),
    "plus": ("C++", "C"),
    "dakuten": ("か", "が"),
    "skin tone": ("👍🏽", "👍"),
    "flags": ("🇩🇪", "🇫🇷"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_labels_that_look_the_same(one: str, other: str) -> None:
    assert clean(one) != clean(other)
    assert same_key(one) == same_key(other)
    assert alike_key(one) == alike_key(other)


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_labels_that_are_alike(one: str, other: str) -> None:
    assert same_key(one) != same_key(other)
    assert alike_key(one) == alike_key(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_labels_that_differ(one: str, other: str) -> None:
    assert alike_key(one) != alike_key(other)


def read(path: Path, content: str, **settings: object) -> list[tuple[str, ...]]:
    path.write_text(content, encoding="utf-8")
    return [each.labels for each in read_texts(path, DataConfig.model_validate(settings))[0]]


Capture = pytest.CaptureFixture[str]


def test_invisible_differences_are_merged_and_reported(tmp_path: Path, capsys: Capture) -> None:
    content = f"{NFC}\ta\n{NFD}\tb\n{NFD}\tc\ntea\td\ntea{ZWSP}\te\n tea \tf\nbare{NBSP}\tg\n"
    got = read(tmp_path / "x.tsv", content)
    assert got == [(NFC,), (NFC,), (NFC,), ("tea",), ("tea",), ("tea",), ("bare",)]
    assert notes(capsys).splitlines() == [
        f"{tmp_path}/x.tsv: labels read as 'café': 'café' (1 text, first in line 1) and "
        "'cafe\\u0301' (2 texts, first in line 2)",
        f"{tmp_path}/x.tsv: labels read as 'tea': 'tea' (2 texts, first in line 4) and "
        "'tea\\u200b' (1 text, first in line 5)",
        f"{tmp_path}/x.tsv: labels read as 'bare': 'bare\\xa0' (1 text, first in line 7)",
    ]


def test_common_labels_cause_no_message(tmp_path: Path, capsys: Capture) -> None:
    got = read(tmp_path / "x.tsv", "very good\ta\n very good \tb\n긍정\tc\nNew York, NY\td\n")
    assert got == [("very good",), ("very good",), ("긍정",), ("New York, NY",)]
    assert notes(capsys) == ""


REFUSED = {
    "zero-width space": (
        f"pos\ta\npos\tb\npo{ZWSP}s\tc\nneg\td\n",
        "x.tsv:3: the label 'po\\u200bs' (1 text, first in line 3) looks the same as 'pos' (2 "
        "texts, first in line 1); write them alike, or pass --merge-labels to read them as one",
    ),
    "the rare one first": (
        "роs\ta\npos\tb\npos\tc\n",
        "x.tsv:1: the label '\\u0440\\u043es' (1 text, first in line 1) looks the same as 'pos'",
    ),
    "numbers": ("1\ta\n1.0\tb\n0\tc\n", "x.tsv:2: the label '1.0'"),
    "two pairs": ("1\ta\n1.0\tb\n0\tc\n0.0\td\n", "(and 1 more such pairs)"),
    "blanks": ("a b\ta\na  b\tb\n", "x.tsv:2: the label 'a  b' (1 text, first in line 2)"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_labels_that_look_the_same_are_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError) as refused:
        read(tmp_path / "x.tsv", content)
    assert said in str(refused.value)


def test_a_flag_merges_labels_and_reports_it(tmp_path: Path, capsys: Capture) -> None:
    content = "1.0\ta\n1\tb\n1\tc\nNo\td\nno\te\nno\tf\n"
    got = read(tmp_path / "x.tsv", content, merge_labels=True)
    assert got == [("1",)] * 3 + [("no",)] * 3
    assert notes(capsys).splitlines() == [
        f"{tmp_path}/x.tsv: labels read as '1': '1.0' (1 text, first in line 1) and '1' (2 texts, "
        "first in line 2)",
        f"{tmp_path}/x.tsv: labels read as 'no': 'No' (1 text, first in line 4) and 'no' (2 texts, "
        "first in line 5)",
    ]


def test_cleaned_labels_are_merged(tmp_path: Path, capsys: Capture) -> None:
    got = read(tmp_path / "x.tsv", f"No\ta\nNo\tb\nno{ZWSP}\tc\n", merge_labels=True)
    assert got == [("No",)] * 3


def test_labels_that_are_alike_are_kept_and_reported(tmp_path: Path, capsys: Capture) -> None:
    got = read(tmp_path / "x.tsv", "US\ta\nus\tb\nus\tc\ntrue\td\nTrue\te\n1\tf\n")
    assert got == [("US",), ("us",), ("us",), ("true",), ("True",), ("1",)]
    assert notes(capsys).splitlines() == [
        f"{tmp_path}/x.tsv: labels that may be one: 'us' (2 texts, first in line 2) and 'US' (1 "
        "text, first in line 1); --merge-labels reads them as one",
        f"{tmp_path}/x.tsv: labels that may be one: 'true' (1 text, first in line 4) and 'True' (1 "
        "text, first in line 5) and '1' (1 text, first in line 6); --merge-labels reads them as "
        "one",
    ]


def test_json_values_and_equal_strings_are_one_label(tmp_path: Path, capsys: Capture) -> None:
    labels = ["1", '"1"', "1", "true", '"true"', '"x"']
    content = "".join(f'{{"text": "t", "label": {label}}}\n' for label in labels)
    assert read(tmp_path / "x.jsonl", content) == [
        *(("1",), ("1",), ("1",), ("true",), ("true",), ("x",))
    ]
    first, second, third = notes(capsys).splitlines()
    assert first.endswith(
        "labels read as '1': 1 (2 texts, first in line 1) and '1' (1 text, first in line 2)"
    )
    assert "labels read as 'true': true (1 text" in second
    assert "labels that may be one: '1' (3 texts" in third


JSON_MISSING = {
    "NaN": ("NaN", "the label is NaN, as of a missing value; add a label or remove the line"),
    "Infinity": ("-Infinity", "the label is -Infinity, as of a missing value"),
    "too large for a number": ("1e999", "the label is Infinity"),
    "NaN in a list": ('["a", NaN]', "the label is NaN"),
    "null": ("null", "no label for the text"),
    "null in a list": ('["a", null]', "an empty label"),
    "nothing visible": (f'"{ZWSP}"', "no label for the text"),
    "nothing visible in a list": (f'["a", "{NBSP}{BOM}"]', "an empty label"),
}


@pytest.mark.parametrize(("label", "said"), JSON_MISSING.values(), ids=JSON_MISSING)
def test_missing_json_labels_are_refused(tmp_path: Path, label: str, said: str) -> None:
    content = f'{{"text": "t", "label": "a"}}\n{{"text": "t", "label": {label}}}\n'
    with pytest.raises(DataError, match=r"x\.jsonl:2: ") as refused:
        read(tmp_path / "x.jsonl", content)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "label",
    [
        *("nan", "NaN", "None", "none", "null", "NULL", "NA", "N/A", "n/a", "#N/A", "<NA>", "-"),
        *("?", "NaT", "#REF!", "\\N", "n.a.", "#NV", "<null>", "(blank)", "#N/A N/A"),
    ],
)
def test_labels_that_look_like_missing_values_are_reported(
    tmp_path: Path, capsys: Capture, label: str
) -> None:
    assert len(read(tmp_path / "x.csv", f"a,one\n{label},two\n{label},three\n")) == 3
    assert notes(capsys) == (
        f"{tmp_path}/x.csv: the label {label!r} (2 texts, first in line 2) looks like a missing "
        "value; if it is one, remove these texts\n"
    )


def test_many_messages_become_a_number(tmp_path: Path, capsys: Capture) -> None:
    content = "".join(f"l{number}{ZWSP}\ttext {number}\n" for number in range(10)) * 2
    read(tmp_path / "x.tsv", content)
    lines = notes(capsys).splitlines()
    assert len(lines) == 7
    assert lines[-1].endswith("... and 4 more labels like these")


def test_multiple_labels_in_a_cell(tmp_path: Path, capsys: Capture) -> None:
    content = f"a, b{ZWSP}\tone\nb,a,b\ttwo\nNA\tthree\n"
    got = read(tmp_path / "x.tsv", content, multi_label=True)
    assert got == [("a", "b"), ("b", "a"), ("NA",)]
    read_as, missing, repeated = notes(capsys).splitlines()
    assert "labels read as 'b': 'b\\u200b' (1 text, first in line 1) and 'b' (2 texts" in read_as
    assert "'NA' (1 text, first in line 3) looks like a missing value" in missing
    assert repeated.endswith("1 texts name a label twice, which counts once")


def test_a_delimiter_within_a_label_is_reported(tmp_path: Path, capsys: Capture) -> None:
    content = '{"text": "t", "label": ["a,b", "c"]}\n'
    assert read(tmp_path / "x.jsonl", content, multi_label=True) == [("a,b", "c")]
    assert "the label 'a,b' holds ',', which joins labels" in notes(capsys)


def test_fasttext_labels(tmp_path: Path, capsys: Capture) -> None:
    content = f"__label__a{ZWSP} one\n__label__a __label__a two\n__label__b three\n"
    assert read(tmp_path / "x.ft", content) == [("a",), ("a",), ("b",)]
    assert "labels read as 'a': 'a\\u200b' (1 text" in notes(capsys)


KNOWN = {
    "as it is": ("pos", "pos"),
    "NFD": (NFD, NFC),
    "invisible at the end": (f"pos{ZWSP}", "pos"),
    "looks the same": (f"po{ZWSP}s", f"po{ZWSP}s"),
    "alike": ("Pos", "Pos"),
    "another": ("new", "new"),
}


@pytest.mark.parametrize(("label", "name"), KNOWN.values(), ids=KNOWN)
def test_known_labels_decide(label: str, name: str) -> None:
    assert Known(["pos", "neg", NFC], merge=False).name(label) == name


def test_a_label_is_merged_with_the_known_one_that_it_resembles() -> None:
    known = Known(["pos", "US", "us", "1"], merge=True)
    wanted = {"Pos": "pos", f"po{ZWSP}s": "pos", "1.0": "1", "U.S.": "U.S.", "Us": "Us"}
    assert {label: known.name(label) for label in wanted} == wanted  # either variant may be meant


def test_old_runs_know_labels_as_written() -> None:
    known = Known([NFD, NFC, f"pos{ZWSP}", "neg\u2003x"], merge=False)
    for label in known.labels:
        assert known.name(label) == label
    assert known.name("pos") == f"pos{ZWSP}"
    assert known.name(f" {NFC}") == NFC


def test_held_out_labels_that_look_like_known_ones_are_reported(
    tmp_path: Path, capsys: Capture
) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text(f"{NFD}\ta\nPos\tb\nPos\tc\nnan\td\nnew\te\n", encoding="utf-8")
    got = read_held_out(dev, DataConfig(), ["pos", NFC])
    assert [each.labels[0] for each in got] == [NFC, "Pos", "Pos", "nan", "new"]
    assert notes(capsys).splitlines() == [
        f"{dev}: labels read as 'café': 'cafe\\u0301' (1 text, first in line 1)",
        f"{dev}: the label 'Pos' (2 texts, first in line 2) is not known, but 'pos' is; "
        "--merge-labels treats them as one",
        f"{dev}: the label 'nan' (1 text, first in line 4) looks like a missing value; if it is "
        "one, remove these texts",
        f"{dev}: 4 of 5 texts have labels that the training texts lack, which count as errors: "
        "Pos (2), nan (1), new (1)",
    ]


def test_known_labels_in_another_column_are_found(tmp_path: Path) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text("good\tpos\nbad\tneg\nfine\tpos\n")
    examples = read_held_out(dev, DataConfig(), ["pos", "neg"])
    assert [e.labels[0] for e in examples] == ["pos", "neg", "pos"]
    with pytest.raises(DataError, match=r"not those of the model, .*; pass --label 2 --text 1"):
        read_held_out(dev, DataConfig(label=1), ["pos", "neg"])


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize("command", ["train", "compare", "tune"])
def test_training_commands_refuse_and_merge(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    train = write_tsv(tmp_path / "x.tsv", [("1", "a b"), ("1.0", "b c"), ("0", "c d")])
    more = ["--encoder", "bag,cnn"] if command == "compare" else []
    refused = run_main(command, train, *more)
    assert (refused.code, refused.out) == (65, "")
    assert "x.tsv:2: the label '1.0' (1 text, first in line 2) looks the same as" in refused.err
    assert list(tmp_path.iterdir()) == [train]
    write_tsv(train, [("1", "a b"), ("1.0", "b c")])
    merged = run_main(command, train, *more, "--merge-labels")  # one label is too few
    assert (merged.code, merged.out) == (65, "")
    assert "x.tsv: labels read as '1': '1' (1 text" in merged.err
    assert "only the label '1' in 2 texts" in merged.err


def test_either_spelling_trains_and_evaluates_a_run(run_main: RunMain, tmp_path: Path) -> None:
    """Half of the training labels and all test labels are NFD; a flag merges `None` and `none`."""
    rows = [(NFC if label == "good" else label, text) for label, text in sentences()]
    train = write_tsv(
        tmp_path / "train.tsv",
        [(NFD if label == NFC and i % 2 else label, text) for i, (label, text) in enumerate(rows)],
    )
    run = tmp_path / "run"
    done = run_main("train", train, "-o", run, "--epochs", 3, "--lr", 0.01, *QUICK)
    assert done.code == 0, done.err
    assert "labels read as 'café': 'café' (" in done.err
    assert json.loads((run / "labels.json").read_text()) == ["bad", NFC, "none"]
    test = write_tsv(
        tmp_path / "test.tsv",
        [({NFC: NFD, "none": "None"}.get(label, label), text) for label, text in rows[:60]],
    )
    count = sum(label == "none" for label, _ in rows[:60])
    apart = run_main("eval", run, test, "--json")
    assert json.loads(apart.out)["unknown_labels"] == {"None": count}
    assert "labels read as 'café': 'cafe\\u0301' (" in apart.err
    assert f"the label 'None' ({count} texts, first in line " in apart.err
    assert "is not known, but 'none' is; --merge-labels treats them as one" in apart.err
    written = tmp_path / "said.jsonl"
    merged = run_main("eval", run, test, "--json", "--merge-labels", "--predictions", written)
    assert json.loads(merged.out)["unknown_labels"] == {}
    assert f"labels read as 'none': 'None' ({count} texts" in merged.err
    gold = [json.loads(line)["gold"] for line in written.read_text().splitlines()]
    assert gold == [label for label, _ in rows[:60]]


def test_an_old_run_with_such_labels_evaluates_as_before(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    plain = json.loads(run_main("eval", tiny.run, tiny.test, "--json").out)
    run = shutil.copytree(tiny.run, tmp_path / "run", symlinks=True)
    old = {"bad": NFD, "good": NFC, "none": f"none{ZWSP}"}
    (run / "labels.json").write_text(json.dumps([old[label] for label in tiny.labels]))
    rows = [line.split("\t") for line in tiny.test.read_text().splitlines()]
    test = write_tsv(tmp_path / "test.tsv", [(old[label], text) for label, text in rows])
    measured = run_main("eval", run, test, "--json")
    assert json.loads(measured.out)["metrics"] == plain["metrics"]
    assert measured.err.count("\n") == 1  # how the file is read


REJECT = {
    "the default": ((), ["bad", "good", "unknown"], "'unknown': the run has the label 'unknown'"),
    "named": (("--reject", "bad"), ["bad", "good", "none"], "'bad': the run has the label 'bad'"),
    "alike": (("--reject", "Bad"), ["bad", "good", "none"], "'Bad': the run has the label 'bad'"),
    "with a free one": (("--reject", "bad"), ["bad", "Reject", "reject1"], "--reject reject2"),
}


@pytest.mark.parametrize(("flags", "labels", "said"), REJECT.values(), ids=REJECT)
def test_a_reject_label_is_not_a_label_of_the_run(
    run_main: RunMain,
    tiny: Tiny,
    tmp_path: Path,
    flags: tuple[str, ...],
    labels: list[str],
    said: str,
) -> None:
    run = shutil.copytree(tiny.run, tmp_path / "run", symlinks=True)
    (run / "labels.json").write_text(json.dumps(labels))
    done = run_main("predict", run, tiny.test, "--threshold", 0.5, *flags)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    advice = done.err.split("choose another, as ")[1].split()
    assert run_main("predict", run, tiny.test, "--threshold", 0.5, *advice).code == 0


def test_a_reject_label_stays_on_its_line(run_main: RunMain, tiny: Tiny) -> None:
    done = run_main("predict", tiny.run, "--threshold", 0.5, "--reject", "a\tb")
    assert (done.code, done.out) == (2, "")
    assert "has no tab" in done.err


def test_joined_labels_are_reported(tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "x.tsv"
    data.write_text("joy\ta\nlove\tb\njoy, love\tc\njoy,anger\td\n")
    read_texts(data, DataConfig())
    said = "1 of 4 labels are others joined by ',', such as 'joy, love'; --multi-label splits them"
    assert said in notes(capsys)
    read_texts(data, DataConfig(multi_label=True))
    assert "splits them" not in notes(capsys)
