"""Plots of an evaluation, of a run's history and of diagnostics, as PNG and SVG.

The metrics are those of `srucli/metrics/`. No window opens, and matplotlib's global state stays.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from srucli import metrics
from srucli.errors import OutputError
from srucli.experiments.drawing import (
    Figure,
    FuncFormatter,
    NullFormatter,
    PowerNorm,
    rc_context,
    rcdefaults,
    rcParams,
)
from srucli.experiments.fonts import families
from srucli.io.console import abridged, escaped
from srucli.io.files import check_writable, unwritable, write_files
from srucli.io.folders import OpenFolder
from srucli.runs.claim import listing

if TYPE_CHECKING:
    from srucli.diagnostics.records import Diagnostics
    from srucli.inference.evaluation import Evaluation

INK, ACCENT, PALE, GRID = "#22303c", "#c2410c", "#9fb8cc", "#e5e9ed"
History = Sequence[Mapping[str, Any]]

# Names of the plots, and the mark in the first bytes of each file that srucli drew.
OF_EVALUATION, OF_DIAGNOSTICS = ("reliability", "learning", "confusion"), ("optimizer",)
DRAWN_BY, MARKED_WITHIN = "srucli: drawn anew by every command that draws it", 4096
KINDS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": DRAWN_BY}},
    "svg": {"metadata": {"Creator": DRAWN_BY, "Date": None}},
}
SHOWN_CLASSES = 100
COUNTED_CLASSES = 20
MAX_POINTS, MAX_CURVES = 2_000, 20
LABEL_WIDTH = 28  # in cells of a terminal, of the longest label that is shown whole
MAX_DRAWN = 1e100  # beyond it, the ends of axes overflow


def confusion_figure(result: Evaluation) -> Figure:
    """Draw the confusion matrix of a single-label evaluation, each row as shares of its true class.

    Of more than 100 classes, those with the most mistakes are shown.
    """
    cells, times = metrics.confused(result.outcome)
    true, predicted = cells.T
    classes, mistakes = result.outcome.classes, times * (true != predicted)
    wrong = np.bincount(true, mistakes, classes) + np.bincount(predicted, mistakes, classes)
    chosen = np.sort(np.argsort(-wrong, kind="stable")[:SHOWN_CLASSES])
    size, totals = len(chosen), np.bincount(true, times, classes)[chosen]
    counts = metrics.confusion(result.outcome, chosen)
    shares = counts / np.maximum(totals, 1)[:, None]
    names = [_short(result.names[index]) for index in chosen]
    title = "Confusion matrix"
    if size < classes:
        title += f": the {size} of {classes} classes with the most mistakes"
    side = float(np.clip(0.15 * size + 3.5, 5.5, 18.5))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    # The square root keeps rare mistakes from fading to white.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    font = float(np.clip(190 / size, 5.5, 10))
    axes.set_xticks(range(size), names, rotation=90, fontsize=font)
    axes.set_yticks(range(size), names, fontsize=font)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, label="share of the true class")
    if size <= COUNTED_CLASSES:
        for row, column in np.argwhere(counts):
            ink = "white" if shares[row, column] > 0.35 else INK
            number = f"{counts[row, column]:,}"
            axes.text(column, row, number, ha="center", va="center", color=ink, fontsize=font)
    return figure


def reliability_figure(result: Evaluation) -> Figure:
    """Draw accuracy against probability, and below it the number of texts per bin."""
    sure, right, count = metrics.reliability(result.outcome)
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    used = count > 0
    top.plot([0, 1], [0, 1], color=PALE, linestyle="--", label="perfectly calibrated")
    top.plot(sure[used], right[used], "o-", color=ACCENT, label="model, with 95% intervals")
    ends = [metrics.wilson(*each) for each in zip((right * count)[used], count[used], strict=True)]
    top.vlines(sure[used], *zip(*ends, strict=True), color=ACCENT, linewidth=0.8)
    error, chance = result.metrics["calibration_error"], result.calibration_by_chance
    top.set(
        xlim=(0, 1),
        ylim=(0, 1),
        ylabel="share of true labels" if result.outcome.multi_label else "accuracy",
        title=f"Reliability: calibration error {error:.3f},\nby chance up to {chance:.3f}",
    )
    top.legend(loc="upper left", frameon=False)
    edges = np.arange(metrics.BINS) / metrics.BINS
    bottom.bar(edges, count, width=1 / metrics.BINS, align="edge", color=PALE, edgecolor="white")
    bottom.set(
        xlabel="probability",
        ylabel="(text, label) pairs" if result.outcome.multi_label else "texts",
    )
    return figure


def learning_figure(history: History) -> Figure | None:
    """Draw losses above and metrics on dev below, against steps; None if there are none.

    history: the records of metrics.jsonl, {"step": n, "train_loss": x, "dev": {"accuracy": y}}, of
    which any part may be missing. Values on dev that are not in METRICS are drawn as losses. Only
    some of more records than MAX_POINTS are drawn, and MAX_CURVES names of a damaged history.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {"loss": {}, "metric on dev": {}}
    names: set[str] = set()
    for record in thinned(history):
        dev = record["dev"] if isinstance(record.get("dev"), Mapping) else {}
        values = {f"dev {name}": value for name, value in dev.items()}
        for name, value in {"train_loss": record.get("train_loss"), **values}.items():
            if name not in names and len(names) >= MAX_CURVES:
                continue
            names.add(name)
            metric = metrics.METRICS.get(name.removeprefix("dev "))
            title = "metric on dev" if metric is not None and metric.larger_is_better else "loss"
            if isinstance(record.get("step"), int | float) and isinstance(value, int | float):
                panels[title].setdefault(name, []).append((record["step"], value))
    drawn = {title: curves for title, curves in panels.items() if curves}
    if not drawn:
        return None
    figure = Figure(figsize=(7, 1 + 3 * len(drawn)), layout="constrained")
    rows = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(rows, drawn.items(), strict=True):
        for name, points in curves.items():
            mark = "o" if len(points) < 40 else ""
            axes.plot(*zip(*points, strict=True), marker=mark, markersize=3, label=escaped(name))
        axes.grid(color=GRID)
        axes.legend(frameon=False)
        axes.set_ylabel(title)
    rows[0].set_title("Learning curve")
    rows[-1].set_xlabel("step")
    return figure


def thinned(records: Sequence[Any]) -> Sequence[Any]:
    """Return at most MAX_POINTS records, among them the last: half evenly, half more at first.

    More take minutes and gigabytes to draw, and show nothing else, also on a logarithmic axis.
    """
    last, half = len(records) - 1, MAX_POINTS // 2
    if last < MAX_POINTS:
        return records
    places = np.concatenate([np.linspace(0, last, half), np.geomspace(1, last, half)])
    return [records[place] for place in np.unique(places.astype(np.int64))]


class Curve(NamedTuple):
    """A line of a panel: its points, and its style. Without a label, it has the last colour."""

    x: Sequence[float]
    y: Sequence[float]
    label: str | None
    style: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def of(cls, points: Sequence[tuple[Any, Any]], label: str | None, **style: Any) -> Curve:
        """Read the points of a line, or raise as `float` does, or ValueError for large numbers."""
        x, y = ([float(point[axis]) for point in points] for axis in (0, 1))
        if not all(abs(value) < MAX_DRAWN for value in (*x, *y)):
            raise ValueError("a number is too large to be drawn")
        return cls(x, y, label and _short(label, 2 * LABEL_WIDTH), style)


class Panel(NamedTuple):
    """A part of a figure of diagnostics: curves, or bars, of which `ticks` names each."""

    xlabel: str
    ylabel: str
    curves: Sequence[Curve]
    ticks: Sequence[str] | None = None


class Steps(NamedTuple):
    """What is drawn of a run's diagnostics."""

    title: str
    panels: Sequence[Panel]
    groups: Sequence[str]


def optimizer_panels(run: Diagnostics) -> Steps:
    """Read what `optimizer_figure` draws. Raises DataError if the records are damaged."""
    run = replace(run, records=thinned(run.records))
    with run.reading():
        readers: list[Callable[[Diagnostics], Panel]] = [_ratio_panel]
        if any(run.per_gradient(group)[0] for group in run.groups):
            readers += [_effective_panel, _stride_panel, _frequency_panel]
        title = f"{run.name}, learning rate {run.peak:g}, {run.steps:,} steps"
        return Steps(title, [reader(run) for reader in readers], [run.name, *run.groups])


def optimizer_figure(read: Steps) -> Figure:
    """Draw update ratios and, of adaptive optimizers, effective step sizes by step and token."""
    figure = Figure(figsize=(7, 1 + 3 * len(read.panels)), layout="constrained")
    rows = np.ravel(figure.subplots(len(read.panels), 1))
    for axes, panel in zip(rows, read.panels, strict=True):
        if panel.ticks is None:
            for curve in panel.curves:
                colour = {} if curve.label else {"color": axes.lines[-1].get_color()}
                axes.plot(curve.x, curve.y, label=curve.label, **{**colour, **curve.style})
            logarithmic(axes, "x", "y")
            axes.legend(frameon=False)
        else:
            for curve in panel.curves:
                axes.bar(curve.x, curve.y, color=PALE, edgecolor="white")
            axes.set_xticks(range(len(panel.ticks)), panel.ticks)
            logarithmic(axes, "y")
        axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
        axes.grid(color=GRID)
    figure.suptitle(escaped(read.title))
    return figure


def logarithmic(axes: Any, *names: str) -> None:
    """Make axes ("x", "y") logarithmic, with plain numbers, since math text is switched off."""
    for name in names:
        axis = getattr(axes, f"{name}axis")
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _curves(run: Diagnostics, name: str) -> list[Curve]:
    found = {group: list(zip(*run.series(group, name), strict=True)) for group in run.groups}
    return [Curve.of(points, group) for group, points in found.items()]


def _ratio_panel(run: Diagnostics) -> Panel:
    return Panel("step", "norm of the update / of the weights", _curves(run, "ratio"))


def _effective_panel(run: Diagnostics) -> Panel:
    curves = []
    for group in run.groups:
        points = list(zip(*run.per_gradient(group), strict=True))
        if not points:
            continue
        first, value = points[0]
        shape = [(step, value * (step / first) ** -0.5) for step, _ in points]
        curves += [
            Curve.of(points, group),
            Curve.of(shape, None, linewidth=0.8, linestyle=":"),
        ]
    label = "step; dotted: if squared gradients only add up"
    return Panel(label, "update for a unit of gradient / rate", curves)


def _stride_panel(run: Diagnostics) -> Panel:
    curves = _curves(run, "stride")
    steps = [record["step"] for record in run.records]
    theory = [(step, run.excess(step)) for step in steps]
    known = [(step, value) for step, value in theory if value is not None]
    if known:
        label = "theory, without bias correction"
        curves.append(Curve.of(known, label, color=INK, linestyle=":"))
    return Panel("step", "update of a weight / learning rate", curves)


def _frequency_panel(run: Diagnostics) -> Panel:
    tenths = run.by_frequency()
    ticks = [f"{count:,.0f}" for count, _ in tenths]
    bars = [Curve.of([(n, step) for n, (_, step) in enumerate(tenths)], None)]
    label = "tenths of the tokens, by occurrences in an epoch"
    return Panel(label, "update for a unit of gradient", bars, ticks)


def draw_diagnostics(run: Diagnostics, folder: Path) -> list[Path]:
    """Write the plots of diagnostics, and return their paths. Raises OutputError, DataError."""
    read = optimizer_panels(run)
    with styled(*read.groups):
        return _save({"optimizer": optimizer_figure(read)}, folder)


def draw(result: Evaluation, history: History, folder: Path) -> list[Path]:
    """Write the plots of an evaluation and of the run's history, and return their paths.

    These are reliability, learning and, unless multi-label, confusion, each as .png and .svg.
    Raises OutputError.
    """
    with styled(*map(_short, result.names)):
        figures = {"reliability": reliability_figure(result), "learning": learning_figure(history)}
        if not result.outcome.multi_label:
            figures["confusion"] = confusion_figure(result)
        drawn = {name: figure for name, figure in figures.items() if figure is not None}
        return _save(drawn, folder)


@contextmanager
def styled(*texts: str) -> Iterator[None]:
    """Draw in srucli's style within a block, with fonts for `texts`. SVG needs no fonts."""
    style: dict[Any, Any] = {
        "text.parse_math": False,
        # Text stays text in the SVG: the reader may have fonts that this machine lacks.
        "svg.fonttype": "none",
        "svg.hashsalt": "srucli",
    }
    with families(texts) as fonts, rc_context(), warnings.catch_warnings():
        # A matplotlibrc in the current folder is untrusted: it could run LaTeX.
        rcdefaults()
        rcParams.update(style | {"font.family": fonts})
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def check_folder(folder: Path, names: Iterable[str]) -> None:
    """Make a folder for plots if it is missing.

    Raises OutputError if it has files of these names that srucli did not draw.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with OpenFolder.at(folder) as held:
            files = [f"{name}.{kind}" for name in names for kind in KINDS]
            others = [file for file in files if file in held.names() and not _is_drawn(held, file)]
        check_writable(folder / files[0])
    except OSError as error:
        raise unwritable(folder, error) from error
    if others:
        raise OutputError(
            f"{folder}: holds {listing(others)}, which srucli did not draw; name another folder"
        )


def _is_drawn(folder: OpenFolder, name: str) -> bool:
    """Return whether a file has srucli's mark."""
    if not folder.is_file(name):
        return False
    with open(folder.open(name, os.O_RDONLY), "rb") as file:
        return DRAWN_BY.encode() in file.read(MARKED_WITHIN)


def _save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure as .png and .svg, and replace earlier ones. Raises OutputError."""
    check_folder(folder, figures)
    contents = {}
    for name, figure in figures.items():
        for kind, how in KINDS.items():
            out = BytesIO()
            figure.savefig(out, format=kind, **how)
            contents[f"{name}.{kind}"] = out.getvalue()
    write_files(folder, contents)
    return [folder / name for name in contents]


def _short(label: str, width: int = LABEL_WIDTH) -> str:
    return abridged(escaped(label), width)
