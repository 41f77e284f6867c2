"""Write the README.md of a run folder: what the model is, how it was trained, how to use it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srucli.config import Config, ModelConfig
from srucli.io.console import escaped, shell_word
from srucli.metrics import wilson
from srucli.model.encoders import ENCODERS
from srucli.runs.choice import Choice, choose, measured
from srucli.runs.facts import Facts
from srucli.runs.run_dir import RunDir

CHOSEN = """These examples also chose the epoch, the weights of network and n-grams, and any
thresholds, so metrics on new data may be lower; `srucli eval` measures them."""


def _code(text: str) -> str:
    """Return text as code in Markdown: between more backticks than are in it."""
    text = escaped(text)
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text[:1] in ("", "`", " ") or text[-1:] in ("`", " ") else ""
    return f"{marks}{space}{text}{space}{marks}"


def _text(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>&|~#])", r"\\\1", escaped(text))


def _row(metric: str, value: float, examples: int) -> str:
    interval = ""
    if metric == "accuracy" and 0 <= value <= 1:
        low, high = wilson(value * examples, examples)
        interval = f"{low:.4f} to {high:.4f}" if math.isfinite(low) else ""
    return f"| {metric} | {value:.4f} | {interval} |"


def _network(model: ModelConfig) -> str:
    """Describe the encoder with its settings, its pooling, and the linear model."""
    used = ENCODERS[model.encoder].settings
    values = model.model_dump(mode="json")
    own = sorted(key.partition(".")[2] for key in used - {"model.pooling", "train.kernel"})
    settings = ", ".join(f"{name}={values[name]}" for name in own)
    linear = "; a linear model of n-grams of words and of characters" if model.ngrams else ""
    pooled = [name for name in model.pooling if name != "last" or "model.pooling" in used]
    pooling = f", pooling by {' and '.join(pooled)}" if pooled else ""
    return f"{model.encoder} ({settings}){pooling}{linear}"


def model_card(
    name: str,
    config: Config,
    labels: Sequence[str],
    facts: Facts,
    used: Choice,
    record: Mapping[str, Any] | None,
    epochs: int,
) -> str:
    """Return the Markdown text.

    facts: the content of run.json. used: the checkpoint that is used. record: its line in
    metrics.jsonl, if it was evaluated. epochs: how many of the planned epochs were trained.
    """
    model, train = config.model, config.train
    sizes = facts.data
    shown = ", ".join(map(_code, labels[:20]))
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    of_epoch = f" of epoch {record['epoch']}" if record else ""
    dev = record["dev"].items() if record else ()
    rows = [_row(metric, value, sizes.dev_texts) for metric, value in dev if value is not None]
    table = "\n".join([CHOSEN, "", "| metric | value | 95% interval |", "|---|---|---|", *rows])
    on_dev = f" on {sizes.dev_texts:,} dev examples" if rows else ""
    origin = ""
    if base := facts.base:
        kept = (
            "" if base.labels_kept is None else f", of which {base.labels_kept:,} labels are kept"
        )
        origin = f"- Trained from {_code(Path(base.run).name)}{kept}; SHA-256 of its tokenizer and "
        origin += f"weights: {_code(base.sha256)}\n"
    planned = "" if epochs == facts.epochs else f"{epochs} of "
    return f"""# {_text(name)}

A text classifier made by srucli {_text(facts.srucli)}.

- Labels ({len(labels)}): {shown}{more}
- A text gets {"any number of labels" if config.data.multi_label else "one label"}.
- Model: {_network(model)}; {facts.parameters:,} parameters.
{origin}- Trained on {sizes.texts:,} examples, {planned}{facts.epochs} epochs, \
{config.optim.name}, seed {train.seed}; torch {_text(facts.torch)} on {_text(facts.device)}.
- Weights used: the {used.which} checkpoint, {used.name}{of_epoch}.
- SHA-256 of the training examples: `{sizes.sha256.get("train")}`

## Metrics{on_dev}

{table if rows else "There were no dev examples, so nothing was measured during training."}

## Use

    srucli predict {shell_word(name)} texts.txt
    srucli eval {shell_word(name)} labelled.tsv
"""


def write_card(run: RunDir, config: Config, labels: Sequence[str], epochs: int) -> None:
    """Write the README.md after this number of epochs. Raises OutputError."""
    used = choose(run, config.train.used_checkpoint, config.metric)
    record = measured(run, used)
    card = model_card(run.path.name, config, labels, run.facts(), used, record, epochs)
    run.write("README.md", card.encode(errors="backslashreplace"))
