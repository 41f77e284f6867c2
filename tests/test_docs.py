"""Documents must match the code: commands, plots, and commands in examples."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from srucli.cli import app
from srucli.cli.topics import GUIDE
from tests.support import ROOT


def script(name: str) -> Any:
    """Return a script of the `docs` folder as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_page_is_current() -> None:
    page = script("make_commands")
    assert set(page.COMMANDS) == {command.name for command in app.registered_commands}
    assert page.PATH.read_text(encoding="utf-8") == page.document(), "run `make docs`"


def test_plots_match_the_tables_of_results() -> None:
    plots = script("make_plots")
    for name, panels in (("accuracy", plots.systems()), ("encoders", plots.encoders())):
        digest = plots.drawn_digest(plots.PLOTS / f"{name}.svg")
        assert digest == plots.digest(panels), "run `make docs`"


def test_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"`srucli {command.name}" in readme


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", GUIDE, *sorted((ROOT / "docs").glob("*.md"))]
GROUP: Any = typer.main.get_command(app)
# `srucli NAME WORDS` up to the end of the shell command or of the code in backquotes.
COMMAND = re.compile(rf"(?<![\w/.-])srucli ({'|'.join(GROUP.commands)})\b([^`|;)>#$\n]*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_commands_in_documents_can_be_parsed(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, rest in COMMAND.findall(text):
        words = shlex.split(
            f"{rest}RUN FILE".replace('"RUN', "RUN") if rest.endswith('"') else rest
        )
        arguments = ["2" if re.fullmatch("[A-Z]", word) else word for word in words]
        if words and "[OPTIONS]" not in words:
            with GROUP.commands[name].make_context(name, arguments):
                pass
