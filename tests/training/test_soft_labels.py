"""Trainings on soft labels and weighted examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srucli.errors import UsageError
from srucli.inference.predictor import Predictor
from srucli.runs.run_dir import RunDir
from srucli.training.run import resume, train
from tests.support import QUICK, OnStep, RunMain, Tiny, quick, sentences, write_tsv

LABELS = ("bad", "good", "none")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return RunDir.open(run).checkpoint("last").weights


def write_soft(path: Path, sure: float = 0.8, weighted: bool = True) -> Path:
    """Write 160 examples, half of which have probabilities, with weights 0, 1 and 2."""
    lines = []
    for number, (label, text) in enumerate(sentences()[:160]):
        record: dict[str, Any] = {"text": text, "label": label}
        if weighted:
            record["w"] = number % 3
        if number % 2:
            rest = (1 - sure) / 2
            given = {name: sure if name == label else rest for name in LABELS}
            record["probabilities"] = given
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines))
    return path


def accuracy(run_main: RunMain, run: Path, file: Path) -> float:
    found = json.loads(run_main("eval", run, file, "--json").out)
    return float(found["metrics"]["accuracy"])


# --- a student ---------------------------------------------------------------------------------


def test_a_student_learns_from_the_output_of_predict(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    pool = tmp_path / "pool.txt"
    pool.write_text("".join(f"{text}\n" for _, text in sentences()[:300]))
    taught = run_main("predict", tiny.run, pool, "--json")
    command = ("train", "-", "-o", tmp_path / "student", "--epochs", 3, *QUICK)
    ended = run_main(*command, input=taught.out)
    assert ended.code == 0, ended.err
    assert "label = key 'label', soft labels = key 'probabilities'" in ended.err
    assert "270 examples, 30 dev examples, with soft labels, 3 labels" in ended.err
    agrees = "metrics on them say how often the run agrees with the likeliest one"
    assert agrees in ended.err
    file = write_tsv(tmp_path / "dev.tsv", sentences()[300:340])
    judged = run_main(*command, "--dev", file, "--force", input=taught.out)
    assert judged.code == 0
    assert agrees not in judged.err
    assert accuracy(run_main, tmp_path / "student", tiny.test) > 0.95


def test_the_student_uses_the_probabilities_and_not_the_label(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    """The labels are wrong here; train.soft_share=0 learns these instead."""
    rows: list[dict[str, Any]] = [
        {"text": text, "label": "bad", "probabilities": {label: 0.9, "other": 0.1}}
        for label, text in sentences()[:300]
    ]
    rows += [{"text": f"a {word}", "label": word} for word in LABELS] * 3
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for share, found in ((1, (0.95, 1)), (0, (0.2, 0.5))):
        run = tmp_path / f"share-{share}"
        ended = run_main(
            "train", file, "-o", run, *QUICK, "--epochs", 3, f"train.soft_share={share}"
        )
        assert ended.code == 0, ended.err
        assert found[0] <= accuracy(run_main, run, tiny.test) <= found[1]


def test_a_multi_label_student(run_main: RunMain, tmp_path: Path) -> None:
    rows = [
        (label if n % 5 else f"{label},all", text) for n, (label, text) in enumerate(sentences())
    ]
    data = write_tsv(tmp_path / "x.tsv", rows[:400])
    test = write_tsv(tmp_path / "test.tsv", rows[400:])
    flags = ("--multi-label", "--epochs", 3, *QUICK)
    assert run_main("train", data, "-o", tmp_path / "teacher", *flags).code == 0
    pool = tmp_path / "pool.txt"
    pool.write_text("".join(f"{text}\n" for _, text in rows[:400]))
    taught = run_main("predict", tmp_path / "teacher", pool, "--json")
    ended = run_main("train", "-", "-o", tmp_path / "student", *flags, input=taught.out)
    assert ended.code == 0, ended.err
    assert "with soft labels" in ended.err
    found = [
        json.loads(run_main("eval", tmp_path / name, test, "--json").out)["metrics"]["micro_f1"]
        for name in ("teacher", "student")
    ]
    assert found[1] > found[0] - 0.05


def test_probabilities_of_a_student_are_those_it_learned(tmp_path: Path) -> None:
    """All texts are alike, so the student has to say how often each label is true."""
    rows = [
        {"text": f"the {word}", "probabilities": {"yes": 0.7, "no": 0.3}}
        for word in ("soup", "lamp", "coat", "book") * 50
    ]
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for temperature, wanted in ((1, 0.7), (0.5, 0.49 / 0.58), (100, 0.5)):
        config = quick(
            f"train.soft_temperature={temperature}", "model.ngrams=false", "optim.lr=0.01"
        )
        config = config.model_copy(
            update={"train": config.train.model_copy(update={"epochs": 10, "dev_share": 0.0})}
        )
        run = train(config, str(file), None, tmp_path / str(temperature))
        found = Predictor.load(run, "cpu").probabilities(["the soup"])[0]
        assert found[1] == pytest.approx(wanted, abs=0.04)


# --- weights -----------------------------------------------------------------------------------


def test_texts_of_weight_0_are_not_learned(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    """Their labels are wrong here, and more than the right ones."""
    rows = sentences()[:300]
    lines = [f"{label}\t1\t{text}\n" for label, text in rows]
    lines += [f"bad\t0\t{text}\n" for _, text in rows] * 2
    file = tmp_path / "x.tsv"
    file.write_text("".join(lines))
    found = {}
    for flags in ((), ("--weight", 2)):
        run = tmp_path / f"run-{len(flags)}"
        columns = ("--label", 1, "--text", 3)
        ended = run_main("train", file, "-o", run, *columns, *flags, "--epochs", 3, *QUICK)
        assert ended.code == 0, ended.err
        found[flags] = accuracy(run_main, run, tiny.test)
    assert found["--weight", 2] > 0.95
    assert found[()] < 0.9


def test_weights_of_1_change_nothing(tiny: Tiny, tmp_path: Path) -> None:
    rows = [(label, text) for label, text in sentences()[:160]]
    plain = tmp_path / "plain.jsonl"
    weighted = tmp_path / "weighted.jsonl"
    for file, more in ((plain, {}), (weighted, {"w": 1})):
        lines = [json.dumps({"text": text, "label": label, **more}) for label, text in rows]
        file.write_text("\n".join(lines))
    tokenizer = tiny.run / "tokenizer.model"
    one = train(quick(), str(plain), None, tmp_path / "one", tokenizer=tokenizer)
    two = train(quick("data.weight=w"), str(weighted), None, tmp_path / "two", tokenizer=tokenizer)
    first, second = weights(one), weights(two)
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- resuming ----------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a training like a kill: no handler catches it."""


@pytest.mark.parametrize("more", [(), ("train.accumulate=2", "train.class_weights=balanced")])
def test_resuming_is_bit_equal(
    tmp_path: Path, on_step: OnStep, tiny: Tiny, more: tuple[str, ...]
) -> None:
    file = str(write_soft(tmp_path / "x.jsonl"))
    config = quick("data.weight=w", "train.soft_share=0.7", "train.save_steps=3", *more)
    how: dict[str, Any] = {"tokenizer": tiny.run / "tokenizer.model"}
    whole = train(config, file, None, tmp_path / "whole", **how)

    def kill(number: int) -> None:
        if number > 4:
            raise Killed

    on_step(kill)
    with pytest.raises(Killed):
        train(config, file, None, tmp_path / "run", **how)
    on_step(lambda _: None)
    assert RunDir.open(tmp_path / "run").state("last")["epoch"] == 0
    run = train(config, file, None, tmp_path / "run", **how)
    first, second = weights(whole), weights(run)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    grams = [(each / "ngrams.safetensors").read_bytes() for each in (whole, run)]
    assert grams[0] == grams[1]


def test_other_probabilities_and_weights_are_other_examples(tiny: Tiny, tmp_path: Path) -> None:
    file = str(write_soft(tmp_path / "x.jsonl"))
    how: dict[str, Any] = {"tokenizer": tiny.run / "tokenizer.model"}
    run = train(quick("data.weight=w"), file, None, tmp_path / "run", **how)
    for other in (
        write_soft(tmp_path / "surer.jsonl", sure=0.9),
        write_soft(tmp_path / "unweighted.jsonl", weighted=False),
    ):
        settings: dict[str, object] = {"train.epochs": 3}
        if "unweighted" in other.name:
            settings["data.weight"] = None
        with pytest.raises(UsageError, match=r"train examples: SHA-256 \w{8} -> \w{8}"):
            resume(run, settings, str(other))
    with pytest.raises(UsageError, match=r"train\.soft_share: 1\.0 -> 0\.5"):
        resume(run, {"train.epochs": 3, "train.soft_share": 0.5})
    new = tmp_path / "new.jsonl"
    new.write_text(Path(file).read_text().replace('"none": 0.', '"never": 0.'))
    with pytest.raises(UsageError, match="was trained with different labels"):
        resume(run, {"train.epochs": 3}, str(new))


def test_a_dev_file_with_unknown_labels_in_probabilities(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write_soft(tmp_path / "x.jsonl"))
    rows = [{"text": text, "probabilities": {label: 1}} for label, text in sentences()[400:420]]
    rows.append({"text": "strange", "probabilities": {"new": 0.9, "bad": 0.1}})
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = tiny.run / "tokenizer.model"
    train(quick("data.weight=w"), file, str(dev), tmp_path / "run", tokenizer=tokenizer)
    said = capsys.readouterr().err
    assert "1 of 21 texts have labels that the training texts lack, which count as errors" in said


def test_settings_without_soft_labels_are_named(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    train = ("train", tiny.train, "-o", tmp_path / "run", "--epochs", 1, *QUICK)
    ended = run_main(*train, "train.soft_temperature=2")
    said = "train.soft_temperature has no effect: it needs training examples with probabilities"
    assert said in ended.err.splitlines()


@pytest.mark.parametrize("weighted", [True, False])
def test_what_is_forgotten_of_soft_labels_is_measured(
    weighted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held-out examples of such a file are found again."""
    file = write_soft(tmp_path / "soft.jsonl", weighted=weighted)
    settings = ["data.weight=w"] * weighted
    base = train(quick(*settings, "train.dev_share=0.2"), str(file), None, tmp_path / "base")
    more = str(write_tsv(tmp_path / "more.tsv", sentences()[200:400]))
    train(quick("train.epochs=1"), more, None, tmp_path / "run", base=base)
    said = capsys.readouterr().err
    assert f"{base} on its own dev examples" in said
    assert "before, " in said


def test_eval_and_predict_read_such_files(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    """predict does not look at probabilities, not even at wrong ones; eval only without a label."""
    rows: list[dict[str, Any]] = [
        {"text": text, "probabilities": {label: 0.9, "bad": 0.1} if label != "bad" else {"bad": 1}}
        for label, text in sentences()[480:]
    ]
    file, plain = tmp_path / "x.jsonl", tmp_path / "plain.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    assert accuracy(run_main, tiny.run, file) == accuracy(run_main, tiny.run, tiny.test)
    assert run_main("predict", tiny.run, file).out == run_main("predict", tiny.run, plain).out
    rows[50]["probabilities"] = {"good": 7}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_main("predict", tiny.run, file).out == run_main("predict", tiny.run, plain).out
    ended = run_main("eval", tiny.run, file)
    assert ended.code == 65
    assert f"{file}:51: the probability of 'good' is '7'; write a number from 0 to 1" in ended.err


def test_comparisons_write_and_read_the_same_examples(tmp_path: Path) -> None:
    from srucli.config import DataConfig
    from srucli.data.dataset import read_texts
    from srucli.experiments.trials import config_of_data, json_lines

    file = write_soft(tmp_path / "x.jsonl")
    config = DataConfig(weight="w")
    examples, _ = read_texts(str(file), config)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(json_lines(examples, config))
    again, _ = read_texts(str(copy), config_of_data(config))
    for one, two in zip(examples, again, strict=True):
        assert one._replace(soft=None) == two._replace(soft=None)
        assert (one.soft is None) == (two.soft is None)
        if one.soft and two.soft:
            assert one.soft.names == two.soft.names
            assert np.allclose(one.soft.values, two.soft.values, atol=1e-7)
            assert two.soft.beside
