"""A comparison as one HTML page, with its table, conclusions and plots.

The page needs no other file and no script, and fits on a phone.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from srucli.diagnostics.findings import diagnose
from srucli.diagnostics.records import Diagnostics
from srucli.errors import InputMissingError
from srucli.experiments.compare import Comparison
from srucli.experiments.drawing import Figure, colormaps
from srucli.experiments.plots import GRID, Curve, logarithmic, styled, thinned
from srucli.experiments.report import HEADER, sentences, shown, table_rows
from srucli.experiments.trials import Folder, Plan
from srucli.io.console import escaped
from srucli.io.files import write_files
from srucli.runs.run_dir import RunDir

PAGE = "index.html"
SIZE = 7, 4.2  # of a plot, in inches
STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; color: #22303c; margin: 0 auto; max-width: 56rem;
  padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e5e9ed; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } img { width: 100%; height: auto; }
figcaption { font-size: 0.9rem; } li.fault { font-weight: 600; }
pre { overflow-x: auto; background: #f5f7f9; padding: 0.5rem; }
"""
LOSS_CAPTION = "Training loss against steps, each candidate at its best rate."
RATE_CAPTION = "Every learning rate that was tried, with one seed; crosses diverged."
EFFECTIVE_CAPTION = (
    "How far a unit of gradient moves a weight: the geometric mean over the groups of parameters "
    "of their medians. Optimizers without a second moment are left out."
)


def write_page(folder: Folder, plan: Plan, comparison: Comparison, command: str) -> None:
    """Write the page into the comparison's folder. command: the command that made it."""
    diagnostics = diagnostics_of(folder.path, comparison)
    title = _escaped(f"{', '.join(each.name for each in plan.candidates)} compared")
    parts = [
        f"<h1>{title}</h1>",
        *map(_paragraph, _setup(folder, plan, comparison)),
        _table(comparison),
        _paragraph(_legend(plan, comparison)),
        "<h2>Conclusions</h2>",
        _list((line, False) for line in sentences(comparison)),
        "<h2>Plots</h2>",
        *_images(comparison, diagnostics),
    ]
    if diagnostics:
        parts.append("<h2>What each optimizer did</h2>")
    for candidate, each in diagnostics.items():
        parts.append(f"<h3>{_escaped(candidate)}, learning rate {each.peak:g}</h3>")
        parts.append(_list((f"{finding.text}.", finding.fault) for finding in diagnose(each)))
    parts += ["<h2>Command</h2>", f"<pre>{_escaped(command)}</pre>"]
    body = "\n".join(parts)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )
    write_files(folder.place, {PAGE: page.encode(errors="backslashreplace")})


def diagnostics_of(folder: Path, comparison: Comparison) -> dict[str, Diagnostics]:
    """Return the diagnostics of each candidate's first seed, if they were recorded."""
    recorded = {}
    for row in comparison.rows:
        with suppress(InputMissingError):
            diagnostics = Diagnostics.read(folder / row.results[0].trial.folder / "run")
            recorded[row.name] = replace(diagnostics, chosen=len(row.tried) > 1)
    return recorded


def _setup(folder: Folder, plan: Plan, comparison: Comparison) -> list[str]:
    """Return sentences about the data, the machine and the versions."""
    first = comparison.rows[0].results[0].trial
    place = RunDir(folder.path / first.folder / "run")
    run, threads = place.facts(), place.config().train.threads
    steps = {row.steps for row in comparison.rows}
    budget = f"{min(steps):,} steps, the same for all" if len(steps) == 1 else "steps as listed"
    return [
        f"Trained on {run.data.texts:,} texts, rates chosen on {run.data.dev_texts:,} dev texts, "
        f"measured on {folder.texts('test'):,} test texts; {budget}. For each seed, all trials "
        "have the same initial weights, where the models have the same parts, and the same order "
        "of texts.",
        f"srucli {run.srucli}, torch {run.torch}, {run.device}, {run.cores} cores; "
        f"threads of each trial: {threads}. Seconds are those of the training loop.",
    ]


def _legend(plan: Plan, comparison: Comparison) -> str:
    seeds = f"mean and standard deviation over {plan.seeds} seeds" if plan.seeds > 1 else "one seed"
    rate = (
        f"at the learning rate that was best on dev, with one seed, among at least {plan.grid}, "
        "each 3.16 times the one before"
    )
    if all(len(row.tried) == 1 for row in comparison.rows):
        rate = "at the only learning rate that was tried"
    return (
        f"{comparison.metric}: {seeds}, {rate}. "
        f"Target: {shown(comparison.metric, comparison.target)} on dev. Rates within 1%: the "
        "learning rates whose metric on dev is within 1% of the candidate's best, with one seed."
    )


def _escaped(text: str) -> str:
    return html.escape(escaped(text))


def _paragraph(text: str) -> str:
    return f"<p>{_escaped(text)}</p>"


def _list(sentences: Iterable[tuple[str, bool]]) -> str:
    """Return an HTML list of sentences, each with whether it is about a fault."""
    items = (
        f"<li{' class=fault' if fault else ''}>{_escaped(text)}</li>" for text, fault in sentences
    )
    return f"<ul>{''.join(items)}</ul>"


def _table(comparison: Comparison) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in row) + "</tr>"

    body = "\n".join(line("td", row) for row in table_rows(comparison))
    head = line("th", HEADER)
    return f'<div class="wide"><table><thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'


def _images(comparison: Comparison, diagnostics: Mapping[str, Diagnostics]) -> list[str]:
    """Return each plot as an SVG image with its caption."""
    with styled():
        plots = (
            (LOSS_CAPTION, loss_figure(comparison, "step")),
            ("The same against seconds.", loss_figure(comparison, "seconds")),
            (RATE_CAPTION, rate_figure(comparison)),
            (EFFECTIVE_CAPTION, effective_figure(diagnostics)),
        )
        return [_image(figure, _escaped(words)) for words, figure in plots if figure is not None]


def _image(figure: Figure, caption: str) -> str:
    (axes,) = figure.axes
    axes.grid(color=GRID)
    axes.legend(frameon=False, fontsize="small")
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    data = base64.b64encode(out.getvalue()).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return (
        f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'
    )


def loss_figure(comparison: Comparison, against: str) -> Figure:
    """Draw the mean training loss over the seeds against `step` or `seconds`."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot(title=f"Training loss against {against}")
    axes.set(xlabel=against, ylabel="mean of an epoch")
    for number, row in enumerate(comparison.rows):
        name = escaped(row.name)
        epochs = thinned(list(zip(*(result.history for result in row.results), strict=False)))
        places = [fmean(getattr(record, against) for record in epoch) for epoch in epochs]
        losses = [fmean(record.train_loss for record in epoch) for epoch in epochs]
        axes.plot(places, losses, color=_colour(number), marker="o", markersize=3, label=name)
    return figure


def rate_figure(comparison: Comparison) -> Figure:
    """Draw the metric on dev of every learning rate; crosses below mark divergence."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot(title="Metric on dev against learning rate")
    axes.set(xlabel="peak learning rate", ylabel=comparison.metric)
    known = [value for row in comparison.rows for value in row.tried.values() if value is not None]
    floor = min(known) - 0.03 * (max(known) - min(known) or 1.0)
    for number, row in enumerate(comparison.rows):
        good = [(rate, value) for rate, value in sorted(row.tried.items()) if value is not None]
        bad = [rate for rate, value in row.tried.items() if value is None]
        colour, name = _colour(number), escaped(row.name)
        axes.plot(*np.array(good).T, color=colour, marker="o", markersize=3, label=name)
        axes.plot(bad, [floor] * len(bad), color=colour, marker="x", linestyle="none")
    logarithmic(axes, "x")
    return figure


def effective_figure(diagnostics: Mapping[str, Diagnostics]) -> Figure | None:
    """Draw the effective step sizes, with the schedule; None if no optimizer has them."""
    curves = [_effective(*each) for each in diagnostics.items()]
    if not any(curve.x for curve in curves):
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot(title="How far a unit of gradient moves a weight")
    axes.set(xlabel="step", ylabel="lr / (sqrt(v) + eps)")
    for number, curve in enumerate(curves):
        if curve.x:
            axes.plot(curve.x, curve.y, color=_colour(number), label=curve.label)
    logarithmic(axes, "x", "y")
    return figure


def _effective(candidate: str, diagnostics: Diagnostics) -> Curve:
    """Read the geometric means over the groups of their median step size, by step."""
    points = []
    with diagnostics.reading():
        for record in thinned(diagnostics.records):
            groups = record["groups"].values()
            medians = [group["effective"][1] for group in groups if group.get("effective")]
            if medians and record["lr"] > 0:
                points.append((record["step"], np.exp(np.mean(np.log(medians)))))
        return Curve.of(points, candidate)


def _colour(number: int) -> Any:
    return colormaps["tab10" if number < 10 else "tab20"](number % 20)
