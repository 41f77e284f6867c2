"""What a run's card says of its figures."""

from __future__ import annotations

import json

from conftest import Tiny
from scipy.stats import binomtest


def test_the_figures_of_a_card_have_intervals_and_say_what_chose(tiny: Tiny) -> None:
    card = (tiny.run / "README.md").read_text(encoding="utf-8")
    (*_, last) = map(json.loads, (tiny.run / "metrics.jsonl").read_text().splitlines())
    assert "## Measured on 48 dev texts\n\nThese texts also chose the epoch" in card
    accuracy = last["dev"]["accuracy"]
    interval = binomtest(round(48 * accuracy), 48).proportion_ci(method="wilson")
    assert f"| accuracy | {accuracy:.4f} | {interval.low:.4f} to {interval.high:.4f} |" in card
    assert f"| macro_f1 | {last['dev']['macro_f1']:.4f} |  |" in card
