"""`srucli train` as users run it: file formats, output, errors."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from srucli.cli.train import default_folder
from srucli.runs.run_dir import RunDir
from tests.support import (
    QUICK,
    RunCli,
    RunMain,
    Tiny,
    child_environment,
    sentences,
    write_tsv,
)

ROWS = sentences()[:60]


LAYOUT = re.compile(r"[^:]*: (tsv|csv|JSON|fasttext|pairs|plain text).*, utf-\d+")


def one_line(err: str) -> str:
    """Return the error message: one line, after lines on the layout of files, no traceback."""
    *before, last = err.strip("\n").split("\n")
    assert all(map(LAYOUT.match, before)), err
    assert last.startswith("srucli: ")
    return last.removeprefix("srucli: ")


def test_output(tiny: Tiny) -> None:
    assert tiny.result.out == "run\n"
    layout, *said = tiny.result.err.splitlines()
    columns = "text = column 2, label = column 1"
    assert layout == f"train.tsv: tsv, delimiter tab, no header, {columns}, no quotes, utf-8"
    said = [line for line in said if not line.startswith("compiling kernels")]  # once a machine
    lines = said[[line.startswith("data: ") for line in said].index(True) :]
    assert re.fullmatch(
        r"data: 432 examples, 48 dev examples, 3 labels \((\w+: \d+, ){2}\w+: \d+\)", lines[0]
    )
    assert lines[1].startswith("tokenizer: unigram: 432 lines; ")
    assert re.fullmatch(r"n-grams: \d+ with 2,\d\d\d weights, .* s", lines[2])
    assert lines[3].startswith("model: ")
    assert lines[3].endswith(" parameters, sru (cpu kernel), cpu")
    head, *epochs = lines[-11:-5]
    assert head.split("  ")[-3:] == ["dev accuracy", "macro_f1", "log_loss"]
    assert [line.split()[0] for line in epochs] == [f"{n}/5" for n in range(1, 6)]
    assert {line.index(" s ") for line in epochs} == {head.index("time") + 2}
    assert max(map(len, (head, *epochs))) <= 80
    assert epochs[0].endswith("  best so far")
    interval = r"\(95% interval 0\.\d{4} to [01]\.\d{4}\)"
    measured = rf"on 48 dev texts, after epoch 5: accuracy [01]\.\d{{4}} {interval}"
    assert re.fullmatch(measured, lines[-5])
    assert lines[-4:-2] == [
        "to evaluate it:  srucli eval run FILE",
        "to label texts:  srucli predict run -",
    ]
    what = r"to remove \d\.\d of its \d\.\d MB, which only longer training needs"
    assert re.fullmatch(f"{what}:  srucli slim run", lines[-2])
    unlabelled = "to use unlabelled text of the same kind too:  srucli train FILE --raw CORPUS"
    assert lines[-1] == unlabelled
    assert "\r" not in tiny.result.err


def test_eval_of_train_in_a_shell(tiny: Tiny) -> None:
    """`eval` takes the last line that `train` prints, as in the README."""
    flags = " ".join(map(str, QUICK))
    script = f"""
        srucli() {{ "{sys.executable}" -m srucli "$@"; }}
        srucli eval "$(srucli train train.tsv -o shell/run --epochs 4 --lr 1e-2 {flags})" \
            test.tsv --json --fail-under accuracy=1.01
        echo "exit $?"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tiny.folder,
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    figures, ended = done.stdout.splitlines()
    assert ended == "exit 3", done.stderr
    assert json.loads(figures)["metrics"]["accuracy"] > 0.9
    assert done.stderr.splitlines()[-1].startswith("srucli: --fail-under: accuracy ")


def test_compressed_json_lines_from_a_pipe(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "".join(
        json.dumps({"sentence": text, "kind": label}, ensure_ascii=False) + "\n"
        for label, text in ROWS
    )
    columns = ("--text", "sentence", "--label", "kind")
    ended = run_main(
        *("train", "-", "--format", "jsonl", *columns, "--optimizer", "adagrad"),
        *("--epochs", 1, *QUICK),
        input=gzip.compress(lines.encode()),
    )
    assert (ended.code, ended.out) == (0, "runs/stdin\n"), ended.err
    run = RunDir.open(tmp_path / "runs" / "stdin")
    assert run.labels() == ["bad", "good", "none"]
    assert run.config().optim.name == "adagrad"
    assert (run.config().data.text, run.config().data.label) == ("sentence", "kind")


def test_csv_with_a_dev_file_and_every_flag_by_name(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train", ROWS[:50]), ("dev", ROWS[50:])):
        with open(f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("id", "text", "label")])
            csv.writer(file).writerows((n, f'{text}, "so"', x) for n, (x, text) in enumerate(rows))
    Path("c.yaml").write_text("model:\n  layers: 9\n  embedding_size: 12\n")
    ended = run_main(
        *("train", "train.csv", "--dev", "dev.csv", "--config", "c.yaml", "--output", "out/run"),
        *("--optimizer", "muon", "--lr", "1e-3", "--epochs", 1, "--batch-size", 8, "--seed", 3),
        *("--encoder", "gru", "--layers", 1, "--hidden", 7, "--subword-dropout", 0, "--threads", 1),
        *("--device", "cpu", "model.ngrams=false", "optim.options.momentum=0.9"),
    )
    assert (ended.code, ended.out) == (0, "out/run\n"), ended.err
    run = RunDir.open(Path("out/run"))
    assert run.labels() == ["bad", "good", "none"]
    assert run.facts().data.texts == 50
    assert run.facts().data.dev_texts == 10
    config = run.config()
    assert (config.model.encoder, config.model.layers, config.model.hidden) == ("gru", 1, 7)
    assert (config.model.embedding_size, config.model.ngrams) == (12, False)
    assert (config.optim.name, config.optim.lr) == ("muon", 1e-3)
    assert config.optim.options["momentum"] == 0.9
    assert (config.train.seed, config.train.batch_size) == (3, 8)


def test_a_recipe_by_name_whatever_files_there_are(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lstm").write_text("model: {encoder: cnn, layers: 1}\n")
    words = ("--tokenizer", tiny.run / "tokenizer.model", "--epochs", 1, *QUICK)
    for name, encoder, said in (("lstm", "lstm", True), ("./lstm", "cnn", False)):
        ended = run_main("train", tiny.train, "-o", f"of-{encoder}", "-c", name, *words)
        assert ended.code == 0, ended.err
        assert RunDir.open(Path(f"of-{encoder}")).config().model.encoder == encoder
        assert ("-c lstm is the recipe; the file of this name is -c ./lstm" in ended.err) == said


@pytest.mark.parametrize(
    "optimizer",
    [
        *("sgd", "momentum", "adafactor", "adadelta", "adam-nobias", "lion"),
        *("schedulefree:AdamWScheduleFree", "pytorch_optimizer:AdaBelief"),
    ],
)
def test_the_optimizer_flag(run_main: RunMain, tiny: Tiny, tmp_path: Path, optimizer: str) -> None:
    if ":" in optimizer:
        pytest.importorskip(optimizer.partition(":")[0])
    ended = run_main(
        *("train", tiny.train, "-o", tmp_path / "run", "--optimizer", optimizer, "--epochs", 3),
        *("--tokenizer", tiny.run / "tokenizer.model", *QUICK),
    )
    assert ended.code == 0, ended.err
    records = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(record)["train_loss"] for record in records]
    assert losses[-1] < losses[0]


def test_odd_but_valid_input(run_main: RunMain, tmp_path: Path) -> None:
    """A byte-order mark, CRLF, U+0085 and U+2028 inside a line, a very long line, odd labels."""
    rows = [("so, so", "a\x85b\u2028c"), ("good ", "fine"), ("so, so", "x" * 160_000)] * 3
    data = tmp_path / "odd.tsv"
    text = "".join(f"{label}\t{text}\r\n" for label, text in rows)
    data.write_bytes(b"\xef\xbb\xbf" + text.encode())
    ended = run_main("train", data, "-o", tmp_path / "run", "--epochs", 1, *QUICK)
    assert ended.code == 0, ended.err
    run = RunDir.open(tmp_path / "run")
    assert run.labels() == ["good", "so, so"]
    assert run.facts().data.texts + run.facts().data.dev_texts == 9


@pytest.mark.parametrize("flags", [("--encoding", "latin-1"), ("--errors", "replace")])
def test_bytes_that_are_not_utf8_and_the_remedy(
    run_main: RunMain, tmp_path: Path, flags: Sequence[str]
) -> None:
    data = tmp_path / "latin.tsv"
    data.write_bytes("".join(f"{x}\tcaf\xe9 {x}\n" for x in "abab").encode("latin-1"))
    ended = run_main("train", data, "-o", tmp_path / "run", "--epochs", 1, *QUICK)
    assert ended.code == 65
    said = one_line(ended.err)
    assert said.startswith(f"{data}:1: byte 6 of the line (0xe9) is not utf-8; pass the right")
    assert "--encoding" in said
    assert "--errors replace" in said
    ended = run_main("train", data, "-o", tmp_path / "run", "--epochs", 1, *flags, *QUICK)
    assert ended.code == 0, ended.err


def test_the_default_folder_is_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_folder("a/b.tsv.gz") == (Path("runs/b"), ())
    for name in ("b", "b-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    said = "runs/b is there already: the run is runs/b-3; -o FOLDER sets another"
    assert default_folder("a/b.tsv.gz") == (Path("runs/b-3"), [said])
    assert default_folder(".hidden") == (Path("runs/run"), ())


def test_force_replaces_a_run_and_only_a_run(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("train", tiny.train, "-o", run, "--epochs", 1, *QUICK)
    tokenizer = ("--tokenizer", tiny.run / "tokenizer.model")
    assert run_main(*arguments, *tokenizer).code == 0
    ended = run_main(*arguments, *tokenizer)
    assert (ended.code, ended.out) == (0, f"{run}\n")
    assert f"{run}: is finished; a larger --epochs continues it" in ended.err.splitlines()
    ended = run_main(*arguments, *tokenizer, "--lr", 1)
    assert (ended.code, ended.out) == (2, "")
    said = "is finished, so different settings would have no effect (optim.lr: "
    assert f"{run}: {said}0.002 -> 1.0); train in another folder" in ended.err
    (run / "mine").write_text("")
    assert run_main(*arguments, *tokenizer, "--force").code == 0
    assert (run / "mine").exists()  # only what srucli wrote is ever removed
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("")
    ended = run_main("train", tiny.train, "-o", tmp_path / "folder", "--force", *QUICK)
    assert ended.code == 73
    said = (
        "folder: exists already and contains no run that srucli made, but mine; choose another -o"
    )
    assert one_line(ended.err).endswith(said)
    assert (tmp_path / "folder" / "mine").exists()


GOOD = b"a\tx\nb\ty\n"

BAD_FILES: dict[str, tuple[bytes, tuple[str, ...], str]] = {
    "empty.tsv": (b"", (), ": is empty: no labelled text in it; "),
    "blank.tsv": (b"\n \n\n", (), ": is empty: no labelled text in it; "),
    "mark.tsv": (b"\xef\xbb\xbf", (), ": is empty: no labelled text in it; "),
    "one-class.tsv": (b"a\tx\na\ty\n", (), ": only the label 'a' in 2 texts; "),
    "column.csv": (
        b"text,label\nx,a\n",
        ("--label", "lable"),
        ":1: no column 'lable' in the header 'text,label' (did you mean 'label'?); ",
    ),
    "number.tsv": (GOOD, ("--text", "5"), ":1: 2 columns only, no text in column 5: "),
    "delimiter.tsv": (
        b"a,x\nb,y\n",
        (),
        ":1: 1 column only, no text in column 2: 'a,x'; it seems to be separated by commas; "
        "pass --format csv",
    ),
    "no-text.tsv": (GOOD + b"a\t\n", (), ":3: no text for the label 'a'; "),
    "no-label.tsv": (GOOD + b"\tx\n", (), ":3: no label for the text 'x'; "),
    "nul.tsv": (GOOD + b"a\tx\0y\n", (), ":3: a NUL character after 'a\\tx'; "),
    "cut.jsonl": (
        b'{"text": "x", "label": "a"}\n{"text": "y", "lab',
        (),
        ":2: the JSON is cut short after ",
    ),
    "key.jsonl": (b'{"x": "x", "y": "a"}\n', (), ":1: no key 'text', only 'x, y'; "),
    "quote.csv": (b'a,x\nb,"y\nc,z\n', (), ":2: the quote that opens here never closes: "),
    "utf-16.tsv": (
        GOOD.decode().encode("utf-16"),
        ("--encoding", "latin-1"),
        ":1: a UTF-16 byte-order mark",
    ),
    "cut.tsv.gz": (gzip.compress(GOOD * 99)[:-12], (), ": the gzip data is cut short; "),
    "labels.jsonl": (b'{"text": "x", "label": ["a", "b"]}\n', (), ":1: 2 labels: 'a, b'; "),
    "fasttext.tsv": (b"__label__a x\n", (), ":1: fastText lines, but read as tsv: "),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, flags, said = BAD_FILES[name]
    Path(name).write_bytes(content)
    ended = run_main("train", name, *flags, *QUICK)
    assert (ended.code, ended.out) == (65, "")
    message = one_line(ended.err)
    assert message.startswith(name)
    assert said in message
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_bad_dev_file(run_main: RunMain, tmp_path: Path) -> None:
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    train.write_bytes(GOOD)
    dev.write_bytes(b"a\t\n")
    ended = run_main("train", train, "--dev", dev, "-o", tmp_path / "run", *QUICK)
    assert ended.code == 65
    assert one_line(ended.err).startswith(f"{dev}:1: no text for the label 'a'; ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.tsv"], 66, "none.tsv: no such file; check the name and the folder"),
        (["."], 66, ".: is a folder; name a file in it"),
        (["good.tsv", "--dev", "none.tsv"], 66, "none.tsv: no such file; "),
        (["good.tsv", "-c", "none.yaml"], 66, "none.yaml: no such file; check the name"),
        (["good.tsv", "-c", "koraen"], 66, "koraen: neither a recipe nor a file; the recipes are"),
        (["good.tsv", "-c", "a/korean.yaml"], 66, "no such file; pass -c korean for the recipe"),
        (["good.tsv", "-c", "bad.yaml"], 2, "bad.yaml: unknown setting 'model.layer' (did you"),
        (["good.tsv", "--tokenizer", "none.model"], 66, "none.model: cannot be read (No such"),
        (["good.tsv", "--tokenizer", "good.tsv"], 65, "good.tsv: not a SentencePiece model; "),
        (["good.tsv", "-o", "good.tsv"], 73, "good.tsv: is not a folder; choose another -o"),
        (["good.tsv", "-o", "good.tsv/run"], 73, "is not a folder; choose another -o"),
        (["good.tsv", "model.layer=3"], 2, "unknown setting 'model.layer' (did you mean "),
        (["good.tsv", "model.layers"], 2, "'model.layers' is not an override; write KEY=VALUE"),
        (["good.tsv", "--optimizer", "adamm"], 2, "unknown optimizer 'adamm' (did you mean "),
        (["good.tsv", "optim.options.x=1"], 2, "optim.options.x: adam has no such option"),
        (["good.tsv", "--encoder", "rnn"], 2, "--encoder: 'rnn' is unknown (did you mean"),
        (["good.tsv", "--device", "tpu"], 2, "--device tpu: write auto, cpu, cuda or cuda:N"),
        (["good.tsv", "--lr", "-1"], 2, "--lr: -1 is too small; it must be above 0"),
        (["good.tsv", "--format", "excel"], 2, "(known: auto, tsv, csv, fasttext, jsonl, pairs)"),
        (["good.tsv", "data.format=excel"], 2, "data.format: 'excel' is unknown (known: auto, "),
        (["good.tsv", "--encoding", "utf-9"], 2, "--encoding utf-9: no such encoding; "),
        (["good.tsv", "--text", "1", "--label", "1"], 2, "text and label are both column 1; "),
    ],
)
def test_bad_arguments(
    run_main: RunMain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.tsv").write_bytes(GOOD)
    Path("bad.yaml").write_text("model:\n  layer: 3\n")
    ended = run_main("train", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert said in one_line(ended.err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "good.tsv"]


def test_a_bad_file(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tsv(tmp_path / "x.tsv", [("a", "x"), ("a", "y")])
    done = run_main("train", "x.tsv")
    assert (done.code, done.out) == (65, "")
    remedy = "a classifier needs two or more; check --label and --format"
    said = f"srucli: x.tsv: only the label 'a' in 2 texts; {remedy}"
    assert done.err.splitlines()[1:] == [said]
    assert [path.name for path in tmp_path.iterdir()] == ["x.tsv"]


def test_a_layout_that_the_first_line_disproves_is_not_shown(
    run_main: RunMain, tmp_path: Path
) -> None:
    data = tmp_path / "x.txt"
    data.write_text("good film\nawful film\nso so\n")
    ended = run_main("train", data, "-o", tmp_path / "run")
    assert ended.code == 65
    assert len(ended.err.splitlines()) == 1
    assert "1 column only" in ended.err
    data.write_text("good\tfilm\nbad\tfilm\nso so\n")
    said = run_main("train", data, "-o", tmp_path / "run").err.splitlines()
    assert LAYOUT.match(said[0])
    assert said[1].startswith(f"srucli: {data}:3: 1 column only")


def test_an_error_comes_without_the_name_of_a_run_that_was_not_made(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    write_tsv(tmp_path / "x.tsv", [("a", "x"), ("a", "y")])
    ended = run_main("train", "x.tsv")
    assert ended.code == 65
    assert "runs/x" not in ended.err


def test_an_unknown_flag(run_cli: RunCli) -> None:
    done = run_cli("train", "x.tsv", "--leyers")
    assert (done.returncode, done.stdout) == (2, "")
    hint = "(did you mean '--layers'?); see srucli train --help"
    assert done.stderr == f"srucli: train has no flag --leyers {hint}\n"


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--epochs", "three", "--epochs: 'three' is not a whole number"),
        ("--epochs", "0", "--epochs: 0 is too small; the smallest is 1"),
        ("--errors", "lose", "--errors: 'lose' is unknown (known: strict, replace, ignore)"),
        ("--encoder", "ltsm", "--encoder: 'ltsm' is unknown (did you mean 'lstm'?)"),
        ("--optimizer", "adma", "--optimizer: unknown optimizer 'adma' (did you mean 'adam'?)"),
        ("--format", "json", "--format: 'json' is unknown (did you mean 'jsonl'?)"),
    ],
)
def test_a_wrong_value_of_a_flag(run_main: RunMain, flag: str, value: str, said: str) -> None:
    ended = run_main("train", "x.tsv", flag, value)
    assert (ended.code, ended.out, one_line(ended.err)) == (2, "", said)


@pytest.mark.parametrize(
    ("command", "flag", "value", "said"),
    [
        ("tune x.tsv", "--minutes", "1e400", "inf is not a finite number"),
        ("tune x.tsv", "--max-mb", "inf", "inf is not a finite number"),
        ("compare x.tsv --optimizer adam,sgd", "--target", "nan", "nan is not a finite number"),
        ("encode x.model", "--subword-dropout", "nan", "nan is not a finite number"),
        (
            "tokenize x.txt",
            "--vocab-size",
            "2000000",
            "2000000 is too large; the largest is 1,048,576",
        ),
        (
            "tokenize x.txt",
            "--bos-id",
            str(10**20),
            f"{10**20} is too large; the largest is 1,048,575",
        ),
        (
            "tokenize x.txt",
            "--input-sentence-size",
            str(10**20),
            f"{10**20} is too large; the largest is 2,147,483,648",
        ),
    ],
)
def test_a_number_that_no_command_can_use(
    run_main: RunMain, command: str, flag: str, value: str, said: str
) -> None:
    ended = run_main(*command.split(), flag, value)
    assert (ended.code, ended.out, one_line(ended.err)) == (2, "", f"{flag}: {said}")
