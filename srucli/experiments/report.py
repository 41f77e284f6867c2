"""A comparison as people read it: a table, sentences, and one HTML page with pictures.

The page holds everything itself, has no script, and fits a phone. What is compared and how is in
`compare.py`, what is said of a single optimizer in `diagnostics/findings.py`.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from srucli.diagnostics.findings import diagnose
from srucli.diagnostics.records import Diagnostics
from srucli.errors import InputMissingError
from srucli.experiments.compare import CandidateResult, Comparison, skipped, unread
from srucli.experiments.differences import doubt
from srucli.experiments.grid import larger_is_better
from srucli.experiments.plots import GRID, logarithmic, styled
from srucli.experiments.trials import Folder, Plan
from srucli.io.files import write_files
from srucli.runs.run_dir import RunDir

PAGE = "index.html"
HEADS = (
    *("", "rate", "dev", "test", "steps to target", "seconds to target", "steps", "seconds"),
    "rates within 1%",
)
# How often candidates that are alike may be told apart in a comparison.
ALPHA = 0.05
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


def percent(figure: tuple[float, float | None]) -> str:
    """Mean and standard deviation in percent, as 87.1 ± 0.5."""
    mean, deviation = figure
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _figure(metric: str, figure: tuple[float, float | None]) -> str:
    """The same for a metric that is a share; a loss stays as it is."""
    if larger_is_better(metric):
        return percent(figure)
    mean, deviation = figure
    return f"{mean:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def cells(found: Comparison) -> list[list[str]]:
    """The table's rows, without its head."""
    return [_cells(found.metric, row) for row in found.rows] + [
        [name, "", "diverged", *[""] * (len(HEADS) - 3)] for name in found.diverged
    ]


def _cells(metric: str, row: CandidateResult) -> list[str]:
    lost = f", {row.lost} diverged" if row.lost else ""
    seeds = len(row.results) + row.lost
    steps = f"by {len(row.reached)} of {seeds} seeds" if row.reached else "never"
    seconds = steps
    if row.to_target:
        steps, seconds = f"{row.to_target[0]:,.0f}", f"{row.to_target[1]:,.1f}"
    good = round(row.stable * len(row.tried))
    return [
        *(row.name, f"{row.lr:g}", _figure(metric, row.dev) + lost, _figure(metric, row.test)),
        *(steps, seconds, f"{row.steps:,}", f"{row.seconds:,.1f}"),
        f"{good} of {len(row.tried)}",
    ]


# --- sentences ----------------------------------------------------------------------------------


def sentences(found: Comparison) -> Iterator[str]:
    """What the table says, each with its figures; where they do not tell, that they do not."""
    yield from _ranking(found)
    yield from _edges(found)
    yield from _speed(found)
    yield from _divergence(found)
    yield from (f"{line}." for line in (*unread(found), *skipped(found)))


def _ranking(found: Comparison) -> Iterator[str]:
    best, *others = found.rows
    metric = found.metric
    level = [row for row in others if (row.dev[0], row.lost) == (best.dev[0], best.lost)]
    said = f"{best.name} leads on dev with {_figure(metric, best.dev)} {metric}"
    if level:
        names = [row.name for row in (best, *level)]
        said = f"{', '.join(names[:-1])} and {names[-1]} are level on dev, all of them"
        yield f"{said} with {_figure(metric, (best.dev[0], None))} {metric}."
    else:
        yield f"{said} (test {_figure(metric, best.test)}), at a learning rate of {best.lr:g}."
    below = [row for row in others if row.lost <= best.lost and row not in level]
    yield from _beside(found, "dev", best, below, best.name if level else "it")
    tested = max(found.rows, key=lambda row: row.test[0] * (1 if larger_is_better(metric) else -1))
    if tested is not best:
        said = f"{tested.name} leads with {_figure(metric, tested.test)}"
        yield f"On the test texts, which chose nothing, {said}."
        yield from _beside(found, "test", tested, [best])


def _beside(
    found: Comparison,
    part: str,
    row: CandidateResult,
    others: Sequence[CandidateResult],
    name: str = "it",
) -> Iterator[str]:
    """Which of the others a row is better than on dev or test, and of which that cannot be told."""
    share = larger_is_better(found.metric)
    reasons: dict[str | None, list[str]] = {}
    for other in others:
        why = doubt(
            _values(found.metric, part, row),
            _values(found.metric, part, other),
            level=1 - ALPHA / len(others),
            scale=100 if share else 1,
            unit=" points" if share else "",
            texts=found.texts[part],
            share=share,
        )
        figures = other.dev if part == "dev" else other.test
        reasons.setdefault(why, []).append(f"{other.name} ({_figure(found.metric, figures)})")
    for why, names in sorted(reasons.items(), key=lambda each: each[0] is not None):
        if why is None:
            yield f"On these texts {name} is better than {', '.join(names)}."
        else:
            yield f"Whether {name} is better than {' or '.join(names)} cannot be told: {why}."


def _values(metric: str, part: str, row: CandidateResult) -> list[float]:
    """The figures of a row's seeds."""
    return [(each.dev if part == "dev" else each.test)[metric] for each in row.results]


def _edges(found: Comparison) -> Iterator[str]:
    for row in found.rows:
        rates = sorted(row.tried)
        if len(rates) > 1 and row.lr in (rates[0], rates[-1]):
            way = "lower" if row.lr == rates[0] else "higher"
            yield f"{row.name} may be better still at a {way} rate than {row.lr:g}, the last tried."


def _speed(found: Comparison) -> Iterator[str]:
    target = _figure(found.metric, (found.target, None))
    timed = [(row, *row.to_target) for row in found.rows if row.to_target]
    timed.sort(key=lambda each: each[1:])
    if timed:
        yield (
            f"{target} on dev is reached by "
            + ", ".join(
                f"{row.name} after {steps:,.0f} steps and {seconds:,.1f} seconds"
                for row, steps, seconds in timed
            )
            + " (means of seeds, seen at the ends of epochs)."
        )
    for (first, *_), (second, *_) in itertools.pairwise(timed[:2]):
        one, other = ([steps for steps, _ in row.reached] for row in (first, second))
        if why := doubt(one, other, unit=" steps"):
            yield f"Whether {first.name} or {second.name} is the first cannot be told: {why}."
    missed = [row.name for row in found.rows if not row.to_target]
    if missed:
        yield f"Not every seed reached {target}: {', '.join(missed)}."


def _divergence(found: Comparison) -> Iterator[str]:
    for row in found.rows:
        if row.lost:
            yield (
                f"{row.name} diverged with {row.lost} of its seeds at its best rate, {row.lr:g}: "
                "its metrics are those of the others, and it stands below those that never did."
            )
        rates = [f"{rate:g}" for rate, figure in sorted(row.tried.items()) if figure is None]
        if rates:
            yield f"{row.name} diverged at {', '.join(rates)}."
    if found.diverged:
        yield f"At every rate that was tried diverged: {', '.join(found.diverged)}."


def diagnostics_of(folder: Path, found: Comparison) -> dict[str, Diagnostics]:
    """The diagnostics of each candidate's first seed, where it was looked at."""
    told = {}
    for row in found.rows:
        with suppress(InputMissingError):
            diagnostics = Diagnostics.read(folder / row.results[0].trial.folder / "run")
            told[row.name] = replace(diagnostics, chosen=len(row.tried) > 1)
    return told


# --- pictures -----------------------------------------------------------------------------------


def _colour(number: int) -> Any:
    return colormaps["tab10" if number < 10 else "tab20"](number % 20)


def _axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(color=GRID)
    return figure, axes


def loss_figure(found: Comparison, against: str) -> Figure:
    """Mean training loss over the seeds against `step` or `seconds`."""
    figure, axes = _axes(f"Training loss against {against}")
    for number, row in enumerate(found.rows):
        histories = [result.history for result in row.results]
        epochs = list(zip(*histories, strict=False))
        places = [fmean(record[against] for record in epoch) for epoch in epochs]
        losses = [fmean(record["train_loss"] for record in epoch) for epoch in epochs]
        axes.plot(places, losses, color=_colour(number), marker="o", markersize=3, label=row.name)
    axes.set(xlabel=against, ylabel="mean of an epoch")
    axes.legend(frameon=False, fontsize="small")
    return figure


def rate_figure(found: Comparison) -> Figure:
    """The dev figure of every learning rate that was tried; crosses below diverged."""
    figure, axes = _axes("Dev figure against learning rate")
    known = [value for row in found.rows for value in row.tried.values() if value is not None]
    floor = min(known) - 0.03 * (max(known) - min(known) or 1.0)
    for number, row in enumerate(found.rows):
        good = [(rate, value) for rate, value in sorted(row.tried.items()) if value is not None]
        bad = [rate for rate, value in row.tried.items() if value is None]
        colour = _colour(number)
        axes.plot(*np.array(good).T, color=colour, marker="o", markersize=3, label=row.name)
        axes.plot(bad, [floor] * len(bad), color=colour, marker="x", linestyle="none")
    logarithmic(axes, "x")
    axes.set(xlabel="peak learning rate", ylabel=found.metric)
    axes.legend(frameon=False, fontsize="small")
    return figure


def effective_figure(told: Mapping[str, Diagnostics]) -> Figure | None:
    """Steps for a unit of gradient, the schedule included, of the candidates that have such."""
    curves = {candidate: _effective(diagnostics) for candidate, diagnostics in told.items()}
    if not any(steps for steps, _ in curves.values()):
        return None
    figure, axes = _axes("How far a unit of gradient moves a weight")
    for number, (candidate, (steps, middles)) in enumerate(curves.items()):
        if steps:
            axes.plot(steps, middles, color=_colour(number), label=candidate)
    logarithmic(axes, "x", "y")
    axes.set(xlabel="step", ylabel="lr / (sqrt(v) + eps)")
    axes.legend(frameon=False, fontsize="small")
    return figure


def _effective(diagnostics: Diagnostics) -> tuple[list[int], list[float]]:
    """Steps, and the geometric mean over the groups of their median effective steps there."""
    steps, means = [], []
    for record in diagnostics.records:
        groups = record["groups"].values()
        middles = [group["effective"][1] for group in groups if group.get("effective")]
        if middles and record["lr"] > 0:
            steps.append(record["step"])
            means.append(float(np.exp(np.mean(np.log(middles)))))
    return steps, means


def _image(figure: Figure, words: str) -> str:
    """A figure as an SVG inside the page."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    data = base64.b64encode(out.getvalue()).decode()
    return (
        f'<figure><img alt="{html.escape(words)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{html.escape(words)}</figcaption></figure>"
    )


def _images(found: Comparison, told: Mapping[str, Diagnostics]) -> list[str]:
    drawings: list[tuple[Callable[[], Figure | None], str]] = [
        (
            lambda: loss_figure(found, "step"),
            "Training loss against steps, each candidate at its best rate.",
        ),
        (lambda: loss_figure(found, "seconds"), "The same against seconds."),
        (
            lambda: rate_figure(found),
            "Every learning rate that was tried, with one seed; crosses diverged.",
        ),
        (
            lambda: effective_figure(told),
            "How far a unit of gradient moves a weight: medians of the groups of parameters, their "
            "geometric mean. Optimizers without a second moment are left out.",
        ),
    ]
    with styled():
        drawn = [(draw(), words) for draw, words in drawings]
        return [_image(figure, words) for figure, words in drawn if figure is not None]


# --- the page -----------------------------------------------------------------------------------


def _table(found: Comparison) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    body = "\n".join(line("td", row) for row in cells(found))
    head = line("th", HEADS)
    return f'<div class="wide"><table><thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'


def _list(lines: Iterator[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _explained(candidate: str, diagnostics: Diagnostics) -> str:
    items = "".join(
        f"<li{' class=fault' if finding.fault else ''}>{html.escape(finding.text)}.</li>"
        for finding in diagnose(diagnostics)
    )
    return f"<h3>{html.escape(candidate)}, learning rate {diagnostics.peak:g}</h3><ul>{items}</ul>"


def write_page(folder: Folder, plan: Plan, found: Comparison, command: str) -> None:
    """Write the page of a comparison beside its trials. command: how to repeat it."""
    shown = page(folder.path, plan, found, command)
    write_files(folder.place, {PAGE: shown.encode(errors="backslashreplace")})


def _facts(folder: Path, plan: Plan, found: Comparison) -> list[str]:
    """What was trained on, and on what machine."""
    run = RunDir(folder / found.rows[0].results[0].trial.folder / "run").facts()
    data = run.data
    test = sum(1 for _ in Folder(folder).data["test"].open("rb"))
    steps = {row.steps for row in found.rows}
    budget = f"{min(steps):,} steps, the same for all" if len(steps) == 1 else "steps as listed"
    threads = plan.config.train.threads or "as many threads as cores, shared by what ran at once"
    return [
        f"Trained on {data.texts:,} texts, rates chosen on {data.dev_texts:,} dev texts, "
        f"measured on {test:,} test texts; {budget}. For one seed all begin with the same weights, "
        "where their parts are the same, and read the same texts in the same order.",
        f"srucli {run.srucli}, torch {run.torch}, {run.device}, {run.cores} cores; "
        f"threads: {threads}. Seconds are those of the training loop.",
    ]


def page(folder: Path, plan: Plan, found: Comparison, command: str) -> str:
    """The whole page."""
    told = diagnostics_of(folder, found)
    names = ", ".join(candidate.name for candidate in plan.candidates)
    parts = [
        f"<h1>{html.escape(names)} compared</h1>",
        *(f"<p>{html.escape(fact)}</p>" for fact in _facts(folder, plan, found)),
        _table(found),
        f"<p>{html.escape(_legend(plan, found))}</p>",
        "<h2>What it says</h2>",
        _list(sentences(found)),
        "<h2>Pictures</h2>",
        *_images(found, told),
    ]
    if told:
        parts += ["<h2>What each optimizer did</h2>", *(_explained(*each) for each in told.items())]
    parts += ["<h2>To repeat it</h2>", f"<pre>{html.escape(command)}</pre>"]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(names)} compared</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _legend(plan: Plan, found: Comparison) -> str:
    target = _figure(found.metric, (found.target, None))
    seeds = f"mean and standard deviation over {plan.seeds} seeds" if plan.seeds > 1 else "one seed"
    rate = (
        f"at the learning rate that was best on dev, with one seed, among at least {plan.grid}, "
        "each 3.16 times the one before"
    )
    if all(len(row.tried) == 1 for row in found.rows):
        rate = "at the only learning rate that was tried"
    return (
        f"{found.metric}: {seeds}, {rate}. Target: {target} on dev. Rates "
        "within 1%: of the best dev figure of the same candidate, with one seed."
    )
