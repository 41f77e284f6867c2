"""Help pages: groups, examples, one style; and one sentence for each wrong command line."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from srucli.cli import app
from srucli.cli.topics import GUIDE, TOPICS
from srucli.io.console import is_narrow
from tests.support import RunCli, RunMain

GROUP: Any = typer.main.get_command(app)


def page(run_main: RunMain, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    ended = run_main(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    return ended.out


@pytest.mark.parametrize("name", GROUP.commands)
def test_every_page_is_in_one_style(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = page(run_main, monkeypatch, name)
    assert max(map(len, text.splitlines())) <= 80
    description, _, rest = text.partition("\nExamples:\n")
    examples = rest.partition("\n\n")[0]
    assert "stdout" in description
    assert all(" srucli " in f" {line.strip()}" for line in examples.splitlines())
    command = GROUP.commands[name]
    for param in command.get_params(command.context_class(command)):
        assert re.fullmatch(r"[A-Z].*[.\]]", param.help), param.name
    assert not re.search(r"<(int|float|str|path)|range>|INTEGER|FLOAT", text)


# Packages that take longer to import than a help page may take, or as long as the rest of it.
HEAVY = ("numpy", "torch", "scipy", "sentencepiece", "tqdm", "rich", "yaml")


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        ((), (*HEAVY, "pydantic", "srucli.io.folders")),
        (("slim",), (*HEAVY, "pydantic", "srucli.io.folders")),
        (("train",), (*HEAVY, "typer._adapters")),
    ],
)
def test_help_imports_nothing_heavy(
    run_cli: RunCli, words: tuple[str, ...], heavy: tuple[str, ...]
) -> None:
    done = run_cli(*words, "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "srucli.cli" in imported
    assert not imported & {*heavy}


def test_the_flags_that_matter_come_first(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page(run_main, monkeypatch, "train")
    sections = re.findall(r"^(\w[\w ]+):$", text, re.MULTILINE)
    assert sections == [
        *("Examples", "Arguments", "Often used", "Reading files", "Labels", "Model"),
        *("Training", "Checkpoints", "Computing", "Other flags"),
    ]
    often = text.partition("Often used:\n")[2].partition("\n\n")[0]
    assert len(re.findall(r"^  -", often, re.MULTILINE)) == 10
    assert "  --lr RATE               Peak learning rate, above 0. [default:" in often
    assert "lines (texts)" not in text  # they have no labels


def test_no_description_of_a_command_is_cut(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "..." not in page(run_main, monkeypatch).split("Commands:")[1]


def test_plain_lines_are_offered_where_texts_need_no_labels(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page(run_main, monkeypatch, "predict")
    assert "lines (texts)" in text
    assert "a text\n  without any label is an empty line" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian x", "no command 'trian' (did you mean 'train'?); see srucli --help"),
        (
            "--vresion",
            "srucli has no flag --vresion (did you mean '--version'?)",
        ),
        ("--", "missing command; see srucli --help"),
        (
            "train x --epoch 3",
            "train has no flag --epoch (did you mean '--epochs'?); see srucli train --help",
        ),
        (
            "run x.yaml --seed 1",
            "run has no flag --seed; write train.seed=VALUE",
        ),
        (
            "train x --weight-decay 1",
            "train has no flag --weight-decay; write optim.",
        ),
        ("predict r x --qqq", "predict has no flag --qqq; see srucli predict --help"),
        ("train x -x", "train has no flag -x; see srucli train --help"),
        # Flags that have only the dashes and a few letters in common.
        ("train --input x", "train has no flag --input; see srucli train --help"),
        ("train x --gpu", "train has no flag --gpu; see srucli train --help"),
        ("encode m --ids", "encode has no flag --ids; see srucli encode --help"),
        ("predict r x --label y", "predict has no flag --label; see srucli predict --help"),
        # As fastText writes them.
        ("train x -lr 0.1", "train has no flag -lr (did you mean '--lr'?)"),
        ("train x -epoch 3", "train has no flag -epoch (did you mean '--epochs'?)"),
        ("train x --epochs", "--epochs needs a value; see srucli train --help"),
        ("train x --force=yes", "--force takes no value; see srucli train --help"),
        ("eval", "no RUN; see srucli eval --help"),
        ("eval run", "no FILE; see srucli eval --help"),
        ("info x y z", "'y z' is one argument too many; see srucli info --help"),
        ("compare x --seeds zero", "--seeds: 'zero' is not a whole number"),
        ("compare x --seeds 0", "--seeds: 0 is too small; the smallest is 1"),
        ("predict r x -k 0", "--top: 0 is too small; the smallest is 1"),
        ("predict r x --threshold 2", "--threshold: 2 is too large; the largest is 1"),
        ("encode m --output-format ids", "--output-format: 'ids' is unknown (did you mean 'id'?)"),
        ("tokenize x --vocab_sise=9", "tokenize has no flag --vocab-sise (did you mean "),
        (
            "info setings",
            "'setings' is no run, no tokenizer and no topic (did you mean ",
        ),
    ],
)
def test_a_wrong_command_line_is_one_sentence(run_main: RunMain, words: str, said: str) -> None:
    ended = run_main(*words.split())
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"srucli: {said}")
    assert ended.err.count("\n") == 1


def test_every_section_of_the_guide_is_a_topic(run_main: RunMain) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert re.findall("^## (.*)$", guide, re.MULTILINE) == list(TOPICS.values())
    listed = run_main("help").out
    assert all(f"\n  {topic} " in listed for topic in TOPICS)
    assert all(f"\n  {command} " in listed for command in GROUP.commands)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_its_section_as_plain_text(run_main: RunMain, topic: str) -> None:
    ended = run_main("help", topic)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{TOPICS[topic]}\n\n")
    assert is_narrow(line for line in ended.out.splitlines() if not line.startswith("    "))
    assert not re.search(r"\]\(|\*\*|```|\|-", ended.out)
    section = GUIDE.read_text(encoding="utf-8").partition(f"\n## {TOPICS[topic]}\n")[2]
    prose = re.sub(r"^```.*$|\]\([^)]*\)|[^\w\s]", " ", section.partition("\n## ")[0], flags=re.M)
    missing = {*prose.split()} - {*re.sub(r"[^\w\s]", " ", ended.out).split()}
    assert missing == set()


def test_code_and_tables_of_a_topic(run_main: RunMain) -> None:
    assert "\n    import torch\n    from srucli import SRU\n" in run_main("help", "python").out
    assert "\n3     a check such as `--fail-under` failed\n" in run_main("help", "exit-codes").out


def test_a_word_of_a_title_is_a_topic_and_so_is_a_command(run_main: RunMain) -> None:
    assert run_main("help", "Korean").out == run_main("help", "languages").out
    assert run_main("help", "train").out == run_main("train", "--help").out
    ended = run_main("help", "fromats")
    assert (ended.code, ended.out) == (2, "")
    assert "no topic or command 'fromats' (did you mean 'formats'?); see srucli help" in ended.err
