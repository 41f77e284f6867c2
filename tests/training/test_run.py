"""Whole trainings in this process: checks, defaults, labels, early stopping, errors."""

from __future__ import annotations

import json
import re
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from srucli.config import Config
from srucli.data.readers import read_examples
from srucli.errors import DataError, OutputError, SrucliError, UsageError
from srucli.inference.evaluation import evaluate
from srucli.inference.predictor import Predictor
from srucli.model.blend import LINEAR, NETWORK
from srucli.model.encoders import ENCODERS
from srucli.runs.run_dir import RunDir
from srucli.runs.training_state import random_states
from srucli.training.defaults import check_settings, complete, epochs
from srucli.training.run import train
from tests.support import (
    QUICK,
    OnStep,
    RunMain,
    Tiny,
    quick,
    run_training,
    sentences,
    write_tsv,
)


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return RunDir.open(run).checkpoint("last").weights


def test_the_number_of_epochs_depends_on_the_number_of_examples() -> None:
    sizes = [(100, 2), (3_000, 2), (10_000, 77), (150_000, 2)]
    assert [epochs(Config().train, *size) for size in sizes] == [30, 10, 30, 3]
    assert epochs(quick("train.epochs=3").train, 10, 2) == 3


def test_a_number_of_steps_can_end_a_training_within_an_epoch(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "run", "train.steps=40", "train.dev_share=0", dev=False)
    records = history(run)
    assert [record["step"] for record in records] == [30, 40]
    assert records[-1]["lr"] == pytest.approx(0, abs=1e-12)
    assert epochs(quick("train.steps=100").train, 160, 2) == 10
    assert epochs(quick("train.steps=101", "train.accumulate=2").train, 160, 2) == 21


def test_the_whole_training_is_on_its_device(
    tiny: Tiny, tmp_path: Path, on_step: OnStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There streams, events and graphs are made, which do not follow tensors to a second GPU."""
    current: list[torch.device] = []

    @contextmanager
    def recorded(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.clear()

    monkeypatch.setattr("srucli.training.run.use_device", recorded)
    seen: list[list[torch.device]] = []
    on_step(lambda _: seen.append([*current]))
    run_training(tiny, tmp_path / "run", "train.steps=2", "train.device=cpu", dev=False)
    assert seen == [[torch.device("cpu")]] * 2
    assert current == []


def test_dropout_decreases_with_the_number_of_examples() -> None:
    sizes = (20, 10_000, 40_000, 1_000_000)
    rates = [complete(Config(), size, 2).model.dropout for size in sizes]
    assert rates == [0.5, 0.5, 0.25, 0.05]
    assert complete(quick("model.dropout=0"), 40_000, 2).model.dropout == 0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.name=adamm", "unknown optimizer 'adamm' .did you mean 'adam'"),
        ("optim.options.x=1", "adam has no such option"),
        ("train.metric=accurracy", "accurracy"),
        ("train.device=tpu", "write auto, cpu, cuda or cuda:N"),
        ("train.device=cuda:99", "torch sees . GPUs; use --device cpu"),
        ("train.precision=bf16", "needs a GPU; use float32"),
        ("train.kernel=triton", "kernel triton (runs on a cuda device|needs triton)"),
        ("model.layers=256 model.hidden=1024", "at most 4 GiB .*; lower model.hidden"),
        ("model.encoder=bag model.bag_buckets=99999999", "lower model.bag_buckets"),
    ],
)
def test_wrong_settings_are_refused_before_the_data_is_read(
    override: str, said: str, tmp_path: Path
) -> None:
    config = quick("train.device=cpu", "data.multi_label=true", *override.split())
    with pytest.raises(UsageError, match=said):
        check_settings(config)
    with pytest.raises(UsageError, match=said):
        train(config, str(tmp_path / "none.tsv"), None, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# --- whole trainings ---------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    first, second, other = (
        weights(run_training(tiny, tmp_path / name, f"train.seed={seed}"))
        for name, seed in (("first", 1), ("second", 1), ("other", 2))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in ("embedding.weight",))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_trains_and_predicts(tiny: Tiny, tmp_path: Path, encoder: str) -> None:
    run = run_training(tiny, tmp_path / "run", f"model.encoder={encoder}", "optim.lr=1e-2")
    predictor = Predictor.load(run, "cpu")
    probabilities = predictor.probabilities(["a lovely film", "", "zzz"])
    assert probabilities.shape == (3, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert history(run)[1]["train_loss"] < history(run)[0]["train_loss"]


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_tokenizers_of_each_type_are_trained(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    config = quick(f"tokenizer.model_type={kind}", "train.epochs=1")
    run = train(config, str(tiny.train), None, tmp_path / "run")
    assert Predictor.load(run, "cpu").tokenizer.model_type == kind


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 27), (2, 14), (100, 1)])
def test_accumulated_batches_make_one_step(
    tiny: Tiny, tmp_path: Path, accumulate: int, steps: int
) -> None:
    settings = (f"train.accumulate={accumulate}", "train.epochs=1")
    run = run_training(tiny, tmp_path / "run", *settings, dev=False)
    assert history(run)[0]["step"] == steps


def test_patience_that_ends_with_the_last_epoch_is_not_called_early(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("optim.lr=1e-12", "train.patience=1")
    run_training(tiny, tmp_path / "whole", *settings, "train.epochs=2")
    assert "stopping early" not in capsys.readouterr().err
    run_training(tiny, tmp_path / "shorter", *settings, "train.epochs=3")
    assert "for 1 epoch: stopping early" in capsys.readouterr().err


def test_early_stopping_and_the_best_checkpoint(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standstill = (
        "optim.lr=1e-12",
        "train.patience=2",
        "train.epochs=9",
        "train.use_checkpoint=best",
        "model.ngrams=false",
    )
    run = run_training(tiny, tmp_path / "run", *standstill)
    assert [record["epoch"] for record in history(run)] == [1, 2, 3]
    said = r"no better accuracy than 0\.\d{4} for 2 epochs: stopping early"
    assert re.search(said, capsys.readouterr().err)
    opened = RunDir.open(run)
    assert opened.checkpoint("best").state["epoch"] == 1
    assert opened.checkpoint("last").state["epoch"] == 3
    assert Predictor.load(run, "cpu").config.train.use_checkpoint == "best"


def test_smaller_is_better_for_a_loss(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(
        tiny, tmp_path / "run", "train.metric=log_loss", "train.epochs=3", "optim.lr=1e-2"
    )
    losses = [record["dev"]["log_loss"] for record in history(run)]
    best = RunDir.open(run).checkpoint("best").state["epoch"]
    assert losses[best - 1] == min(losses) < losses[0]


def test_without_dev_examples(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_training(tiny, tmp_path / "run", "train.dev_share=0", dev=False)
    assert [record["dev"] for record in history(run)] == [{}, {}]
    assert (run / "best").read_text() == (run / "last").read_text()
    assert "dev" not in capsys.readouterr().err
    assert RunDir.open(run).facts().data.texts == tiny.texts


def test_the_weights_are_the_priors_without_dev_examples(tiny: Tiny, tmp_path: Path) -> None:
    run = run_training(tiny, tmp_path / "equal", "train.dev_share=0", dev=False)
    before = weights(run)["blend"]
    assert before[0] == torch.tensor(NETWORK)
    assert before[1] != torch.tensor(LINEAR)  # it is fitted to out-of-fold scores
    fitted = weights(run_training(tiny, tmp_path / "fitted"))["blend"]
    assert fitted.min() >= 0
    assert not torch.allclose(fitted, before, atol=0.01)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([("god", "a fine film")], ["1 label has one training example only: 'god'"]),
        (
            [(f"label {n}", "some text") for n in range(7)],
            [
                "7 labels have one training example only: 'label 0', 'label 1', 'label 2', "
                "'label 3', 'label 4', 'label 5', ..."
            ],
        ),
        ([("good", "a fine film")], []),
    ],
)
def test_labels_of_one_example_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[tuple[str, str]], said: list[str]
) -> None:
    """They may be misspelled, or a header's, or all labels may be in another column."""
    rows = [*[("good", "one two"), ("bad", "three")] * 3, *more]
    data = write_tsv(tmp_path / "x.tsv", rows)
    train(quick("train.epochs=1", "model.encoder=bag"), str(data), None, tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "one training example" in line] == said


def test_unknown_dev_labels(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev = write_tsv(tmp_path / "dev.tsv", [("odd", "a lovely film"), ("odd", "what a garden")])
    config = quick("train.metric=log_loss", "train.use_checkpoint=best", "train.patience=1")
    run = train(config, str(tiny.train), str(dev), tmp_path / "run")
    said = "2 of 2 texts have labels that the training texts lack, which count as errors: odd (2)"
    assert f"{dev}: {said}" in capsys.readouterr().err.splitlines()
    assert [record["dev"]["log_loss"] for record in history(run)] == [None, None]
    assert history(run)[0]["dev"]["accuracy"] == 0
    assert Predictor.load(run, "cpu").labels == list(tiny.labels)


def test_unknown_dev_labels_are_errors_in_multi_label_models_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training and eval count them alike."""
    data = write_tsv(tmp_path / "x.tsv", [("a", "one two"), ("b,a", "three"), ("b", "four")] * 3)
    rows = [("a,odd", "one two"), ("odd", "three"), ("b", "four"), ("strange,odd", "one two three")]
    dev = write_tsv(tmp_path / "dev.tsv", rows)
    config = quick("data.multi_label=true", "train.epochs=2")
    run = train(config, str(data), str(dev), tmp_path / "run")
    said = "3 of 4 texts have labels that the training texts lack, which count as errors: odd (3), "
    assert f"{dev}: {said}strange (1)" in capsys.readouterr().err.splitlines()
    found = evaluate(Predictor.load(run, "cpu"), read_examples(str(dev), config.data))
    measured = history(run)[-1]["dev"]
    assert measured.keys() == {"macro_f1", "accuracy", "log_loss"}
    assert found.metrics["accuracy"] <= 0.25
    for name, value in measured.items():
        assert value == pytest.approx(found.metrics[name], abs=1e-6)


def test_texts_of_one_letter_and_very_long_texts(tmp_path: Path) -> None:
    data = write_tsv(tmp_path / "short.tsv", [("a", "x"), ("b", "y")] * 3)
    assert train(quick(), str(data), None, tmp_path / "short") == tmp_path / "short"
    data = write_tsv(tmp_path / "long.tsv", [("a", "x y " * 40_000), ("b", "y z z")] * 3)
    run = train(quick("train.max_tokens=50"), str(data), None, tmp_path / "long")
    predictor = Predictor.load(run, "cpu")
    head, whole = predictor.probabilities(["x y " * 400, "x y " * 40_000])
    assert head == pytest.approx(whole)


def test_multi_label_end_to_end(tmp_path: Path) -> None:
    """Two joined sentences have the labels of both; `none` stands for no label."""
    rows = sentences()
    pairs = [
        (",".join(sorted({a, b} - {"none"})), f"{x} and {y}")
        for (a, x), (b, y) in zip(rows, sentences(1), strict=True)
    ]
    data = write_tsv(tmp_path / "train.tsv", pairs[:500])
    config = quick("data.multi_label=true", "train.epochs=12", "optim.lr=2e-2")
    run = train(config, str(data), None, tmp_path / "run")
    predictor = Predictor.load(run, "cpu")
    assert predictor.multi_label
    assert predictor.labels == ["bad", "good"]
    assert predictor.thresholds is not None
    assert predictor.thresholds.shape == (2,)
    assert not predictor.at_least_one
    found = predictor.probabilities([text for _, text in pairs[500:]]) >= predictor.thresholds
    wanted = [[name in labels for name in predictor.labels] for labels, _ in pairs[500:]]
    assert (found == wanted).mean() > 0.9
    assert Counter(map(tuple, found.tolist())).keys() == Counter(map(tuple, wanted)).keys()


def test_multi_label_thresholds_are_0_5_without_dev_examples(tmp_path: Path) -> None:
    data = write_tsv(tmp_path / "x.tsv", [("a,b", "x"), ("", "y"), ("b", "z")])
    config = quick("data.multi_label=true", "train.dev_share=0", "train.epochs=1")
    run = train(config, str(data), None, tmp_path / "run")
    thresholds = Predictor.load(run, "cpu").thresholds
    assert thresholds is not None
    assert thresholds.tolist() == [0.5, 0.5]


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0, 1])
def test_a_diverging_training_says_what_to_change(tiny: Tiny, tmp_path: Path, clip: int) -> None:
    rate = "optim.lr=1e30" if clip else "optim.lr=1e6"
    remedy = r"or optim\.clip \(now 1\)" if clip else r"or set optim\.clip=1"
    with pytest.raises(SrucliError, match=rf"training diverged; lower optim\.lr \(.*\) {remedy}"):
        run_training(tiny, tmp_path / "run", "optim.name=sgd", rate, f"optim.clip={clip}")
    assert not (tmp_path / "run").exists()


def test_non_finite_weights_after_the_last_step_are_detected(tiny: Tiny, tmp_path: Path) -> None:
    """The only step has a finite loss, but the weights after it are not finite."""
    one_step = ("train.epochs=1", "train.batch_size=1000", "train.batch_tokens=100000")
    rest = ("optim.name=sgd", "optim.lr=1e300", "optim.schedule=constant", "train.dev_share=0")
    with pytest.raises(SrucliError, match="a weight is NaN or Inf at step 1: training diverged"):
        run_training(tiny, tmp_path / "run", *one_step, *rest, "optim.warmup=0", dev=False)


def test_an_existing_output_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(OutputError, match="exists already"):
        train(quick(), str(tmp_path / "none.tsv"), None, tmp_path / "run")
    with pytest.raises(OutputError, match="contains no run"):
        train(quick(), str(tmp_path / "none.tsv"), None, tmp_path / "run", force=True)
    with pytest.raises(OutputError, match="is not a folder"):
        train(quick(), str(tmp_path / "none.tsv"), None, tmp_path / "run" / "mine" / "run")


def test_unusable_data_leaves_no_folder(tmp_path: Path) -> None:
    data = write_tsv(tmp_path / "one.tsv", [("a", "x"), ("a", "y")])
    with pytest.raises(DataError, match=r"one\.tsv: only the label 'a' in 2 texts"):
        train(quick(), str(data), None, tmp_path / "run")
    with pytest.raises(DataError, match="not a SentencePiece model"):
        train(quick(), str(data), None, tmp_path / "run", tokenizer=data)
    assert not (tmp_path / "run").exists()


def test_a_full_disk(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are limited to 0.4 MB, so writing the weights fails as on a full disk."""
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 10**5, hard))
    try:
        ended = run_main("train", tiny.train, "-o", "runs/full", "--threads", 1, "--epochs", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (ended.code, ended.out) == (73, ""), ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("srucli: runs/full/checkpoints/")
    limit = "raise the limit of a file's size, as with `ulimit -f unlimited`"
    assert last.endswith(f"cannot be written (File too large); {limit}")
    assert list(tmp_path.iterdir()) == []


def test_the_random_states_of_the_caller_are_restored(tiny: Tiny, tmp_path: Path) -> None:
    device = torch.device("cpu")
    before = random_states(device)
    train(quick(), str(tiny.train), None, tmp_path / "run", tokenizer=tiny.run / "tokenizer.model")
    after = random_states(device)
    assert torch.equal(before.pop("torch"), after.pop("torch"))
    assert before == after


# --- interrupts --------------------------------------------------------------------------------


def test_an_interrupt_saves_the_weights(
    tiny: Tiny,
    tmp_path: Path,
    run_main: RunMain,
    on_step: OnStep,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    on_step(lambda step: signal.raise_signal(signal.SIGINT) if step == 5 else None)
    ended = run_main("train", tiny.train, "-o", "run", "--epochs", 9999, *QUICK)
    assert (ended.code, ended.out) == (75, "")
    assert "stopping after this step; once more to stop at once" in capfd.readouterr().err
    assert ended.err.splitlines()[-1].startswith("srucli: run: stopped at step 5, in epoch 1 ")
    assert "of 9999, and saved; to resume: srucli train --resume run" in ended.err
    assert Predictor.load(tmp_path / "run", "cpu").probabilities(["x"]).shape == (1, 3)


def test_a_multi_label_metric_needs_a_multi_label_model() -> None:
    several = quick("train.device=cpu", "train.metric=hamming_loss", "data.multi_label=true")
    assert check_settings(several).type == "cpu"
    with pytest.raises(UsageError, match="hamming_loss"):
        check_settings(quick("train.device=cpu", "train.metric=hamming_loss"))
