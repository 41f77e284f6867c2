"""Pictures of an evaluation and of a run's history, as PNG and SVG; no window, no global state.

The numbers in the pictures are those of `srucli/metrics/`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager, rc_context, rcdefaults, rcParams
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from srucli import metrics
from srucli.errors import OutputError
from srucli.io.console import escaped
from srucli.io.files import write_files
from srucli.io.folders import OpenFolder
from srucli.runs.claim import listing

if TYPE_CHECKING:
    from srucli.diagnostics.records import Diagnostics
    from srucli.inference.evaluation import Evaluation

INK, ACCENT, PALE, GRID = "#22303c", "#c2410c", "#9fb8cc", "#e5e9ed"
History = Sequence[Mapping[str, Any]]
Curves = dict[str, tuple[list[float], list[float]]]

# What the pictures are called, and what the first bytes of each say of where it comes from.
OF_EVALUATION, OF_DIAGNOSTICS = ("reliability", "learning", "confusion"), ("optimizer",)
DRAWN_BY, MARKED_WITHIN = "srucli: drawn anew by every command that draws it", 4096
KINDS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": DRAWN_BY}},
    "svg": {"metadata": {"Creator": DRAWN_BY, "Date": None}},
}
SHOWN_CLASSES = 100
COUNTED_CLASSES = 20
LABEL_LENGTH = 28

# Where the system has them, for scripts that matplotlib's own font lacks.
FONTS = (
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",
    "Noto Sans KR",
    "NanumGothic",
    "Nanum Gothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "UnDotum",
    "Baekmuk Gulim",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "Noto Sans Thai",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "FreeSans",
)


def confusion_figure(result: Evaluation) -> Figure:
    """The confusion matrix of a single-label evaluation, each row as shares of its true class.

    Beyond 100 classes, those with the most mistakes are shown.
    """
    every = metrics.confusion(result.outcome)
    kept = _most_confused(every)
    counts, shares = (part[np.ix_(kept, kept)] for part in (every, _shares(every)))
    names = [_short(result.names[index]) for index in kept]
    title = "Confusion matrix"
    if len(kept) < len(every):
        title += f": the {len(kept)} of {len(every)} classes with the most mistakes"
    size = len(counts)
    side = float(np.clip(0.15 * size + 3.5, 5.5, 18.5))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    # Rare mistakes are the ones looked for: the square root keeps them from fading to white.
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
    """How often the model is right against how sure it is, above how often it is that sure."""
    sure, right, count = metrics.reliability(result.outcome)
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    some = count > 0
    top.plot([0, 1], [0, 1], color=PALE, linestyle="--", label="perfectly calibrated")
    top.plot(sure[some], right[some], "o-", color=ACCENT, label="model, with 95% intervals")
    ends = [metrics.wilson(*each) for each in zip((right * count)[some], count[some], strict=True)]
    top.vlines(sure[some], *zip(*ends, strict=True), color=ACCENT, linewidth=0.8)
    error, chance = result.figures["calibration_error"], result.calibration_by_chance
    top.set(
        xlim=(0, 1),
        ylim=(0, 1),
        ylabel="share that is true" if result.outcome.multi_label else "share that is right",
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
    """Losses above, dev figures below, over the steps of a run's metrics.jsonl records.

    A record is {"step": n, "train_loss": x, "dev": {"accuracy": y, ...}}; what is absent is left
    out, and dev figures that METRICS does not name are taken for losses. None: nothing to draw.
    """
    losses: Curves = {"train_loss": _series(history, "train_loss")}
    figures: Curves = {}
    for name in dict.fromkeys(name for record in history for name in _dev(record)):
        metric = metrics.METRICS.get(name)
        panel = figures if metric is not None and metric.larger_is_better else losses
        panel[f"dev {name}"] = _series(history, name, dev=True)
    panels = {"loss": losses, "figure on dev": figures}
    drawn = {
        title: curves for title, curves in panels.items() if any(x for x, _ in curves.values())
    }
    if not drawn:
        return None
    figure = Figure(figsize=(7, 1 + 3 * len(drawn)), layout="constrained")
    rows = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(rows, drawn.items(), strict=True):
        for name, (steps, values) in curves.items():
            mark = "o" if len(steps) < 40 else ""
            axes.plot(steps, values, marker=mark, markersize=3, label=escaped(name))
        axes.grid(color=GRID)
        axes.legend(frameon=False)
        axes.set_ylabel(title)
    rows[0].set_title("Learning curve")
    rows[-1].set_xlabel("step")
    return figure


def optimizer_figure(run: Diagnostics) -> Figure:
    """What diagnostics saw: steps for a unit of gradient, ratios, first strides, rare pieces."""
    panels: list[Callable[[Any, Diagnostics], None]] = [_ratio_panel]
    if any(run.per_gradient(group)[0] for group in run.groups):
        panels += [_effective_panel, _stride_panel, _frequency_panel]
    figure = Figure(figsize=(7, 1 + 3 * len(panels)), layout="constrained")
    for axes, panel in zip(np.ravel(figure.subplots(len(panels), 1)), panels, strict=True):
        panel(axes, run)
        axes.grid(color=GRID)
    figure.suptitle(f"{run.name}, learning rate {run.peak:g}, {run.steps:,} steps")
    return figure


def logarithmic(axes: Any, *names: str) -> None:
    """Set the named axes to logarithms, with plain numbers: mathematics is not parsed here."""
    for name in names:
        axis = getattr(axes, f"{name}axis")
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _ratio_panel(axes: Any, run: Diagnostics) -> None:
    for group in run.groups:
        axes.plot(*run.series(group, "ratio"), label=group)
    logarithmic(axes, "x", "y")
    axes.set(xlabel="step", ylabel="norm of a step / of the weights")
    axes.legend(frameon=False)


def _effective_panel(axes: Any, run: Diagnostics) -> None:
    for group in run.groups:
        steps, values = run.per_gradient(group)
        if not steps:
            continue
        (line,) = axes.plot(steps, values, label=group)
        shape = values[0] * (np.array(steps) / steps[0]) ** -0.5
        axes.plot(steps, shape, color=line.get_color(), linewidth=0.8, linestyle=":")
    logarithmic(axes, "x", "y")
    axes.set_xlabel("step; dotted: a sum that only grows")
    axes.set_ylabel("step for a unit of gradient / rate")
    axes.legend(frameon=False)


def _stride_panel(axes: Any, run: Diagnostics) -> None:
    for group in run.groups:
        steps, values = run.series(group, "stride")
        axes.plot(steps, values, label=group)
    steps = [record["step"] for record in run.records]
    theory = [(step, run.excess(step)) for step in steps]
    known = [(step, value) for step, value in theory if value is not None]
    if known:
        label = "theory: for want of bias correction"
        axes.plot(*zip(*known, strict=True), color=INK, linestyle=":", label=label)
    logarithmic(axes, "x", "y")
    axes.set(xlabel="step", ylabel="move of a weight / learning rate")
    axes.legend(frameon=False)


def _frequency_panel(axes: Any, run: Diagnostics) -> None:
    tenths = run.by_frequency()
    axes.bar(range(len(tenths)), [step for _, step in tenths], color=PALE, edgecolor="white")
    axes.set_xticks(range(len(tenths)), [f"{count:,.0f}" for count, _ in tenths])
    logarithmic(axes, "y")
    axes.set_xlabel("tenths of the pieces, by how often one comes in an epoch")
    axes.set_ylabel("step for a unit of gradient")


def draw_diagnostics(run: Diagnostics, folder: Path) -> list[Path]:
    """Write the picture of an optimizer's diagnostics. Returns the paths. Raises OutputError."""
    with styled():
        return _save({"optimizer": optimizer_figure(run)}, folder)


def draw(result: Evaluation, history: History, folder: Path) -> list[Path]:
    """Write every picture that the evaluation and the run's history allow into `folder`.

    Returns the paths: reliability, learning and, for a single label, confusion, each as .png and
    .svg. Raises OutputError.
    """
    with styled():
        figures = {"reliability": reliability_figure(result), "learning": learning_figure(history)}
        if not result.outcome.multi_label:
            figures["confusion"] = confusion_figure(result)
        drawn = {name: figure for name, figure in figures.items() if figure is not None}
        return _save(drawn, folder)


@contextmanager
def styled() -> Iterator[None]:
    """The house's style for everything that is drawn and saved inside."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    style: dict[Any, Any] = {
        "font.family": ["DejaVu Sans", *(name for name in FONTS if name in installed)],
        "text.parse_math": False,
        # Text stays text in the SVG: a reader's own fonts know scripts that this machine may lack.
        "svg.fonttype": "none",
        "svg.hashsalt": "srucli",
    }
    with rc_context(), warnings.catch_warnings():
        # Not those of a matplotlibrc in the current folder, which may have LaTeX run.
        rcdefaults()
        rcParams.update(style)
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def check_folder(folder: Path, names: Iterable[str]) -> None:
    """Make a folder for pictures, if need be, and refuse one with others' of these names.

    Raises OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with OpenFolder.at(folder) as held:
            files = [f"{name}.{kind}" for name in names for kind in KINDS]
            others = [file for file in files if file in held.names() and not _is_drawn(held, file)]
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made or read ({error.strerror})") from error
    if others:
        raise OutputError(
            f"{folder}: holds {listing(others)}, which srucli did not draw; name another folder"
        )


def _is_drawn(folder: OpenFolder, name: str) -> bool:
    """Whether a picture says that it was drawn here."""
    if not folder.is_file(name):
        return False
    with open(folder.open(name, os.O_RDONLY), "rb") as file:
        return DRAWN_BY.encode() in file.read(MARKED_WITHIN)


def _save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure as .png and .svg, in the place of those that were drawn before."""
    check_folder(folder, figures)
    contents = {}
    for name, figure in figures.items():
        for kind, how in KINDS.items():
            out = BytesIO()
            figure.savefig(out, format=kind, **how)
            contents[f"{name}.{kind}"] = out.getvalue()
    write_files(folder, contents)
    return [folder / name for name in contents]


def _most_confused(counts: metrics.Array) -> metrics.Array:
    """The classes to show, in order: all, or where they are too many those most often wrong."""
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return np.sort(np.argsort(-wrong, kind="stable")[:SHOWN_CLASSES])


def _shares(counts: metrics.Array) -> metrics.Floats:
    shares: metrics.Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _short(label: str) -> str:
    label = escaped(label)
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"


def _dev(record: Mapping[str, Any]) -> Mapping[str, Any]:
    dev = record.get("dev")
    return dev if isinstance(dev, Mapping) else {}


def _series(history: History, name: str, *, dev: bool = False) -> tuple[list[float], list[float]]:
    """Steps and values of the records that have both as numbers."""
    steps, values = [], []
    for record in history:
        step, value = record.get("step"), (_dev(record) if dev else record).get(name)
        if isinstance(step, int | float) and isinstance(value, int | float):
            steps.append(step)
            values.append(value)
    return steps, values
