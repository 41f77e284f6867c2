"""What a command says at its end, on stderr: how good the result is, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from srucli.errors import SrucliError
from srucli.io.console import say, shell_line, shell_word, warn

if TYPE_CHECKING:
    from srucli.experiments.compare import Comparison
    from srucli.experiments.fold_trials import Plan as CrossvalPlan
    from srucli.experiments.trials import Plan
    from srucli.runs.facts import BaseFacts


# Up to so many training texts, raw text was measured to help (docs/results.md).
FEW_TEXTS = 1_000


def _hint(line: str) -> None:
    """Say what to type, in one line that can be copied."""
    say(line, whole=True)


def after_train(folder: Path) -> None:
    """Say how good a run is on its dev examples, and how to use and shrink it."""
    try:
        _after_train(folder)
    except SrucliError as error:  # the run is finished, and its path is still to be printed
        warn(str(error))


def _after_train(folder: Path) -> None:
    from srucli.runs.choice import choose, measured
    from srucli.runs.run_dir import RunDir

    run = RunDir.open(folder)
    config, facts = run.config(), run.facts()
    dev_texts = facts.data.dev_texts
    used = choose(run, config.train.used_checkpoint, config.metric)
    record = measured(run, used)
    if record and record["dev"]:
        shown = _shown(record["dev"], config.metric, dev_texts)
        say(f"on {dev_texts:,} dev texts, after epoch {record['epoch']}: {shown}")
    else:
        warn(
            "how good it is was not measured: no examples were held out; train with --dev FILE or "
            "with train.dev_share=0.1"
        )
    name = shell_word(str(folder))
    _hint(f"to evaluate it:  srucli eval {name} FILE")
    _hint(f"to label texts:  srucli predict {name} -")
    whole, states = (size / 1e6 for size in run.sizes())
    if states:
        what = f"{states:,.1f} of its {whole:,.1f} MB, which only longer training needs"
        _hint(f"to remove {what}:  srucli slim {name}")
    if facts.data.texts <= FEW_TEXTS:
        _use_raw_text(name, facts.base)


def _use_raw_text(run: str, base: BaseFacts | None) -> None:
    """Say how unlabelled text helps where labelled texts are few. run: the folder, quoted."""
    if base is None:
        _hint("to use unlabelled text of the same kind too:  srucli train FILE --raw CORPUS")
    elif base.labels_kept is None:
        vectors = shell_word(base.run)
        _hint(
            "to let it label unlabelled text and learn from that:  "
            f"srucli predict {run} TEXTS --json | srucli train - --from {vectors} -o NEW"
        )


def _shown(dev: Mapping[str, float | None], metric: str, texts: int) -> str:
    """Return the metric that decides and the accuracy, which has an interval."""
    from srucli.metrics import wilson

    named = {name: dev.get(name) for name in (metric, "accuracy")}
    words = [f"{name} {value:.4f}" for name, value in named.items() if value is not None]
    if named["accuracy"] is not None:
        low, high = wilson(named["accuracy"] * texts, texts)
        words[-1] += f" (95% interval {low:.4f} to {high:.4f})"
    return ", ".join(words)


def after_compare(plan: Plan, comparison: Comparison, sources: Mapping[str, str | None]) -> None:
    """Say which candidate leads, how sure that is, and how to train it."""
    from srucli.config import flat
    from srucli.experiments.report import ranking
    from srucli.training.resume import as_yaml

    say(*ranking(comparison))
    best = comparison.rows[0]
    (candidate,) = [each for each in plan.candidates if each.name == best.name]
    given = flat(plan.config.model_dump(mode="json", exclude_unset=True, exclude={"files"}))
    settings = {**given, **candidate.settings, "optim.lr": best.lr}
    train, dev = sources["train"], sources["dev"]
    words = ["srucli", "train", "FILE" if train in (None, "-") else train, *_dev(dev)]
    words += [f"{key}={as_yaml(value)}" for key, value in settings.items()]
    _hint(f"to train the candidate that is best on dev:  {shell_line(words)}")


def after_crossval(plan: CrossvalPlan, file: str) -> None:
    """Say how to train the recipe on all texts."""
    from srucli.config import flat
    from srucli.training.resume import as_yaml

    given = plan.config.model_dump(mode="json", exclude_unset=True, exclude={"files"})
    settings = {key: value for key, value in flat(given).items() if key != "data.group"}
    words = ["srucli", "train", "FILE" if file == "-" else file]
    words += [f"{key}={as_yaml(value)}" for key, value in settings.items()]
    _hint(f"to train this recipe on all texts:  {shell_line(words)}")


def after_tune(train: str, dev: str | None, recipe: Path) -> None:
    """Say how to train with the recipe."""
    words = ["srucli", "train", train, *_dev(dev), "-c", str(recipe)]
    _hint(f"to train with it:  {shell_line(words)}")


def _dev(file: str | None) -> list[str]:
    return ["--dev", file] if file else []


def after_tokenize(model: Path) -> None:
    """Say how to use the tokenizer."""
    name = shell_word(str(model))
    _hint(f"to see its tokens:  srucli encode {name} FILE")
    _hint(f"to train with it:   srucli train FILE --tokenizer {name}")


def after_pretrain(folder: Path) -> None:
    """Say how to use the vectors."""
    _hint(f"to train with them:  srucli train FILE --from {shell_word(str(folder))}")
