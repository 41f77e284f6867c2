"""Python beside the command: the programs that are timed, and the table."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks import from_python
from tests.support import Tiny, sentences


def test_both_predict_the_same(tiny: Tiny, tmp_path: Path) -> None:
    texts = [text for _, text in sentences()[:20]]
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    ways = ("command", "Python")
    outputs = [from_python.predicted(way, tiny.run, file, tmp_path) for way in ways]
    from_python.check_same(outputs)
    assert len(outputs[0].read_text().splitlines()) == 20
    outputs[1].write_text("other\n")
    with pytest.raises(ValueError, match="do not predict the same labels"):
        from_python.check_same(outputs)


def test_the_order_changes_from_round_to_round() -> None:
    ran: list[str] = []

    def job(name: str) -> Path:
        ran.append(name)
        return Path(name)

    jobs = {name: partial(job, name) for name in ("one", "two")}
    with from_python.busy(1):
        timed = list(from_python.timed(jobs, rounds=2))
    assert ran == ["one", "two", "two", "one"] == [name for name, _ in timed]


def test_ratios_are_of_pairs() -> None:
    found = {"made": {"train": {"command": [1.0, 2.0, 4.0], "Python": [1.1, 2.0, 6.0]}}}
    lines = from_python.table(found).splitlines()
    assert lines[2:] == [
        "| made | train | command | 2.0 | 1.00 (1.00 to 1.00) |",
        "| made | train | Python | 2.0 | 1.10 (1.05 to 1.30) |",
    ]
    assert from_python.ratio([3.0], [2.0]) == "1.50"
