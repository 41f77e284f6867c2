"""What a shell is offered: Typer's protocol, with the variables that its scripts set."""

from __future__ import annotations

from pathlib import Path

import pytest

from srucli.cli import completion
from srucli.metrics import METRICS
from tests.support import ROOT, RunCli, RunMain, Tiny


def offered(run_main: RunMain, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """Return what bash is offered for the last word of a line, divided as bash divides it."""
    words = line.replace("=", " = ").split(" ")
    monkeypatch.setenv("_SRUCLI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len([word for word in words[:-1] if word])))
    ended = run_main()
    assert (ended.code, ended.err) == (0, "")
    return ended.out.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("srucli tr", ["train"]),
        ("srucli train --opt", ["--optimizer"]),
        ("srucli train --optimizer adama", ["adamax"]),
        ("srucli train --encoder ", ["sru", "lstm", "gru", "cnn", "bag"]),
        ("srucli train --format f", ["fasttext"]),
        # Of one word, bash would end the line with a blank.
        ("srucli train x model.la", ["model.layers=", "model.layers=2"]),
        ("srucli train x model.layers=", ["2"]),
        ("srucli train x model.encoder=l", ["lstm"]),
        ("srucli run x train.metric=acc", ["accuracy"]),
        ("srucli compare x --optimizer adam,lio", ["adam,lion"]),
        ("srucli compare x --over model.la", ["model.layers=", "model.layers=2"]),
        ("srucli tokenize --model-type w", ["word"]),
        ("srucli eval r x --fail-under acc", ["accuracy=", "accuracy=0.9"]),
        ("srucli optimizers nad", ["nadam"]),
        ("srucli info s", ["settings", "schema"]),
        ("srucli help exit", ["exit-codes"]),
        ("srucli help tr", ["trackers", "train"]),
        ("srucli info rec", ["recipes"]),
        ("srucli train x -c k", ["kim_cnn", "korean"]),
        ("srucli train x -c my", []),  # bash completes names of files
        ("srucli train ./", []),  # bash completes names of files
    ],
)
def test_what_bash_is_offered(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch, line: str, words: list[str]
) -> None:
    assert offered(run_main, monkeypatch, line) == words


def test_run_folders_are_offered(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Tiny
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "runs/two"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tiny.run)
    (tmp_path / "runs" / "three").mkdir()
    for command in ("eval", "predict", "diagnose", "train --resume", "train x --from"):
        assert offered(run_main, monkeypatch, f"srucli {command} ") == ["one", "runs/two"]
    assert offered(run_main, monkeypatch, "srucli info runs/") == ["runs/two"]


@pytest.mark.parametrize(
    ("shell", "variables", "said"),
    [
        ("zsh", {}, '"model.encoder=lstm"'),
        ("fish", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "model.encoder=lstm"),
    ],
)
def test_other_shells(
    run_main: RunMain,
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    variables: dict[str, str],
    said: str,
) -> None:
    monkeypatch.setenv("_SRUCLI_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "srucli train x model.encoder=l")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert said in run_main().out


def test_completing_imports_nothing_heavy(run_cli: RunCli) -> None:
    variables = {
        "_SRUCLI_COMPLETE": "complete_bash",
        "COMP_WORDS": "srucli train x model.encoder = ",
        "COMP_CWORD": "5",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = run_cli(cwd=ROOT, env=variables)
    assert done.stdout.split() == ["sru", "lstm", "gru", "cnn", "bag"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "srucli.config.sections" in imported
    assert not imported & {"torch", "numpy", "scipy", "numba", "rich", "sentencepiece"}


def test_the_metrics_are_those_of_the_table() -> None:
    assert tuple(METRICS) == completion.METRICS


@pytest.mark.parametrize(("shell", "path"), [("bash", ".bash_completions/srucli.sh")])
def test_completion_is_installed(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: str, path: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, shell))
    ended = run_main("--install-completion")
    assert ended.code == 0
    script = (tmp_path / path).read_text()
    assert "_SRUCLI_COMPLETE=complete_bash" in script
    shown = run_main("--show-completion")
    assert shown.out.strip() == script.strip()
