"""The recipes: configurations that `-c` takes by name. Each is a YAML file in this folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from srucli.errors import InputMissingError

FOLDER = Path(__file__).parent


def recipes() -> dict[str, Path]:
    """Return the file of each recipe by its name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def describe_recipes() -> Iterator[tuple[str, str]]:
    """Yield the name of each recipe, and what it is for: the first sentence of its comment."""
    for name, path in recipes().items():
        comment = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
        words = " ".join(comment[0].replace("#", "").split()) if comment else ""
        yield name, words.partition(". ")[0].rstrip(".")


def configuration(word: str) -> Path:
    """Return the file that is meant by a recipe's name or a path.

    A name is the recipe, whatever files there are: it means the same in each folder. Raises
    InputMissingError if `word` is neither.
    """
    known, path = recipes(), Path(word)
    if word in known:
        return known[word]
    if path.exists() or path.is_symlink():
        return path
    if path.name == word and not path.suffix:
        raise InputMissingError(
            f"-c {word}: neither a recipe nor a file; the recipes are {', '.join(known)}"
        )
    if path.stem in known:
        raise InputMissingError(f"-c {word}: no such file; pass -c {path.stem} for the recipe")
    return path
