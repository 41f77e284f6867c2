"""The order of imports, the README's map of the files, and the size of files and classes.

Imports are read from the source. A file imports only from files above it in the README's map, and a
package only from packages above it. These count as imports: `import` and `from` statements anywhere
in a file (also inside functions and under TYPE_CHECKING), and every string that names a module of
srucli, alone or followed by `:NAME`, because `import_module`, `python -m` and the tables of back
ends and optimizers take such strings.

An edge connects two packages, if any file of the first imports any file of the second. A file at
the top of `srucli/` counts as a package. `python -m pytest -s tests/test_architecture.py` prints
all edges.
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
# Packages and top-level files, bottom first.
ORDER = (
    *("errors", "io", "config", "metrics", "kernels", "runtime", "tokenizer", "ngrams", "model"),
    *("optim", "data", "runs", "diagnostics", "inference", "training", "experiments"),
    *("api", "sklearn", "__init__", "cli", "__main__"),
)
MAX_EDGES, MAX_FILE, MAX_CLASS, MAX_TRAINER, MAX_TRAINER_ARGUMENTS = 110, 450, 220, 160, 8
MODULE_STRING = re.compile(r"(srucli(?:\.\w+)+)(?::\w+)?")


@cache
def modules() -> dict[str, Path]:
    """Return every file of the package by its path without `.py`, such as `io/files`."""
    found = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in found}


@cache
def syntax_tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def is_empty(module: str) -> bool:
    return not syntax_tree(module).body


def module_of(dotted: str) -> str | None:
    """Return `io/files` for `srucli.io.files`, and None if there is no such module."""
    path = "/".join(dotted.split(".")[1:])
    candidates = (path, f"{path}/__init__".lstrip("/"))
    return next((name for name in candidates if name in modules()), None)


def imported_names(node: ast.AST) -> list[str]:
    """Return the dotted names that one node of a syntax tree imports, or names in a string."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute, so that a search finds them"
        assert node.module is not None
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        # `from srucli.io import files` names a module, `from srucli.io.files import f` does not.
        return [name if module_of(name) else node.module for name in names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        match = MODULE_STRING.fullmatch(node.value)
        return [match[1]] if match else []
    return []


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules of srucli that a module imports, without empty `__init__.py` files."""
    names = [name for node in ast.walk(syntax_tree(module)) for name in imported_names(node)]
    found = {module_of(name) for name in names if name.split(".")[0] == "srucli"} - {None, module}
    return frozenset(name for name in found if name is not None and not is_empty(name))


def top(module: str) -> str:
    return module.split("/")[0]


def edges() -> list[tuple[str, str]]:
    found = {(top(module), top(other)) for module in modules() for other in imports(module)}
    return sorted((a, b) for a, b in found if a != b)


@cache
def files_in_map() -> list[str]:
    """Return the files in the README's map, in its order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("\n## Map of the files\n")
    rows = re.findall(r"^\| (`.*?) \| .+ \|$", rest.partition("\n## ")[0], re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([\w/]+)\.py`", row)]


def line_count(node: ast.ClassDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_number_of_edges() -> None:
    packages = {top(module) for module in modules() if "/" in module}
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values())
    print(f"\n{len(packages)} packages, {len(modules())} files, {lines:,} lines")
    print(f"{len(edges())} edges: {', '.join(f'{a} -> {b}' for a, b in edges())}")
    assert len(edges()) <= MAX_EDGES


def test_packages_import_only_from_packages_above_them() -> None:
    assert {top(module) for module in modules()} == set(ORDER)
    backwards = [(a, b) for a, b in edges() if ORDER.index(a) < ORDER.index(b)]
    assert backwards == []


def test_files_import_only_from_files_above_them() -> None:
    position = {module: number for number, module in enumerate(files_in_map())}
    backwards = [
        f"{module} imports {other}"
        for module in position
        for other in imports(module)
        if position[other] > position[module]
    ]
    assert backwards == []


def test_map_has_every_file_once_and_packages_in_order() -> None:
    files = {module for module in modules() if not is_empty(module)} - {"__main__"}
    assert sorted(files_in_map()) == sorted(files)
    tops = [top(module) for module in files_in_map()]
    assert all(ORDER.index(a) <= ORDER.index(b) for a, b in pairwise(tops))


@pytest.mark.parametrize("module", modules())
def test_files_and_classes_are_short(module: str) -> None:
    assert len(modules()[module].read_text(encoding="utf-8").splitlines()) <= MAX_FILE
    for node in ast.walk(syntax_tree(module)):
        if isinstance(node, ast.ClassDef):
            assert line_count(node) <= MAX_CLASS, node.name


def test_trainer_is_short() -> None:
    body = syntax_tree("training/trainer").body
    (trainer,) = (x for x in body if isinstance(x, ast.ClassDef) and x.name == "Trainer")
    assert line_count(trainer) <= MAX_TRAINER
    functions = (x for x in trainer.body if isinstance(x, ast.FunctionDef))
    (init,) = (x for x in functions if x.name == "__init__")
    arguments = [*init.args.args, *init.args.kwonlyargs]
    assert len(arguments) - 1 <= MAX_TRAINER_ARGUMENTS


# Besides: messages about input, the state of a training, and the pipes of child processes.
WITH_JSON = {
    *("io/json_text", "io/json_objects", "data/json_reader", "runs/training_state"),
    *("io/children", "io/child", "tokenizer/training", "tokenizer/child", "training/resume"),
    *("experiments/scheduler", "experiments/trial_process"),
}


def test_json_is_written_and_read_in_one_place() -> None:
    found = {
        module
        for module in modules()
        for node in ast.walk(syntax_tree(module))
        if isinstance(node, ast.Attribute) and node.attr in ("dumps", "loads", "dump", "load")
        if isinstance(node.value, ast.Name) and node.value.id == "json"
    }
    assert found <= WITH_JSON


def test_no_file_imports_a_private_name() -> None:
    private = [
        f"{module}: {alias.name}"
        for module in modules()
        for node in ast.walk(syntax_tree(module))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("srucli")
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert private == []
