"""Which settings have an effect beside the others, so that the user is told of those without one.

NEEDS is the table of these conditions, and each encoder names the settings that it uses. All other
settings always have an effect. A setting without effect is harmless, so nothing is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from srucli import optim
from srucli.config import Config, TrainConfig, given


@dataclass(frozen=True)
class Setup:
    """The settings of a training, and where its dev examples and its tokenizer come from.

    dev: there are dev examples. held_out: no dev file is given, so `dev_share` counts.
    given_tokenizer: the model type of the given tokenizer; None if one is trained. soft: examples
    may have probabilities. based: the training fine-tunes an earlier run.
    """

    config: Config
    dev: bool
    held_out: bool = True
    given_tokenizer: str | None = None
    soft: bool = True
    based: bool = False


class Need(NamedTuple):
    """The condition under which a setting has an effect, and the words that follow "it needs"."""

    holds: Callable[[Setup], bool]
    words: str


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _is(key: str, *values: object) -> Need:
    value_of = attrgetter(key)
    words = _or([str(value).lower() for value in values])
    return Need(lambda setup: value_of(setup.config) in values, f"{key}={words}")


def _special(name: str) -> Need:
    return Need(
        lambda setup: getattr(setup.config.tokenizer, f"{name}_id") >= 0,
        f"tokenizer.{name}_id of 0 or more",
    )


_MLP = _is("model.head", "mlp")
_SAMPLED_LINES = Need(
    lambda setup: setup.config.tokenizer.input_sentence_size > 0,
    "tokenizer.input_sentence_size above 0",
)
_DEV = Need(lambda setup: setup.dev, "dev examples: --dev FILE or train.dev_share=0.1")
_SOFT = Need(lambda setup: setup.soft, "training examples with probabilities")
_BASE = Need(lambda setup: setup.based, "an earlier run: --from RUN")
# What is left of these settings when vectors were learned.
_RAW = Need(lambda setup: False, "raw text: --raw CORPUS")
_UNIGRAM = _is("tokenizer.model_type", "unigram")
_SUBWORDS = _is("tokenizer.model_type", "unigram", "bpe")

NEEDS: dict[str, Need] = {
    "data.group": Need(lambda setup: False, "`srucli crossval`, whose folds keep groups apart"),
    "data.label_delimiter": _is("data.multi_label", True),
    "tokenizer.vocab_size": Need(
        lambda setup: not setup.config.tokenizer.use_all_vocab,
        "no tokenizer.use_all_vocab, which makes every word or character a token",
    ),
    "tokenizer.allow_whitespace_only_pieces": Need(
        lambda setup: (
            setup.config.tokenizer.model_type in ("unigram", "bpe")
            and not setup.config.tokenizer.remove_extra_whitespaces
        ),
        "runs of spaces: tokenizer.remove_extra_whitespaces=false with a unigram or bpe tokenizer",
    ),
    "tokenizer.normalization_rule_name": Need(
        lambda setup: not setup.config.tokenizer.normalization_rule_tsv,
        "no tokenizer.normalization_rule_tsv, which replaces it",
    ),
    "tokenizer.shuffle_input_sentence": _SAMPLED_LINES,
    "tokenizer.seed": _SAMPLED_LINES,
    "tokenizer.required_chars": _is("tokenizer.model_type", "unigram", "bpe", "char"),
    "tokenizer.split_digits": _SUBWORDS,
    "tokenizer.split_by_unicode_script": _SUBWORDS,
    "tokenizer.split_by_whitespace": _SUBWORDS,
    "tokenizer.split_by_number": _SUBWORDS,
    "tokenizer.max_sentencepiece_length": _SUBWORDS,
    "tokenizer.seed_sentencepiece_size": _UNIGRAM,
    "tokenizer.shrinking_factor": _UNIGRAM,
    "tokenizer.num_sub_iterations": _UNIGRAM,
    "tokenizer.train_extremely_large_corpus": _UNIGRAM,
    "tokenizer.bos_piece": _special("bos"),
    "tokenizer.eos_piece": _special("eos"),
    "tokenizer.pad_piece": _special("pad"),
    "model.head_hidden": _MLP,
    "model.head_activation": _MLP,
    "model.pooling": Need(
        lambda setup: "last" not in setup.config.model.pooling,
        "model.pooling without `last`, which would be all zeros",
    ),
    "optim.decay_embeddings": Need(
        lambda setup: bool(optim.resolve(setup.config.optim).weight_decay),
        "optim.weight_decay above 0",
    ),
    "optim.layer_decay": _BASE,
    "train.freeze": _BASE,
    "train.epochs": Need(
        lambda setup: setup.config.train.steps is None,
        "no train.steps, which sets the length instead",
    ),
    "train.subword_dropout": Need(
        lambda setup: (
            (setup.given_tokenizer or setup.config.tokenizer.model_type) in ("unigram", "bpe")
        ),
        "a unigram or bpe tokenizer",
    ),
    "train.soft_temperature": _SOFT,
    "train.soft_share": _SOFT,
    "train.dev_share": Need(lambda setup: setup.held_out, "no file of dev examples"),
    "train.metric": _DEV,
    "train.patience": _DEV,
    "train.use_checkpoint": Need(
        lambda setup: setup.config.train.use_checkpoint != "best" or setup.dev, _DEV.words
    ),
    "pretrain.epochs": _RAW,
    "pretrain.window": _RAW,
    "pretrain.negatives": _RAW,
    "pretrain.lr": _RAW,
}


def need_of(key: str) -> Need | None:
    """Return the condition of a dotted setting: its row, or the encoders that use it."""
    row = NEEDS.get(key)
    if key.startswith("tokenizer."):
        return row  # without importing torch
    from srucli.model.encoders import ENCODERS

    names = [name for name, encoder in ENCODERS.items() if key in encoder.settings]
    if not names:
        return row
    encoder = _is("model.encoder", *names)
    if row is None:
        return encoder
    return Need(
        lambda setup: row.holds(setup) or encoder.holds(setup), f"{row.words} or {encoder.words}"
    )


def has_effect(setup: Setup, key: str) -> bool:
    """Return whether a dotted setting can have an effect."""
    return next(no_effect(setup, [key]), None) is None


def no_effect(setup: Setup, keys: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each of the dotted settings that has no effect."""
    for key in keys:
        if key.startswith("tokenizer.") and setup.given_tokenizer:
            yield f"{key} has no effect: the tokenizer is given, not trained"
        elif (need := need_of(key)) and not need.holds(setup):
            yield f"{key} has no effect: it needs {need.words}"


def never_reached(train: TrainConfig, steps: int) -> Iterator[str]:
    """Yield a sentence for each interval in steps that is longer than a training of `steps`."""
    for key, value in (("save_steps", train.save_steps), ("diagnose", train.diagnose)):
        if value > steps:
            yield f"train.{key}={value} is more than the {steps} steps of this training"


def given_settings(config: Config) -> list[str]:
    """Return the dotted settings that the user gave, in the order of the sections."""
    sections = {name: section for name, section in config if name != "files"}
    return [f"{name}.{key}" for name, section in sections.items() for key in given(section)]
