"""Train from vectors of raw text, which are learned first unless that was done."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from srucli.config import Config, PretrainConfig, TokenizerConfig
from srucli.data.given import Source as Examples
from srucli.data.given import file_of
from srucli.data.readers import read_examples
from srucli.errors import UsageError
from srucli.runs.claim import Source
from srucli.tokenizer.model import Tokenizer
from srucli.training.defaults import check_settings
from srucli.training.interrupts import Interrupt
from srucli.training.pretrain import RawText, fingerprint, pretrain
from srucli.training.run import to_resume, train


def train_from_raw(
    config: Config,
    train_source: Examples,
    dev_source: Examples | None,
    output: Path,
    read: Callable[[], RawText],
    *,
    tokenizer: Path | None = None,
    force: bool = False,
    stop: Interrupt | None = None,
    reads: Sequence[Source] = (),
    **how: Any,
) -> Path:
    """Train as `train` does, from vectors of the raw texts that `read` returns.

    Their folder is beside the output, and named after all that determines the vectors, so they are
    learned once. Nothing is learned if the output cannot be trained from them. Raises SrucliError
    of any kind.
    """
    stop = stop or Interrupt()
    _check_first(train_source, config)
    check_settings(config)
    saved = to_resume(output, force, reads)
    raw = read()
    given = Tokenizer.load(tokenizer) if tokenizer else None
    parent = Path(os.path.relpath(os.path.join(os.path.abspath(output), os.pardir)))
    base = parent / f"raw-{fingerprint(config, raw, given)[:12]}"
    if saved and (saved.facts.base is None or saved.facts.base.run != os.path.abspath(base)):
        raise UsageError(
            f"{output}: was not trained from this raw text with these settings; choose another -o, "
            "or add --force to start again"
        )
    files = (file_of(train_source), file_of(dev_source), *reads)
    pretrain(config, raw, base, tokenizer=tokenizer, stop=stop, reads=files)
    # Neither tokenizer nor vectors are trained again.
    once = config.model_copy(update={"tokenizer": TokenizerConfig(), "pretrain": PretrainConfig()})
    how |= {"base": base, "force": force, "stop": stop, "reads": (*reads, tokenizer)}
    return train(once, train_source, dev_source, output, **how)


def _check_first(source: Examples, config: Config) -> None:
    """Read the first example, so that a wrong format is found before anything slow."""
    if source != "-":
        next(iter(read_examples(source, config.data, training=True)), None)
