"""Read untrusted YAML safely and within limits, and write YAML that reads back equal.

Numbers are those of YAML 1.2, such as `1e-3`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from srucli.errors import UsageError
from srucli.io.console import excerpt
from srucli.io.streams import unreadable

# Limits of a document: bytes, values with aliases expanded, digits of a number.
MAX_YAML, MAX_NODES, MAX_DIGITS = 2**18, 10_000, 300
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses repeated keys, more than MAX_NODES values and long numbers."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            problem = f"more than {MAX_NODES:,} values"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            problem = f"a number of more than {MAX_DIGITS} digits"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                problem, mark = (
                    f"the key {excerpt(key_node.value)} appears twice",
                    key_node.start_mark,
                )
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes what `_Loader` reads as a number, and escapes unprintable text."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


# What PyYAML raises for invalid documents: for `!!timestamp x` an AttributeError.
_YAML_ERRORS = (
    *(yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError),
    OverflowError,
)


# What PyYAML says of common mistakes, by how it begins, and what they are.
_MISTAKES = {
    "found character '\\t'": "a tab where the indentation is; indent with spaces",
    "mapping values are not allowed": "a colon in a value; put the value in quotes",
    "expected ',' or ']'": "a list that began with [ has not ended; end it with ]",
    "expected ',' or '}'": "settings that began with { have not ended; end them with }",
    "could not find expected ':'": "a setting without a colon; write NAME: VALUE",
    "expected <block end>": "uneven indentation; indent the settings of a section alike",
    "aliases make more": f"aliases make more than {MAX_NODES:,} values of it; use fewer of them",
    "but found another document": "a second document; remove the line --- and what follows",
}


def _in_words(problem: str) -> str:
    """Return what is wrong and what to do, of an error of PyYAML or of `_Loader`."""
    known = (words for start, words in _MISTAKES.items() if problem.startswith(start))
    return next(known, f"{problem}; mend this line, or the one before it")


def load_yaml(path: Path) -> Any:
    """Read one YAML document. Raises InputMissingError or UsageError naming file and line."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML + 1)
    except OSError as error:
        raise unreadable(str(path), error) from error
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes, source: str) -> Any:
    """Return one YAML document as plain values. Raises UsageError naming `source`."""
    if len(data) > MAX_YAML:
        raise UsageError(f"{source}: more than {MAX_YAML:,} bytes; settings need a few thousand")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: not UTF-8 text at byte {error.start}") from error
    try:
        return _constructed(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = _in_words(error.problem or "")
        raise UsageError(f"{source}:{line}: not valid YAML: {problem}") from error
    except RecursionError:
        problem = "lists or sections within too many others; nest fewer"
        raise UsageError(f"{source}: not valid YAML: {problem}") from None
    except _YAML_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{source}: not valid YAML: {reason}") from error


def _constructed(text: str) -> Any:
    """Return the document in a text. Raises _YAML_ERRORS, also for too many values."""
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if _size(node, {}) > MAX_NODES:
        problem = f"aliases make more than {MAX_NODES:,} values of it"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return loader.construct_document(node)


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Count the values of a node with aliases expanded; infinite if it contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts: list[Any] = [] if isinstance(node, yaml.ScalarNode) else list(node.value)
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def parse_value(text: str) -> Any:
    """Return the value of a short text, as `1e-3` or `[a, b]`. Raises ValueError if invalid."""
    try:
        return _constructed(text)
    except _YAML_ERRORS as error:
        raise ValueError(f"{excerpt(text)} is not a YAML value") from error


def to_yaml(tree: Any) -> str:
    """Return a document, with keys in order, that `parse_yaml` reads back to an equal tree."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def to_word(value: Any) -> str:
    """Return a value in one line, as `[a, b]`."""
    return yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
