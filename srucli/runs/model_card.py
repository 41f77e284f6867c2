"""The README.md of a run's folder: what the model is, what it was made from, how to use it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from srucli.config import Config, ModelConfig
from srucli.io.console import escaped
from srucli.metrics import wilson
from srucli.model.encoders import ENCODERS
from srucli.runs.choice import Choice, choose
from srucli.runs.facts import Facts
from srucli.runs.run_dir import RunDir

CHOSEN = """These texts also chose the epoch, how much each branch counts and any thresholds. On
others the figures may be lower; `srucli eval` measures them."""


def _row(metric: str, value: float, texts: int) -> str:
    low, high = wilson(value * texts, texts) if metric == "accuracy" else (math.nan, math.nan)
    return (
        f"| {metric} | {value:.4f} | {f'{low:.4f} to {high:.4f}' if math.isfinite(low) else ''} |"
    )


def _network(model: ModelConfig) -> str:
    """The encoder with its settings, its pooling, and the branches beside it."""
    encoder = ENCODERS[model.encoder]
    own = sorted(encoder.settings - {"model.pooling", "train.kernel"})
    values = model.model_dump(mode="json")
    settings = ", ".join(f"{key[6:]}={values[key[6:]]}" for key in own)
    wide = f", with 1- to {model.wide_ngrams}-grams of pieces" if model.wide else ""
    grams = f", 1- to {model.character_ngrams}-grams of characters" if model.characters else ""
    has_last = "model.pooling" in encoder.settings
    pooled = [name for name in model.pooling if name != "last" or has_last]
    pooling = f", pooling by {' and '.join(pooled)}" if pooled else ""
    return f"{model.encoder} ({settings}){pooling}{wide}{grams}"


def model_card(
    name: str,
    config: Config,
    labels: Sequence[str],
    facts: Facts,
    used: Choice,
    measured: Mapping[str, Any] | None,
    epochs: int,
) -> str:
    """Markdown. `facts` are those of run.json, `used` is the checkpoint that predicts.

    `measured` is the line of metrics.jsonl about that checkpoint, if it was evaluated; `epochs` are
    those that were trained, of the ones that were planned.
    """
    model, train = config.model, config.train
    sizes = facts.data
    shown = ", ".join(f"`{escaped(label)}`" for label in labels[:20])
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    found = measured or {"dev": {}}
    figures = {metric: value for metric, value in found["dev"].items() if value is not None}
    of_epoch = f" of epoch {measured['epoch']}" if measured else ""
    rows = [_row(metric, value, sizes.dev_texts) for metric, value in figures.items()]
    table = "\n".join([CHOSEN, "", "| metric | value | 95% interval |", "|---|---|---|", *rows])
    planned = "" if epochs == facts.epochs else f"{epochs} of "
    return f"""# {name}

A text classifier made by srucli {facts.srucli}.

- Labels ({len(labels)}): {shown}{more}
- A text gets {"any number of labels" if config.data.multi_label else "one label"}.
- Model: {_network(model)}; {facts.parameters:,} parameters.
- Trained on {sizes.texts:,} texts, {planned}{facts.epochs} epochs, {config.optim.name}, \
seed {train.seed}; torch {facts.torch} on {facts.device}.
- Weights used: the {used.which} checkpoint, {used.name}{of_epoch}.
- SHA-256 of the training texts: `{sizes.sha256["train"]}`

## Measured on {sizes.dev_texts:,} dev texts

{table if figures else "No dev texts were given: nothing was measured during training."}

## Use

    srucli predict {shlex.quote(name)} texts.txt
    srucli eval {shlex.quote(name)} labelled.tsv
"""


def write_card(run: RunDir, config: Config, labels: Sequence[str], epochs: int) -> None:
    """Write the README.md of a run that was trained for so many epochs. Raises OutputError."""
    used = choose(run, config)
    step = run.step_of(used.name)
    records = run.records("metrics.jsonl")
    whole = (each for each in records if "epoch" in each and isinstance(each.get("dev"), dict))
    measured = next((each for each in whole if each.get("step") == step), None)
    card = model_card(run.path.name, config, labels, run.facts(), used, measured, epochs)
    run.write("README.md", card.encode(errors="backslashreplace"))
