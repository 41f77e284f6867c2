"""What to lower if a training runs out of memory."""

from __future__ import annotations

from srucli.config import Config
from srucli.model.classifier import sets_size, shapes
from srucli.training.trainer import Trainer

# Numbers in memory for each weight: itself, its gradient, and an optimizer's two moments.
FOR_A_WEIGHT = 4


def smaller_model(config: Config, vocab_size: int, classes: int) -> str:
    """Return what to lower if there is no memory for the model."""
    return f"lower {sets_size(config.model, shapes(config.model, vocab_size, classes))}"


def smaller_step(config: Config, trainer: Trainer) -> str:
    """Return what to lower if a step fails, its batch or the model."""
    loader, model = trainer.loader, trainer.step.model
    if not loader.position.batches:
        return "train on fewer examples"
    lengths = loader.store.lengths[loader.latest_step()]
    tokens = int(lengths.sum()) // config.train.accumulate
    if FOR_A_WEIGHT * trainer.step.parameters > tokens * model.encoder.activations:
        return f"lower {sets_size(config.model, model.state_dict())}"
    name = "batch_tokens" if len(lengths) > config.train.accumulate else "max_tokens"
    step = f"step {loader.position.step:,} had a batch of {tokens:,} tokens"
    return f"{step}: set train.{name}={max(tokens // 2, 1)}"
