"""Evaluations of a small scorer, and the parts of `srucli eval` that need no trained run."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from srucli.cli import evaluate as command
from srucli.cli import options
from srucli.config import DataConfig
from srucli.data.formats import data_config, fresh_config
from srucli.data.readers import Example, read_examples
from srucli.errors import DataError, GateError, OutputError, SrucliError, UsageError
from srucli.inference.evaluation import CHUNK, evaluate
from srucli.io.console import escaped
from srucli.io.json_text import json_text
from srucli.metrics import Array, Floats
from srucli.tokenizer.truncation import Tally
from tests.support import RunCli, RunMain, Tiny


class LinearScorer:
    """A linear model with the interface of `Predictor`.

    A word that is the name of a label votes for it; every other word votes at random.
    """

    at_least_one = False

    def __init__(
        self, labels: list[str], multi_label: bool = False, thresholds: Floats | None = None
    ) -> None:
        self.labels, self.multi_label, self.thresholds = labels, multi_label, thresholds
        self.tally = Tally()
        self.calls: list[int] = []

    def _votes(self, word: str) -> Floats:
        size = len(self.labels)
        if word in self.labels:
            return np.where(np.arange(size) == self.labels.index(word), 4.0, 0.0)
        return np.random.default_rng(zlib.crc32(word.encode())).normal(scale=0.1, size=size)

    def probabilities(self, texts: Sequence[str], /) -> Array:
        self.calls.append(len(texts))
        none = np.zeros(len(self.labels))
        scores = np.stack([sum(map(self._votes, text.split()), none) for text in texts])
        found = expit(scores - 2) if self.multi_label else softmax(scores, axis=1)
        return np.asarray(found, np.float32)


def examples(*rows: tuple[str, str]) -> list[Example]:
    return [Example(text, tuple(labels.split()), n) for n, (labels, text) in enumerate(rows, 1)]


ANIMALS = examples(("cat", "a cat"), ("dog", "my dog"), ("dog", "the cat"), ("cat", "cat cat"))


def test_a_file_of_two_classes() -> None:
    result = evaluate(LinearScorer(["cat", "dog"]), iter(ANIMALS), source="pets.tsv")
    found = json.loads(json_text(result.to_json()))
    assert found["file"] == "pets.tsv"
    assert found["texts"] == 4
    assert found["metrics"]["accuracy"] == 0.75
    assert found["confusion"] == {"labels": ["cat", "dog"], "counts": [[2, 0], [1, 1]]}
    assert [row["label"] for row in found["per_class"]] == ["cat", "dog"]
    assert found["per_class"][1]["recall"] == 0.5
    assert found["unknown_labels"] == {}
    low, high = found["intervals"]["accuracy"]
    assert low < 0.75 < high
    assert found["texts_per_second"] == pytest.approx(4 / found["seconds"])


def test_the_table_for_people() -> None:
    lines = evaluate(LinearScorer(["cat", "dog"]), ANIMALS, source="pets.tsv").to_text().split("\n")
    assert lines[0].startswith("pets.tsv: 4 examples, ")
    assert lines[2].split() == ["metric", "value", "95%", "interval"]
    assert lines[3].split()[:2] == ["accuracy", "0.7500"]
    assert lines[3].split()[2:] == ["0.3006", "to", "0.9544"]
    heads = "class  precision  recall      F1  support  95% of precision  95% of recall"
    assert heads in lines
    assert "cat       0.6667  1.0000  0.8000        2      0.21 to 0.94   0.34 to 1.00" in lines
    assert lines[-3:] == [
        "true \\ predicted  cat  dog",
        "cat                 2    0",
        "dog                 1    1",
    ]


def test_wide_characters_keep_the_columns_straight() -> None:
    rows = examples(("긍정", "긍정"), ("negative", "negative"))
    text = evaluate(LinearScorer(["긍정", "negative"]), rows).to_text()
    assert "\n긍정         1.0000" in text
    assert "\nnegative     1.0000" in text


def test_unknown_labels_are_counted_and_named() -> None:
    rows = [*ANIMALS, *examples(("axolotl\x1b[2J", "a cat"), ("axolotl\x1b[2J", "a dog"))]
    result = evaluate(LinearScorer(["cat", "dog"]), rows)
    assert result.to_json()["unknown_labels"] == {"axolotl\x1b[2J": 2}
    assert result.to_json()["texts_without_log_loss"] == 2
    assert result.metrics["accuracy"] == 0.5
    text = result.to_text()
    assert "\x1b" not in text
    assert "not know, counted as errors: axolotl\\x1b[2J (2)" in text
    assert "log_loss excludes these examples: 2 of 6" in text


def test_labels_that_are_all_unknown_are_no_measurement() -> None:
    rows = examples(("1", "a cat"), ("2", "a dog"))
    result = evaluate(LinearScorer(["cat", "dog"]), rows)
    (said,) = result.remarks
    assert said.startswith(
        "no example has a label that the model knows, so the metrics say nothing"
    )
    assert said in result.to_text().splitlines()
    assert evaluate(LinearScorer(["cat", "dog"]), [*ANIMALS, *rows]).remarks == []
    several = LinearScorer(["cat", "dog"], multi_label=True)
    assert evaluate(several, rows).remarks == [said]
    assert evaluate(several, [Example("a cat", (), 1)]).remarks == []


def test_tables_are_at_most_80_wide() -> None:
    labels = [f"{number}_{'long' * (2 * number)}" for number in range(6)]
    result = evaluate(LinearScorer(labels), examples(*[(label, "a cat") for label in labels]))
    _, _, tables = result.to_text().partition("\n\nclass ")
    lines = f"class {tables}".splitlines()
    assert max(map(len, lines)) <= 80
    assert "class                               precision  recall      F1  support" in lines
    assert "5_longlonglonglo...onglonglonglong" in " ".join(lines)
    assert "most confused: true" in " ".join(lines)
    short = evaluate(LinearScorer(["card_arrival", "card_payments_no"]), ANIMALS).to_text()
    assert "                                                       95% of        95% of" in short


def test_one_class_and_an_empty_class() -> None:
    result = evaluate(LinearScorer(["cat", "dog", "eel"]), examples(("cat", "a cat")))
    found = json.loads(json_text(result.to_json()))
    assert found["metrics"]["accuracy"] == 1
    assert found["metrics"]["auc"] is None
    assert found["per_class"][2] == {
        "label": "eel", "precision": None, "recall": None, "f1": None, "support": 0, "predicted": 0,
        "precision_interval": [None, None], "recall_interval": [None, None],
    }  # fmt: skip
    assert "auc                     -" in result.to_text()


ALL_RIGHT = [*examples(*[("cat", "a cat"), ("dog", "my dog")] * 20)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            ALL_RIGHT,
            "no interval for macro_f1, weighted_f1: the value is the same in every resample of "
            "these examples",
        ),
        (
            ALL_RIGHT[:9],
            "no interval for macro_f1, weighted_f1, log_loss: 9 examples are too few to resample",
        ),
        (
            ALL_RIGHT[:1],
            "undefined for the labels of these examples: auc, average_precision",
        ),
        (
            ALL_RIGHT[:9],
            "calibration_error: a perfectly calibrated model reaches up to 0.0930 by chance on 9 "
            "examples, so this value shows no miscalibration",
        ),
    ],
    ids=["all right", "few examples", "one class", "calibration of few examples"],
)
def test_metrics_that_the_examples_cannot_support_are_named(rows: list[Example], said: str) -> None:
    assert said in evaluate(LinearScorer(["cat", "dog"]), rows).to_text().split("\n")


def test_an_undefined_metric_is_not_listed_as_without_an_interval() -> None:
    text = evaluate(LinearScorer(["cat", "dog"]), examples(*[("eel", "a cat")] * 20)).to_text()
    assert "of these examples: log_loss, auc, average_precision\n" in text
    assert "no interval for macro_f1, weighted_f1: " in text


def test_there_are_no_caveats_with_enough_examples() -> None:
    """Examples of both classes, and a model that is clearly miscalibrated."""
    rows = examples(*[("cat", "a cat"), ("dog", "my dog"), ("dog", "a cat")] * 40)

    class Unsure(LinearScorer):
        def probabilities(self, texts: Sequence[str], /) -> Array:
            scores = super().probabilities(texts)
            return np.where(scores == scores.max(axis=1, keepdims=True), 0.99, 0.01)

    result = evaluate(Unsure(["cat", "dog"]), rows)
    assert result.metrics["calibration_error"] > 0.3 > result.calibration_by_chance
    assert result.to_json()["calibration_error_by_chance"] == result.calibration_by_chance
    text = result.to_text()
    assert not [word for word in ("undefined", "no interval", "by chance") if word in text]


def test_multi_label() -> None:
    scorer = LinearScorer(["cat", "dog"], multi_label=True, thresholds=np.array([0.5, 0.5]))
    rows = examples(("cat dog", "cat and dog"), ("", "nothing here"), ("dog eel", "a dog"))
    result = evaluate(scorer, rows)
    found = result.to_json()
    assert found["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert found["metrics"]["micro_f1"] == pytest.approx(2 * 3 / (3 + 4))
    assert found["unknown_labels"] == {"eel": 1}
    assert "confusion" not in found
    assert "log_loss excludes" not in result.to_text()


def test_thresholds_decide() -> None:
    rows = examples(("cat", "a cat"))
    half = evaluate(LinearScorer(["cat", "dog"], True), rows)
    strict = evaluate(LinearScorer(["cat", "dog"], True, np.array([0.99, 0.99])), rows)
    assert (half.metrics["accuracy"], strict.metrics["accuracy"]) == (1, 0)


def test_with_many_classes_only_the_worst_confusions_are_listed() -> None:
    labels = [f"class{n:02}" for n in range(30)]
    rows = [(name, name) for name in labels] + [("class03", "class07")] * 5
    rows += [("class01", "class02")] * 2
    text = evaluate(LinearScorer(labels), examples(*rows)).to_text()
    assert text.split("\n")[-3:] == [
        "most confused: true  predicted  examples",
        "class03              class07           5",
        "class01              class02           2",
    ]


def test_of_many_classes_those_that_occur_have_a_row() -> None:
    """100,000 classes had 100,000 rows, and as many unknown labels were one line of a megabyte."""
    labels = [f"c{number}" for number in range(1_500)]
    rows = [("c1", "c1"), ("c2", "c3"), *((f"new{number}", "c4") for number in range(60))]
    result = evaluate(LinearScorer(labels), examples(*rows))
    lines = result.to_text().split("\n")
    shown = {line.split()[0] for line in lines if line.startswith(("c", "new"))}
    assert shown >= {"c1", "c2", "c3", "c4", "new0", "new59"}
    assert "not shown: 1,496 classes that are neither true nor predicted here" in lines
    (unknown,) = (line for line in lines if line.startswith("labels that the model does not"))
    assert unknown.endswith("new49 (1), and 10 more")
    assert len(result.to_json()["per_class"]) == 1_560


def test_examples_are_evaluated_in_chunks() -> None:
    scorer, seen = LinearScorer(["cat", "dog"]), []
    rows = (Example("cat", ("cat",), n) for n in range(CHUNK + 5))
    result = evaluate(scorer, rows, on_chunk=lambda chunk, p: seen.append((len(chunk), p.shape)))
    assert seen == [(CHUNK, (CHUNK, 2)), (5, (5, 2))]
    assert scorer.calls == [1, CHUNK, 5]
    assert result.examples == CHUNK + 5


def test_long_examples_are_evaluated_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srucli.inference.evaluation.CHUNK_CHARACTERS", 10)
    scorer = LinearScorer(["cat", "dog"])
    evaluate(scorer, [Example("cat", ("cat",), n) for n in range(10)])
    assert scorer.calls == [1, 4, 4, 2]


def test_too_many_examples_for_so_many_labels() -> None:
    """They are refused before a model is applied to them."""
    scorer = LinearScorer([str(number) for number in range(70_000)], multi_label=True)
    rows = [Example("0", ("0",), number) for number in range(2_000)]
    with pytest.raises(DataError, match=r"t\.tsv: 2,000 or more examples with 70,000 labels"):
        evaluate(scorer, rows, source="t.tsv")
    assert scorer.calls == []


def test_no_examples() -> None:
    with pytest.raises(SrucliError, match="no examples to evaluate on"):
        evaluate(LinearScorer(["cat", "dog"]), [])


def test_several_labels_in_a_single_label_model() -> None:
    with pytest.raises(DataError, match=r"pets\.tsv:1: 2 labels, but the model gives each text"):
        evaluate(LinearScorer(["cat", "dog"]), examples(("cat dog", "both")), source="pets.tsv")


def test_a_model_with_nan_probabilities() -> None:
    class Broken(LinearScorer):
        def probabilities(self, texts: Sequence[str], /) -> Array:
            return np.full((len(texts), 2), np.nan, np.float32)

    with pytest.raises(SrucliError, match="probabilities of 4 of 4 examples are NaN or Inf"):
        evaluate(Broken(["cat", "dog"]), ANIMALS)


def test_a_real_file(shared_data: Path) -> None:
    """Questions, scored by a model that knows only the names of the classes."""
    rows = read_examples(shared_data / "trec" / "test.tsv.gz", DataConfig())
    labels = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
    result = evaluate(LinearScorer(labels), rows)
    assert result.examples == 500
    assert sum(row.support for row in result.per_class) == 500
    assert 0 < result.metrics["accuracy"] < 0.5


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("plain", "plain"),
        ("긍정 é", "긍정 é"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("left\u202eright", "left\\u202eright"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_escaped(label: str, shown: str) -> None:
    assert escaped(label) == shown


# The command, without a run.


def test_gates() -> None:
    gates = command.parse_gates(["accuracy=0.9", "log_loss=0.5"])
    assert gates == [("accuracy", 0.9), ("log_loss", 0.5)]
    command.check_gates(gates, {"accuracy": 0.9, "log_loss": 0.5})
    with pytest.raises(GateError) as caught:
        command.check_gates(gates, {"accuracy": 0.8999, "log_loss": 0.51})
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "--fail-under: accuracy 0.8999 is not at least 0.9; log_loss 0.5100 is not at most 0.5"
    )
    with pytest.raises(GateError, match="auc nan is not at least"):
        command.check_gates([("auc", 0.5)], {"auc": math.nan})


@pytest.mark.parametrize("bounds", [(0.9, 0.1), (0.1, 0.9)], ids=["hard first", "easy first"])
def test_all_gates_of_a_metric_must_hold(bounds: tuple[float, float]) -> None:
    gates = command.parse_gates([f"accuracy={bound}" for bound in bounds])
    with pytest.raises(GateError, match=r"accuracy 0\.5000 is not at least 0\.9"):
        command.check_gates(gates, {"accuracy": 0.5})


@pytest.mark.parametrize(
    "gate", ["accuracy", "accuracy=", "accuracy=high", "accuracy=nan", "accuracy=1e999"]
)
def test_invalid_gates(gate: str) -> None:
    with pytest.raises(UsageError, match="write METRIC=NUMBER"):
        command.parse_gates([gate])


def test_only_metrics_of_the_task_are_named(tiny: Tiny, run_main: RunMain) -> None:
    ended = run_main("eval", tiny.run, tiny.test, "--fail-under", "quality=1")
    assert ended.code == 2
    assert "unknown metric 'quality' (known: accuracy, macro_f1, micro_f1, " in ended.err
    assert "hamming_loss" not in ended.err
    assert "micro_average_precision" not in ended.err


def test_mistakes_are_reported_before_anything_is_read(run_main: RunMain, tmp_path: Path) -> None:
    """Names of metrics are checked before the run and the file, which do not exist here."""
    typo = run_main("eval", tmp_path / "run", tmp_path / "f.tsv", "--fail-under", "acuracy=0.9")
    assert (typo.code, typo.out) == (2, "")
    assert typo.err == "srucli: --fail-under: unknown metric 'acuracy' (did you mean 'accuracy'?)\n"
    no_run = run_main("eval", tmp_path / "run", tmp_path / "f.tsv")
    assert no_run.code == 66
    assert "run: no such run; give the folder that `srucli train` printed" in no_run.err
    (tmp_path / "run").mkdir()
    empty = run_main("eval", tmp_path / "run", tmp_path / "f.tsv")
    assert empty.code == 66
    assert "run: not a run folder: it has no run.json; give the folder that" in empty.err
    (tmp_path / "run" / "run.json").touch()
    no_file = run_main("eval", tmp_path / "run", tmp_path / "f.tsv")
    assert no_file.code == 66
    assert "f.tsv: no such file" in no_file.err
    (tmp_path / "f.tsv").write_text("cat\ta cat\n")
    folder = run_main(
        "eval", tmp_path / "run", tmp_path / "f.tsv", "--predictions", tmp_path / "no" / "p.tsv"
    )
    assert folder.code == 73
    assert "p.tsv: its folder does not exist" in folder.err


def test_help(run_cli: RunCli) -> None:
    shown = run_cli("eval", "--help", env={"COLUMNS": "200"})
    assert shown.returncode == 0
    for flag in ("--json", "--predictions", "--plots", "--fail-under", "--device", "--format"):
        assert flag in shown.stdout


def predictions(tmp_path: Path, name: str, scorer: LinearScorer, rows: Iterable[Example]) -> str:
    path = tmp_path / name
    with command.replacing(path) as stream:
        write = command.predictions_writer(stream, path, scorer, ",")
        evaluate(scorer, rows, on_chunk=write)
        assert not path.exists()
    return path.read_text(encoding="utf-8")


def test_predictions_as_tsv(tmp_path: Path) -> None:
    rows = examples(("cat", "a cat"), ("dog", "tab\tand\nline cat"))
    lines = predictions(tmp_path, "p.tsv", LinearScorer(["cat", "dog"]), rows).split("\n")
    assert lines[0] == "record\tline\tgold\tpredicted\tprobability\ttext"
    record, line, gold, predicted, probability, text = lines[1].split("\t")
    assert (record, line, gold, predicted, text) == ("1", "1", "cat", "cat", "a cat")
    assert 0.9 < float(probability) < 1
    assert lines[2].split("\t")[5] == "tab\\tand\\nline cat"
    assert lines[3:] == [""]


def test_predictions_as_json_lines(tmp_path: Path) -> None:
    rows = examples(("dog", "tab\tand\nline 긍정 cat"))
    text = predictions(tmp_path, "p.jsonl", LinearScorer(["cat", "dog"]), rows)
    found = json.loads(text)
    assert list(found) == ["record", "line", "gold", "predicted", "probability", "text"]
    assert (found["gold"], found["predicted"]) == ("dog", "cat")
    assert found["text"] == "tab\tand\nline 긍정 cat"
    assert "긍정" in text


def test_multi_label_predictions(tmp_path: Path) -> None:
    scorer = LinearScorer(["cat", "dog"], multi_label=True)
    rows = examples(("cat dog", "cat and dog"), ("", "nothing"))
    lines = predictions(tmp_path, "p.tsv", scorer, rows).split("\n")
    assert lines[1].split("\t")[2:4] == ["cat,dog", "cat,dog"]
    assert len(lines[1].split("\t")[4].split(",")) == 2
    assert lines[2].split("\t") == ["2", "2", "", "", "", "nothing"]
    first, second = predictions(tmp_path, "p.jsonl", scorer, rows).splitlines()
    assert json.loads(first)["predicted"] == ["cat", "dog"]
    assert json.loads(second)["probability"] == []


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), command.replacing(path) as stream:  # noqa: PT012
        stream.write("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["p.tsv"]
    assert path.read_text() == "old"
    link = tmp_path / "link.tsv"
    link.symlink_to(path)
    with command.replacing(link) as stream:
        stream.write("new")
    assert link.is_symlink()
    assert path.read_text() == "new"


def test_devices_are_written_not_replaced() -> None:
    with command.replacing(Path("/dev/null")) as stream:
        stream.write("gone")
    assert Path("/dev/null").is_char_device()


def test_a_full_disk() -> None:
    with (
        pytest.raises(OutputError, match=r"/dev/full: cannot be written \(No space"),
        command.replacing(Path("/dev/full")) as stream,
    ):
        stream.write("x")


CSV_RUN = DataConfig(format="csv", text="review", label="stars", encoding="cp949")


@pytest.mark.parametrize(
    ("trained", "file", "given", "expected"),
    [
        (CSV_RUN, "test.csv.gz", {}, CSV_RUN),
        (CSV_RUN, "-", {}, CSV_RUN),
        (CSV_RUN, "test.txt", {}, CSV_RUN),
        (CSV_RUN, "test.jsonl", {}, DataConfig()),
        (DataConfig(format="jsonl", text="body"), "test.tsv", {}, DataConfig()),
        (DataConfig(format="jsonl", text="body"), "test.txt", {}, None),
        (DataConfig(text="body"), "test.csv", {}, None),
        (DataConfig(multi_label=True), "t.jsonl", {}, None),
        (
            CSV_RUN.model_copy(update={"merge_labels": True}),
            "t.jsonl",
            {},
            DataConfig(merge_labels=True),
        ),
        (CSV_RUN, "t.csv", {"text": "body"}, CSV_RUN.model_copy(update={"text": "body"})),
    ],
)
def test_files_are_read_as_the_run_was_unless_something_says_otherwise(
    trained: DataConfig, file: str, given: dict[str, Any], expected: DataConfig | None
) -> None:
    assert data_config(trained, file, given) == (expected or trained)


def test_what_fits_no_other_file_is_left_out() -> None:
    trained = DataConfig(
        format="csv",
        text=1,
        label="stars",
        header=True,
        delimiter=";",
        quotes=False,
        encoding="cp949",
        multi_label=True,
        merge_labels=True,
    )
    expected = DataConfig(text=3, multi_label=True, merge_labels=True)
    assert fresh_config(trained, {"text": 3}) == expected


def test_data_flags_become_settings() -> None:
    found = options.parse(
        {
            "data.text": "2",
            "data.label": "stars",
            "data.header": False,
            "data.delimiter": "\\t",
        }
    )
    assert found == {
        "data.text": 2,
        "data.label": "stars",
        "data.header": False,
        "data.delimiter": "\t",
    }
