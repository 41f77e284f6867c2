"""What a shell completes: names, settings and run folders, without importing torch.

Typer asks these functions, in a process of its own for each Tab; an empty list leaves the word to
the shell, which completes names of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import compress
from pathlib import Path

import typer

# The rows of `metrics/table.py`, which imports SciPy.
METRICS = (
    *("accuracy", "macro_f1", "micro_f1", "weighted_f1", "hamming_loss", "log_loss"),
    *("calibration_error", "auc", "average_precision", "micro_average_precision"),
)
# Entries of a folder that are looked at.
MAX_ENTRIES = 1_000


def values_of(setting: str) -> list[str]:
    """Return the values that a dotted setting may have, if there are few."""
    if setting == "optim.name":
        from srucli.optim.table import OPTIMIZERS

        return list(OPTIMIZERS)
    if setting == "train.metric":
        return ["auto", *METRICS]
    if setting == "train.device":
        return ["auto", "cpu", "cuda"]
    from srucli.config import choices

    return choices(setting)


def of_setting(setting: str) -> Callable[[str], list[str]]:
    """Return a function that completes the value of a flag, also within a comma list."""

    def complete(incomplete: str) -> list[str]:
        before, comma, _ = incomplete.rpartition(",")
        return [before + comma + value for value in values_of(setting)]

    return complete


def overrides(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete KEY=VALUE. bash passes KEY, = and VALUE as three words."""
    key, equals, _ = incomplete.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values(key)]
    words = [word for word in ctx.params.get("overrides") or () if word != "="]
    last = [*(ctx.params.get("overrides") or ()), ""][-2:-1]
    if words and (last == ["="] or not incomplete) and (values := _values(words[-1])):
        return values
    return keys(incomplete)


def _values(key: str) -> list[str]:
    """Return the values that a setting may have, or its default; none if it is unknown."""
    from srucli.config import default_of, known_keys

    return (values_of(key) or [default_of(key)]) if key in known_keys() else []


def keys(incomplete: str) -> list[str]:
    """Return the dotted settings that begin so, with the = that follows them."""
    from srucli.config import default_of, known_keys

    settings = (key for key in known_keys() if not key.startswith("files."))
    return _with_value([key for key in settings if key.startswith(incomplete)], default_of)


def metrics(incomplete: str) -> list[str]:
    """Return the metrics that begin so, with the = that follows them."""
    return _with_value([name for name in METRICS if name.startswith(incomplete)], lambda _: "0.9")


def _with_value(names: list[str], example: Callable[[str], str]) -> list[str]:
    """Return names with the = that follows them.

    A single one has a value beside it, since bash adds a blank after the only word that fits.
    """
    values = [f"{name}={example(name)}" for name in names] if len(names) == 1 else []
    return [f"{name}=" for name in names] + values


def configurations(incomplete: str) -> list[str]:
    """Return the recipes; a name of a file that none begins with is left to the shell."""
    from srucli.config import recipes

    return [name for name in recipes() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Return the run folders whose path begins so, also those in `runs`."""
    return _folders(incomplete, "run.json")


def bases(incomplete: str) -> list[str]:
    """Return the folders from which a training may start: runs, and pretrained vectors."""
    return _folders(incomplete, "run.json", "pretrained.json")


def _folders(incomplete: str, *files: str) -> list[str]:
    typed, slash, _ = incomplete.rpartition("/")
    places = [typed + slash] if slash else ["", "runs/"]
    return [found for place in places for found in _folders_in(place, files)]


def _folders_in(place: str, files: tuple[str, ...]) -> list[str]:
    try:
        entries = sorted(os.listdir(place or "."))[:MAX_ENTRIES]
    except OSError:
        return []
    found = [any(Path(place, name, file).is_file() for file in files) for name in entries]
    return [place + name for name in compress(entries, found)]


def topics(incomplete: str) -> list[str]:
    """Return what `srucli info` describes."""
    return ["machine", "settings", "recipes", "schema", *bases(incomplete)]


def optimizers() -> list[str]:
    """Return the names of the table of optimizers."""
    return values_of("optim.name")
