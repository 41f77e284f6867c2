"""Two runs on one file: paired differences, McNemar's test, and which runs are comparable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from srucli.data.readers import Example
from srucli.errors import DataError, UsageError
from srucli.inference.comparison import Comparison, check_same_examples
from srucli.inference.evaluation import evaluate
from srucli.io.json_text import json_text
from srucli.metrics import Outcome, differences, mcnemar
from srucli.tokenizer.truncation import Tally
from tests.support import RunMain, Tiny, run_training


class Fixed:
    """A model with fixed probabilities: the text is the number of the row."""

    at_least_one = False

    def __init__(self, rows: np.ndarray, labels: tuple[str, ...], multi_label: bool) -> None:
        self.rows, self.labels, self.multi_label = rows, labels, multi_label
        self.thresholds, self.tally = None, Tally()

    def probabilities(self, texts: Sequence[str], /) -> np.ndarray:
        return self.rows[[int(text) for text in texts]]


def single(right: list[bool]) -> np.ndarray:
    """Return probabilities (B, 2) of a model that is right on these; "a" is true of even ones."""
    truth = np.arange(len(right)) % 2
    chosen = np.where(right, truth, 1 - truth)
    return np.eye(2, dtype=np.float32)[chosen] * 0.6 + 0.2


def compared(one: list[bool], other: list[bool]) -> Comparison:
    examples = [Example(str(n), ("ab"[n % 2],), n + 1) for n in range(len(one))]
    both = [evaluate(Fixed(single(right), ("a", "b"), False), examples) for right in (one, other)]
    return Comparison(("runs/one", "runs/two"), *both)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (6, 0), (3, 9), (9, 3), (40, 60), (900, 800)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    wanted = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(wanted, rel=1e-9)


def test_differences_are_resampled_in_pairs() -> None:
    """The interval is that of a bootstrap, written out, of macro-F1 on the same examples."""
    rng = np.random.default_rng(1)
    targets = rng.integers(3, size=300)
    scores = [rng.random((300, 3)).astype(np.float32) for _ in range(2)]
    scores[1][np.arange(300), targets] += 0.2
    one, other = (Outcome(each / each.sum(1, keepdims=True), targets) for each in scores)
    found = differences(one, other)["macro_f1"]
    predicted = [each.predictions for each in (one, other)]

    def difference(rows: np.ndarray) -> float:
        first, second = (f1_score(targets[rows], p[rows], average="macro") for p in predicted)
        return float(first - second)

    drawn = [difference(rng.integers(300, size=300)) for _ in range(400)]
    assert found.value == pytest.approx(difference(np.arange(300)))
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    # Paired: a model differs from itself by nothing, though its own interval is wide.
    same = differences(one, replace(one))["macro_f1"]
    assert (same.value, same.is_certain) == (0, False)
    assert np.isnan(same.low)
    back = differences(other, one)["macro_f1"]
    assert [*back] == pytest.approx([-found.value, -found.high, -found.low])


def test_the_better_run_is_named() -> None:
    better, worse = [True] * 200, [n % 10 > 0 for n in range(200)]
    said = compared(better, worse).sentence()
    assert said.startswith("runs/one is better by 10.0 points (95% interval ")
    assert said.endswith("; McNemar p < 0.0001)")
    assert compared(worse, better).sentence().startswith("runs/two is better by 10.0 points (95%")
    shown = compared(better, worse).to_text()
    assert "right: both 180, only A 20, only B 0, neither 0" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ([True] * 50, [True] * 50, "differ by 0.0 points (McNemar p = 1)"),
        ([True] * 50, [n > 4 for n in range(50)], "differ by 10.0 points (95% interval 2.0 to "),
        ([True] * 8, [False] * 8, "differ by 100.0 points (McNemar p = 0.0078)"),
    ],
    ids=["the same", "five examples", "too few to resample"],
)
def test_no_difference_is_claimed_without_evidence(
    one: list[bool], other: list[bool], said: str
) -> None:
    comparison = compared(one, other)
    assert comparison.sentence().startswith("no difference could be shown: the accuracies ")
    assert said in comparison.sentence()
    written = json.loads(json_text(comparison.to_json()))
    assert written["sentence"] == comparison.sentence()
    assert written["right"]["only_second"] == 0


def test_an_unproven_difference_and_its_interval_have_the_same_sign() -> None:
    better, worse = [True] * 50, [n > 4 for n in range(50)]
    said = compared(worse, better).sentence()
    assert said == compared(better, worse).sentence()
    assert "differ by 10.0 points (95% interval 2.0 to " in said


def test_multi_label_runs() -> None:
    """McNemar's test is on texts with exactly the right labels."""
    examples = [Example(str(n), ("a", "b") if n % 2 else ("a",), n + 1) for n in range(40)]
    right = np.array([[0.9, 0.9 if n % 2 else 0.1] for n in range(40)], np.float32)
    wrong = right.copy()
    wrong[:10, 0] = 0.2
    both = [evaluate(Fixed(rows, ("a", "b"), True), examples) for rows in (right, wrong)]
    comparison = Comparison(("x", "y"), *both)
    assert comparison.counts == (30, 10, 0, 0)
    assert comparison.p == pytest.approx(2 / 2**10)
    assert comparison.differences["hamming_loss"].value == pytest.approx(-10 / 80)
    assert "exactly right: both 30, only A 10" in comparison.to_text()


def test_the_examples_have_to_be_the_same() -> None:
    one = [(1, ("a",)), (2, ("b", "c"))]
    check_same_examples("f", one, [(1, ("a",)), (2, ("c", "b"))], ("x", "y"))
    with pytest.raises(DataError, match=r"f:2: x reads the label 'b, c', y reads 'b'; say how"):
        check_same_examples("f", one, [(1, ("a",)), (2, ("b",))], ("x", "y"))
    with pytest.raises(DataError, match="f:1: x reads an example here, y does not; say how"):
        check_same_examples("f", one, [(2, ("a",))], ("x", "y"))
    with pytest.raises(DataError, match="f:1: y reads an example here, x does not; say how"):
        check_same_examples("f", one[1:], one, ("x", "y"))
    with pytest.raises(DataError, match="f: x reads 2 examples, y reads 1"):
        check_same_examples("f", one, one[:1], ("x", "y"))


def test_runs_are_compared_on_the_command_line(
    tiny: Tiny, run_main: RunMain, tmp_path: Path
) -> None:
    """The other run has another network, other lengths of texts and another layout."""
    other = run_training(tiny, tmp_path / "other", "train.max_tokens=3", "train.epochs=1")
    done = run_main("eval", tiny.run, tiny.test, "--against", other, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["runs"] == [str(tiny.run), str(other)]
    for number, run in enumerate((tiny.run, other)):
        alone = json.loads(run_main("eval", run, tiny.test, "--json").out)
        assert found["metrics"][number] == alone["metrics"]
    shown = run_main("eval", tiny.run, tiny.test, "--against", other, "--fail-under", "accuracy=2")
    assert shown.code == 3
    assert found["sentence"] in shown.out
    said = run_main("eval", tiny.run, "-", "--against", other, input="")
    assert said.code == 2
    assert "reads the examples twice; give a file instead of -" in said.err


def test_runs_with_other_labels_are_refused(tiny: Tiny, run_main: RunMain, tmp_path: Path) -> None:
    shutil.copytree(tiny.run, tmp_path / "other")
    labels = tmp_path / "other" / "labels.json"
    labels.write_text(labels.read_text().replace("none", "neutral"))
    done = run_main("eval", tiny.run, tiny.test, "--against", tmp_path / "other")
    assert (done.code, done.out) == (UsageError.exit_code, "")
    assert "run has 'none' and only " in done.err
    assert "other has 'neutral'; compare runs with the same labels" in done.err


def test_the_run_that_cannot_read_the_file_is_named(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    other, file = tmp_path / "other", tmp_path / "x.csv"
    shutil.copytree(tiny.run, other)
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("  text: null\n", "  text: body,title\n", 1))
    file.write_text("label,text\n" + "odd,a lovely soup\nnew,a rude hotel\n" * 9)
    done = run_main("eval", tiny.run, file, "--against", other)
    assert (done.code, done.out) == (65, "")
    said = f"{file}:1: read for {other}: no column 'body' in the header 'label,text'; name the text"
    assert said in done.err
    done = run_main("eval", tiny.run, file, "--against", other, "--text", "text")
    assert done.code == 0, done.err


def test_remarks_on_both_runs_are_said(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("odd\ta lovely soup\nother\ta rude hotel\n" * 9)
    done = run_main("eval", tiny.run, tmp_path / "x.tsv", "--against", tiny.run)
    assert done.code == 0, done.err
    assert done.err.count("no example has a label that the model knows") == 2
