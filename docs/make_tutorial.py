"""Run the commands of the tutorials, and keep what they print and draw.

    python docs/make_tutorial.py

runs the shell commands of `docs/tutorial.md` and `docs/tutorial.ko.md` in an empty folder (some
minutes) and writes `docs/examples/tutorial.txt`, `docs/examples/tutorial.ko.txt` and the
`docs/plots/tutorial-*.svg`. What the tutorials quote is compared with these by a test.
"""

from __future__ import annotations

import ast
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = ("tutorial", "tutorial.ko")
PROGRAMS = {
    *(".", "awk", "cat", "cut", "docker", "echo", "for", "grep", "jq", "make", "paste", "pip"),
    *("printf", "python", "python3", "shuf", "srucli", "tail", "wc"),
}
INSTALLS = ("python3 -m venv", ". .venv/", "pip install")


def blocks(text: str) -> list[str]:
    """Return the indented and the fenced blocks of a page, in order and without indentation."""
    found: list[str] = []
    inside = fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced, inside = not fenced, False
        elif fenced or line.startswith("    ") or (inside and not line):
            if not inside:
                found.append("")
            found[-1] += f"{line if fenced else line[4:]}\n"
            inside = True
        else:
            inside = False
    return [f"{block.rstrip()}\n" for block in found]


def kind(block: str) -> str:
    """Return what a block is: shell, python, or text such as the output of a command."""
    try:
        ast.parse(block)
    except SyntaxError:
        program = re.match(r"(?:[A-Z]\w*=\S+ )*(\S+)", block)
        return "shell" if program and program[1] in PROGRAMS else "text"
    return "python"


def commands(block: str) -> Iterator[str]:
    """Yield the commands of a shell block. Indented lines and `done` continue the line before."""
    for match in re.finditer(r"^\S.*\n(?:(?:\s.*|done.*)\n)*", block, re.MULTILINE):
        yield match[0].rstrip("\n")


def transcript(page: str, folder: Path) -> str:
    """Run the commands of a tutorial in a folder, and return each with what it printed."""
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    parts = []
    for block in blocks((DOCS / f"{page}.md").read_text(encoding="utf-8")):
        if kind(block) != "shell" or block.startswith(INSTALLS):
            continue
        for command in commands(block):
            start = time.monotonic()
            words = ["bash", "-euo", "pipefail", "-c", command]
            done = subprocess.run(
                words,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
            )
            print(f"$ {command}\n{done.stdout}", file=sys.stderr)
            if done.returncode:
                sys.exit(f"docs/{page}.md: exit code {done.returncode}")
            printed = done.stdout.replace(f"{folder}/", "")
            parts.append(f"$ {command}\n{printed}[{time.monotonic() - start:.0f} s]\n")
    return "\n".join(parts)


def keep_plots(page: str, folder: Path) -> None:
    """Keep the plots that a tutorial shows: those of `eval`, and the loss of a comparison."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    for name in re.findall(rf"\(plots/{re.escape(page)}-(\w+)\.svg\)", text):
        drawn = folder / "runs" / "plots" / f"{name}.svg"
        kept = DOCS / "plots" / f"{page}-{name}.svg"
        kept.write_bytes(drawn.read_bytes() if drawn.exists() else first_image(folder))


def first_image(folder: Path) -> bytes:
    """Return the first plot in the page of the comparison, as SVG."""
    page = (folder / "runs" / "optimizers" / "index.html").read_text(encoding="utf-8")
    image = re.search(r"data:image/svg\+xml;base64,([\w+/=]+)", page)
    if image is None:
        sys.exit("the comparison's page has no plot")
    return base64.b64decode(image[1])


def main() -> None:
    for page in sys.argv[1:] or PAGES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            (folder / "data").symlink_to(DOCS.parent / "data")
            text = transcript(page, folder)
            (DOCS / "examples" / f"{page}.txt").write_text(text, encoding="utf-8")
            keep_plots(page, folder)


if __name__ == "__main__":
    main()
