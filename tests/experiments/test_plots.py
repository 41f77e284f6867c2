"""Plots: their content, and labels that could break them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from scipy.stats import binomtest

from srucli import metrics
from srucli.data.readers import Example
from srucli.errors import OutputError
from srucli.experiments import plots
from srucli.inference.evaluation import Evaluation, evaluate
from srucli.metrics import Array
from srucli.tokenizer.truncation import Tally

HISTORY: plots.History = [
    {"step": 10, "epoch": 1, "train_loss": 0.9, "dev": {"accuracy": 0.5, "log_loss": 0.8}},
    {"step": 20, "epoch": 2, "train_loss": 0.7, "dev": {"accuracy": 0.6, "log_loss": None}},
    {"step": 30, "event": "saved"},
]


class Table:
    """A predictor whose probabilities are written in the texts."""

    at_least_one = False

    def __init__(self, labels: list[str], multi_label: bool = False) -> None:
        self.labels, self.multi_label, self.thresholds = labels, multi_label, None
        self.tally = Tally()

    def probabilities(self, texts: Sequence[str], /) -> Array:
        return np.array([[float(word) for word in text.split()] for text in texts], np.float32)


def evaluation(
    labels: list[str], rows: int = 300, multi_label: bool = False, seed: int = 0
) -> Evaluation:
    rng = np.random.default_rng(seed)
    found = rng.dirichlet(np.full(len(labels), 0.2), size=rows)
    gold = [labels[rng.choice(len(labels), p=p)] for p in found]
    texts = [" ".join(map(str, p)) for p in found]
    examples = (Example(t, (g,), n) for n, (t, g) in enumerate(zip(texts, gold, strict=True), 1))
    return evaluate(Table(labels, multi_label), examples)


def texts_of(svg: Path) -> list[str | None]:
    return [node.text for node in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_every_plot_is_written_as_png_and_svg(tmp_path: Path) -> None:
    paths = plots.draw(evaluation(["cat", "dog", "eel"]), HISTORY, tmp_path)
    names = {"reliability", "learning", "confusion"}
    assert {path.name for path in paths} == {f"{n}.{end}" for n in names for end in ("png", "svg")}
    assert set(tmp_path.iterdir()) == set(paths)
    assert all(is_png(path) for path in paths if path.suffix == ".png")
    assert {"cat", "dog", "eel", "predicted"} <= set(texts_of(tmp_path / "confusion.svg"))
    assert {"train_loss", "dev accuracy"} <= set(texts_of(tmp_path / "learning.svg"))


def test_labels_of_any_script_and_hostile_labels(tmp_path: Path) -> None:
    """Labels stay text: no formula, escape sequence or tag is interpreted."""
    labels = ["긍정", "$\\frac{$", "\x1b[31mred", "<b>&", "한" * 80]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.draw(evaluation(labels), [], tmp_path)
    found = texts_of(tmp_path / "confusion.svg")
    assert {"긍정", "$\\frac{$", "\\x1b[31mred", "<b>&", "한" * 6 + "..." + "한" * 6} <= set(found)


def test_the_confusion_matrix_shows_counts_and_shares() -> None:
    result = evaluation(["cat", "dog"])
    axes = plots.confusion_figure(result).axes[0]
    counts = np.array(result.to_json()["confusion"]["counts"])
    assert {text.get_text() for text in axes.texts} == {str(n) for n in counts.ravel() if n}
    shares = axes.images[0].get_array()
    assert shares is not None
    np.testing.assert_allclose(shares, counts / counts.sum(axis=1, keepdims=True))


def test_the_confusion_matrix_shows_the_worst_of_many_classes() -> None:
    axes = plots.confusion_figure(evaluation([f"c{n}" for n in range(100)])).axes[0]
    assert len(axes.get_yticklabels()) == 100
    assert not axes.texts
    result = evaluation([f"c{n}" for n in range(130)], rows=50)
    axes = plots.confusion_figure(result).axes[0]
    assert len(axes.get_yticklabels()) == 100
    assert axes.get_title() == "Confusion matrix: the 100 of 130 classes with the most mistakes"
    counts = np.array(result.to_json()["confusion"]["counts"])
    wrong = (counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()).nonzero()[0]
    assert {f"c{n}" for n in wrong} <= {label.get_text() for label in axes.get_yticklabels()}


def test_a_calibrated_model_is_on_the_diagonal() -> None:
    figure = plots.reliability_figure(evaluation(["cat", "dog"], rows=20_000))
    sure, right = np.asarray(figure.axes[0].lines[1].get_xydata()).T
    assert len(sure) == 8  # of two classes the likelier has at least one half
    np.testing.assert_allclose(right, sure, atol=0.06)
    bars = [each for each in figure.axes[1].patches if isinstance(each, Rectangle)]
    assert sum(bar.get_height() for bar in bars) == 20_000


def test_reliability_of_few_texts_has_intervals_and_the_error_by_chance() -> None:
    result = evaluation(["cat", "dog"], rows=12)
    axes = plots.reliability_figure(result).axes[0]
    error, chance = result.metrics["calibration_error"], result.calibration_by_chance
    assert axes.get_title() == (
        f"Reliability: calibration error {error:.3f},\nby chance up to {chance:.3f}"
    )
    assert chance > 0.15
    sure, right, count = metrics.reliability(result.outcome)
    some = count > 0
    lines = [each for each in axes.collections if isinstance(each, LineCollection)]
    (bars,) = [each for each in lines if len(each.get_segments()) == some.sum()]
    for bar, p, share, texts in zip(
        bars.get_segments(), sure[some], right[some], count[some], strict=True
    ):
        interval = binomtest(round(share * texts), int(texts)).proportion_ci(method="wilson")
        np.testing.assert_allclose(bar, [[p, interval.low], [p, interval.high]], atol=1e-9)


def test_multi_label_has_no_confusion_matrix(tmp_path: Path) -> None:
    paths = plots.draw(evaluation(["cat", "dog"], multi_label=True), HISTORY, tmp_path)
    assert {path.stem for path in paths} == {"reliability", "learning"}


def learning_axes(history: plots.History) -> list[Axes]:
    figure = plots.learning_figure(history)
    assert figure is not None
    return figure.axes


def test_the_learning_curve_draws_the_records_that_exist() -> None:
    losses, figures = learning_axes(HISTORY)
    drawn = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in losses.lines}
    assert drawn == {"train_loss": [[10, 0.9], [20, 0.7]], "dev log_loss": [[10, 0.8]]}
    assert [line.get_label() for line in figures.lines] == ["dev accuracy"]
    assert len(learning_axes([*HISTORY[:1], {"dev": 3}])) == 2
    assert len(learning_axes([{"step": 1, "train_loss": 1}])) == 1
    assert plots.learning_figure([]) is None
    assert plots.learning_figure([{"step": 1}]) is None


def test_of_many_records_some_are_drawn() -> None:
    """A million took gigabytes. The first ones and the last stay, on a logarithmic axis too."""
    history = [{"step": step, "train_loss": 1 / step} for step in range(1, 100_001)]
    (axes,) = learning_axes(history)
    steps = [int(step) for step in np.asarray(axes.lines[0].get_xdata())]
    assert len(steps) <= plots.MAX_POINTS
    assert (steps[:5], steps[-1]) == ([1, 2, 3, 4, 5], 100_000)
    assert max(np.diff(steps)) <= 101
    assert plots.thinned(history[:2_000]) == history[:2_000]
    damaged = [{"step": 1, "dev": {f"m{number}": 0.5 for number in range(1_000)}}]
    assert [len(axes.lines) for axes in learning_axes(damaged)] == [plots.MAX_CURVES - 1]


def test_a_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "reliability.png").mkdir()
    with pytest.raises(OutputError, match="which srucli did not draw; name another folder"):
        plots.draw(evaluation(["cat", "dog"]), [], tmp_path)


def test_plots_are_reproducible(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        plots.draw(evaluation(["cat", "dog"]), [], tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_something_else_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "plots").touch()
    with pytest.raises(OutputError, match=r"plots: cannot be written \(.*\); move away what is in"):
        plots.check_folder(tmp_path / "plots", ["confusion"])
