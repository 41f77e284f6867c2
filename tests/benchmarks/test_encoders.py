"""The comparison of encoders: which rates are tried, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import encoders

Curve = Callable[[float], float]


def tried_for(accuracy: Curve) -> list[float]:
    """The rates that are tried where dev accuracy is this function of the rate."""
    tried: list[encoders.Cell] = []
    while rates := encoders.next_rates(tried):
        tried += [{"rate": rate, "accuracy": accuracy(rate), "loss": 1.0} for rate in rates]
    assert encoders.best_rate(tried) == max((cell["rate"] for cell in tried), key=accuracy)
    return sorted(cell["rate"] for cell in tried)


CURVES: dict[str, tuple[Curve, list[float]]] = {
    "best in the middle": (lambda rate: -abs(rate - 2e-3), [1e-3, 2e-3, 4e-3]),
    "the lower the better": (lambda rate: -rate, [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3]),
    "the higher the better": (lambda rate: rate, [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]),
    "best beyond the edge": (lambda rate: -abs(rate - 8e-3), [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]),
}


@pytest.mark.parametrize(("accuracy", "rates"), CURVES.values(), ids=CURVES)
def test_rates_are_tried_until_the_best_is_no_edge(accuracy: Curve, rates: list[float]) -> None:
    assert tried_for(accuracy) == pytest.approx(rates)


def test_the_smaller_loss_decides_between_equals() -> None:
    cells = [{"rate": rate, "accuracy": 0.5, "loss": abs(rate - 2e-3)} for rate in encoders.RATES]
    assert encoders.best_rate(cells) == 2e-3


def test_what_stands_in_the_results_file_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "encoders.jsonl"
    encoders.Record(file).add({"stage": "dev", "set": "a", "rate": 1e-3})
    record = encoders.Record(file)
    assert record.find(stage="dev", set="a") == [{"stage": "dev", "set": "a", "rate": 1e-3}]
    assert record.find(stage="test") == []


def test_large_sets_choose_their_rate_on_fewer_texts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train = tmp_path / "train.tsv"
    train.write_text("".join(f"{n % 2}\ttext {n}\n" for n in range(30)))
    files = encoders.Files(train, train, None)
    assert encoders.fewer(files, tmp_path) == files
    monkeypatch.setattr(encoders, "MAX_TEXTS", 10)
    short = encoders.fewer(files, tmp_path)
    assert short.test == train
    lines = short.train.read_text().splitlines()
    assert len(set(lines)) == 10
    assert set(lines) < set(train.read_text().splitlines())
