"""Draw the README's two plots from the tables of `docs/results.md`.

    python docs/make_plots.py

writes `docs/plots/accuracy.svg` and `docs/plots/encoders.svg`. Each contains a hash of its numbers,
so that a test fails if the tables have changed since.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
RESULTS, PLOTS = DOCS / "results.md", DOCS / "plots"
NAMES = {
    "srucli": "srucli",
    "fasttext-good": "fastText, good",
    "linear-svm": "linear SVM",
    "linear-svm-good": "linear SVM, best",
}
# A second version of the demo set, and a set that is measured by macro-F1.
LEFT_OUT = {"django_keep_all", "goemotions"}
COLORS = {
    "srucli": "#d1495b",
    "fasttext-good": "#30638e",
    "linear-svm": "#b8b08d",
    "linear-svm-good": "#7d7644",
    "sru": "#d1495b",
    "lstm": "#30638e",
    "gru": "#00798c",
    "cnn": "#edae49",
    "bag": "#8d96a3",
}
STYLE: dict[Any, object] = {
    "font.size": 9,
    "svg.hashsalt": "srucli",
    "svg.fonttype": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "font.family": "sans-serif",
}
# A point of a plot: its x and y values.
Dot = tuple[float, float]


def table(*heads: str) -> list[dict[str, str]]:
    """Return the rows of the first table in the results whose first columns are `heads`."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if cells(line)[: len(heads)] == list(heads))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(cells(lines[start]), cells(line), strict=True)))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def number(cell: str) -> float:
    """Return the number in a cell, without a standard deviation that follows it."""
    return float(cell.partition(" ")[0].replace(",", ""))


def systems() -> dict[str, dict[str, Dot]]:
    """Return mean accuracy against median training time, and against median model size."""
    accuracy = [row for row in table("set", "metric") if row["metric"] == "accuracy"]
    costs = table("set", "system")
    sets = [row["set"] for row in accuracy if row["set"] not in LEFT_OUT]
    found: dict[str, dict[str, Dot]] = {"training, seconds": {}, "model, MB": {}}
    for system in NAMES:
        mean = fmean(number(row[system]) for row in accuracy if row["set"] in sets)
        own = [row for row in costs if row["system"] == system and row["set"] in sets]
        for title, column in (("training, seconds", "training, s"), ("model, MB", "MB")):
            found[title][system] = (median(number(row[column]) for row in own), mean)
    return found


def encoders() -> dict[str, dict[str, Dot]]:
    """Return accuracy against training time relative to SRU's, for each set, in the recipe.

    Rows without a time are left out.
    """
    found: dict[str, dict[str, Dot]] = {}
    for row in table("set", "model", "encoder"):
        if row["model"] == "recipe" and row["relative to sru"]:
            dot = number(row["relative to sru"]), number(row["accuracy"])
            found.setdefault(row["set"], {})[row["encoder"]] = dot
    return found


def digest(panels: Mapping[str, Mapping[str, Dot]]) -> str:
    """Return a hash of the numbers of a plot."""
    return hashlib.sha256(json.dumps(panels, sort_keys=True).encode()).hexdigest()[:16]


def drawn_digest(path: Path) -> str | None:
    found = re.search(r"<dc:description>(\w+)</dc:description>", path.read_text(encoding="utf-8"))
    return found[1] if found else None


def draw(
    panels: Mapping[str, Mapping[str, Dot]], path: Path, log: bool, below: str, height: float
) -> None:
    """Draw one panel per entry of `panels`, each `height` points of accuracy high, and a legend."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.0), layout="constrained")
        for place, (title, dots) in enumerate(panels.items()):
            plot = figure.add_subplot(1, len(panels), place + 1)
            for name, dot in dots.items():
                plot.scatter(*dot, color=COLORS[name], s=70, label=NAMES.get(name, name), zorder=3)
            decorate(plot, dots, log, height)
            plot.set_title(title, fontsize=9)
            plot.set_xlabel(below)
            if place == 0:
                plot.set_ylabel("accuracy, %")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        figure.savefig(path, metadata={"Date": None, "Description": digest(panels)})


def decorate(plot: Axes, dots: Mapping[str, Dot], log: bool, height: float) -> None:
    """Set the scales, with some room around the points."""
    acrosses, ups = zip(*dots.values(), strict=True)
    middle = (min(ups) + max(ups)) / 2
    plot.set_ylim(middle - height / 2, middle + height / 2)
    if log:
        plot.set_xscale("log")
        plot.set_xlim(min(acrosses) / 2, max(acrosses) * 2)
        plot.xaxis.set_major_formatter("{x:g}")
    else:
        plot.set_xlim(0, max(acrosses) * 1.15)


def main() -> None:
    PLOTS.mkdir(exist_ok=True)
    draw(systems(), PLOTS / "accuracy.svg", log=True, below="", height=4)
    draw(encoders(), PLOTS / "encoders.svg", log=False, below="training time / SRU's", height=4.5)


if __name__ == "__main__":
    main()
