"""`srucli predict` as users run it: records, streams, pipes, bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch

from srucli.data.readers import Input
from srucli.inference.forward import BATCH_TEXTS
from srucli.inference.predictor import Predictor
from srucli.inference.stream import (
    BATCH_CHARACTERS,
    READ_AHEAD_CHARACTERS,
    Style,
    arriving,
    records,
)
from srucli.runs.facts import FORMAT_VERSION
from tests.support import RunMain, Tiny, child_environment, until

TEXTS = ["what a lovely film", "the garden was awful", "wooden phone , as always"]
LABELS = ["good", "bad", "none"]
# The message about a file in which each line is a text.
SAID = "{}: plain text, a text on each line, utf-8\n"
ENVIRONMENT = child_environment()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "x.txt"
    file.write_text("".join(f"{text}\n" for text in TEXTS))
    return file


def test_a_copied_run_prints_one_line_per_input_line(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty lines, CRLF, a byte-order mark, U+0085, a long line and no line end at the end."""
    shutil.copytree(tiny.run, tmp_path / "elsewhere" / "copy")
    rows = ["\ufeff" + TEXTS[0], "", TEXTS[1] + "\r", "\x85 \u2028", " ", "x " * 80_000, TEXTS[2]]
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = run_main("predict", "copy", input="\n".join(rows))
    assert ended.code == 0, ended.err
    assert ended.err.startswith(SAID.format("<stdin>"))
    assert ended.err.splitlines()[-1] == (
        "<stdin>: 2 of 7 texts have no tokens: they are empty, or become so when normalized"
    )
    found = ended.out.split("\n")
    assert found.pop() == ""
    assert (found[0], found[2], found[6]) == ("good", "bad", "none")
    assert len(found) == len(rows)
    assert set(found) <= set(tiny.labels)


def answer(stream: IO[bytes], seconds: float = 60) -> bytes:
    ready, _, _ = select.select([stream], [], [], seconds)
    assert ready, "no answer came"
    return os.read(stream.fileno(), 1000)


def test_an_endless_stream_is_labelled_at_once(tiny: Tiny) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "srucli", "predict", tiny.run, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for text, label in zip(TEXTS, LABELS, strict=True):
            process.stdin.write(text.encode() + b"\n")
            process.stdin.flush()
            assert answer(process.stdout).decode() == label + "\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().decode() == SAID.format("<stdin>")
        process.stdin.close()


def test_a_closed_pipe_ends_the_command_quietly(tiny: Tiny) -> None:
    """`head` exits before the input ends."""
    script = f"yes what a lovely film | '{sys.executable}' -m srucli predict run - | head -2; "
    done = subprocess.run(
        ["bash", "-c", script + 'echo "${PIPESTATUS[1]}"'],
        cwd=tiny.folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("good\ngood\n0\n", SAID.format("<stdin>"))


def test_output_to_a_full_disk(tiny: Tiny, lines: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "srucli", "predict", tiny.run, lines],
            stdout=full,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
    assert done.returncode == 73
    said, problem = done.stderr.splitlines()
    assert f"{said}\n" == SAID.format(lines)
    assert problem.startswith("srucli: the output cannot be written (No space left on device)")


def test_labels_alone(run_main: RunMain, tiny: Tiny, lines: Path) -> None:
    ended = run_main("predict", tiny.run, lines)
    assert (ended.code, ended.out, ended.err) == (0, "good\nbad\nnone\n", SAID.format(lines))


def test_probabilities(run_main: RunMain, tiny: Tiny, lines: Path) -> None:
    rows = [row.split("\t") for row in run_main("predict", tiny.run, lines, "-p").out.splitlines()]
    assert [label for label, _ in rows] == LABELS
    wanted = Predictor.load(tiny.run, "cpu").probabilities(TEXTS).max(axis=1)
    assert [float(value) for _, value in rows] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("size", [1, 3, 256])
def test_records_are_numbered_across_groups(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The size of the groups in which texts arrive does not matter."""
    monkeypatch.setattr("srucli.inference.forward.BATCH_TEXTS", size)
    file = tmp_path / "many.txt"
    file.write_text("a good film\n" * (2 * size + 5))
    ended = run_main("predict", tiny.run, file, "--json")
    found = [json.loads(line)["record"] for line in ended.out.splitlines()]
    assert found == list(range(1, 2 * size + 6))


def test_top_labels(run_main: RunMain, tiny: Tiny, lines: Path) -> None:
    ended = run_main("predict", tiny.run, lines, "-k", 2)
    for row, label in zip(ended.out.splitlines(), LABELS, strict=True):
        first, likely, _, less = row.split("\t")
        assert first == label
        assert float(likely) > float(less)
    ended = run_main("predict", tiny.run, lines, "--top", 9)
    values = [float(value) for value in ended.out.splitlines()[0].split("\t")[1::2]]
    assert len(values) == 3
    assert sum(values) == pytest.approx(1, abs=1e-5)


def test_json_lines(run_main: RunMain, tiny: Tiny, lines: Path) -> None:
    found = [json.loads(x) for x in run_main("predict", tiny.run, lines, "--json").out.splitlines()]
    assert [record["label"] for record in found] == LABELS
    keys = ["record", "line", "text", "label", "probability", "probabilities"]
    assert list(found[0]) == keys
    assert [record["text"] for record in found] == lines.read_text().splitlines()
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert [(record["record"], record["line"]) for record in found] == [(1, 1), (2, 2), (3, 3)]
    ended = run_main("predict", tiny.run, lines, "--json", "--top", 2, "--threshold", 1)
    record = json.loads(ended.out.splitlines()[0])
    assert record["label"] == "unknown"
    assert next(iter(record["probabilities"])) == "good"
    assert record["probabilities"]["good"] == record["probability"]


def test_rejected_texts(run_main: RunMain, tiny: Tiny, lines: Path) -> None:
    assert run_main("predict", tiny.run, lines, "--threshold", 0).out == "good\nbad\nnone\n"
    ended = run_main("predict", tiny.run, lines, "--threshold", 1, "--reject", "who knows")
    assert ended.out == "who knows\n" * 3


def test_with_input_prints_the_record(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f'id,text\n7,"{TEXTS[0]}, ""so"""\n8,{TEXTS[1]}\n\n9,\n')
    ended = run_main("predict", tiny.run, file, "--with-input", "--format", "csv", "--text", "text")
    assert ended.code == 0, ended.err
    first, second, empty = ended.out.splitlines()
    assert first == f'good\t7,"{TEXTS[0]}, ""so"""'
    assert second == f"bad\t8,{TEXTS[1]}"
    assert empty.endswith("\t9,")
    assert f"{file}: 1 blank line skipped" in ended.err.splitlines()
    assert run_main("predict", tiny.run, file, "--with-input").out == ended.out


def test_a_column_by_number_with_the_delimiter_alone(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    file = tmp_path / "x.tsv"
    file.write_text("".join(f"{n};{text}\n" for n, text in enumerate(TEXTS)))
    ended = run_main("predict", tiny.run, file, "--delimiter", ";")
    assert ended.out == "good\nbad\nnone\n"


def labelled(rows: list[tuple[str, str]]) -> dict[str, str]:
    """Return the same examples in files of several formats, by name."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("text", "label"), *(r[::-1] for r in rows)])
    objects = [{"label": label, "text": text} for label, text in rows]
    return {
        "x.csv": table.getvalue().replace("\n", "\n\n", 2),
        "x.tsv": "\n" + "".join(f"{label}\t{text}\n\n" for label, text in rows),
        "x.txt": "".join(f"{label}\t{text}\n" for label, text in rows),
        "x.json": json.dumps(objects),
        "x.jsonl": "".join(json.dumps(each) + "\n" for each in objects),
        "x.ft": "".join(f" __label__{label} {text}\n" for label, text in rows),
    }


ROWS = [(label, f"{text}, again") for label, text in zip(LABELS, TEXTS, strict=True)]


@pytest.mark.parametrize("name", labelled(ROWS))
def test_predict_reads_the_same_records_as_eval(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, name: str
) -> None:
    """Labels, probabilities and numbers are equal, and so are the messages on the layout."""
    file = tmp_path / name
    file.write_text(labelled(ROWS)[name])
    measured = run_main("eval", tiny.run, file, "--predictions", tmp_path / "p.jsonl")
    assert measured.code == 0, measured.err
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    ended = run_main("predict", tiny.run, file, "--json")
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["text"] for row in rows] == [text for _, text in ROWS]
    assert [record["label"] for record in found] == [row["predicted"] for row in rows] == LABELS
    assert [record["record"] for record in found] == [row["record"] for row in rows] == [1, 2, 3]
    assert [record["line"] for record in found] == [row["line"] for row in rows]
    likely = [row["probability"] for row in rows]
    assert [record["probability"] for record in found] == pytest.approx(likely, abs=1e-5)
    assert ended.err.splitlines() == measured.err.splitlines()
    assert ended.err.startswith(f"{file}: ")


def test_a_csv_file_with_a_header_and_unknown_labels(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    """With commas in quotes, there is still one record per row."""
    file = tmp_path / "hdr.csv"
    rows = ('pos,"a dreadful, boring film"', 'neg,"a superb film"', "pos,a story", "neg,a tale")
    file.write_text("label,text\n" + "".join(f"{row}\n" for row in rows))
    ended = run_main("predict", tiny.run, file, "--with-input")
    assert [line.split("\t")[1] for line in ended.out.splitlines()] == list(rows)
    said = "csv, delimiter ',', header, text = column 2 'text', not read: column 1 'label'"
    assert ended.err == f"{file}: {said}, quotes, utf-8\n"


def test_a_record_of_several_lines_is_printed_on_one_line(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f'text,id\n"{TEXTS[0]},\n\nso\r\n",7\n{TEXTS[1]},8\n')
    ended = run_main("predict", tiny.run, file, "--with-input")
    assert ended.out == f'good\t"{TEXTS[0]},\\n\\nso\\n",7\nbad\t{TEXTS[1]},8\n'
    ended = run_main("predict", tiny.run, file, "--json")
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [(record["record"], record["line"]) for record in found] == [(1, 2), (2, 6)]


def test_files_without_labels(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    """A column of texts, and plain lines with tabs or without characters."""
    (tmp_path / "x.tsv").write_text("".join(f"{text}\n" for text in TEXTS))
    assert run_main("predict", tiny.run, tmp_path / "x.tsv").out.split() == LABELS
    (tmp_path / "x.txt").write_text("".join(f"so\t{text}\n\n" for text in TEXTS))
    ended = run_main("predict", tiny.run, tmp_path / "x.txt", "--with-input")
    assert [line.split("\t", 1)[1] for line in ended.out.splitlines()][::2] == [
        f"so\t{text}" for text in TEXTS
    ]
    assert len(ended.out.splitlines()) == 6


def test_the_runs_columns_are_used_if_the_file_has_them(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    """A column that a flag names must exist."""
    run = tmp_path / "run"
    shutil.copytree(tiny.run, run)
    config = (run / "config.yaml").read_text()
    assert "text: null" in config
    (run / "config.yaml").write_text(config.replace("text: null", "text: body"))
    (tmp_path / "x.csv").write_text(f"text,body\nno,{TEXTS[0]}\nno,{TEXTS[1]}\n")
    assert run_main("predict", run, tmp_path / "x.csv").out.split() == LABELS[:2]
    (tmp_path / "y.csv").write_text(f"text,id\n{TEXTS[0]},1\n{TEXTS[1]},2\n")
    assert run_main("predict", run, tmp_path / "y.csv").out.split() == LABELS[:2]
    wrong = run_main("predict", run, tmp_path / "y.csv", "--text", "body")
    assert (wrong.code, wrong.out) == (65, "")
    assert "no column 'body' in the header 'text,id'; name the text column" in wrong.err


@pytest.mark.parametrize(
    ("flags", "start", "form"),
    [
        (("--format", "csv"), "", 'x,"{}"\n'),
        (("--format", "csv"), "id,text\n", '7,"{}"\n'),
        (("--format", "jsonl"), "", '{{"text": "{}"}}\n'),
        (("--format", "jsonl"), "[\n", '{{"text":\n"{}"\n}},\n'),
        (("--text", "2"), "", "7;x\t{}\n"),
    ],
    ids=["csv", "csv with a header", "JSON lines", "JSON array", "tsv"],
)
def test_records_of_a_stream_are_labelled_at_once(
    run_main: RunMain,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    start: str,
    form: str,
) -> None:
    """The layout is inferred from the first record, which is labelled before the next arrives."""
    (records_end, sending_end), (answers_end, labels_end) = os.pipe(), os.pipe()
    with (
        ThreadPoolExecutor(1) as pool,
        open(answers_end, "rb") as answers,
        open(records_end) as stdin,
        open(labels_end, "w") as stdout,
    ):

        def send() -> list[str]:
            with open(sending_end, "wb", buffering=0) as stream:
                stream.write(start.encode())
                found = []
                for text in TEXTS:
                    stream.write(form.format(text).encode())
                    found.append(answer(answers).decode().rstrip())
                return found

        sent = pool.submit(send)
        monkeypatch.setattr(sys, "stdin", stdin)
        run_main("predict", tiny.run, "-", *flags, stdout=stdout)
        assert sent.result() == LABELS


def test_more_texts_than_a_batch_keep_their_order(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    chosen = np.random.default_rng(0).integers(0, 3, 3 * BATCH_TEXTS)
    file = tmp_path / "x.txt"
    file.write_text("".join(f"{TEXTS[index]}\n" for index in chosen))
    assert run_main("predict", tiny.run, file).out.split() == [LABELS[index] for index in chosen]


class MultiLabel:
    """The part of a multi-label predictor that `records` uses, with known probabilities."""

    labels, at_least_one = ("a", "b", "c"), False
    device = torch.device("cpu")
    multi_label = True
    thresholds = np.array([0.5, 0.3, 0.9])

    def probabilities(self, texts: list[str]) -> np.ndarray:
        return np.array([[0.6, 0.4, 0.8], [0.1, 0.2, 0.3]], np.float32)[: len(texts)]


class Even:
    """The part of a predictor that `records` uses, with two equally likely labels."""

    labels, at_least_one = ("a", "b"), False
    device = torch.device("cpu")
    multi_label = False
    thresholds = None

    def probabilities(self, texts: list[str]) -> np.ndarray:
        return np.full((len(texts), 2), 0.5, np.float32)


@pytest.mark.parametrize(("threshold", "label"), [(0.5, "a"), (0.5001, "unsure")])
def test_a_label_at_the_threshold_is_not_rejected(threshold: float, label: str) -> None:
    style = Style(threshold=threshold, reject="unsure")
    (found,) = records(Even(), [Input("x", 1, "x")], style)  # type: ignore[arg-type]
    assert found == [label]


@pytest.mark.parametrize(
    ("style", "rows"),
    [
        (Style(), ["a,b", ""]),
        (Style(delimiter=" | "), ["a | b", ""]),
        (Style(probability=True), ["a,b\t0.600000,0.400000", "\t"]),
        (Style(top=2), ["c\t0.800000\ta\t0.600000", "c\t0.300000\tb\t0.200000"]),
        (Style(with_input=True), ["a,b\tRAW", "\tRAW"]),
    ],
)
def test_multi_label_records(style: Style, rows: list[str]) -> None:
    inputs = [Input("x", 1, "RAW"), Input("y", 2, "RAW")]
    found = [row for group in records(MultiLabel(), inputs, style) for row in group]  # type: ignore[arg-type]
    assert found == rows


def test_multi_label_records_as_json() -> None:
    groups = records(MultiLabel(), [Input("x", 1, "x")], Style(as_json=True))  # type: ignore[arg-type]
    (record,) = (json.loads(row) for group in groups for row in group)
    assert record["labels"] == ["a", "b"]
    assert record["probabilities"] == {"a": 0.6, "b": 0.4, "c": 0.8}


def test_a_gpu_gets_more_texts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []

    def recorded(inputs: list[Input], size: int) -> list[list[Input]]:
        most.append(size)
        return []

    monkeypatch.setattr("srucli.inference.stream.arriving", recorded)
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(Even, "device", torch.device(device))
        assert list(records(Even(), [], Style())) == []  # type: ignore[arg-type]
    assert most == [BATCH_TEXTS, 8 * BATCH_TEXTS]


def test_inputs_arrive_in_order_and_before_a_later_error() -> None:
    given = [Input(str(n), n, "") for n in range(5 * BATCH_TEXTS + 3)]

    def broken() -> object:
        yield from given
        raise ValueError("line 99")

    groups = arriving(broken(), BATCH_TEXTS)  # type: ignore[arg-type]
    found: list[Input] = []
    while len(found) < len(given):
        found += next(groups)
    assert found == given
    with pytest.raises(ValueError, match="line 99"):
        next(groups)
    assert max(map(len, arriving(given, BATCH_TEXTS))) <= BATCH_TEXTS
    assert [item for group in arriving(given, BATCH_TEXTS) for item in group] == given
    assert list(arriving([], BATCH_TEXTS)) == []


def test_a_slow_reader_holds_up_the_reading_of_long_texts() -> None:
    """The characters that wait are limited, not only the texts; one text may be longer."""
    given = [Input("x" * (READ_AHEAD_CHARACTERS // 3), n, "") for n in range(40)]
    given[7] = Input("x" * (READ_AHEAD_CHARACTERS + 1), 7, "")
    read: list[int] = []

    def reading() -> Iterator[Input]:
        for item in given:
            read.append(item.line)
            yield item

    groups = arriving(reading(), BATCH_TEXTS)
    found = next(groups)
    until(lambda: len(read) >= 4)
    time.sleep(0.2)  # as long as a thread without a limit needs to read all
    assert len(read) <= 6
    found += [item for group in groups for item in group]
    assert [item.line for item in found] == [item.line for item in given]
    sizes = (sum(len(item.text) for item in group) for group in arriving(given, BATCH_TEXTS))
    assert sum(size > BATCH_CHARACTERS for size in sizes) == 1


def test_lines_before_a_bad_one_are_labelled(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(TEXTS[0].encode() + b"\ncaf\xe9\n")
    ended = run_main("predict", tiny.run, file)
    assert (ended.code, ended.out) == (65, "good\n")
    problem = f"srucli: {file}:2: byte 4 of the line (0xe9) is not utf-8; "
    assert ended.err.startswith(SAID.format(file) + problem)
    for flags in (("--encoding", "latin-1"), ("--errors", "replace")):
        assert run_main("predict", tiny.run, file, *flags).out.startswith("good\n")


def test_replaced_bytes_are_counted_in_a_table_too(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    """The ending suggests plain lines, the header shows a table."""
    file = tmp_path / "x.txt"
    file.write_bytes(b"text,label\n" + TEXTS[0].encode() + b" \xe9\xe9,new\n")
    ended = run_main("predict", tiny.run, file, "--errors", "replace")
    assert (ended.code, len(ended.out.splitlines())) == (0, 1)
    assert f"{file}: 2 sequences of bytes that are not utf-8 replaced" in ended.err


def test_an_empty_file_has_no_output(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    ended = run_main("predict", tiny.run, tmp_path / "x")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none", "x.txt"], 66, "none: no such run; give the folder that `srucli train` printed"),
        (["x.txt", "x.txt"], 66, "x.txt: not a run folder: it has no run.json; "),
        (["folder", "x.txt"], 66, "folder: not a run folder: it has no run.json"),
        (["new", "x.txt"], 65, f"run.json: format version {FORMAT_VERSION + 1}, this srucli"),
        (["RUN", "none.txt"], 66, "none.txt: no such file; check the name and the folder"),
        (["RUN", "folder"], 66, "folder: is a folder; name a file in it"),
        (["RUN", "RUN"], 66, ": is a run; name a file of texts"),
        (["RUN", "x.txt", "--with-input", "--json"], 2, "--with-input adds the record as text; "),
        (["RUN", "x.txt", "--reject", "x"], 2, "--reject needs --threshold"),
        (["RUN", "x.txt", "-k", "2", "--threshold", "0.5"], 2, "with --top it needs --json"),
        (["RUN", "x.txt", "--device", "tpu"], 2, "--device tpu: write auto, cpu, cuda or cuda:N"),
        (["RUN", "x.txt", "--format", "excel"], 2, "--format: 'excel' is unknown (known: auto, "),
        (["RUN", "x.txt", "--encoding", "utf-9"], 2, "--encoding utf-9: no such encoding; "),
    ],
)
def test_bad_arguments(
    run_main: RunMain,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.txt").write_text("x\n")
    Path("folder").mkdir()
    Path("new").mkdir()
    Path("new/run.json").write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
    given = [str(tiny.run) if word == "RUN" else word for word in arguments]
    ended = run_main("predict", *given)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("srucli: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err
