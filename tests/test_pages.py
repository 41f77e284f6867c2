"""The commands of pages run as they are written, on small data and with a small network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import QUICK, ROOT, RunMain, Tiny, child_environment, sentences, write_tsv

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "jq", "paste", "grep"))), reason="needs bash and jq"
)
POOL = [text for _, text in sentences()[60:300]]
TRUTH = {text: label for label, text in sentences()}


def blocks(page: str, heading: str = "# ") -> list[str]:
    """Return the indented blocks below a heading, up to the next one of its level."""
    text = (ROOT / page).read_text(encoding="utf-8")
    level = heading.partition(" ")[0]
    _, _, below = f"\n{text}".partition(f"\n{heading}")
    found: list[str] = []
    inside = False
    for line in below.partition(f"\n{level} ")[0].splitlines():
        if line.startswith("    "):
            found += [] if inside else [""]
            found[-1] += f"{line[4:]}\n"
        inside = line.startswith("    ")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with examples, a pool, a test file, and `srucli` with a small network in `bin`."""
    write_tsv(tmp_path / "labelled.tsv", sentences()[:60])
    write_tsv(tmp_path / "test.tsv", sentences()[300:500])
    for name in ("pool.txt", "unlabelled.txt"):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in POOL))
    words = " ".join(map(str, (*QUICK, "--epochs", 2)))
    program = tmp_path / "bin" / "srucli"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nsmall=; [ "$1" != train ] || small="{words}"\n'
        f'exec "{sys.executable}" -m srucli "$@" $small\n'
    )
    program.chmod(0o755)
    return tmp_path


def bash(folder: Path, script: str) -> str:
    """Run a script, and return its output; the last command of each pipeline must succeed."""
    environment = child_environment()
    environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
    words = ["bash", "-euc", script]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def accuracy(run_main: RunMain, run: Path) -> float:
    found = json.loads(run_main("eval", run, run.parents[1] / "test.tsv", "--json").out)
    return float(found["metrics"]["accuracy"])


def test_soft_labels_of_one_run_and_of_several(folder: Path, tiny: Tiny, run_main: RunMain) -> None:
    one, several, weighted = blocks("srucli/guide.md", "## Soft labels and weights")
    for name in ("large", "a"):
        shutil.copytree(tiny.run, folder / "runs" / name)
    bash(folder, "srucli train labelled.tsv -o runs/b")
    bash(folder, one)
    assert accuracy(run_main, folder / "runs" / "small") > 0.9
    bash(folder, several)
    assert accuracy(run_main, folder / "runs" / "student") > 0.9
    average = several[several.index("paste") :].replace("srucli train - -o runs/student", "cat")
    rows = [json.loads(line) for line in bash(folder, average).splitlines()]
    each = [
        [json.loads(line)["probabilities"] for line in (folder / name).read_text().splitlines()]
        for name in ("a.jsonl", "b.jsonl")
    ]
    assert [row["text"] for row in rows] == POOL
    for row, *own in zip(rows, *each, strict=True):
        mean = {label: (own[0][label] + own[1][label]) / 2 for label in own[0]}
        assert row["probabilities"] == pytest.approx(mean)
    trust = "".join(f'1,{label},"{text}"\n' for label, text in sentences()[:60])
    (folder / "reviews.csv").write_text(f"trust,label,text\n{trust}")
    bash(folder, weighted)


def test_active_learning(folder: Path, run_main: RunMain) -> None:
    ask, others, append, soft = blocks("docs/active_learning.md")
    ask = ask.replace("head -n 100", "head -n 40")
    bash(folder, ask)
    asked = (folder / "ask.txt").read_text().splitlines()
    first = folder / "runs" / "first"
    predicted = run_main("predict", "--json", first, folder / "pool.txt").out.splitlines()
    rows = [json.loads(line) for line in predicted]
    sure = {row["text"]: row["probability"] for row in rows}
    assert len(asked) == 40
    assert max(sure[text] for text in asked) <= min(
        value for text, value in sure.items() if text not in asked
    )
    values = (json.loads(predicted[0])["probabilities"]).values()
    wanted = [sorted(values)[-1] - sorted(values)[-2], min(abs(value - 0.5) for value in values)]
    (folder / "one.jsonl").write_text(predicted[0])
    for expression, value in zip(others.splitlines(), wanted, strict=True):
        found = bash(folder, f"jq -r '{expression}' one.jsonl").partition("\t")
        assert float(found[0]) == pytest.approx(value)
        assert found[2] == f"{rows[0]['text']}\n"
    write_tsv(folder / "answers.tsv", [(TRUTH[text], text) for text in asked])
    bash(folder, append)
    rest = (folder / "rest.txt").read_text().splitlines()
    assert rest == [text for text in POOL if text not in asked]
    assert accuracy(run_main, folder / "runs" / "second") > 0.9
    bash(folder, soft)
    assert accuracy(run_main, folder / "runs" / "third") > 0.9
