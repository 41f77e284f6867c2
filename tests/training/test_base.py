"""Fine-tuning an earlier run: labels, weights, what is frozen, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from srucli import optim
from srucli.config import Config, resolve
from srucli.errors import DataError, InputMissingError, SrucliError, UsageError
from srucli.inference.predictor import Predictor
from srucli.optim import OPTIMIZERS
from srucli.runs.facts import FORMAT_VERSION
from srucli.runs.run_dir import RunDir
from srucli.training.run import resume, train
from tests import support
from tests.support import OnStep, RunMain, Tiny, sentences, tree, write_tsv
from tests.training.small import Make

Capture = pytest.CaptureFixture[str]
# A network of two layers, which takes a second to train.
NETWORK = (*support.NETWORK[:-1], "model.layers=2", "model.pooling=[mean,attention]")
# What people ask a bank, by intent: words that are typical of it.
INTENTS = {
    "card_lost": ["lost", "stolen", "missing"],
    "card_new": ["order", "replace", "arrive"],
    "pin": ["pin", "code", "blocked"],
    "rate": ["exchange", "rate", "currency"],
    "refund": ["refund", "back", "return"],
    "transfer": ["transfer", "send", "wire"],
}
FLAGS = {"train.threads": 1}
FIRST = ("card_lost", "pin", "rate", "transfer")


def quick(*overrides: str) -> Config:
    """Return the settings of a training of two epochs, without those of the network."""
    return resolve(overrides=["train.epochs=2", "train.batch_size=16", *overrides], flags=FLAGS)


def bank(
    *intents: str, shape: str = "please help , my {0} {1} number {2}"
) -> list[tuple[str, str]]:
    """Return 24 examples of each intent."""
    things = ("card", "account", "money", "app")
    return [
        (intent, shape.format(word, thing, number))
        for number in range(2)
        for thing in things
        for intent in intents
        for word in INTENTS[intent]
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that knows some of the intents. Its training file is beside it."""
    folder = tmp_path_factory.mktemp("base")
    data = write_tsv(folder / "first.tsv", bank(*FIRST))
    config = quick(*NETWORK, "train.epochs=4", "optim.lr=0.01", "train.dev_share=0.25")
    return train(config, str(data), None, folder / "run")


def tuned(base: Path | None, output: Path, *overrides: str, **how: Any) -> Path:
    """Fine-tune the run on all intents, with a checkpoint every three steps."""
    data = write_tsv(output.parent / "all.tsv", bank(*INTENTS, shape="my {0} {1} , why {2}"))
    config = quick("train.save_steps=3", "train.dev_share=0.25", *overrides)
    return train(config, str(data), None, output, base=base, **how)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return RunDir.open(run).checkpoint("last").weights


def assert_same_runs(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    for name in ("ngrams.safetensors", "base.safetensors", "labels.json", "config.yaml"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    records = [
        [json.loads(line) | {"seconds": 0} for line in (run / "metrics.jsonl").open()]
        for run in (one, other)
    ]
    assert records[0] == records[1]


class Killed(BaseException):
    """Ends a training like a kill: no handler catches it."""


@pytest.fixture
def kill_after(on_step: OnStep) -> Callable[[int | None], None]:
    """Kill the training after n steps; None: do not kill it."""

    def arrange(steps: int | None) -> None:
        def kill(number: int) -> None:
            if steps is not None and number > steps:
                raise Killed

        on_step(kill)

    return arrange


# --- what is taken -----------------------------------------------------------------------------


def test_labels_are_kept_and_added(base: Path, tmp_path: Path, capsys: Capture) -> None:
    before = tree(base)
    run = tuned(base, tmp_path / "run", "optim.lr=0.01", "train.epochs=4")
    said = capsys.readouterr().err
    assert f"from {base}: tokenizer, embedding and encoder kept; 4 labels kept, 2 new" in said
    own = re.escape(f"{base} on its own dev examples, whose n-grams it has learned: accuracy ")
    assert re.search(rf"{own}\d+\.\d%\n", said)
    assert re.search(rf"{own}100\.0% before, \d+\.\d% after", said)
    assert tree(base) == before
    found = RunDir.open(run)
    assert found.labels() == sorted(INTENTS)
    assert (run / "tokenizer.model").read_bytes() == (base / "tokenizer.model").read_bytes()
    assert found.config().model.pooling == ("mean", "attention")
    facts = found.facts().base
    assert facts is not None
    assert (facts.run, facts.labels_kept) == (str(base), 4)
    new = Predictor.load(run).probabilities(["why was my card stolen", "a refund back , return"])
    assert [sorted(INTENTS)[n] for n in new.argmax(axis=1)] == ["card_lost", "refund"]
    (row,) = [each for each in new if each.argmax() == sorted(INTENTS).index("refund")]
    assert row.max() > 0.5


def test_of_other_labels_only_the_text_encoder_is_kept(
    base: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = write_tsv(tmp_path / "other.tsv", bank("card_new", "refund"))
    run = train(quick("train.freeze=encoder"), str(data), None, tmp_path / "run", base=base)
    said = capsys.readouterr().err
    assert "none of its labels occurs, so all 2 are new" in said
    assert "own dev examples" not in said
    assert RunDir.open(run).labels() == ["card_new", "refund"]
    assert not (run / "base.safetensors").exists()


def test_a_label_without_examples_keeps_its_weights(base: Path, tmp_path: Path) -> None:
    """Also with balanced weights: nothing is divided by its number of examples."""
    data = write_tsv(tmp_path / "new.tsv", bank("pin", "refund"))
    settings = (
        "train.class_weights=balanced",
        "train.dev_share=0.1",
        "train.epochs=1",
        "train.freeze=encoder",
    )
    run = train(quick(*settings), str(data), None, tmp_path / "run", base=base)
    labels = RunDir.open(run).labels()
    assert labels == sorted({*FIRST, "refund"})
    old, new = weights(base)["head.weight"], weights(run)["head.weight"]
    for label in set(FIRST) - {"pin"}:
        before, after = old[sorted(FIRST).index(label)], new[labels.index(label)]
        assert torch.nn.functional.cosine_similarity(before, after, dim=0) > 0.95
    metrics = [json.loads(line)["dev"] for line in (run / "metrics.jsonl").open()]
    assert all(0 <= value <= 1 for value in (metrics[-1]["accuracy"], metrics[-1]["macro_f1"]))
    with_one = write_tsv(tmp_path / "one.tsv", bank("pin"))
    one = train(quick("train.epochs=1"), str(with_one), None, tmp_path / "one", base=base)
    assert RunDir.open(one).labels() == sorted(FIRST)


def test_the_same_two_classes_again(tmp_path: Path) -> None:
    rows = [row for row in sentences() if row[0] != "none"]
    first, second = (
        str(write_tsv(tmp_path / name, part)) for name, part in (("1", rows[:200]), ("2", rows))
    )
    base = train(quick(*NETWORK, "model.head=mlp"), first, None, tmp_path / "base")
    run = train(quick(), second, None, tmp_path / "run", base=base)
    assert RunDir.open(run).ngrams(2, False).bias.size == 1
    assert Predictor.load(run).probabilities(["a lovely soup"]).argmax() == 1


def test_multi_label_runs(tmp_path: Path, capsys: Capture) -> None:
    pairs = zip(sentences(), sentences(1), strict=True)
    rows = [(",".join(sorted({a, b} - {"none"})), f"{x} and {y}") for (a, x), (b, y) in pairs]
    first = str(write_tsv(tmp_path / "1.tsv", rows[:200]))
    more = [(f"{labels},extra".strip(","), f"{text} extra") for labels, text in rows[200:300]]
    second = str(write_tsv(tmp_path / "2.tsv", [*rows[300:400], *more]))
    config = quick("data.multi_label=true")
    base = train(quick(*NETWORK, "data.multi_label=true"), first, None, tmp_path / "base")
    run = train(config, second, None, tmp_path / "run", base=base)
    assert RunDir.open(run).labels() == ["bad", "extra", "good"]
    assert len(RunDir.open(run).state("last")["thresholds"]) == 3
    said = capsys.readouterr().err
    assert re.search(r"own dev examples, .*: macro_f1 \d+\.\d% before, \d+\.\d% after", said)
    with pytest.raises(UsageError, match="this run is multi-label; add --multi-label"):
        train(quick(), first, None, tmp_path / "no", base=base)


def test_without_a_base_its_settings_have_no_effect(tiny: Tiny, tmp_path: Path) -> None:
    runs = [
        train(quick(*NETWORK, *settings), str(tiny.train), None, tmp_path / name)
        for name, settings in (("a", ()), ("b", ("train.freeze=encoder", "optim.layer_decay=0.5")))
    ]
    assert (runs[0] / "config.yaml").read_bytes() == (runs[1] / "config.yaml").read_bytes()
    one, other = map(weights, runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- what is trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OPTIMIZERS, "schedulefree:AdamWScheduleFree"])
def test_a_frozen_encoder_is_equal_to_the_bit(base: Path, tmp_path: Path, name: str) -> None:
    if ":" in name:
        pytest.importorskip("schedulefree")
    settings = ("train.freeze=encoder", f"optim.name={name}", "train.steps=4", "train.diagnose=1")
    run = tuned(base, tmp_path / "run", *settings, "optim.layer_decay=0.5")
    old, new = weights(base), weights(run)
    for key in old:
        if key.startswith(("embedding.", "encoder.")):
            assert torch.equal(old[key], new[key]), key
    assert not torch.equal(new["head.weight"][0], old["head.weight"][0])


@pytest.mark.parametrize("decay", [0.5, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_more_layer_is_trained_in_every_epoch(make: Make, name: str, decay: float) -> None:
    settings = ("train.freeze=gradual", f"optim.name={name}", "model.layers=2", "train.diagnose=1")
    trainer = make(*settings, f"optim.layer_decay={decay}", based=True)
    step, model = trainer.step, trainer.step.model
    assert trainer.step.watch is not None
    depths = optim.depths(model)
    batches = next(iter(trainer.loader.epochs_left()))
    for epoch, own in zip(range(5), batches, strict=False):
        step.set_mode(training=True)
        step.unfreeze(epoch)
        before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
        step(own, 1.0)
        changed = {
            depths[key]
            for key, weight in model.named_parameters()
            if not torch.equal(before[key], weight)
        }
        assert changed == set(range(min(epoch, 3) + 1))
        record = trainer.step.watch.pop_record()
        assert record is not None
        assert record["lr"] == pytest.approx(step.peak_lr)
        moved = {key: group["update_norm"] > 0 for key, group in record["groups"].items()}
        first = {"head": 0, "vectors": 0, "matrices": 1, "embeddings": 3}
        assert moved == {key: epoch >= first[key] for key in first}


def test_a_gradual_training_is_not_captured() -> None:
    from srucli.training.step import can_be_captured
    from tests.model.test_transfer import small

    for freeze, possible in (("none", True), ("encoder", True), ("gradual", False)):
        config = quick(f"train.freeze={freeze}")
        assert can_be_captured(config.train, config.optim, small(2, 0)) == possible


# --- resuming ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        ("train.freeze=gradual", "optim.layer_decay=0.5", "train.epochs=4"),
        ("train.freeze=encoder", "optim.name=muon"),
        ("train.freeze=gradual", "optim.name=adagrad", "train.diagnose=2", "train.epochs=3"),
    ],
)
def test_resuming_is_bit_equal_without_the_base(
    base: Path, tmp_path: Path, kill_after: Any, settings: tuple[str, ...]
) -> None:
    """Killed in the first epoch, and in the second: there another layer has joined."""
    place = tmp_path / "base"
    shutil.copytree(base, place)
    kill_after(None)
    whole = tuned(place, tmp_path / "whole", *settings)
    for steps in (5, 6):
        kill_after(steps)
        with pytest.raises(Killed):
            tuned(place, tmp_path / "run", *settings)
        shutil.rmtree(place, ignore_errors=True)
    kill_after(None)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    assert_same_runs(whole, tuned(place, tmp_path / "run", *settings))
    assert_same_runs(whole, resume(tmp_path / "other", {}))
    facts = [RunDir.open(tmp_path / name).facts().base for name in ("whole", "run", "other")]
    assert facts[0] == facts[1] == facts[2] is not None


def test_another_layer_decay_is_accepted_with_force(
    base: Path, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(4)
    with pytest.raises(Killed):
        tuned(base, tmp_path / "run")
    kill_after(None)
    changed = {"optim.layer_decay": 0.5, "train.freeze": "gradual"}
    with pytest.raises(UsageError, match=r"optim\.layer_decay: 1\.0 -> 0\.5"):
        resume(tmp_path / "run", changed)
    run = RunDir.open(resume(tmp_path / "run", changed, force=True))
    assert run.config().optim.layer_decay == 0.5
    assert run.facts().base is not None
    assert run.state("last")["finished"]


def test_before_the_first_checkpoint_it_starts_again(
    base: Path, tmp_path: Path, kill_after: Any
) -> None:
    kill_after(None)
    whole = tuned(base, tmp_path / "whole")
    kill_after(2)
    with pytest.raises(Killed):
        tuned(base, tmp_path / "run")
    kill_after(None)
    shutil.copytree(whole, tmp_path / "begun")
    for name in ("best", "last", "README.md", "metrics.jsonl"):
        (tmp_path / "begun" / name).unlink()
    shutil.rmtree(tmp_path / "begun" / "checkpoints")
    assert_same_runs(whole, tuned(base, tmp_path / "run"))
    assert_same_runs(whole, resume(tmp_path / "begun", {}))


def test_another_base_than_recorded_is_refused(
    base: Path, tiny: Tiny, tmp_path: Path, kill_after: Any
) -> None:
    place = tmp_path / "base"
    shutil.copytree(base, place)
    kill_after(4)
    with pytest.raises(Killed):
        tuned(place, tmp_path / "run")
    kill_after(None)
    with pytest.raises(
        UsageError, match=r"was trained from .*base, not from .*; to go on as it began"
    ):
        tuned(tiny.run, tmp_path / "run")
    with pytest.raises(
        UsageError, match=r"was trained with --from .*/base; add that, or choose another"
    ):
        tuned(None, tmp_path / "run", *NETWORK)
    config = "train.epochs=5"
    resume(place, {"train.epochs": 5})
    with pytest.raises(
        UsageError, match=r"was trained from .*, which has changed since; to go on as it began: "
    ):
        tuned(place, tmp_path / "run")
    shutil.rmtree(place)
    with pytest.raises(UsageError, match="not from "):
        tuned(tmp_path / "gone", tmp_path / "run")
    tuned(base, tmp_path / "run")  # the same run, elsewhere
    kill_after(None)
    plain = tuned(None, tmp_path / "plain", *NETWORK)
    with pytest.raises(UsageError, match="was trained without --from; leave it out, or choose"):
        tuned(base, plain, config)


# --- what is forgotten -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["changed", "gone", "piped", "fifo", "none", "dev"])
def test_the_old_task_is_measured_where_it_can_be(
    tmp_path: Path, capsys: Capture, how: str
) -> None:
    rows = bank(*FIRST)
    file, dev = write_tsv(tmp_path / "1.tsv", rows), write_tsv(tmp_path / "dev.tsv", rows[::3])
    config = quick(*NETWORK, f"train.dev_share={0 if how == 'none' else 0.25}", "train.epochs=1")
    dev_file = str(dev) if how == "dev" else None
    base = train(config, str(file), dev_file, tmp_path / "base")
    facts = json.loads((base / "run.json").read_bytes())
    if how == "changed":
        write_tsv(file, rows[1:])
    elif how == "gone":
        file.unlink()
    elif how == "piped":
        (base / "run.json").write_text(json.dumps(facts | {"sources": {"train": "-"}}))
    elif how == "fifo":
        file.unlink()
        os.mkfifo(file)
    elif how == "dev":
        file.unlink()  # the dev file is enough
    capsys.readouterr()
    tuned(base, tmp_path / "run", "train.epochs=1")
    said = capsys.readouterr().err
    if how == "dev":
        assert re.search(r"own dev examples: accuracy \d+\.\d% before, \d+\.\d% after", said)
        return
    reasons = {"changed": "has changed since", "none": "it had no dev examples"}
    why = reasons.get(how, "its train examples were not in a file, or are not there any more")
    assert f"{base}: what a new run forgets of its task is not measured: " in said
    assert why in said
    assert "own dev examples" not in said


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.encoder=cnn", r"model\.encoder is cnn, but the run was trained with sru; leave"),
        ("model.hidden=16", r"model\.hidden is 16, but the run was trained with 8; leave"),
        ("model.pooling=[max]", r"model\.pooling is .*, but the run was trained with"),
        ("tokenizer.vocab_size=99", r"tokenizer\.vocab_size is 99, but the run was trained with"),
        ("data.multi_label=true", "this run is single-label; leave out --multi-label"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    base: Path, tmp_path: Path, override: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        train(quick(override), "no file", None, tmp_path / "run", base=base)
    assert not (tmp_path / "run").exists()


def test_settings_that_may_differ(base: Path, tmp_path: Path) -> None:
    settings = ("model.dropout=0.3", "model.word_dropout=0.1", "model.ngrams=false")
    run = tuned(base, tmp_path / "run", *settings, "model.layers=2", "train.epochs=1")
    model = RunDir.open(run).config().model
    assert (model.dropout, model.word_dropout, model.ngrams, model.layers) == (0.3, 0.1, False, 2)
    assert not (run / "base.safetensors").exists()


@pytest.mark.parametrize("name", ["missing", "empty", "damaged", "newer", "labels", "itself", "in"])
def test_runs_that_cannot_be_a_base(base: Path, tmp_path: Path, name: str) -> None:
    place, output = tmp_path / "base", tmp_path / "run"
    if name == "empty":
        place.mkdir()
    elif name != "missing":
        shutil.copytree(base, place)
    if name == "damaged":
        for model in place.glob("checkpoints/step-*/model.safetensors"):
            model.write_bytes(model.read_bytes()[:-9])
    elif name == "newer":
        facts = json.loads((place / "run.json").read_bytes())
        facts["format_version"] = FORMAT_VERSION + 1
        (place / "run.json").write_text(json.dumps(facts))
    elif name == "labels":
        (place / "labels.json").write_text('["a"]')
    elif name in ("itself", "in"):
        output = place if name == "itself" else place / "x"
    before = tree(place)
    said: dict[str, tuple[type[SrucliError], str]] = {
        "missing": (InputMissingError, "no such run; give the folder"),
        "empty": (InputMissingError, "not a run folder: it has no run.json"),
        "damaged": (DataError, "damaged"),
        "newer": (DataError, "this srucli reads up to"),
        "labels": (DataError, "do(es)? not (fit|match)|has the shape"),
        "itself": (UsageError, "is in the run that --from names; choose another -o"),
        "in": (UsageError, "is in the run that --from names; choose another -o"),
    }
    kind, words = said[name]
    with pytest.raises(kind, match=words):
        train(quick(), "no file", None, output, base=place, force=True)
    assert tree(place) == before


def test_flags_that_exclude_each_other(base: Path, run_main: RunMain, tmp_path: Path) -> None:
    given = ("--from", base, "-o", tmp_path / "run")
    one = run_main("train", base.parent / "first.tsv", *given, "--tokenizer", "no.model")
    assert one.code == 2
    assert "has its own tokenizer; leave out --tokenizer" in one.err
    two = run_main("train", "--resume", base, "--from", base)
    assert two.code == 2
    assert "the run has its own; leave out --from" in two.err


def test_info_and_the_model_card_name_the_base(
    base: Path, run_main: RunMain, tmp_path: Path
) -> None:
    data = write_tsv(tmp_path / "all.tsv", bank(*INTENTS))
    words = ("train", data, "--from", base, "-o", tmp_path / "run", "--epochs", 1, "--threads", 1)
    assert run_main(*words).code == 0
    info = json.loads(run_main("info", tmp_path / "run", "--json").out)
    assert info["trained from"] == f"{base} (4 of its labels kept)"
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"- Trained from `{base.name}`, of which 4 labels are kept; SHA-256 of" in card
    assert str(base.parent) not in card
