"""Cross-validation: equal to training and evaluating by hand, resumed, refused, reported."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import pytest

from srucli.config import resolve
from srucli.data.readers import Example, read_examples
from srucli.errors import DataError, DivergedError, OutputError, UsageError
from srucli.experiments.crossval import crossval_examples
from srucli.experiments.crossval_results import Crossval
from srucli.experiments.fold_trials import Fold, FoldFolder, Plan, Task
from srucli.inference.evaluation import evaluate
from srucli.inference.predictor import Predictor
from srucli.metrics import METRICS
from srucli.training.run import train
from tests.experiments.support import results, started
from tests.support import NETWORK, SETTINGS, RunCli, RunMain, Tiny, write_tsv

# Without n-grams, whose linear model makes no mistake on these texts.
FLAGS = (*NETWORK, "train.threads=1", "train.epochs=1", "model.ngrams=false")
METRIC_NAMES = [name for name, metric in METRICS.items() if not metric.multi_label_only]


def command(file: Path, folder: Path, *more: object) -> list[object]:
    return ["crossval", file, "-o", folder, "--folds", 3, "--jobs", 2, *FLAGS, *more]


def quick(*overrides: str, folds: int = 2, repeats: int = 1) -> Plan:
    """Return the plan of a cross-validation that takes a second or two."""
    return Plan(resolve(overrides=[*SETTINGS, "train.epochs=1", *overrides]), folds, repeats)


def examples_of(tiny: Tiny, count: int = 200) -> list[Example]:
    rows = [line.split("\t") for line in tiny.train.read_text().splitlines()[:count]]
    return [Example(text, (label,), number) for number, (label, text) in enumerate(rows, 1)]


class Validated(NamedTuple):
    """A finished cross-validation of two repeats: its folder, its JSON, and what was said."""

    folder: Path
    found: dict[str, Any]
    said: list[str]

    def predictions(self) -> list[dict[str, Any]]:
        lines = (self.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def validated(tiny: Tiny, run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory) -> Validated:
    folder = tmp_path_factory.mktemp("crossval") / "out"
    done = run_cli(*command(tiny.train, folder, "--repeats", 2, "--json"))
    assert done.returncode == 0, done.stderr
    return Validated(folder, json.loads(done.stdout), done.stderr.splitlines())


# --- what is measured ---------------------------------------------------------------------------


def test_a_fold_equals_training_and_evaluating_by_hand(
    tiny: Tiny, validated: Validated, run_main: RunMain, tmp_path: Path
) -> None:
    """Bit by bit: metrics, and predictions as `srucli predict` prints them."""
    rows = [line.split("\t") for line in tiny.train.read_text().splitlines()]
    for repeat, number in ((1, 2), (2, 3)):
        predicted = [each for each in validated.predictions() if each["repeat"] == repeat]
        parts: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
        for (label, text), each in zip(rows, predicted, strict=True):
            assert (each["gold"], each["text"]) == (label, text)
            parts[each["fold"] == number].append((label, text))
        own, other = (write_tsv(tmp_path / f"{part}.tsv", parts[part]) for part in (True, False))
        run = tmp_path / f"run-{repeat}"
        assert run_main("train", other, "-o", run, *FLAGS).code == 0
        evaluated = json.loads(run_main("eval", run, own, "--json").out)
        (score,) = [
            each
            for each in validated.found["per_fold"]
            if (each["repeat"], each["fold"]) == (repeat, number)
        ]
        assert score["metrics"] == evaluated["metrics"]
        assert score["texts"] == len(parts[True])
        lines = run_main("predict", run, own, "--json").out.splitlines()
        keys = ("label", "probability", "probabilities", "text")
        mine = [{key: each[key] for key in keys} for each in predicted if each["fold"] == number]
        assert [{key: json.loads(line)[key] for key in keys} for line in lines] == mine


def test_the_summary_is_of_all_folds(validated: Validated) -> None:
    found = validated.found
    assert list(found["metrics"]) == METRIC_NAMES
    assert (found["folds"], found["repeats"], found["texts"]) == (3, 2, 480)
    assert [(each["repeat"], each["fold"]) for each in found["per_fold"]] == [
        (repeat, fold) for repeat in (1, 2) for fold in (1, 2, 3)
    ]
    for name, each in found["metrics"].items():
        values = [score["metrics"][name] for score in found["per_fold"]]
        assert each["mean"] == pytest.approx(fmean(values))
        assert each["sd"] == pytest.approx(stdev(values))
        ends = [min(values), max(values)]
        assert [each["worst"], each["best"]] == ends[:: 1 if METRICS[name].larger_is_better else -1]
        assert each["undefined"] == 0
    right = [each["label"] == each["gold"] for each in validated.predictions()]
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["pooled"] == pytest.approx(fmean(right))
    low, high = accuracy["interval"]
    assert low < high
    assert low <= fmean(right) <= high
    assert found["metrics"]["auc"]["pooled"] is None
    assert found["metrics"]["auc"]["interval"] is None


def test_the_predictions_are_in_order_and_of_other_runs(validated: Validated, tiny: Tiny) -> None:
    rows = validated.predictions()
    assert [row["record"] for row in rows] == [*range(1, 481)] * 2
    assert [row["line"] for row in rows] == [*range(1, 481)] * 2
    assert [row["repeat"] for row in rows] == [1] * 480 + [2] * 480
    first, second = ([row["fold"] for row in rows if row["repeat"] == r] for r in (1, 2))
    assert first != second
    for folds in (first, second):
        for label in tiny.labels:
            own = [f for f, row in zip(folds, rows, strict=False) if row["gold"] == label]
            sizes = [own.count(fold) for fold in (1, 2, 3)]
            assert max(sizes) - min(sizes) <= 1
    assert list(rows[0]["probabilities"]) == validated.found["labels"] == [*tiny.labels]


def test_the_predictions_can_be_trained_on(
    validated: Validated, run_main: RunMain, tmp_path: Path
) -> None:
    file = validated.folder / "predictions.jsonl"
    for label in ((), ("--label", "gold")):
        run = tmp_path / f"run{len(label)}"
        ended = run_main("train", file, "-o", run, *label, *FLAGS, "--force")
        assert ended.code == 0, ended.err
        shown = label[1] if label else "label"
        assert f"label = key '{shown}', soft labels = key 'probabilities'" in ended.err


def test_what_is_said(validated: Validated, tiny: Tiny) -> None:
    notes = ("text = column", "looks like a missing value")
    lines = [line for line in validated.said if not any(note in line for note in notes)]
    data, *folds, last = lines
    assert data == "data: 480 examples, 3 labels; 3 folds of 160 examples, drawn 2 times"
    form = r"fold [12]\.[123]: accuracy [01]\.\d{4} on 160 examples; \d of 6 folds"
    assert len(folds) == 6
    assert all(re.fullmatch(form, line) for line in folds)
    name, words = last.split(":  ")
    assert name == "to train this recipe on all texts"
    assert shlex.split(words)[:3] == ["srucli", "train", str(tiny.train)]
    assert resolve(overrides=shlex.split(words)[3:]) == resolve(overrides=FLAGS)


def test_the_table(validated: Validated, run_main: RunMain, tiny: Tiny) -> None:
    """Nothing is trained again. The last line is the file of the predictions."""
    ended = run_main(*command(tiny.train, validated.folder, "--repeats", 2))
    assert ended.code == 0
    head, *rows, last = ended.out.splitlines()
    assert head.split() == ["metric", "mean", "sd", "pooled", "95%", "interval", "worst", "best"]
    assert [row.split()[0] for row in rows] == METRIC_NAMES
    accuracy = validated.found["metrics"]["accuracy"]
    shown = [f"{accuracy[key]:.4f}" for key in ("mean", "sd", "pooled", "worst", "best")]
    cells = rows[0].split()
    assert [*cells[1:4], *cells[-2:]] == shown
    assert cells[4:7] == [f"{accuracy['interval'][0]:.4f}", "to", f"{accuracy['interval'][1]:.4f}"]
    assert last == str(validated.folder / "predictions.jsonl")
    assert "6 of 6 folds are finished already" in ended.err


def test_gates(validated: Validated, run_main: RunMain, tiny: Tiny) -> None:
    words = command(tiny.train, validated.folder, "--repeats", 2)
    assert run_main(*words, "--fail-under", "accuracy=0").code == 0
    ended = run_main(*words, "--fail-under", "accuracy=0", "--fail-under", "log_loss=0.001")
    mean = validated.found["metrics"]["log_loss"]["mean"]
    assert ended.code == 3
    assert f"--fail-under: log_loss {mean:.4f} is not at most 0.001" in ended.err
    assert ended.out.splitlines()[-1] == str(validated.folder / "predictions.jsonl")
    ended = run_main(*words, "--fail-under", "hamming_loss=1")
    assert ended.code == 2
    assert "'hamming_loss' needs a multi-label model" in ended.err


def by_hand(plan: Plan, examples: Sequence[Example], found: Crossval, folder: Path) -> None:
    """Compare each fold with a training and an evaluation on JSON lines of the same split."""
    multi_label = plan.config.data.multi_label
    for score in found.scores:
        files = {}
        for part, wanted in (("train", False), ("test", True)):
            rows = [
                {"text": e.text, "label": list(e.labels) if multi_label else e.labels[0]}
                | ({"w": e.weight} if plan.config.data.weight else {})
                for row, e in enumerate(examples)
                if (row in score.rows) == wanted
            ]
            files[part] = folder / f"{part}.jsonl"
            files[part].write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = train(plan.config, str(files["train"]), None, folder / "run", force=True)
        predictor = Predictor.load(run)
        result = evaluate(predictor, read_examples(str(files["test"]), plan.config.data))
        wanted_scores = {n: v for n, v in result.metrics.items() if not math.isnan(v)}
        assert {n: v for n, v in score.metrics.items() if not math.isnan(v)} == wanted_scores
        columns = [found.labels.index(label) for label in predictor.labels]
        own = found.repeats[score.fold.repeat - 1][score.rows]
        assert np.array_equal(own[:, columns], result.outcome.probabilities)
        chosen = found.decisions[score.fold.repeat - 1][score.rows][:, columns]
        if multi_label:
            known = result.outcome.predictions[:, : len(columns)]
            assert np.array_equal(chosen, known)


def test_multi_label_folds_with_weights_equal_those_by_hand(tiny: Tiny, tmp_path: Path) -> None:
    """Also with thresholds of each run, texts without labels, and a label that one run lacks."""
    examples = [
        each._replace(
            labels=() if n % 17 == 0 else (*each.labels, "third") if n % 3 == 0 else each.labels,
            weight=1 + n % 2,
        )
        for n, each in enumerate(examples_of(tiny, 240))
    ]
    examples[5] = examples[5]._replace(labels=("good", "once"))
    plan = quick("data.multi_label=true", "data.weight=w", repeats=2)
    found = crossval_examples(plan, examples, tmp_path / "out", jobs=1)
    by_hand(plan, examples, found, tmp_path)
    assert found.probabilities.shape == (240, 5)
    assert np.allclose(found.probabilities, found.repeats.mean(axis=0))
    place = found.labels.index("once")
    assert (found.repeats[:, 5, place] == 0).all()
    assert found.predictions is not None
    rows = [json.loads(line) for line in found.predictions.read_text().splitlines()]
    names = np.array(found.labels, dtype=object)
    for row in rows:
        chosen = found.decisions[row["repeat"] - 1][row["record"] - 1]
        assert row["labels"] == names[chosen].tolist()
        assert row["gold"] == list(examples[row["record"] - 1].labels)
    assert "hamming_loss" in found.summary
    assert math.isfinite(found.summary["micro_average_precision"].mean)


def test_soft_labels_are_learned(tiny: Tiny, run_main: RunMain, tmp_path: Path) -> None:
    rows = [
        {"text": each.text, "probabilities": dict.fromkeys(tiny.labels, 0.1) | {own: 0.8}}
        for each in examples_of(tiny, 120)
        for own in each.labels
    ]
    file = tmp_path / "soft.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = run_main(*command(file, tmp_path / "out", "--json"))
    assert ended.code == 0, ended.err
    logs = [path.read_text() for path in sorted((tmp_path / "out").glob("folds/*/*/log.txt"))]
    assert len(logs) == 3
    assert all("soft labels" in log for log in logs)


# --- groups -------------------------------------------------------------------------------------


def test_groups_stay_together(tiny: Tiny, run_main: RunMain, tmp_path: Path) -> None:
    rows = [line.split("\t") for line in tiny.train.read_text().splitlines()[:240]]
    file = tmp_path / "posts.csv"
    lines = [f'{label},author {n % 24},"{text}"' for n, (label, text) in enumerate(rows)]
    file.write_text("\n".join(["label,who,text", *lines]) + "\n")
    ended = run_main(*command(file, tmp_path / "out", "--group", "who", "--json"))
    assert ended.code == 0, ended.err
    assert "group = column 2 'who'" in ended.err
    assert "data: 240 examples, 3 labels, 24 groups; 3 folds of 80 examples" in ended.err
    assert "no effect" not in ended.err
    found = Validated(tmp_path / "out", json.loads(ended.out), [])
    assert found.found["groups"] == 24
    folds = {(row["group"], row["fold"]) for row in found.predictions()}
    assert len(folds) == 24
    assert {row["group"] for row in found.predictions()} == {f"author {n}" for n in range(24)}
    again = run_main(*command(file, tmp_path / "out", "--json"))
    assert again.code == 2
    assert "holds a cross-validation with other settings and data" in again.err


@pytest.mark.parametrize(
    ("groups", "error", "said"),
    [
        (lambda n: "x", DataError, "x: all examples have the group 'x'; name another column with"),
        (lambda n: str(n % 2), UsageError, "--folds 3: there are only 2 groups, and each fold"),
        (lambda n: "x" if n else None, UsageError, "x: some examples have no group; give one to"),
    ],
)
def test_groups_that_cannot_be_divided(
    tiny: Tiny, tmp_path: Path, groups: Callable[[int], str], error: type[Exception], said: str
) -> None:
    examples = [each._replace(group=groups(n)) for n, each in enumerate(examples_of(tiny, 60))]
    with pytest.raises(error) as raised:
        crossval_examples(quick(folds=3), examples, tmp_path / "out", source="x")
    assert str(raised.value).startswith(said)
    assert not (tmp_path / "out").exists()


def test_the_only_group_with_a_label_may_leave_nothing_to_learn(tmp_path: Path) -> None:
    rows = [("a", "x"), ("a", "y"), ("b", "z")] * 10
    examples = [Example(f"text {n}", (y,), n, group=g) for n, (y, g) in enumerate(rows)]
    with pytest.raises(DataError) as raised:
        crossval_examples(quick(), examples, tmp_path / "out")
    assert re.fullmatch(
        r"examples: all examples of 'b' are in fold [12]; the others have fewer than two labels to "
        r"train on; add examples of it, or divide its group",
        str(raised.value),
    )


# --- stopped, killed, repeated ------------------------------------------------------------------


def test_a_stopped_or_killed_cross_validation_resumes(
    tiny: Tiny, run_main: RunMain, validated: Validated, tmp_path: Path
) -> None:
    """Finished folds are not run again, and the results are those of one that was not stopped."""
    folder = tmp_path / "out"
    words = command(tiny.train, folder, "--repeats", 2, "--json")
    words[words.index("--jobs") + 1] = 1
    process = started(words, folder, finished=1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 75
    assert said.rstrip().endswith("finished folds are kept; the same command resumes")
    first = results(folder)
    process = started(words, folder, finished=len(first) + 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    second = results(folder)
    assert len(first) < len(second) < 6
    assert not (folder / "predictions.jsonl").exists()
    again = run_main(*words)
    assert again.code == 0, again.err
    assert first.items() < second.items() < results(folder).items()
    assert f"{len(second)} of 6 folds are finished already" in again.err
    found = json.loads(again.out)
    assert {**found, "predictions": 0} == {**validated.found, "predictions": 0}
    assert Validated(folder, found, []).predictions() == validated.predictions()
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not left & {"train.jsonl", "test.jsonl", "model.safetensors", "tokenizer.model"}


def test_more_repeats_are_added(
    tiny: Tiny, run_main: RunMain, validated: Validated, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(validated.folder, folder)
    shutil.rmtree(folder / "folds" / "repeat-2")
    (folder / "srucli.json").unlink()  # made for the other folder
    once = run_main(*command(tiny.train, folder, "--json"))
    assert "3 of 3 folds are finished already" in once.err
    assert json.loads(once.out)["per_fold"] == validated.found["per_fold"][:3]
    twice = run_main(*command(tiny.train, folder, "--repeats", 2, "--json"))
    assert "3 of 6 folds are finished already" in twice.err
    assert json.loads(twice.out)["metrics"] == validated.found["metrics"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model.layers=2",), "settings"),
        (("--folds", 4), "folds"),
        (("--seed", 1), "settings"),
        (("other",), "data"),
    ],
)
def test_another_cross_validation_is_not_mixed_in(
    tiny: Tiny, run_main: RunMain, validated: Validated, words: tuple[object, ...], said: str
) -> None:
    before = results(validated.folder)
    file = tiny.test if words == ("other",) else tiny.train
    more = () if words == ("other",) else words
    ended = run_main(*command(file, validated.folder, *more))
    assert ended.code == 2
    wanted = f"holds a cross-validation with other {said}; choose another -o, or add --force"
    assert wanted in ended.err
    assert results(validated.folder) == before


def test_force_replaces_another(tiny: Tiny, tmp_path: Path) -> None:
    examples, out = examples_of(tiny, 80), tmp_path / "out"
    crossval_examples(quick(), examples, out, jobs=1)
    (out / "mine.txt").write_text("mine")
    found = crossval_examples(quick(folds=3), examples, out, jobs=1, force=True)
    assert len(results(out)) == len(found.scores) == 3
    assert (out / "mine.txt").read_text() == "mine"


def test_the_folder_is_locked_and_belongs_to_it(
    tiny: Tiny, run_main: RunMain, validated: Validated, tmp_path: Path
) -> None:
    plan, examples = quick(), examples_of(tiny, 80)
    task = Task(examples, tiny.labels, None, "x")
    with (
        FoldFolder.claim(tmp_path / "out", task.facts(plan), (), force=False),
        pytest.raises(OutputError, match="another training writes there"),
    ):
        crossval_examples(plan, examples, tmp_path / "out")
    ended = run_main("train", tiny.train, "-o", validated.folder, *FLAGS)
    assert ended.code == 73
    assert "contains a cross-validation and not a run; choose another -o" in ended.err
    ended = run_main(*command(tiny.train, tiny.run))
    assert ended.code == 73
    assert "contains a run and not a cross-validation; choose another -o" in ended.err
    inside = validated.folder / "predictions.jsonl"
    ended = run_main(*command(inside, validated.folder, "--force"))
    assert ended.code == 73
    assert "may be replaced or removed, but this command reads it" in ended.err


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["bad", "good"]},
        {"labels": ["good", "bad", "none"]},
        {"labels": ["bad", "good", "x"]},
        {"labels": None},
        {"history": []},
        {"thresholds": "a"},
        {"reading": {"test": {}}},
        {"unknown": 1},
    ],
)
def test_a_damaged_result_is_none(
    tiny: Tiny, validated: Validated, tmp_path: Path, change: dict[str, Any]
) -> None:
    """The fold is trained again."""
    folder = opened_copy(tiny, validated, tmp_path)
    assert folder.result(Fold(1, 1)) is not None
    file = tmp_path / "out" / Fold(1, 2).folder / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert folder.result(Fold(1, 2)) is None


def opened_copy(tiny: Tiny, validated: Validated, tmp_path: Path) -> FoldFolder:
    out = tmp_path / "out"
    shutil.copytree(validated.folder, out)
    plan = Plan(resolve(overrides=FLAGS), 3, 2)
    task = Task(examples_of(tiny, 480), tiny.labels, None, "x")
    folder = FoldFolder(out)
    folder.prepare(plan, task, task.folds(plan))
    return folder


@pytest.mark.parametrize("damage", ["missing", "cut", "other numbers", "other size"])
def test_damaged_predictions_are_none(
    tiny: Tiny, validated: Validated, tmp_path: Path, damage: str
) -> None:
    import torch

    from srucli.runs.tensors import file_of

    folder = opened_copy(tiny, validated, tmp_path)
    file = tmp_path / "out" / Fold(2, 3).folder / "predictions.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        rows = 160 if damage == "other numbers" else 161
        file.write_bytes(file_of({"probabilities": torch.full((rows, 3), 2.0 * (rows == 160))}))
    assert folder.result(Fold(2, 3)) is None


# --- labels and failures ------------------------------------------------------------------------


def test_rare_labels_are_named(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label with one example is an error where it is tested, and unknown to that run."""
    examples = examples_of(tiny, 120)
    examples[7] = examples[7]._replace(labels=("single",))
    for number in (20, 21):
        examples[number] = examples[number]._replace(labels=("pair",))
    found = crossval_examples(quick(folds=3), examples, tmp_path / "out", jobs=1)
    said = capsys.readouterr().err
    assert (
        "2 labels have fewer examples than there are folds, so some folds test none: 'pair' (2), "
        "'single' (1)"
    ) in said
    assert (
        "1 label has all examples in one fold, whose run is not trained on it, so they count as "
        "errors: 'single'"
    ) in said
    place = found.labels.index("single")
    assert found.probabilities[7, place] == 0
    assert not found.decisions[0, 7, place]
    by_hand(quick(folds=3), examples, found, tmp_path)


def test_undefined_metrics_are_left_out_of_the_mean(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AUC is undefined on a fold whose texts all have the same label."""
    rows = [("good", "x"), ("good", "y"), ("bad", "y"), ("bad", "y")]
    examples = [
        each._replace(labels=(rows[n % 4][0],), group=rows[n % 4][1] + str(n % 8))
        for n, each in enumerate(examples_of(tiny, 80))
    ]
    found = crossval_examples(quick(folds=8), examples, tmp_path / "out", jobs=1)
    assert found.summary["auc"].undefined == 8
    assert math.isnan(found.summary["auc"].mean)
    assert "auc, average_precision: undefined on every fold" in capsys.readouterr().err
    assert found.to_json()["metrics"]["accuracy"]["undefined"] == 0


def test_a_diverged_fold_ends_it(tiny: Tiny, tmp_path: Path) -> None:
    plan = quick("optim.lr=1e30", "optim.clip=0", "optim.name=sgd", "model.ngrams=false")
    for _ in range(2):  # the second time it is read from the folder
        with pytest.raises(DivergedError, match=r"fold 1: .*optim\.lr"):
            crossval_examples(plan, examples_of(tiny, 80), tmp_path / "out", jobs=1)
    file = tmp_path / "out" / Fold(1, 1).folder / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "diverged": ""}))
    with pytest.raises(DivergedError, match=r"fold 1: $"):
        crossval_examples(plan, examples_of(tiny, 80), tmp_path / "out", jobs=1)


def test_a_fold_that_fails_is_named_with_its_log(tiny: Tiny, tmp_path: Path) -> None:
    examples = examples_of(tiny, 80)
    plan = quick("tokenizer.vocab_size=4", "tokenizer.hard_vocab_limit=true")
    with pytest.raises(Exception, match=r"fold-1: .*; see .*fold-1/log\.txt"):
        crossval_examples(plan, examples, tmp_path / "out", jobs=1)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--folds", 1), 2, "--folds: 1 is too small; the smallest is 2"),
        (("--repeats", 0), 2, "--repeats: 0 is too small; the smallest is 1"),
        (
            ("--folds", 481),
            2,
            "--folds 481: there are only 480 examples, and each fold needs one; pass",
        ),
        (
            ("--folds", 500, "--repeats", 3),
            2,
            "1,500 trainings are more than anyone waits for; pass --repeats 2 or",
        ),
        (("model.layers=0",), 2, "model.layers: 0 is too small"),
        (("optim.name=adagard",), 2, "unknown optimizer 'adagard' (did you mean 'adagrad'"),
        (("--group", "author"), 65, "no column 'author' in the header"),
        (("--fail-under", "acuracy=1"), 2, "'acuracy' (did you mean 'accuracy'"),
    ],
)
def test_mistakes_are_reported_before_anything_is_trained(
    tiny: Tiny,
    tmp_path: Path,
    run_main: RunMain,
    words: tuple[object, ...],
    code: int,
    said: str,
) -> None:
    ended = run_main("crossval", tiny.train, "-o", tmp_path / "out", *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert not (tmp_path / "out").exists()


def test_settings_without_effect_are_named(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = quick("model.kernel_sizes=[2]")
    crossval_examples(plan, examples_of(tiny, 80), tmp_path / "out", jobs=1)
    said = capsys.readouterr().err
    assert said.count("has no effect") == 1
    assert "model.kernel_sizes has no effect: it needs model.encoder=cnn" in said
    plan = replace(plan, folds=1)
    with pytest.raises(UsageError, match="1 folds: 2 or more are needed"):
        crossval_examples(plan, examples_of(tiny, 80), tmp_path / "out")
