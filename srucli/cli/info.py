"""`srucli info`: describe this machine, a run, a tokenizer, the settings or the recipes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from srucli.cli import completion
from srucli.cli import help as pages
from srucli.errors import UsageError, did_you_mean
from srucli.io.console import put, shell_word, text_table
from srucli.io.json_text import json_text

Rows = Iterator[tuple[str, str]]


class Command(pages.Command):
    """The help page of `srucli info`."""

    examples = ("srucli info", "srucli info runs/reviews", "srucli info settings | grep lr")


def command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help="A folder of a run or of vectors, a tokenizer, or: machine, settings, recipes, "
            "schema.",
            autocompletion=completion.topics,
        ),
    ] = "machine",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Describe this machine, a run, a tokenizer or all settings.

    For the machine, say what is fast, what is missing and why. `recipes` lists what `-c` takes by
    name, and `schema` is the JSON Schema of such files. The description is printed on stdout.
    """
    path = Path(what)
    if what == "schema" and not path.is_dir():
        print(json_text(_schema(), indent=2))
        return
    if what in TOPICS and not path.is_dir():
        rows = TOPICS[what]()
    elif (path / "pretrained.json").is_file():
        rows = _pretrained(path)
    elif path.is_dir():
        rows = _run(path)
    elif path.is_file():
        rows = _tokenizer(path)
    else:
        hint = did_you_mean(what, [*TOPICS, "schema"])
        raise UsageError(f"'{what}' is no run, no tokenizer and no topic{hint}")
    if as_json:
        print(json_text(dict(rows)))
        return
    table = list(rows)
    indent = max(len(name) for name, _ in table) + 2
    put(*text_table(table, left=(0, 1)), indent=indent)


def _machine() -> Rows:
    from importlib.metadata import packages_distributions, version

    import torch

    from srucli.runtime import cores

    yield "srucli", version("srucli")
    yield "torch", torch.__version__
    yield "cores", str(cores())
    if find_spec("numba"):
        yield "SRU on CPU", "fast: compiled by Numba at first use, then cached"
    else:
        yield "SRU on CPU", "slow: Numba is not installed; `pip install numba`"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield f"cuda:{index}", torch.cuda.get_device_name(index)
        if find_spec("triton"):
            yield "SRU on GPU", "fast: compiled by Triton at first use, then cached"
        else:
            yield "SRU on GPU", "slow: Triton is not installed; `pip install triton`"
    else:
        built = torch.version.cuda
        reason = "torch sees no GPU" if built else "this torch is built for CPUs only"
        yield "GPU", f"none: {reason}"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    yield "C compiler", compiler or "none: needed by Triton on a GPU, not on a CPU"
    distributions = packages_distributions()
    for package, (use, extra) in OPTIONAL.items():
        if not find_spec(package):
            yield package, f"not installed ({use}): pip install 'srucli[{extra}]'"
        else:  # which may have another name, as mlflow-skinny
            names = distributions.get(package, ())
            yield package, ", ".join(map(version, names)) or "installed"


# What each package is for, and the extra that installs it.
OPTIONAL = {
    "zstandard": ("reads .zst files", "zst"),
    "tensorboard": ("train.tensorboard=true", "tensorboard"),
    "mlflow": ("train.mlflow=true", "mlflow"),
    "wandb": ("train.wandb=true", "wandb"),
    "schedulefree": ("schedule-free optimizers", "schedulefree"),
    "pytorch_optimizer": ("more optimizers", "pytorch-optimizer"),
    "optuna": ("srucli tune", "tune"),
}


def _run(path: Path) -> Rows:
    from srucli.runs.run_dir import RunDir

    run = RunDir.open(path)
    facts, config = run.facts(), run.config()
    labels = run.labels()
    yield "run", str(path)
    yield "made by", f"srucli {facts.srucli}, torch {facts.torch}"
    if base := facts.base:
        kept = base.labels_kept
        yield "trained from", base.run + ("" if kept is None else f" ({kept:,} of its labels kept)")
    yield "texts", f"{facts.data.texts:,}"
    yield "labels", f"{len(labels):,} ({', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''})"
    yield "encoder", config.model.encoder
    yield "parameters", f"{facts.parameters:,}"
    yield "pieces", f"{run.tokenizer().vocab_size:,}"
    yield "optimizer", config.optim.name
    from srucli.runs.choice import choose, unfinished

    chosen = choose(run, config.train.used_checkpoint, config.metric).which
    for which in ("best", "last"):
        if (path / which).is_file():
            used = " (used by eval and predict)" if which == chosen else ""
            state = run.state(which)
            yield which, f"step {state.get('step')}, epoch {state.get('epoch')}{used}"
    if unfinished(run):
        yield "training", _progress(path)


def _progress(path: Path) -> str:
    """Return whether an unfinished training is running, or can be resumed."""
    from srucli.io.locks import is_locked
    from srucli.training.resume import find_saved_training

    if is_locked(path):
        return "is running"
    if find_saved_training(path) is None:
        return "stopped, and cannot be resumed: it has not saved what that needs"
    return f"stopped; to resume: srucli train --resume {shell_word(str(path))}"


def _pretrained(path: Path) -> Rows:
    from srucli.runs.pretrained_dir import PretrainedDir

    folder = PretrainedDir(path)
    facts = folder.facts()
    yield "pretrained", str(path)
    yield "made by", f"srucli {facts.srucli}"
    yield "texts", f"{facts.texts:,}"
    yield "tokens", f"{facts.tokens:,}"
    yield "pieces", f"{folder.tokenizer().vocab_size:,}"
    yield "vectors", f"of {facts.size} numbers"
    yield "epochs", f"{facts.epochs:,}"
    if not folder.is_complete:
        yield "pretraining", "stopped; the same command resumes"


def _tokenizer(path: Path) -> Rows:
    from srucli.tokenizer.model import Tokenizer

    tokenizer = Tokenizer.load(path)
    yield "tokenizer", str(path)
    yield "model type", tokenizer.model_type
    yield "pieces", f"{tokenizer.vocab_size:,}"
    yield "bytes", f"{len(tokenizer.model_bytes):,}"


def _settings() -> Rows:
    from srucli.config import describe_settings

    return describe_settings()


def _recipes() -> Rows:
    from srucli.config import describe_recipes

    return describe_recipes()


TOPICS = {"machine": _machine, "settings": _settings, "recipes": _recipes}


def _schema() -> dict[str, Any]:
    from srucli.config import schema
    from srucli.optim.external import PACKAGES

    others = "|".join(PACKAGES).replace("_", "[_-]")
    optimizers = [{"enum": completion.values_of("optim.name")}, {"pattern": f"^({others}):"}]
    metrics = completion.values_of("train.metric")
    return schema({"optim.name": {"anyOf": optimizers}, "train.metric": {"enum": metrics}})
