"""The order of imports, read from the source: the README's map of the files is that order.

A file imports only from files above it in the map, and a package only from packages above it. What
counts as an import: `import` and `from` statements anywhere in a file, those within functions and
for type checking included, and every string that is the name of a module of srucli, alone or with
`:NAME` behind it, since `import_module`, `-m` and the tables of back ends and optimizers take such.

An edge is a pair of a package, or of a file that lies at the top of `srucli/`, and another one that
any of its files imports. `python -m pytest -s tests/test_architecture.py` prints them all.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "srucli"
# Bottom first. A package and a file at the top are named alike.
ORDER = (
    *("errors", "io", "config", "metrics", "kernels", "runtime", "tokenizer", "model", "optim"),
    *("data", "runs", "diagnostics", "inference", "training", "experiments"),
    *("__init__", "cli", "__main__"),
)
MAX_EDGES, MAX_FILE, MAX_CLASS, MAX_TRAINER, MAX_TRAINER_ARGUMENTS = 90, 450, 220, 160, 8
NAMED = re.compile(r"(srucli(?:\.\w+)+)(?::\w+)?")
not_yet = pytest.mark.xfail(reason="the files are being divided")


@cache
def modules() -> dict[str, Path]:
    """Every file of the package by its place in it, as `io/files`; `__init__` for a package."""
    found = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in found}


def is_empty(module: str) -> bool:
    return not modules()[module].read_text(encoding="utf-8").strip()


def module_of(dotted: str) -> str | None:
    """`io/files` for `srucli.io.files`; None for what is no module."""
    place = "/".join(dotted.split(".")[1:])
    return next(
        (name for name in (place, f"{place}/__init__".lstrip("/")) if name in modules()), None
    )


def named(node: ast.AST) -> list[str]:
    """The dotted names that one node of a file's syntax tree imports or names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are written out, so that a search finds them"
        assert node.module is not None
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        # `from srucli.io import files` names a module, `from srucli.io.files import f` does not.
        return [name if module_of(name) else node.module for name in names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        found = NAMED.fullmatch(node.value)
        return [found[1]] if found else []
    return []


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of srucli that a module imports or names, empty `__init__.py` left out."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    names = [
        name for node in ast.walk(tree) for name in named(node) if name.split(".")[0] == "srucli"
    ]
    found = {module_of(name) for name in names} - {None, module}
    return frozenset(name for name in found if name is not None and not is_empty(name))


def top(module: str) -> str:
    return module.split("/")[0]


def edges() -> list[tuple[str, str]]:
    found = {(top(module), top(other)) for module in modules() for other in imports(module)}
    return sorted((a, b) for a, b in found if a != b)


@cache
def the_map() -> list[str]:
    """The files in the README's map, in its order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("\n## Map of the files\n")
    rows = re.findall(r"^\| (`.*?) \| .+ \|$", rest.partition("\n## ")[0], re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([\w/]+)\.py`", row)]


def test_packages_and_files_and_edges_are_few() -> None:
    packages = {top(module) for module in modules() if "/" in module}
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values())
    print(f"\n{len(packages)} packages, {len(modules())} files, {lines:,} lines")
    print(f"{len(edges())} edges: {', '.join(f'{a} -> {b}' for a, b in edges())}")
    assert len(edges()) <= MAX_EDGES


def test_packages_import_from_those_below() -> None:
    """Bottom first in ORDER: whoever stands later may import what stands earlier."""
    assert {top(module) for module in modules()} <= set(ORDER)
    backwards = [(a, b) for a, b in edges() if ORDER.index(a) < ORDER.index(b)]
    assert backwards == []


@not_yet
def test_files_import_from_those_above_them_in_the_map() -> None:
    place = {module: number for number, module in enumerate(the_map())}
    backwards = [
        f"{module} imports {other}"
        for module in place
        for other in imports(module)
        if place[other] > place[module]
    ]
    assert backwards == []


def test_the_map_has_every_file_once_and_packages_in_order() -> None:
    files = {module for module in modules() if not is_empty(module)} - {"__main__"}
    assert sorted(the_map()) == sorted(files)
    tops = [top(module) for module in the_map()]
    assert all(ORDER.index(a) <= ORDER.index(b) for a, b in pairwise(tops))


@not_yet
@pytest.mark.parametrize("module", modules())
def test_files_and_classes_are_short(module: str) -> None:
    text = modules()[module].read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_CLASS, node.name


@not_yet
def test_the_trainer_is_a_loop() -> None:
    tree = ast.parse(modules()["training/trainer"].read_text(encoding="utf-8"))
    (trainer,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Trainer"
    )
    assert trainer.end_lineno is not None
    length = trainer.end_lineno - trainer.lineno + 1
    assert length <= MAX_TRAINER
    (made,) = (
        node
        for node in trainer.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    arguments = [*made.args.args, *made.args.kwonlyargs]
    assert len(arguments) - 1 <= MAX_TRAINER_ARGUMENTS


def test_no_file_imports_a_name_that_another_keeps_to_itself() -> None:
    """Names with an underscore are a file's own."""
    private = [
        f"{module}: {alias.name}"
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("srucli")
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert private == []
