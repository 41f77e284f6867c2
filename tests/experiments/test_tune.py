"""The search: limits of time and size, its trials, and the recipe that it writes."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import OnStep, RunMain, Tiny, child_environment

pytest.importorskip("optuna")

from srucli.cli.next_steps import after_tune
from srucli.config import resolve
from srucli.data.readers import read_examples
from srucli.errors import InterruptedRun, SrucliError
from srucli.experiments.tune import SPACE, Best, OutOfTime, Search, Task, is_given, recipe
from srucli.io.yaml import parse_yaml
from srucli.runs.run_dir import RunDir
from srucli.training.interrupts import Interrupt

SMALL = ("train.epochs=2", "model.hidden=16", "train.threads=1", "train.batch_size=16")
TINY = ("model.layers=1",)
# A width that no trial makes smaller.
LARGE = ("tokenizer.vocab_size=100", "model.hidden=512")


def test_the_next_command_reads_the_same_files(capsys: pytest.CaptureFixture[str]) -> None:
    after_tune("my train.tsv", "dev.tsv", Path("recipe.yaml"))
    command = "srucli train 'my train.tsv' --dev dev.tsv -c recipe.yaml"
    assert capsys.readouterr().err == f"to train with it:  {command}\n"


def test_a_recipe_is_found_in_time_and_trains(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    recipe = tmp_path / "recipe.yaml"
    words = ("train.epochs=2", "train.threads=1", "train.batch_size=16", "train.max_tokens=4")
    ended = run_main("tune", tiny.train, "--minutes", 0.1, "--max-mb", 0.6, "-o", recipe, *words)
    assert (ended.code, ended.out) == (0, f"{recipe}\n"), ended.err
    cut = "texts were cut at 4 tokens (train.max_tokens)"
    told = [line for line in ended.err.splitlines() if " texts are " in line or cut in line]
    assert told == [
        f"{tiny.train}: 48 of 480 texts are held out",
        f"{tiny.train}: 432 of 432 {cut}",
        f"{tiny.train}, held out: 48 of 48 {cut}",
    ]
    trials = [line for line in ended.err.splitlines() if line.startswith("trial ")]
    assert trials[0].startswith("trial 1: another recipe, ")  # the default one is too large
    assert any(line.endswith(", the best so far") for line in trials)
    sizes = [float(size) for size in re.findall(r"recipe, ([\d.]+) MB, 2 epochs", ended.err)]
    assert re.search(
        r"^\d+ trials? finished of \d+ begun; the best on dev: accuracy 0", ended.err, re.M
    )
    assert ended.err.splitlines()[-1] == f"to train with it:  srucli train {tiny.train} -c {recipe}"
    assert max(sizes) <= 0.6
    found = resolve(recipe)
    # What was given is kept, and is not searched over.
    assert found.train.epochs == 2
    assert is_given(found, "model.layers")
    trained = run_main("train", tiny.train, "-c", recipe, "-o", tmp_path / "run")
    assert trained.code == 0, trained.err
    run = RunDir.open(tmp_path / "run")
    parts = (
        run.path / "tokenizer.model",
        run.path / "ngrams.safetensors",
        *run.path.glob("checkpoints/*/model.*"),
    )
    assert sum(part.stat().st_size for part in parts) <= 0.61e6


def test_the_size_of_a_trial_is_the_size_of_its_run(tiny: Tiny, tmp_path: Path) -> None:
    run = RunDir.open(tiny.run)
    config = run.config()
    examples = list(read_examples(str(tiny.train), config.data))
    task = Task(config, str(tiny.train), None, examples, run.labels(), 1.0, 1e9)
    search = Search(task, tmp_path, Interrupt())
    own = ("tokenizer.model", "ngrams.safetensors", "labels.json", "config.yaml", "run.json")
    last = (run.path / "last").read_text().strip()
    names = ("model.safetensors", "state.json", "manifest.json")
    used = [*own, *(f"checkpoints/{last}/{name}" for name in names)]
    size = sum((run.path / name).stat().st_size for name in used)
    assert search.bytes_of(config) == pytest.approx(size, abs=15_000)


def searching(tiny: Tiny, folder: Path, *overrides: str) -> Search:
    """Return a new search over 480 texts, a tenth of them held out."""
    config = resolve(overrides=overrides)
    examples = list(read_examples(str(tiny.train), config.data))
    task = Task(config, str(tiny.train), None, examples, list(tiny.labels), 600.0, float("inf"))
    return Search(task, folder, Interrupt())


def test_the_first_trial_is_the_default_recipe(tiny: Tiny, tmp_path: Path) -> None:
    search = searching(tiny, tmp_path)
    trial = search._study().ask()
    base = search.task.complete({})
    for key, suggestion in SPACE.items():
        assert suggestion(trial, key, search.base[key]) == attrgetter(key)(base)


def test_trials_are_compared_at_the_same_share_of_their_epochs(tiny: Tiny, tmp_path: Path) -> None:
    """The pruner's steps are twentieths of a trial: epoch 2 of 4 is step 10."""
    for epochs in (4, 2):
        search = searching(tiny, tmp_path, *SMALL[1:], f"train.epochs={epochs}", *TINY)
        study = search._study()
        search._run_trial(study)
        (trial,) = (trial for trial in study.trials if trial.state.is_finished())
        assert list(trial.intermediate_values) == list(range(20 // epochs, 21, 20 // epochs))
        last = trial.intermediate_values[20]
        assert trial.value == last == search.best.value == search.best.metrics["accuracy"]
        assert search.best.default == search.best.metrics


def test_the_first_trial_is_finished_after_the_time_is_over(tiny: Tiny, tmp_path: Path) -> None:
    search = searching(tiny, tmp_path, *SMALL, *TINY)
    study, search.end = search._study(), 0.0
    search._run_trial(study)
    assert search.best.trials == 1
    assert search.best.metrics == search.best.default
    with pytest.raises(OutOfTime):
        search._run_trial(study)


def test_a_loss_is_minimized(tiny: Tiny, tmp_path: Path) -> None:
    search = searching(tiny, tmp_path, *SMALL, "train.metric=log_loss", *TINY)
    study = search._study()
    search._run_trial(study)
    loss = search.best.metrics["log_loss"]
    assert loss > 0
    assert [trial.value for trial in study.trials if trial.state.is_finished()] == [-loss]
    assert search.best.value == -loss


def test_a_trial_that_diverges_is_pruned(tiny: Tiny, tmp_path: Path) -> None:
    diverging = ("optim.name=sgd", "optim.lr=1e30", "optim.clip=0")
    search = searching(tiny, tmp_path, *SMALL, *diverging, *TINY)
    study = search._study()
    search._run_trial(study)
    assert (search.diverged, search.best.trials) == (1, 0)
    assert [trial.state.name for trial in study.trials if trial.state.is_finished()] == ["PRUNED"]


def test_a_trial_that_runs_out_of_memory_is_left_out(
    tiny: Tiny, tmp_path: Path, on_step: OnStep, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(step: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    search = searching(tiny, tmp_path, *SMALL, *TINY)
    study = search._study()
    on_step(fail)
    search._run_trial(study)
    assert (search.out_of_memory, search.best.trials) == (1, 0)
    assert ": left out: training ran out of GPU memory (it needs" in capsys.readouterr().err
    remedy = "give it more --minutes or a smaller train.batch_tokens"
    assert str(search._no_result()) == f"no trial was finished (1 ran out of memory); {remedy}"
    on_step(lambda step: None)
    search._run_trial(study)
    assert search.best.trials == 1


def test_a_metric_that_is_not_defined_ends_the_search(tiny: Tiny, tmp_path: Path) -> None:
    """As AUC on dev texts of one class."""
    dev = tmp_path / "dev.tsv"
    dev.write_text("good\tthe soup was lovely\n" * 5)
    search = searching(tiny, tmp_path, *SMALL, "train.metric=auc", *TINY)
    search.task = replace(search.task, dev=str(dev))
    with pytest.raises(SrucliError, match="auc is not defined on the dev texts"):
        search._run_trial(search._study())


def remembered(search: Search, *trials: tuple[dict[str, Any], float, float]) -> Best:
    """Return the best of finished trials: settings, accuracy and log loss of each."""
    for settings, accuracy, loss in trials:
        search._remember(settings, accuracy, {"accuracy": accuracy, "log_loss": loss}, 1_200_000)
    return search.best


def test_the_best_trial_has_the_best_metric_and_then_the_lowest_loss(
    tiny: Tiny, tmp_path: Path
) -> None:
    best = remembered(
        searching(tiny, tmp_path),
        *(({"a": 1}, 0.8, 0.5), ({"a": 2}, 0.9, 0.7), ({"a": 3}, 0.9, 0.6)),
        *(({"a": 4}, 0.9, 0.65), ({"a": 5}, 0.85, 0.1)),
    )
    assert (best.settings, best.value, best.trials) == ({"a": 3}, 0.9, 5)
    assert best.metrics == {"accuracy": 0.9, "log_loss": 0.6}
    assert best.default == {}


def test_a_recipe_says_that_its_metrics_are_optimistic(tiny: Tiny, tmp_path: Path) -> None:
    search = searching(tiny, tmp_path)
    better = search.base | {"optim.lr": 0.005}
    best = remembered(search, (search.base, 0.9, 0.5), (better, 0.95, 0.4))
    text = recipe(search.task, best)
    assert text.split("\n")[:6] == [
        "# Found by `srucli tune`; finished trials: 2.",
        "# On dev: accuracy 0.9500, log_loss 0.4000.",
        "# The default recipe on dev: accuracy 0.9000, log_loss 0.5000.",
        "# The dev texts chose this recipe, so its metrics on them are too optimistic. To see",
        "# whether it is better than the default recipe, evaluate both on other texts.",
        "# 1.2 MB for prediction.",
    ]
    (tmp_path / "recipe.yaml").write_text(text)
    assert resolve(tmp_path / "recipe.yaml").optim.lr == 0.005


def test_a_recipe_that_is_the_default_says_so(tiny: Tiny, tmp_path: Path) -> None:
    search = searching(tiny, tmp_path)
    worse = search.base | {"optim.lr": 0.005}
    best = remembered(search, (search.base, 0.9, 0.5), (worse, 0.9, 0.6))
    assert recipe(search.task, best).split("\n")[2] == (
        "# It is the default recipe: no trial was better."
    )


def test_an_interrupt_before_the_first_trial_ends_the_search(tiny: Tiny, tmp_path: Path) -> None:
    search = searching(tiny, tmp_path)
    search.stop.requested = True
    with pytest.raises(InterruptedRun, match="stopped before a trial was finished"):
        search.run()
    assert not (tmp_path / "run").exists()


def test_an_interrupt_keeps_the_best_so_far(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    words = ["tune", tiny.train, "--minutes", 9, "-o", recipe, *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "srucli", *map(str, words)],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(line.startswith("trial 1: dev accuracy ") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"{recipe}\n"), said
    assert "stopped: the best so far is kept" in said
    assert resolve(recipe).train.epochs == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--max-mb", 0.02), 2, "the smallest model that is tried has"),
        (("--minutes", 0), 2, "--minutes"),
        (("optim.name=adamm",), 2, "unknown optimizer 'adamm'"),
    ],
)
def test_mistakes(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, words: tuple[object, ...], code: int, said: str
) -> None:
    ended = run_main("tune", tiny.train, "-o", tmp_path / "recipe.yaml", *SMALL, *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert not list(tmp_path.iterdir())


def test_a_megabyte_is_a_million_bytes(tiny: Tiny, tmp_path: Path, run_main: RunMain) -> None:
    def refusal(megabytes: float) -> float:
        """Return the smallest size that the error names if this much is allowed."""
        words = ("-o", tmp_path / "recipe.yaml", *LARGE, "--minutes", 0.1, "--max-mb", megabytes)
        ended = run_main("tune", tiny.train, *words)
        assert ended.code == 2
        (said,) = re.findall(r"is tried has ([\d.]+) MB", ended.err)
        return float(said)

    smallest = refusal(0.02)
    assert smallest > 2.3  # so that 0.1 MB below is more than that many MiB
    assert refusal(round(smallest - 0.1, 1)) == smallest


def test_a_recipe_is_printed_if_its_folder_is_gone(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, on_step: OnStep
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    on_step(lambda step: shutil.rmtree(folder, ignore_errors=True))
    ended = run_main("tune", tiny.train, "-o", folder / "a.yaml", "--minutes", 0.05, *SMALL, *TINY)
    assert ended.code == 73
    assert "a.yaml: cannot be written (No such file or directory); make its folder" in ended.err
    assert "# Found by `srucli tune`; finished trials: " in ended.out
    assert parse_yaml(ended.out.encode(), "recipe")["model"]["hidden"] == 16


def test_a_folder_that_cannot_be_written_is_refused_before_the_search(
    tiny: Tiny, run_main: RunMain
) -> None:
    for words in (
        ("tune", tiny.train, "-o", "/proc/self/recipe.yaml"),
        ("tokenize", tiny.train, "-o", "/proc/self/m"),
        ("eval", tiny.run, tiny.test, "--plots", "/proc/self"),
        ("diagnose", tiny.run, "--plots", "/proc/self"),
    ):
        done = run_main(*words)
        assert (done.code, done.out) == (73 if words[0] != "diagnose" else 66, "")


def test_stdin_and_an_existing_recipe_are_refused(
    tiny: Tiny, tmp_path: Path, run_main: RunMain
) -> None:
    assert (
        "<stdin>: is read once a trial, so it cannot be a pipe; give a file"
        in run_main("tune", "-", "-o", tmp_path / "a.yaml").err
    )
    (tmp_path / "b.yaml").write_text("")
    ended = run_main("tune", tiny.train, "-o", tmp_path / "b.yaml")
    assert ended.code == 73
    assert "exists already" in ended.err


def test_settings_without_effect_are_not_searched(tiny: Tiny, tmp_path: Path) -> None:
    searched = set(searching(tiny, tmp_path, "model.encoder=bag").base)
    assert SPACE.keys() - searched == {"model.hidden", "model.layers"}
    searched = set(searching(tiny, tmp_path, "train.steps=9").base)
    assert SPACE.keys() - searched == {"train.epochs"}


@pytest.mark.parametrize(
    ("keep", "metric", "values", "wanted"),
    [
        ("last", "accuracy", [0.5, 0.9, 0.7], 0.7),
        ("best", "accuracy", [0.5, 0.9, 0.7], 0.9),
        ("best", "log_loss", [0.5, 0.2, 0.4], -0.2),
    ],
)
def test_a_trial_is_scored_with_the_weights_that_it_would_use(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keep: str,
    metric: str,
    values: list[float],
    wanted: float,
) -> None:
    def trained(self: Search, config: Any, observe: Any) -> None:
        for epoch, value in enumerate(values, 1):
            observe(epoch, {"log_loss": 0.3, metric: value})

    monkeypatch.setattr(Search, "_train", trained)
    settings = (f"train.use_checkpoint={keep}", f"train.metric={metric}", "train.epochs=3")
    search = searching(tiny, tmp_path, *settings, *TINY)
    study = search._study()
    search._run_trial(study)
    (trial,) = (trial for trial in study.trials if trial.state.is_finished())
    assert trial.value == wanted
