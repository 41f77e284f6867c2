"""Search for a better recipe for given data, within limits of time and model size.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) searches over the few settings that
matter. Trials that fall behind the median of the others, at the same share of their epochs, are
ended early. The default recipe is the first trial, so the result is not worse on the dev texts. As
they chose the recipe, only other texts can show whether it is better.
"""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srucli.config import Config, with_settings
from srucli.data.dataset import find_labels, hold_out, read_texts
from srucli.data.readers import Example
from srucli.errors import (
    DivergedError,
    InterruptedRun,
    OutOfMemoryError,
    SrucliError,
    UsageError,
)
from srucli.io.console import say, warn
from srucli.io.files import write_atomic
from srucli.io.folders import OpenFolder
from srucli.io.yaml import to_yaml
from srucli.metrics import METRICS
from srucli.model.classifier import shapes
from srucli.runs import run_dir
from srucli.runs.claim import OWN, Claim, Layout, claimed, clear
from srucli.runs.run_dir import read_records
from srucli.tokenizer.training import make_tokenizer
from srucli.tokenizer.truncation import Notices, Tally
from srucli.training.defaults import check_settings, complete
from srucli.training.effects import Setup, given_settings, has_effect, no_effect
from srucli.training.interrupts import Interrupt
from srucli.training.ngrams import bytes_of_ngrams
from srucli.training.run import train

if TYPE_CHECKING:
    import optuna

DEV_SHARE = 0.1
# Number of trials at first that are not ended early, to have a median.
FIRST_TRIALS = 4
# Trials differ in their number of epochs. They are compared at the same twentieth of it.
PARTS = 20
# Bytes that a run needs for prediction besides weights and tokenizer.
OTHER_BYTES = 10_000

# The files of a search that is running (see `claim.Layout`); the run is the last trial's.
LAYOUT: Layout = {"run": {**run_dir.LAYOUT, **OWN}, r"tokenizer\.model": None}


@dataclass(frozen=True)
class Task:
    """What is tuned: settings, files and their examples; limits in seconds and bytes."""

    config: Config
    train: str
    dev: str | None
    examples: list[Example]
    labels: list[str]
    seconds: float
    max_bytes: float

    @property
    def metric(self) -> str:
        """The metric on dev that the search improves."""
        return self.config.metric

    def complete(self, settings: Mapping[str, Any]) -> Config:
        """Return the configuration of a trial, with the defaults for these texts."""
        config = with_settings(self.config, settings)
        return complete(config, len(self.examples), len(self.labels))


@dataclass
class Best:
    """The best trial so far, and the number of finished trials.

    value: the metric, negated if smaller is better. metrics: all metrics on dev; default: those of
    the default recipe, once it is finished.
    """

    value: float = -math.inf
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    default: Mapping[str, float] = field(default_factory=dict)
    megabytes: float = 0.0
    trials: int = 0


class OutOfTime(Exception):
    """The time limit is reached."""


# Suggests a value of a setting, from the trial, the setting and its value in the default recipe.
Suggestion = Callable[["optuna.Trial", str, Any], Any]


def _around(trial: optuna.Trial, key: str, base: float) -> float:
    return float(f"{trial.suggest_float(key, base / 4, base * 4, log=True):.3g}")


def _epochs(trial: optuna.Trial, key: str, base: int) -> int:
    return trial.suggest_int(key, max(base // 2, 2), base * 2, log=True)


def _share(trial: optuna.Trial, key: str, base: float) -> float:
    return round(trial.suggest_float(key, min(base, 0.1), max(base, 0.6)), 3)


def _one_of(*values: float) -> Suggestion:
    def suggest(trial: optuna.Trial, key: str, base: Any) -> Any:
        return trial.suggest_categorical(key, sorted({*values, base}))

    return suggest


SPACE: dict[str, Suggestion] = {
    "optim.lr": _around,
    "train.epochs": _epochs,
    "model.dropout": _share,
    "train.subword_dropout": _one_of(0.0, 0.05, 0.1, 0.2),
    "model.hidden": _one_of(32, 64, 128),
    "model.layers": _one_of(1, 2, 3),
}
# The smallest values of the settings that decide the model's size.
SMALLEST = {
    "model.hidden": 32,
    "model.layers": 1,
}


def dev_share(config: Config) -> float:
    """Return the share of the examples to hold out if there is no dev file."""
    return config.train.dev_share or DEV_SHARE


def is_given(config: Config, key: str) -> bool:
    """Return whether a user set a setting, so that it is not tuned."""
    section, _, name = key.partition(".")
    return name in getattr(config, section).model_fields_set


class Search:
    """Runs trials until the time is over."""

    def __init__(self, task: Task, scratch: Path, stop: Interrupt) -> None:
        self.task, self.scratch, self.stop, self.best = task, scratch, stop, Best()
        self.sign = 1.0 if METRICS[task.metric].larger_is_better else -1.0
        self.diverged = self.too_large = self.out_of_memory = 0
        self.warned, self.started = False, 0
        self.end = time.monotonic() + task.seconds
        base = task.complete({})
        setup = Setup(base, dev=True)
        free = [key for key in SPACE if not is_given(task.config, key) and has_effect(setup, key)]
        self.base = {key: attrgetter(key)(base) for key in free}
        texts = [example.text for example in task.examples]
        tokenizer = make_tokenizer(base.tokenizer, texts, task.train).tokenizer
        self.tokenizer = scratch / "tokenizer.model"
        write_atomic({self.tokenizer: tokenizer.model_bytes})
        self.vocab_size = tokenizer.vocab_size
        ngrams = bytes_of_ngrams(base, texts, len(task.labels))
        self.own_bytes = len(tokenizer.model_bytes) + ngrams + OTHER_BYTES

    def bytes_of(self, config: Config) -> int:
        """Return the size of what is copied for prediction."""
        weights = shapes(config.model, self.vocab_size, len(self.task.labels)).values()
        return self.own_bytes + 4 * sum(weight.numel() for weight in weights)

    def objective(self, trial: optuna.Trial) -> float:
        """Train a trial, and return the metric on dev of the weights that it would use.

        The metric is negated if smaller is better. Raises optuna.TrialPruned, OutOfTime, or
        SrucliError if the metric is not defined.
        """
        import optuna

        settings = {key: SPACE[key](trial, key, value) for key, value in self.base.items()}
        config = self.task.complete(settings)
        assert config.train.epochs is not None
        epochs, size = config.train.epochs, self.bytes_of(config)
        if math.isfinite(self.task.max_bytes):
            trial.set_constraint("bytes", size - self.task.max_bytes)
        if size > self.task.max_bytes:
            self.too_large += 1
            raise optuna.TrialPruned
        used: Mapping[str, float] = {}
        self.started += 1
        what = "the default recipe" if settings == self.base else "another recipe"
        say(f"trial {self.started}: {what}, {size / 1e6:.1f} MB, {epochs} epochs, {self._left()}")

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            nonlocal used
            value = self._value(metrics)
            if not used or config.train.use_checkpoint == "last" or value > self._value(used):
                used = metrics
            if not math.isfinite(value):
                raise SrucliError(
                    f"{self.task.metric} is not defined on the dev texts, because of their labels; "
                    "give a --dev file with texts of every label, or another train.metric"
                )
            trial.report(value, round(PARTS * epoch / epochs))
            if time.monotonic() > self.end and self.best.trials:
                raise OutOfTime
            if trial.should_prune():
                raise optuna.TrialPruned(f"behind the others after epoch {epoch}: ended")

        try:
            self._train(config, on_epoch)
        except DivergedError:
            self.diverged += 1
            raise optuna.TrialPruned("diverged") from None
        except OutOfMemoryError as error:
            self.out_of_memory += 1
            raise optuna.TrialPruned(f"left out: {error}") from None
        self._remember(settings, self._value(used), used, size)
        return self._value(used)

    def _value(self, metrics: Mapping[str, float]) -> float:
        return self.sign * metrics[self.task.metric]

    def _train(self, config: Config, on_epoch: Callable[[int, Mapping[str, float]], None]) -> None:
        share = 0.0 if self.task.dev else dev_share(config)
        config = with_settings(config, {"train.dev_share": share})
        with redirect_stderr(io.StringIO()):
            train(
                config,
                self.task.train,
                self.task.dev,
                self.scratch / "run",
                tokenizer=self.tokenizer,
                force=True,
                on_epoch=on_epoch,
                stop=self.stop,
            )
        records = read_records(self.scratch / "run" / "metrics.jsonl")
        if skipped := sum(record.get("skipped", 0) for record in records):
            warn(f"{skipped:,} steps of this trial were skipped because of non-finite gradients")
        self._warn_of_truncation(records[-1])

    def _warn_of_truncation(self, record: Mapping[str, Any]) -> None:
        """Say once how many texts are truncated. The messages of trials are not shown."""
        if self.warned:
            return
        self.warned = True
        names = {"train": self.task.train, "dev": self.task.dev or f"{self.task.train}, held out"}
        for part, tally in record.get("reading", {}).items():
            say(*Notices(names[part]).last(Tally.from_json(tally)))

    def _remember(
        self, settings: dict[str, Any], value: float, metrics: Mapping[str, float], size: int
    ) -> None:
        """Count a finished trial, and keep it if it is the best, or as good with a lower loss."""
        self.best.trials += 1
        if settings == self.base:
            self.best.default = dict(metrics)
        loss = self.best.metrics.get("log_loss", math.inf)
        better = (value, -metrics["log_loss"]) > (self.best.value, -loss)
        if better:
            self.best.value, self.best.settings = value, settings
            self.best.metrics, self.best.megabytes = dict(metrics), size / 1e6
        mark = ", the best so far" if better else ""
        say(f"trial {self.started}: dev {self.task.metric} {abs(value):.4f}", good=mark)

    def _left(self) -> str:
        return f"{max(self.end - time.monotonic(), 0.0):,.0f} s left"

    def run(self) -> Best:
        """Run trials until the time is over or an interrupt is requested. Raises SrucliError."""
        study = self._study()
        with suppress(OutOfTime, InterruptedRun):
            while time.monotonic() < self.end and not self.stop.requested:
                self._run_trial(study)
        if self.stop.requested:
            if not self.best.trials:
                raise InterruptedRun(
                    "stopped before a trial was finished", "the same command starts again"
                )
            say("stopped: the best so far is kept")
        if not self.best.trials:
            raise self._no_result()
        self._sum_up()
        return self.best

    def _sum_up(self) -> None:
        """Say what was found, and if so, that too few trials were finished to find anything."""
        best = self.best
        count = f"{best.trials} trial{'s' * (best.trials > 1)} finished of {self.started} begun"
        say(f"{count}; the best on dev: {_shown(best.metrics)}; {best.megabytes:.1f} MB")
        if best.trials <= FIRST_TRIALS:
            warn("so few trials say little; a search needs more --minutes, or fewer train.epochs")
        elif best.metrics == best.default:
            say("it is the default recipe: no trial was better")

    def _no_result(self) -> SrucliError:
        """Return the error if no trial was finished, with the reasons."""
        ended = [
            (self.diverged, "diverged", "a lower optim.lr"),
            (self.too_large, "were too large", "a larger --max-mb"),
            (self.out_of_memory, "ran out of memory", "a smaller train.batch_tokens"),
        ]
        reasons = ", ".join(f"{count} {how}" for count, how, _ in ended if count)
        remedies = ["more --minutes", *(remedy for count, _, remedy in ended if count)]
        problem = f"no trial was finished{f' ({reasons})' if reasons else ''}"
        return SrucliError(f"{problem}; give it {' or '.join(remedies)}")

    def _run_trial(self, study: optuna.Study) -> None:
        import optuna

        trial = study.ask()
        try:
            study.tell(trial, self.objective(trial))
        except optuna.TrialPruned as reason:
            if str(reason):
                say(f"trial {self.started}: {reason}")
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def _study(self) -> optuna.Study:
        """Return a study whose first trials are the default recipe and the smallest model.

        Raises UsageError if that is too large.
        """
        import optuna

        sampler = optuna.samplers.TPESampler(seed=self.task.config.train.seed, multivariate=True)
        pruner = optuna.pruners.MedianPruner(FIRST_TRIALS, n_warmup_steps=5)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        study.enqueue_trial(self.base)
        small = {key: value for key, value in SMALLEST.items() if key in self.base}
        study.enqueue_trial(self.base | small)
        smallest = self.bytes_of(self.task.complete(small))
        if smallest > self.task.max_bytes:
            megabytes = math.ceil(smallest / 1e5) / 10
            raise UsageError(
                f"the smallest model that is tried has {megabytes:.1f} MB for these labels and "
                f"tokens; allow --max-mb {megabytes:.1f}, or set a smaller tokenizer.vocab_size"
            )
        return study


def tune(
    config: Config,
    train_source: str,
    dev: str | None,
    *,
    minutes: float,
    max_mb: float | None,
    stop: Interrupt | None = None,
) -> tuple[str, Best]:
    """Return a recipe as YAML, and the best trial. Raises every kind of SrucliError.

    minutes: how long to search. max_mb: the largest size of a model, in megabytes. stop: ends the
    search early if it is requested, with the best trial so far.
    """
    check_settings(config)
    stop = stop or Interrupt()
    stop.checked = True  # the search checks it, and then removes the folder of its trials
    warn(*no_effect(Setup(config, dev=True, held_out=not dev), given_settings(config)))
    examples, _ = read_texts(train_source, config.data)
    labels = find_labels(examples, train_source)
    if not dev:
        examples, held = hold_out(examples, dev_share(config), config.train.seed)
        say(f"{train_source}: {len(held):,} of {len(examples) + len(held):,} texts are held out")
    max_bytes = math.inf if max_mb is None else max_mb * 1e6
    task = Task(config, train_source, dev, examples, labels, minutes * 60, max_bytes)
    with _scratch() as folder:
        best = Search(task, folder, stop).run()
    return recipe(task, best), best


@contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder for trials, and remove it after the block. Raises OutputError."""
    path = Path(tempfile.mkdtemp(prefix="srucli-tune-"))
    try:
        with claimed(path, Claim("tuning", LAYOUT)):
            yield path
    finally:
        with suppress(OSError):
            with OpenFolder.at(path) as folder:
                clear(folder, {**LAYOUT, **OWN})
            path.rmdir()


def recipe(task: Task, best: Best) -> str:
    """Return the given and the best settings, as YAML that `srucli train -c` reads."""
    tree = with_settings(task.config, best.settings).model_dump(mode="json", exclude_unset=True)
    lines = [
        f"Found by `srucli tune`; finished trials: {best.trials}.",
        f"On dev: {_shown(best.metrics)}.",
        *_doubts(best),
        f"{best.megabytes:.1f} MB for prediction.",
    ]
    head = "".join(f"# {line}\n" for line in lines)
    return head + to_yaml(tree)


def _doubts(best: Best) -> list[str]:
    """Return the metrics of the default recipe, and what the metrics do not show."""
    if best.metrics == best.default:
        return ["It is the default recipe: no trial was better."]
    default = [f"The default recipe on dev: {_shown(best.default)}."] if best.default else []
    return [
        *default,
        "The dev texts chose this recipe, so its metrics on them are too optimistic. To see",
        "whether it is better than the default recipe, evaluate both on other texts.",
    ]


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
