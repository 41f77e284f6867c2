"""Which settings can do something beside the others, so that one that cannot is named.

NEEDS is the table of it, and each encoder names the settings that it has. Any other setting always
has an effect. Nothing is refused here: a setting without effect is harmless, but whoever gave it
believes otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from srucli import optim
from srucli.config import Config, TrainConfig, given

SECTIONS = ("data", "tokenizer", "model", "optim", "train")


@dataclass(frozen=True)
class Setup:
    """What a training is given: its settings, and where its dev examples and tokenizer come from.

    held_out: `dev_share` is looked at, so there is no file of dev examples. model_type: the kind
    of the tokenizer, where that is known already. trains_tokenizer: none is given.
    """

    config: Config
    dev: bool
    held_out: bool = True
    trains_tokenizer: bool = True
    model_type: str | None = None

    @property
    def pieces(self) -> str:
        """The kind of the tokenizer."""
        return self.model_type or self.config.tokenizer.model_type


class Need(NamedTuple):
    """When a setting has an effect, and how that is said: "it needs ..."."""

    holds: Callable[[Setup], bool]
    said: str


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _kind(*names: str) -> Need:
    return Need(
        lambda setup: setup.config.tokenizer.model_type in names,
        f"tokenizer.model_type={_or(names)}",
    )


def _special(name: str) -> Need:
    return Need(
        lambda setup: getattr(setup.config.tokenizer, f"{name}_id") >= 0,
        f"tokenizer.{name}_id of 0 or more",
    )


def _decays(setup: Setup) -> bool:
    return bool(optim.resolve(setup.config.optim).weight_decay)


_MLP = Need(lambda setup: setup.config.model.head == "mlp", "model.head=mlp")
_WIDE = Need(lambda setup: setup.config.model.wide, "model.wide=true")
_CHARACTERS = Need(lambda setup: setup.config.model.characters, "model.characters=true")
_DRAWN = Need(
    lambda setup: setup.config.tokenizer.input_sentence_size > 0,
    "tokenizer.input_sentence_size above 0",
)
_DEV = Need(lambda setup: setup.dev, "dev examples: --dev FILE or train.dev_share=0.1")
_UNIGRAM, _SUBWORDS = _kind("unigram"), _kind("unigram", "bpe")

NEEDS: dict[str, Need] = {
    "data.label_delimiter": Need(
        lambda setup: setup.config.data.multi_label, "data.multi_label=true"
    ),
    "tokenizer.vocab_size": Need(
        lambda setup: not setup.config.tokenizer.use_all_vocab,
        "no tokenizer.use_all_vocab, which takes all of them",
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
        "no tokenizer.normalization_rule_tsv, which takes its place",
    ),
    "tokenizer.shuffle_input_sentence": _DRAWN,
    "tokenizer.seed": _DRAWN,
    "tokenizer.required_chars": _kind("unigram", "bpe", "char"),
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
        "model.pooling without `last`, for which zeros stand",
    ),
    "model.wide_ngrams": _WIDE,
    "model.wide_buckets": _WIDE,
    "model.wide_size": _WIDE,
    "model.character_ngrams": _CHARACTERS,
    "model.character_buckets": _CHARACTERS,
    "model.character_size": _CHARACTERS,
    "optim.decay_embeddings": Need(_decays, "optim.weight_decay above 0"),
    "train.epochs": Need(
        lambda setup: setup.config.train.steps is None,
        "no train.steps, which says how long training takes",
    ),
    "train.subword_dropout": Need(
        lambda setup: setup.pieces in ("unigram", "bpe"), "a unigram or bpe tokenizer"
    ),
    "train.dev_share": Need(lambda setup: setup.held_out, "no file of dev examples"),
    "train.metric": _DEV,
    "train.patience": _DEV,
    "train.use_checkpoint": Need(
        lambda setup: setup.config.train.use_checkpoint != "best" or setup.dev, _DEV.said
    ),
}


def need_of(key: str) -> Need | None:
    """Return when a dotted setting has an effect: its row, or the encoders that name it."""
    row = NEEDS.get(key)
    if key.startswith("tokenizer."):
        return row  # without importing torch
    from srucli.model.encoders import ENCODERS

    names = [name for name, encoder in ENCODERS.items() if key in encoder.settings]
    if not names:
        return row
    said = f"model.encoder={_or(names)}"
    if row is None:
        return Need(lambda setup: setup.config.model.encoder in names, said)
    return Need(
        lambda setup: row.holds(setup) or setup.config.model.encoder in names,
        f"{row.said} or {said}",
    )


def works(setup: Setup, key: str) -> bool:
    """Whether a dotted setting can have an effect."""
    return not _idle(setup, key)


def idle(setup: Setup, asked: Collection[str]) -> Iterator[str]:
    """A sentence for each of the settings `asked` for that can do nothing."""
    for key in asked:
        if why := _idle(setup, key):
            yield f"{key} has no effect: {why}"


def _idle(setup: Setup, key: str) -> str | None:
    if key.startswith("tokenizer.") and not setup.trains_tokenizer:
        return "the tokenizer is given, not trained"
    need = need_of(key)
    return None if need is None or need.holds(setup) else f"it needs {need.said}"


def beyond(train: TrainConfig, steps: int) -> Iterator[str]:
    """A sentence for each number of steps that a training of so many `steps` never gets to."""
    for key, value in (("save_steps", train.save_steps), ("diagnose", train.diagnose)):
        if value > steps:
            yield f"train.{key}={value} is more than the {steps} steps of this training"


def asked_for(config: Config) -> list[str]:
    """The settings that somebody gave, in the tree's order."""
    return [f"{name}.{key}" for name in SECTIONS for key in given(getattr(config, name))]
