"""The fuzzer's target `plots`: plots and tables of odd results, labels, histories and diagnostics.

An evaluation is of made-up probabilities. A plot is drawn as SVG, which must be well-formed; some
inputs are drawn as the commands draw them, as PNG too. Of others, the plot is only made.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts
from numpy.typing import NDArray

from srucli.data.readers import Example
from srucli.diagnostics.findings import diagnose
from srucli.diagnostics.records import Diagnostics
from srucli.errors import SrucliError
from srucli.experiments import plots
from srucli.inference.evaluation import Evaluation, evaluate
from srucli.io.json_text import json_text
from srucli.runs.run_dir import read_records
from srucli.tokenizer.truncation import Tally
from tests.robustness.mutate import VALUES, mutate_lines
from tests.robustness.targets.printed import check_json, check_printed
from tests.robustness.targets.seeds import Seeds
from tests.robustness.watch import watched

LABELS = (
    *("good", "bad", "좋은", "a" * 3000, "\x1b[31m", "\x07", "\x9b", "\x7f", "\u202eevil", "$x$"),
    *(
        r"$\frac{",
        "<b>",
        "&amp;",
        "]]>",
        "\ufffe",
        "\U0001f468",
        "한" * 40,
        "_",
        "_x",
        "`a`",
        "\u200b",
    ),
    *("%s", "{0}", "\\", "'", '"', "\u2028", "\ufdfa" * 30, "a b", ",", "\U0010ffff"),
)
# Shares of the inputs: drawn as a command draws, and drawn at all, which takes most of the time.
DRAWN, RENDERED = 0.01, 0.4


class Model:
    """Gives made-up probabilities, as `evaluate` needs them."""

    def __init__(self, random: Random, labels: Sequence[str], multi_label: bool) -> None:
        self.labels, self.multi_label, self.tally = labels, multi_label, Tally()
        self.at_least_one = multi_label and random.random() < 0.5
        self.random = np.random.default_rng(random.getrandbits(32))
        self.sharp = random.choice((0.0, 1.0, 30.0, 1000.0))
        self.odd = random.choice((None,) * 9 + (np.nan, np.inf, -1.0))
        self.thresholds: NDArray[np.float32] | None = None
        if multi_label and random.random() < 0.5:
            self.thresholds = self.random.random(len(labels)).astype(np.float32)

    def probabilities(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Return random probabilities (B, C)."""
        logits = self.sharp * self.random.standard_normal((len(texts), len(self.labels)))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows = powers / powers.sum(axis=1, keepdims=True)
        if self.multi_label:
            rows = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        if self.odd is not None and len(rows):
            rows[-1, -1] = self.odd
        found: NDArray[np.float32] = rows.astype(np.float32)
        return found


def evaluation(random: Random) -> Evaluation:
    """Return the evaluation of a made-up model. Raises SrucliError."""
    count = random.choice((2, 2, 3, 5, 12, 25, 120))
    names = [f"{random.choice(LABELS)}{number or ''}" for number in range(count)]
    model = Model(random, names, random.random() < 0.3)
    few = random.random() < 0.3
    gold = names[:1] if few else [*names, *random.sample(LABELS, 2)]
    rows = random.choice((0, 1, 2, 6, 40, 200))
    size = 1 if not model.multi_label else random.choice((0, 1, 3))
    examples = [
        Example(f"text {line}", tuple(random.choices(gold, k=size)), line) for line in range(rows)
    ]
    return evaluate(model, examples, source=random.choice(LABELS))


def try_plot(seeds: Seeds, random: Random, folder: Path) -> None:
    """Draw one figure, and print what belongs to it."""
    with watched(folder), plots.styled():
        way = random.randrange(4)
        if way < 2:
            _evaluation(seeds, random, folder, way)
        elif way == 2:
            history = _mutated(random, seeds.bases.folder / "finished" / "metrics.jsonl", folder)
            figure = plots.learning_figure(history)
            if figure is not None:
                check_svg(random, figure)
        else:
            _diagnostics(seeds, random, folder)


def _evaluation(seeds: Seeds, random: Random, folder: Path, way: int) -> None:
    result = evaluation(random)
    check_printed(result.to_text(), most=100_000)
    check_json(json_text(result.to_json()))
    if random.random() < DRAWN:
        plots.draw(result, [], folder / "plots")
    elif way and not result.outcome.multi_label:
        check_svg(random, plots.confusion_figure(result))
    else:
        check_svg(random, plots.reliability_figure(result))


def _mutated(random: Random, path: Path, folder: Path) -> list[Any]:
    """Return records of which one is changed, read back from a file."""
    data = path.read_bytes()
    for _ in range(random.choice((1, 2, 5))):
        data = mutate_lines(random, data, json.dumps(random.choice(VALUES[4:14])).encode())
    (folder / path.name).write_bytes(data)
    return list(read_records(folder / path.name))


def _diagnostics(seeds: Seeds, random: Random, folder: Path) -> None:
    """Explain and draw mutated diagnostics. Raises SrucliError."""
    finished = seeds.bases.folder / "finished"
    for name in ("metrics.jsonl", "diagnostics.jsonl"):
        _mutated(random, finished / name, folder)
    with contextlib.redirect_stderr(io.StringIO()):
        found = Diagnostics.read(folder)
    for finding in diagnose(found):
        check_printed(finding.text)
    check_svg(random, plots.optimizer_figure(plots.optimizer_panels(found)))


def check_svg(random: Random, figure: Figure) -> None:
    """Draw some figures, and check that they are well-formed and their text safe."""
    if random.random() > RENDERED:
        return
    figure.set_layout_engine("none")  # which takes half of the time
    out = io.BytesIO()
    figure.savefig(out, format="svg", **plots.KINDS["svg"])
    root = ElementTree.fromstring(out.getvalue())
    check_printed("\n".join(root.itertext()), most=10_000)


def prepare(seeds: Seeds) -> None:
    """Load fonts, which starts fontconfig's `fc-list` once, and draw each figure once."""
    findSystemFonts()
    random = Random(0)
    seeds.bases  # noqa: B018
    for _ in range(4):
        with contextlib.suppress(SrucliError), plots.styled():
            check_svg(random, plots.reliability_figure(evaluation(random)))
