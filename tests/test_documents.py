"""Every command and example of the documents runs; Korean documents say what the English ones say.

Commands run as they are written, in bash, on small data and with a small network. Commands within a
sentence are parsed by `tests/test_docs.py`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srucli.api import training
from srucli.cli import app
from tests import fork_server
from tests.support import QUICK, ROOT, Tiny, child_environment, sentences, write_tsv
from tests.test_docs import script

TUTORIAL = script("make_tutorial")
# Not here: docs/commands.md, which is made of help texts (tests/test_docs.py).
PAGES = [
    *("README.md", "README.ko.md", "CONTRIBUTING.md", "data/README.md"),
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("srucli/*.md"))),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
]
PAGES.remove("docs/commands.md")
ELSEWHERE = {
    "docs/active_learning.md": "tests/test_pages.py",
    "docs/python.md": "tests/api/test_page.py",
}
MEASURES = "takes long; a measurement of its own, not a command of srucli"
INSTALLS = "changes the Python environment"
# Commands that are not run, by their beginning, each with its reason.
NOT_RUN = {
    "pip install '.[": INSTALLS,
    "pip install .": INSTALLS,
    "python3 -m venv .venv": INSTALLS,
    ". .venv/bin/activate": INSTALLS,
    "make test": "runs these tests",
    "make check": "is run by CI",
    "make demo": "takes minutes; the tutorial's commands are nearly the same",
    "tail -f messages.log |": "never ends; tests/inference/test_stream.py has endless streams",
    "docker ": "needs Docker",
    "python -m benchmarks.": MEASURES,
    "python -m tests.": MEASURES,
    "srucli compare trec/train.tsv.gz": MEASURES,
}
TRAINED = ("--threads", "1", "--batch-size", "16", "--epochs", "1")
NETWORK = ("model.hidden=8", "model.layers=1", "model.embedding_size=16")
SMALL = {
    "train": [*map(str, QUICK), "--epochs", "1"],
    "pretrain": ["--epochs", "1", "--embedding-size", "16"],
    "compare": ["--epochs", "1", "--grid", "1", "--seeds", "2", "--jobs", "1", *NETWORK],
    "crossval": ["--epochs", "1", "--folds", "2", "--repeats", "1", *NETWORK],
    "tune": ["--minutes", "0.25"],  # less may end before a first trial on a busy machine
}
API: dict[str, Any] = {"threads": 1, "hidden": 16, "embedding_size": 16, "epochs": 1}
already_run: set[str] = set()


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, kind: str) -> list[str]:
    """Return the blocks of a page that are of a kind: shell, python or text."""
    return [block for block in TUTORIAL.blocks(text_of(page)) if TUTORIAL.kind(block) == kind]


def commands_of(block: str) -> list[str]:
    """Return the commands of a shell block, without comments."""
    return [re.sub(r"\s+# .*", "", each) for each in TUTORIAL.commands(block)]


def commands(page: str) -> list[str]:
    return [each for block in blocks(page, "shell") for each in commands_of(block)]


def is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `srucli`, whose networks are small and whose start takes no seconds."""
    folder = tmp_path_factory.mktemp("bin")
    path = folder / "socket"
    words = [sys.executable, "-m", "tests.fork_server", str(path)]
    with subprocess.Popen(
        words, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            program = folder / "srucli"
            client = {"python": sys.executable, "small": SMALL, "kept": list(TRAINED)}
            program.write_text(fork_server.CLIENT.format(**client, path=str(path)))
            program.chmod(0o755)
            yield folder
        finally:
            server.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that documents name."""
    rows = sentences()
    for name, own in (("reviews", 200), ("data", 100), ("more", 80), ("few", 40)):
        write_tsv(tmp_path / f"{name}.tsv", rows[:own])
    for name in ("dev", "test"):
        write_tsv(tmp_path / f"{name}.tsv", rows[300:400])
    for name in ("reviews.txt", "new.txt", "unlabelled.txt"):
        (tmp_path / name).write_text("".join(f"{text}\n" for _, text in rows[400:500]))
    tables = {"reviews": "Stars,Review,trust", "news": "label,body,title"}
    for name, header in tables.items():
        lines = "".join(f'{label},"{text}",1\n' for label, text in rows[:100])
        (tmp_path / f"{name}.csv").write_text(f"{header}\n{lines}")
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "my.yaml").write_text("model: {layers: 1}\n")
    posts = "".join(f'{label},"{text}",{n % 20}\n' for n, (label, text) in enumerate(rows[:200]))
    (tmp_path / "posts.csv").write_text(f"label,text,author\n{posts}")
    return tmp_path


def provide_runs(folder: Path, block: str, tiny: Tiny) -> None:
    """Copy a trained run to each `runs/NAME` that a block reads, and remove those it makes."""
    made = {*re.findall(r"-o (runs/[\w-]+)", block)}
    for name in made:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in {*re.findall(r"runs/[\w-]+", block)} - made:
        if not (folder / name).exists() and f"--plots {name}" not in block:
            shutil.copytree(tiny.run, folder / name)


def bash(folder: Path, programs: Path, command: str) -> None:
    """Run a command, which must succeed in each part of its pipelines."""
    environment = child_environment(PATH=f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin")
    words = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "jq", "paste", "grep", "awk", "shuf"))),
    reason="needs bash, jq and awk",
)
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_commands_and_examples_run(
    page: str, folder: Path, programs: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "tutorial" in page:
        pytest.importorskip("django", reason="Django is not installed: pip install 'srucli[demo]'")
    for block in blocks(page, "shell"):
        if block not in already_run or "tutorial" in page:
            provide_runs(folder, block, tiny)
            for command in filter(is_run, commands_of(block)):
                bash(folder, programs, command)
            already_run.add(block)
        for path in folder.glob("demo/nordic-*.tsv"):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join(lines[:200]), encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(training, "train", small(training.train))
    labels, texts = map(list, zip(*sentences()[:100], strict=True))
    names: dict[str, Any] = {"texts": texts, "labels": labels}
    for number, example in enumerate(blocks(page, "python"), 1):
        exec(compile(example, f"{page}, example {number}", "exec"), names)


def small(train: Any) -> Any:
    """Return `srucli.train` with a small network, in a folder that is new for each call."""

    def call(*given: Any, **how: Any) -> Any:
        shutil.rmtree(how["output"], ignore_errors=True)
        return train(*given, **{**how, **API})

    return call


def test_commands_that_are_not_run_exist() -> None:
    found = [command for page in PAGES for command in commands(page)]
    for start in NOT_RUN:
        assert any(map(str.startswith, found, [start] * len(found))), f"delete {start!r} here"
    for page, test in ELSEWHERE.items():
        assert Path(page).name in text_of(test)


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page)):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


# Each English document that has a Korean one, with the headings that only one of them has.
PAIRS = {
    "README.md": ("README.ko.md", {"Map of the files"}, {"한국어"}),
    "docs/tutorial.md": ("docs/tutorial.ko.md", set(), set()),
}
KOREAN = {"srucli train reviews.tsv -c korean"}
PAIRED = pytest.mark.parametrize("page", PAIRS)


def headings(page: str) -> list[str]:
    return re.findall(r"^## (.+)", text_of(page), re.MULTILINE)


def decimals(text: str) -> set[str]:
    return set(re.findall(r"(?<![\d.,])\d[\d,]*\.\d+", text))


@PAIRED
def test_documents_in_two_languages_have_the_same_sections(page: str) -> None:
    korean, only_english, only_korean = PAIRS[page]
    for one, other in ((page, korean), (korean, page)):
        link = f"]({Path(other).name})"
        assert link in "".join(text_of(one).splitlines(keepends=True)[:4]), f"{one} has no {link}"
    assert only_english <= {*headings(page)}
    assert only_korean <= {*headings(korean)}
    count, of_korean = len(headings(page)), len(headings(korean))
    assert count - len(only_english) == of_korean - len(only_korean)


def test_every_korean_document_has_an_english_one() -> None:
    found = {page for page in PAGES if page.endswith(".ko.md")}
    assert found == {korean for korean, _, _ in PAIRS.values()}


def test_readmes_have_the_same_commands_and_examples() -> None:
    english, korean = (
        {each for each in commands(page) if not each.startswith("pip ")}
        for page in ("README.md", "README.ko.md")
    )
    assert korean - KOREAN == english
    first, second = (
        [block.splitlines()[:3] for block in blocks(page, "python")]
        for page in ("README.md", "README.ko.md")
    )
    assert first == second
    for command in app.registered_commands:
        assert f"`srucli {command.name}" in text_of("README.ko.md")


def rows(page: str) -> dict[str, list[str]]:
    """Return the cells of the table of accuracies by the name of the set, without notes."""
    lines = re.findall(r"^\| (\w+)(?: \([^)]*\))? \|([^`\n]+)\|$", text_of(page), re.MULTILINE)
    table = {name: [cell.strip() for cell in cells.split("|")] for name, cells in lines}
    return {name: cells for name, cells in table.items() if len(cells) == 8 and name != "데이터"}


def test_readmes_have_the_same_figures() -> None:
    english, korean = rows("README.md"), rows("README.ko.md")
    assert {"nsmc_rebuilt", "korean_hate", "sst2", "trec", "wisesight"} <= {*korean}
    assert {name: english[name] for name in korean} == korean
    for page in ("README.ko.md", "docs/tutorial.ko.md"):
        prose = re.sub(r"^(?:    |\|).*", "", text_of(page), flags=re.MULTILINE)
        assert decimals(prose) <= decimals(text_of("README.md"))


TUTORIALS = pytest.mark.parametrize("page", TUTORIAL.PAGES)


def transcript(page: str) -> str:
    return text_of(f"docs/examples/{page}.txt")


@TUTORIALS
def test_tutorials_quote_what_their_commands_printed(page: str) -> None:
    printed = transcript(page)
    own = [each for each in commands(f"docs/{page}.md") if is_run(each)]
    places = [printed.index(f"$ {command}\n") for command in own]
    assert places == sorted(places), "run `make tutorials`"
    quoted = [
        line
        for block in blocks(f"docs/{page}.md", "text")
        if not block.startswith("긍정\t")  # sentences of the tutorial itself
        for line in block.splitlines()
    ]
    assert len(quoted) > 10
    for line in quoted:
        assert line in printed, "run `make tutorials`, and quote the new output"


@TUTORIALS
def test_plots_of_tutorials_are_of_the_same_run(page: str) -> None:
    plots = ROOT / "docs" / "plots"
    drawn = re.findall(r">(\d+)</text>", (plots / f"{page}-confusion.svg").read_text("utf-8"))
    table = transcript(page).partition("true \\ predicted")[2].partition("runs/plots")[0]
    counts = re.findall(r" (\d+)\b", table)
    assert len(counts) in (16, 25)
    assert sorted(drawn) == sorted(count for count in counts if count != "0")
    assert sum(path.stat().st_size for path in plots.glob("tutorial*.svg")) < 300_000
