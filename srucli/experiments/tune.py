"""A better recipe for one's own data within a budget of minutes and of megabytes.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) chooses what to try over the few
settings that matter; trials that fall behind the median of the others at the same share of their
epochs are ended early. The default recipe is the first trial, so what is found is no worse than it
on the dev texts. These chose it: whether it is better on others, they cannot tell.
"""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srucli.config import Config, with_settings
from srucli.data.dataset import find_labels, hold_out, read_texts
from srucli.data.readers import Example
from srucli.errors import DivergedError, InterruptedRun, SrucliError, UsageError
from srucli.experiments.grid import larger_is_better
from srucli.io.console import say
from srucli.io.files import write_atomic
from srucli.io.folders import OpenFolder
from srucli.io.yaml import to_yaml
from srucli.model.classifier import Classifier
from srucli.runs import run_dir
from srucli.runs.claim import OWN, Layout, claimed, clear
from srucli.runs.run_dir import read_records
from srucli.tokenizer.training import make_tokenizer
from srucli.tokenizer.truncation import Notices, Tally
from srucli.training.defaults import check, complete
from srucli.training.effects import Setup, asked_for, idle, works
from srucli.training.interrupts import Interrupt
from srucli.training.run import train

if TYPE_CHECKING:
    from optuna import Study, Trial

DEV_SHARE = 0.1
# Trials that are never ended early, so that there is a median to fall behind.
FIRST_TRIALS = 4
# Trials have epochs of their own, so they are compared at the same of so many parts of them.
PARTS = 20
# What a run needs for prediction besides weights and tokenizer.
OTHER_BYTES = 10_000

# What there is while a search goes on (see `claim.Layout`); the run is the last trial's.
LAYOUT: Layout = {"run": {**run_dir.LAYOUT, **OWN}, r"tokenizer\.model": None}

Settings = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What is tuned: settings, files, their texts, and the budgets in seconds and bytes."""

    config: Config
    train: str
    dev: str | None
    examples: list[Example]
    labels: list[str]
    seconds: float
    most_bytes: float

    @property
    def metric(self) -> str:
        """What is to be improved on dev."""
        return self.config.metric

    def complete(self, settings: Mapping[str, Any]) -> Config:
        """The configuration of a trial, filled in for these texts."""
        config = with_settings(self.config, settings)
        return complete(config, len(self.examples), len(self.labels))


@dataclass
class Best:
    """The best trial so far. default: figures of the default recipe, if that was finished."""

    value: float = -math.inf
    settings: Settings = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    default: Mapping[str, float] = field(default_factory=dict)
    megabytes: float = 0.0
    trials: int = 0


class OutOfTime(Exception):
    """The budget of minutes is spent."""


# What is tried of each setting, given the base recipe's own value.
Suggestion = Callable[["Trial", str, Any], Any]


def _around(trial: Trial, key: str, base: float) -> float:
    return float(f"{trial.suggest_float(key, base / 4, base * 4, log=True):.3g}")


def _epochs(trial: Trial, key: str, base: int) -> int:
    return trial.suggest_int(key, max(base // 2, 2), base * 2, log=True)


def _share(trial: Trial, key: str, base: float) -> float:
    return round(trial.suggest_float(key, min(base, 0.1), max(base, 0.6)), 3)


def _one_of(*values: float) -> Suggestion:
    def suggest(trial: Trial, key: str, base: Any) -> Any:
        return trial.suggest_categorical(key, sorted({*values, base}))

    return suggest


SPACE: dict[str, Suggestion] = {
    "optim.lr": _around,
    "train.epochs": _epochs,
    "model.dropout": _share,
    "train.subword_dropout": _one_of(0.0, 0.05, 0.1, 0.2),
    "model.hidden": _one_of(32, 64, 128),
    "model.layers": _one_of(1, 2, 3),
    "model.wide_buckets": _one_of(2048, 8192, 16384),
    "model.character_buckets": _one_of(4096, 16384, 32768),
}
# The smallest values of what decides the model's size.
SMALLEST = {
    "model.hidden": 32,
    "model.layers": 1,
    "model.wide_buckets": 2048,
    "model.character_buckets": 4096,
}


def dev_share(config: Config) -> float:
    """The share of the texts that judges trials where no file does."""
    return config.train.dev_share or DEV_SHARE


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted setting."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def is_given(config: Config, key: str) -> bool:
    """Whether a person set it, so that it is not to be tuned."""
    section, _, name = key.partition(".")
    return name in getattr(config, section).model_fields_set


class Search:
    """Trials until the time is spent."""

    def __init__(self, task: Task, scratch: Path, stop: Interrupt) -> None:
        self.task, self.scratch, self.stop, self.best = task, scratch, stop, Best()
        self.diverged = self.too_large = 0
        self.told = False
        self.end = time.monotonic() + task.seconds
        base = task.complete({})
        setup = Setup(base, dev=True)
        free = [key for key in SPACE if not is_given(task.config, key) and works(setup, key)]
        self.base = {key: value_of(base, key) for key in free}
        texts = [example.text for example in task.examples]
        tokenizer = make_tokenizer(base.tokenizer, texts, task.train).tokenizer
        self.tokenizer = scratch / "tokenizer.model"
        write_atomic({self.tokenizer: tokenizer.model_bytes})
        self.spelling = tokenizer.spelling
        self.own_bytes = len(tokenizer.model_bytes) + OTHER_BYTES

    def bytes_of(self, config: Config) -> int:
        """What has to be copied for prediction."""
        model = Classifier(config.model, self.spelling, len(self.task.labels))
        return self.own_bytes + 4 * sum(weight.numel() for weight in model.parameters())

    def objective(self, trial: Trial) -> float:
        """Train a trial; the metric on dev of the weights that it keeps, larger being better."""
        import optuna

        settings = {key: SPACE[key](trial, key, value) for key, value in self.base.items()}
        config = self.task.complete(settings)
        epochs, size = value_of(config, "train.epochs"), self.bytes_of(config)
        if math.isfinite(self.task.most_bytes):
            trial.set_constraint("bytes", size - self.task.most_bytes)
        if size > self.task.most_bytes:
            self.too_large += 1
            raise optuna.TrialPruned
        sign = 1.0 if larger_is_better(self.task.metric) else -1.0
        last: dict[str, float] = {}

        def observe(epoch: int, figures: Mapping[str, float]) -> None:
            value = sign * figures[self.task.metric]
            if (
                not last
                or config.train.use_checkpoint == "last"
                or value > sign * last[self.task.metric]
            ):
                last.clear()
                last.update(figures)
            if not math.isfinite(figures[self.task.metric]):
                raise SrucliError(
                    f"{self.task.metric} is not defined on the dev texts, by the labels that they "
                    "have; give a --dev file with texts of every label, or another train.metric"
                )
            trial.report(sign * figures[self.task.metric], round(PARTS * epoch / epochs))
            if time.monotonic() > self.end and self.best.trials:
                raise OutOfTime
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            self._train(config, observe)
        except DivergedError:
            self.diverged += 1
            raise optuna.TrialPruned from None
        self._remember(settings, sign * last[self.task.metric], last, size)
        return sign * last[self.task.metric]

    def _train(self, config: Config, observe: Callable[[int, Mapping[str, float]], None]) -> None:
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
                observe=observe,
                stop=self.stop,
            )
        records = read_records(self.scratch / "run" / "metrics.jsonl")
        if skipped := sum(record.get("skipped", 0) for record in records):
            say(f"{skipped:,} steps of this trial were skipped, without finite gradients")
        self._tell(records[-1])

    def _tell(self, latest: Mapping[str, Any]) -> None:
        """Say once of how many texts not all is read, since what trainings say is not shown."""
        if self.told:
            return
        self.told = True
        names = {"train": self.task.train, "dev": self.task.dev or f"{self.task.train}, held out"}
        for part, tally in latest.get("reading", {}).items():
            for line in Notices(names[part]).last(Tally.from_json(tally)):
                say(line)

    def _remember(
        self, settings: Settings, value: float, figures: Mapping[str, float], size: int
    ) -> None:
        self.best.trials += 1
        if settings == self.base:
            self.best.default = dict(figures)
        loss = self.best.figures.get("log_loss", math.inf)
        better = (value, -figures["log_loss"]) > (self.best.value, -loss)
        if better:
            self.best.value, self.best.settings = value, settings
            self.best.figures, self.best.megabytes = dict(figures), size / 1e6
        left = max(self.end - time.monotonic(), 0.0)
        name = self.task.metric
        say(
            f"trial {self.best.trials}: dev {name} {abs(value):.4f}, {size / 1e6:.1f} MB"
            f"{'  *' if better else ''}  {left:,.0f} s left"
        )

    def run(self) -> Best:
        """All trials that the time allows and no interrupt ends. Raises SrucliError."""
        study = self._study()
        with suppress(OutOfTime, InterruptedRun):
            while time.monotonic() < self.end and not self.stop.requested:
                self._one(study)
        if self.stop.requested:
            if not self.best.trials:
                raise InterruptedRun(
                    "stopped before a trial was finished; the same command starts again"
                )
            say("stopped: the best so far is kept")
        if not self.best.trials:
            raise self._nothing()
        return self.best

    def _nothing(self) -> SrucliError:
        """What is said where no trial was finished, by what became of them."""
        left_out = {
            "diverged": (self.diverged, "a lower optim.lr"),
            "were too large": (self.too_large, "a larger --max-mb"),
        }
        why = ", ".join(f"{count} {how}" for how, (count, _) in left_out.items() if count)
        remedies = ["more --minutes", *(remedy for count, remedy in left_out.values() if count)]
        problem = f"no trial was finished{f' ({why})' if why else ''}"
        return SrucliError(f"{problem}; give it {' or '.join(remedies)}")

    def _one(self, study: Study) -> None:
        """One trial."""
        import optuna

        trial = study.ask()
        try:
            study.tell(trial, self.objective(trial))
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def _study(self) -> Study:
        import optuna

        sampler = optuna.samplers.TPESampler(seed=self.task.config.train.seed, multivariate=True)
        pruner = optuna.pruners.MedianPruner(FIRST_TRIALS, n_warmup_steps=5)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        study.enqueue_trial(self.base)
        small = {key: value for key, value in SMALLEST.items() if key in self.base}
        study.enqueue_trial(self.base | small)
        smallest = self.bytes_of(self.task.complete(small))
        if smallest > self.task.most_bytes:
            megabytes = math.ceil(smallest / 1e5) / 10
            raise UsageError(
                f"the smallest model that is tried has {megabytes:.1f} MB for these labels and "
                f"pieces; allow --max-mb {megabytes:.1f}, or set a smaller tokenizer.vocab_size"
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
    """A recipe as YAML, and the trial that it comes from. Raises every kind of SrucliError.

    A `stop` that is requested ends the search early, with the best so far.
    """
    check(config)
    stop = stop or Interrupt()
    stop.checked = True  # by the search, which then removes the folder of its trials
    for line in idle(Setup(config, dev=True, held_out=not dev), asked_for(config)):
        say(line)
    examples, _ = read_texts(train_source, config.data)
    labels = find_labels(examples, train_source)
    if not dev:
        examples, held = hold_out(examples, dev_share(config), config.train.seed)
        say(f"{train_source}: {len(held):,} of {len(examples) + len(held):,} texts are held out")
    most = math.inf if max_mb is None else max_mb * 1e6
    task = Task(config, train_source, dev, examples, labels, minutes * 60, most)
    with _scratch() as folder:
        best = Search(task, folder, stop).run()
    return recipe(task, best), best


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for trials, of which nothing stays that they write. Raises OutputError."""
    path = Path(tempfile.mkdtemp(prefix="srucli-tune-"))
    try:
        with claimed(path, "tuning", LAYOUT):
            yield path
    finally:
        with suppress(OSError):
            with OpenFolder.at(path) as folder:
                clear(folder, {**LAYOUT, **OWN})
            path.rmdir()


def recipe(task: Task, best: Best) -> str:
    """The settings that were given and found, as YAML that `srucli train -c` reads."""
    tree = with_settings(task.config, best.settings).model_dump(mode="json", exclude_unset=True)
    lines = [
        f"Found by `srucli tune` in {best.trials} finished trials.",
        f"On dev: {_shown(best.figures)}.",
        *_doubts(best),
        f"{best.megabytes:.1f} MB for prediction.",
    ]
    head = "".join(f"# {line}\n" for line in lines)
    return head + to_yaml(tree)


def _doubts(best: Best) -> list[str]:
    """What the figures do not tell, after those of the default recipe."""
    if best.figures == best.default:
        return ["It is the default recipe: no trial was better."]
    default = [f"The default recipe on dev: {_shown(best.default)}."] if best.default else []
    return [
        *default,
        "The dev texts chose it, and the best of many trials looks better than it is. Whether it",
        "is better than the default cannot be told from them: measure both on other texts.",
    ]


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
