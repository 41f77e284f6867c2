"""The model card: the network, the epochs, and metrics with their intervals."""

from __future__ import annotations

import json

import pytest
from scipy.stats import binomtest

from srucli.config import resolve
from srucli.runs.choice import Choice
from srucli.runs.model_card import model_card
from srucli.runs.run_dir import RunDir
from tests.support import Tiny

USED = Choice("last", "step-9", None)


def card_of(tiny: Tiny, *overrides: str, epochs: int = 9) -> str:
    facts = RunDir(tiny.run).facts().model_copy(update={"epochs": 9})
    return model_card("x", resolve(overrides=overrides), ["a", "b"], facts, USED, None, epochs)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        pytest.param(
            "sru",
            "sru (activation=identity, bidirectional=True, hidden=64, highway_bias=0.0, layers=2)",
            id="sru",
        ),
        pytest.param("cnn", "cnn (hidden=64, kernel_sizes=[3, 4, 5])", id="cnn"),
        pytest.param("bag", "bag (bag_buckets=16384, bag_ngrams=3)", id="bag"),
    ],
)
def test_the_card_describes_the_network(tiny: Tiny, encoder: str, said: str) -> None:
    (line,) = [
        line for line in card_of(tiny, f"model.encoder={encoder}").splitlines() if said in line
    ]
    last = " and last" if encoder == "sru" else ""
    assert line.startswith(
        f"- Model: {said}, pooling by max and mean{last}; a linear model of n-grams"
    )


def test_the_card_says_how_many_epochs_were_trained(tiny: Tiny) -> None:
    assert "examples, 9 epochs, adam" in card_of(tiny)
    assert "examples, 4 of 9 epochs, adam" in card_of(tiny, epochs=4)


def test_a_card_without_dev_examples_has_no_number_of_them(tiny: Tiny) -> None:
    card = card_of(tiny)
    assert "## Metrics\n\nThere were no dev examples" in card


def test_intervals_depend_on_the_number_of_dev_examples(tiny: Tiny) -> None:
    facts = RunDir(tiny.run).facts()
    facts = facts.model_copy(update={"data": facts.data.model_copy(update={"dev_texts": 10})})
    assert facts.data.texts > 40
    line = {"epoch": 1, "dev": {"accuracy": 0.8}}
    card = model_card("x", resolve(), ["a", "b"], facts, USED, line, 1)
    interval = binomtest(8, 10).proportion_ci(method="wilson")
    assert f"| accuracy | 0.8000 | {interval.low:.4f} to {interval.high:.4f} |" in card


def test_the_metrics_have_intervals_and_a_caveat(tiny: Tiny) -> None:
    card = (tiny.run / "README.md").read_text(encoding="utf-8")
    (*_, last) = map(json.loads, (tiny.run / "metrics.jsonl").read_text().splitlines())
    assert "## Metrics on 48 dev examples\n\nThese examples also chose the epoch" in card
    accuracy = last["dev"]["accuracy"]
    interval = binomtest(round(48 * accuracy), 48).proportion_ci(method="wilson")
    assert f"| accuracy | {accuracy:.4f} | {interval.low:.4f} to {interval.high:.4f} |" in card
    assert f"| macro_f1 | {last['dev']['macro_f1']:.4f} |  |" in card


def test_labels_and_names_cannot_write_markdown(tiny: Tiny) -> None:
    facts = RunDir(tiny.run).facts().model_copy(update={"device": "<b>|x\n# y"})
    labels = ["a`b", "``", "`c", "d|e", "<script>", "f\u202eg\x9b", " h "]
    card = model_card("my_run\n# <i>", resolve(), labels, facts, USED, None, 9)
    assert card.startswith("# my\\_run\\\\n\\# \\<i\\>\n\nA text")
    shown = "``a`b``, ``` `` ```, `` `c ``, `d|e`, `<script>`, `f\\u202eg\\x9b`, `  h  `"
    assert f"- Labels (7): {shown}\n" in card
    assert r" on \<b\>\|x\\n\# y." in card
