"""`srucli tokenize`, `encode` and `decode` as users run them."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import sentencepiece

from srucli.cli import options
from srucli.cli.corpus import files_of
from srucli.cli.tokenize import _plain_switch
from srucli.config import TokenizerConfig
from srucli.errors import InputMissingError, UsageError
from srucli.tokenizer.model import Tokenizer
from tests.support import (
    RunCli,
    RunMain,
    child_environment,
    children,
    cpu_seconds,
    is_running,
    unique_words,
    until,
)
from tests.tokenizer.test_model import LINES

RAW = "".join(line + "\n" for line in LINES)


@pytest.fixture(scope="module")
def model(run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A unigram model of 200 pieces, made from a pipe."""
    folder = tmp_path_factory.mktemp("model")
    done = run_cli("tokenize", "-", "-o", "m", "--vocab-size", 200, input=RAW, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "m.model\n")
    assert "unigram: 400 lines; " in done.stderr
    assert "200 pieces wanted, 200 obtained" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["m.model", "m.vocab"]
    assert (folder / "m.vocab").read_text(encoding="utf-8").count("\n") == 200
    return folder / "m.model"


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "srucli", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
    )


def test_flags_as_spm_train_spells_them(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(RAW)
    with gzip.open(tmp_path / "b,c.txt.gz", "wt") as file:
        file.write("zyx zyx zyx\n" * 20)
    done = run_main(
        "tokenize",
        "--input=a.txt,a.txt",
        "b,c.txt.gz",
        "--model_prefix=deep.bpe.model",
        "--model_type=bpe",
        "--vocab_size=150",
        "--byte_fallback=false",
        "--split_digits=true",
        '--user_defined_symbols=<x>,"a,b"',
    )
    assert (done.code, done.out) == (0, "deep.bpe.model\n"), done.err
    assert "bpe: 820 lines" in done.err
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "deep.bpe.model"))
    pieces = [model.IdToPiece(index) for index in range(len(model))]
    assert {"<x>", "a,b", "▁zyx"} <= set(pieces)
    assert len(pieces) == 150


def test_files_are_overwritten_only_with_force(run_main: RunMain, tmp_path: Path) -> None:
    (tmp_path / "m.vocab").write_text("mine")
    arguments = ("tokenize", "-", "-o", tmp_path / "m", "--vocab-size", 100)
    done = run_main(*arguments, input=RAW)
    assert (done.code, done.out) == (73, "")
    assert done.err.strip().endswith(
        "m.vocab: exists already; choose another prefix or pass --force"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    assert run_main(*arguments, "--force", input=RAW).code == 0
    assert (tmp_path / "m.vocab").read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.txt", "-o", "m", "--vocab-sise", "9"], 2, "--vocab-size"),
        (["a.txt", "-o", "m", "--vocab-size", "99999"], 2, "is more than this text allows"),
        (
            ["a.txt", "-o", "m", "--vocab-size", "x"],
            2,
            "srucli: --vocab-size: 'x' is not a whole number\n",
        ),
        (["a.txt", "-o", "m", "--normalization-rule-tsv", "none"], 66, "tsv none: no such file"),
        (["none.txt", "-o", "m"], 66, "none.txt: no such file"),
        (["a.txt", "-o", "none/m"], 73, "none: no such folder"),
        (["bad.txt", "-o", "m"], 65, "bad.txt:2: byte 2 of the line (0xe9) is not utf-8"),
        (["a.txt"], 2, "--model-prefix"),
    ],
)
def test_mistakes(
    run_main: RunMain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(RAW)
    (tmp_path / "bad.txt").write_bytes(b"fine\nr\xe9sum\xe9\n")
    done = run_main("tokenize", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "bad.txt"]


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("/dev/zero", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("folder", "is not a regular file"),
        ("large.tsv", "has over 16 MiB, the most that rules may have"),
    ],
)
def test_normalization_rules_that_might_never_end(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(RAW)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("large.tsv").touch()
    os.truncate("large.tsv", 2**24 + 1)  # sparse: takes no space on the disk
    said = f"srucli: {rules}: {problem}; name a file of rules\n"
    for command in ("tokenize a.txt --normalization-rule-tsv", "train a.txt tokenizer."):
        *words, last = command.split()
        last += f"normalization_rule_tsv={rules}" if last.endswith(".") else ""
        more = [] if "=" in last else [rules]
        done = run_main(*words, last, *more, "-o", "m")
        assert (done.code, done.err) == (65, said)


def test_format_reads_the_texts_of_a_labelled_file(run_main: RunMain, tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("".join(f"LABEL\t{line}\n" for line in LINES))
    asked = run_main("tokenize", file, "-o", tmp_path / "a", "--vocab-size=100", "--format", "tsv")
    assert asked.code == 0
    assert "L\t" not in (tmp_path / "a.vocab").read_text()
    plain = run_main("tokenize", file, "-o", tmp_path / "b", "--vocab-size", 100)
    assert "is read as raw text, labels and all; --format auto takes" in plain.err
    assert "L\t" in (tmp_path / "b.vocab").read_text()


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(RAW)
    done = subprocess.run(
        f"ulimit -f 1; exec {sys.executable} -m srucli tokenize a.txt -o m --vocab-size 200",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=child_environment(PYTHONDONTWRITEBYTECODE="1"),
    )
    assert (done.returncode, done.stdout) == (73, "")
    assert "cannot be written (File too large)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_training_can_be_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "a.txt").write_text("\n".join(unique_words()))
    options = ("--vocab-size", 100, "--num-sub-iterations", 10)
    parent = start("tokenize", tmp_path / "a.txt", "-o", tmp_path / "m", *options)
    # It has read its lines, and trains.
    until(lambda: any(cpu_seconds(child) > 1 for child in children(parent.pid)))
    [child] = children(parent.pid)
    parent.send_signal(how)
    _, errors = parent.communicate()
    assert parent.returncode == (130 if how == signal.SIGINT else -how)
    assert b"Traceback" not in errors
    until(lambda: not is_running(child))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_help_shows_every_setting_and_importing_does_not(run_cli: RunCli) -> None:
    shown = run_cli("tokenize", "--help").stdout
    for name, field in TokenizerConfig.model_fields.items():
        flag = name.replace("_", "-")
        assert f"--{flag}" in shown or f"--[no-]{flag}" in shown
        assert field.description
    program = (
        "import sys, srucli.cli;"
        "print({'pydantic', 'numpy', 'torch', 'sentencepiece'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, env=child_environment())
    assert done.stdout == b"set()\n"


def test_folders_comma_lists_and_hidden_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("d/b.txt", "d/a/z.txt", "d/.hidden", "d/.git/x", "c,c.txt", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert files_of(["d", "c,c.txt", 'e.txt,d/b.txt,"c,c.txt"', "-"]) == [
        *("d/a/z.txt", "d/b.txt", "c,c.txt", "e.txt", "d/b.txt", "c,c.txt", "-"),
    ]
    for wrong in (["empty"], ["e.txt,f.txt"]):
        with pytest.raises(InputMissingError):
            files_of(wrong)
    for wrong in ([], ["-", "-"]):
        with pytest.raises(UsageError):
            files_of(wrong)


def test_switches_take_values_as_in_spm_train() -> None:
    switches = {"byte-fallback"}
    for given, meant in {
        "--byte_fallback=true": "--byte-fallback",
        "--byte-fallback=0": "--no-byte-fallback",
        "--byte_fallback=maybe": "--byte_fallback=maybe",
        "--vocab_size=1": "--vocab_size=1",
        "--byte_fallback": "--byte_fallback",
        "byte_fallback=true": "byte_fallback=true",
    }.items():
        assert _plain_switch(given, switches) == meant


def test_every_wrong_value_names_its_flag() -> None:
    symbols = "tokenizer.user_defined_symbols"
    assert options.parse({symbols: '"a,b",c'}) == {symbols: ("a,b", "c")}
    for setting, value in {
        "tokenizer.vocab_size": "1",
        "tokenizer.model_type": "words",
        "tokenizer.character_coverage": "0.5",
        "tokenizer.num_threads": "0",
        symbols: '"a',
        "data.errors": "lose",
        "optim.lr": "-1",
    }.items():
        with pytest.raises(UsageError, match=f"^{options.flag_of(setting)}\\b"):
            options.parse({setting: value})


def test_decode_reverses_encode_line_by_line(run_cli: RunCli, model: Path) -> None:
    text = "bade ko\n\n\x85la te\r\n" + RAW
    for form in ("piece", "id"):
        cut = run_cli("encode", model, f"--output_format={form}", input=text)
        assert cut.returncode == 0, cut.stderr
        assert cut.stdout.count("\n") == text.count("\n")
        back = run_cli("decode", model, "--input-format", form, input=cut.stdout)
        assert back.returncode == 0
        assert back.stdout.split("\n")[3:] == RAW.split("\n")
        assert back.stdout.split("\n")[:2] == ["bade ko", ""]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ids = [list(map(int, line.split())) for line in cut.stdout.split("\n")[3:-1]]
    assert ids == processor.Encode(LINES)


@pytest.mark.parametrize("nbest", [1, 3], ids=["the best", "the three best"])
def test_ids_of_unknown_characters_are_counted(
    run_main: RunMain, model: Path, tmp_path: Path, nbest: int
) -> None:
    """Ids do not show unknown characters, pieces do."""
    file = tmp_path / "x.txt"
    file.write_text("bade\n\u4e16 ko \u4e16\n\nbade \u754c\n", encoding="utf-8")
    ids = run_main("encode", model, file, "--output-format", "id", "--nbest", nbest)
    said = "of {} texts have characters that the tokenizer does not know (unknown tokens: {})"
    first, whole = f"{file}: 1 {said.format(2, 2)}", f"{file}: 2 {said.format(4, 3)}"
    assert ids.err.splitlines() == [first, whole]
    pieces = run_main("encode", model, file, "--nbest", nbest)
    assert pieces.err == ""
    assert "\u4e16" in pieces.out


def test_control_symbols_reverse_json_and_nbest(run_main: RunMain, model: Path) -> None:
    text = "bade ko\n\n"
    done = run_main("encode", model, "--bos", "--eos", "--reverse", "--json", input=text)
    first, second = map(json.loads, done.out.splitlines())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert first == ["<s>", *reversed(processor.Encode("bade ko", return_type=str)), "</s>"]
    assert second == ["<s>", "</s>"]
    done = run_main("encode", model, "--nbest", 3, input=text)
    best, empty, _ = done.out.split("\n")
    expected = processor.NBestEncode("bade ko", nbest_size=3, return_type=str)
    assert [row.split(" ") for row in best.split("\t")] == expected
    assert empty == ""


def test_samples_equal_those_of_the_library(run_main: RunMain, model: Path) -> None:
    dropout = ("--subword-dropout", 0.4, "--seed", 1)
    done = run_main("encode", model, "--output-format=id", "--json", *dropout, "--bos", input=RAW)
    ids, offsets = Tokenizer.load(model).encode(LINES, 0.4, seed=1)
    rows = [[1, *ids[start:end].tolist()] for start, end in pairwise(offsets)]
    assert [json.loads(line) for line in done.out.splitlines()] == rows
    back = run_main("decode", model, "--input-format", "id", "--json", input=done.out)
    assert [json.loads(line) for line in back.out.splitlines()] == LINES


ID, IDS = ("decode", "--input-format", "id"), ("decode", "--json", "--input-format", "id")


@pytest.mark.parametrize(
    ("arguments", "text", "code", "words"),
    [
        (("decode", "--input-format", "id"), "5\n5 x\n", 65, "<stdin>:2: 'x' is not an id; "),
        (("decode", "--input-format", "id"), "200\n", 65, "<stdin>:1: the id 200 is not below 200"),
        (ID, "9" * 5000 + "\n", 65, f"the id {'9' * 50}"),
        (ID, "x" * 5000 + "\n", 65, f":1: '{'x' * 50}"),
        (ID, "+5\n", 65, ":1: '+5' is not an id; "),
        (IDS, f"[{'9' * 5000}]\n", 65, ":1: null is not an id; "),
        (IDS, "[1e999, NaN]\n", 65, ":1: null is not an id; "),
        (IDS, "[1e15]\n", 65, ":1: 1000000000000000.0 is not an id; "),
        (("decode", "--json"), "[" * 5000 + "\n", 65, f":1: not valid JSON: '{'[' * 50}"),
        (("decode", "--json"), "9" * 5000 + "\n", 65, f":1: not an array: '{'9' * 50}"),
        (("decode", "--json"), '["a"\n', 65, ":1: not valid JSON: '[\"a\"'; "),
        (("decode", "--json"), "[5]\n", 65, "<stdin>:1: 5 is not a piece; "),
        (("decode", "--json"), '["\\ud800"]\n', 65, "<stdin>:1: '\\ud800' is not a piece; "),
        (("decode", "--json", "--input-format", "id"), "[1.5]\n", 65, ":1: 1.5 is not an id; "),
        (("decode", "--json", "--input-format", "id"), "[1e400]\n", 65, ":1: null is not an id; "),
        (("decode", "--json", "--input-format", "id"), "[true]\n", 65, ":1: true is not an id; "),
        (("encode", "--nbest", "2", "--subword-dropout", "0.1"), "a\n", 2, "exclude each other"),
        (("encode", "--subword-dropout", "1.5"), "a\n", 2, "not in [0, 1)"),
    ],
)
def test_mistakes_in_pipes(
    run_main: RunMain, model: Path, arguments: tuple[str, ...], text: str, code: int, words: str
) -> None:
    done = run_main(arguments[0], model, *arguments[1:], input=text)
    assert done.code == code
    assert words in done.err
    assert len(done.err) < 400
    assert done.out.count("\n") == text.count("\n") - (code == 65) - (code == 2)


def test_zeros_before_an_id_change_nothing(run_main: RunMain, model: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text(f"{'0' * 5000}7 {'0' * 5000}\n7 0\n")
    done = run_main(ID[0], model, tmp_path / "ids", *ID[1:])
    assert done.code == 0, done.err
    assert len({*done.out.splitlines()}) == 1


def test_a_decoded_line_end_does_not_split_the_line(run_main: RunMain, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(RAW)
    model, spelled = tmp_path / "b.model", tmp_path / "spelled.txt"
    words = ("-o", tmp_path / "b", "--vocab-size", 400, "--byte-fallback")
    assert run_main("tokenize", tmp_path / "a.txt", *words).code == 0
    spelled.write_text("<0x41> <0x0A> <0x42>\n<0x43>\n")
    assert run_main("decode", model, spelled).out == "A B\nC\n"
    spelled.write_text('["<0x41>", "<0x0A>", "<0x42>"]\n')
    assert run_main("decode", model, spelled, "--json").out == '"A\\nB"\n'


def test_a_file_that_is_not_a_model(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(RAW)
    done = run_main("encode", "a.txt", input="x\n")
    assert (done.code, done.out) == (65, "")
    assert done.err.startswith("srucli: a.txt: not a SentencePiece model; ")


def test_each_line_is_flushed_before_the_next_is_read(model: Path) -> None:
    process = start("encode", model, "-")
    assert process.stdin is not None
    assert process.stdout is not None
    for text in (b"bade ko\n", b"la\n"):
        process.stdin.write(text)
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100).endswith(b"\n")
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()


def test_a_closed_pipe_is_quiet(model: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(RAW * 50)
    process = start("encode", model, tmp_path / "long.txt")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("command", "line", "said"),
    [
        (
            ("encode", "--nbest", 4),
            "a" * 251,
            "a line of 251 characters, and at most 250 are encoded at once as 4 encodings: 'a",
        ),
        (("encode",), "a" * 1_001, "a line of 1,001 characters, and at most 1,000 are encoded at"),
        (("encode", "--subword-dropout", 0.1), "a" * 1_001, "a line of 1,001 characters, and at "),
        (("decode", "--input-format", "id"), "3 " * 1_000 + "3", "over 1,000 tokens: '3 3"),
        (("decode", "--json"), f"[{'3,' * 1_000}3]", "over 1,000 tokens: '[3,3"),
        (("decode",), "abc " * 700, "tokens of up to 2,100 characters, and at most 2,000 are de"),
    ],
)
def test_a_line_that_takes_too_much_memory_is_named(
    model: Path,
    tmp_path: Path,
    run_main: RunMain,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[object, ...],
    line: str,
    said: str,
) -> None:
    """A line of 64 MB took 4 GB, and sampling its tokens 7."""
    monkeypatch.setattr("srucli.tokenizer.model.MAX_ENCODED", 1_000)
    monkeypatch.setattr("srucli.tokenizer.model.MAX_NORMALIZED", 2_000)
    first = '["a"]' if "--json" in command else "2"
    (tmp_path / "x.txt").write_text(f"{first}\n{line}\n")
    name, *flags = command
    ended = run_main(name, model, tmp_path / "x.txt", *flags)
    assert ended.code == 65
    assert f"x.txt:2: {said}" in ended.err
    assert ended.out.count("\n") == 1
    assert ended.err.endswith(
        ("; break it into shorter lines\n", "; break the line into shorter ones\n")
    )
