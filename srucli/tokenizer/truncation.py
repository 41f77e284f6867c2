"""Length limits of texts, and counts of truncated texts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from srucli.config import TrainConfig
    from srucli.tokenizer.model import Tokenizer

# Limits if train.max_tokens is not set: tokens of a text, and the encoder's activations (float32)
# that training keeps for one text: half a GiB.
MAX_TEXT_TOKENS = 2**20
MAX_ACTIVATIONS = 2**27
# The characters after so many, of a text that is truncated anyway, are not tokenized.
CHARACTERS_PER_TOKEN, MIN_CHARACTERS = 16, 2**20


class Limits(NamedTuple):
    """The maximum number of tokens of a text, and of those that the encoder reads.

    chosen: train.max_tokens sets both. ngrams: whether there is a linear model of n-grams, which
    reads the whole text.
    """

    text: int = MAX_TEXT_TOKENS
    encoder: int = MAX_TEXT_TOKENS
    chosen: bool = False
    ngrams: bool = True

    @property
    def characters(self) -> int:
        """The maximum number of characters of a text: sixteen for each token, or 2^20."""
        return max(CHARACTERS_PER_TOKEN * self.text, MIN_CHARACTERS)

    @classmethod
    def of(cls, settings: TrainConfig, activations: int, longest: int, ngrams: bool) -> Limits:
        """Return the limits of a run. A text may always be as long as a batch.

        activations: how many training keeps per token. longest: the number of tokens above which
        the encoder is too slow.
        """
        if settings.max_tokens is not None:
            return cls(settings.max_tokens, settings.max_tokens, chosen=True, ngrams=ngrams)
        fits = max(MAX_ACTIVATIONS // activations, settings.batch_tokens)
        return cls(encoder=min(fits, longest, MAX_TEXT_TOKENS), ngrams=ngrams)


def read_texts(texts: Sequence[str], tokenizer: Tokenizer, limits: Limits) -> list[str]:
    """Return what is read of texts without tokens: as much as their tokens, if a limit is chosen.

    Without one it is their beginning, up to the maximum number of characters.
    """
    found = [text[: limits.characters] for text in texts]
    if not limits.chosen:
        return found
    ids, offsets = tokenizer.encode(found)
    for text, (start, stop) in enumerate(pairwise(offsets.tolist())):
        if stop - start > limits.text:
            found[text] = tokenizer.decode(ids[start : start + limits.text].tolist())
    return found


@dataclass(frozen=True)
class Tally:
    """Counts of texts, and of those that are truncated or not fully known.

    cut: truncated. encoded_in_part: only partly read by the encoder. unknown_characters: with
    characters that the tokenizer does not know, as unknown_tokens tokens. without_tokens: empty.
    """

    texts: int = 0
    cut: int = 0
    encoded_in_part: int = 0
    unknown_characters: int = 0
    unknown_tokens: int = 0
    without_tokens: int = 0
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """Return the tally that `to_json` returned the value for.

        Raises TypeError, LookupError, ValueError for another value.
        """
        limits = Limits(**value["limits"])
        counts = [count for name, count in value.items() if name != "limits"]
        if not all(type(number) is int for number in (*counts, limits.text, limits.encoder)):
            raise ValueError("a count is not a whole number")
        return cls(**{**value, "limits": limits})

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the limits by their names."""
        return {**vars(self), "limits": self.limits._asdict()}

    def __add__(self, other: Tally) -> Tally:
        """Return the sum of the counts, with the other's limits."""
        return self._combined(other, operator.add, other.limits)

    def __sub__(self, before: Tally) -> Tally:
        """Return what was counted since `before`."""
        return self._combined(before, operator.sub, self.limits)

    def _combined(self, other: Tally, combine: Callable[[int, int], int], limits: Limits) -> Tally:
        names = [name for name in vars(self) if name != "limits"]
        counts = {name: combine(getattr(self, name), getattr(other, name)) for name in names}
        return Tally(**counts, limits=limits)

    def sentences(self) -> dict[str, str]:
        """Return a sentence for each kind of text that was not fully read."""
        text, encoder, chosen, ngrams = self.limits
        why = "train.max_tokens" if chosen else "the most that is read of a text"
        others = ", and the linear model all of it" if ngrams else ""
        kinds = {
            "cut": f"were cut at {text:,} tokens ({why})",
            "encoded_in_part": f"were longer than the {encoder:,} tokens that the encoder reads: "
            f"it read their beginning and end{others}",
            "unknown_characters": "have characters that the tokenizer does not know "
            f"(unknown tokens: {self.unknown_tokens:,})",
            "without_tokens": "have no tokens: they are empty, or become so when normalized",
        }
        return {
            kind: f"{count:,} of {self.texts:,} texts {words}"
            for kind, words in kinds.items()
            if (count := getattr(self, kind))
        }


class Notices:
    """Messages about texts that are not fully read, in a stream of texts and at its end.

    Each kind is reported when it first occurs, and again at the end if the counts have grown.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.reported: dict[str, str] = {}

    def first(self, tally: Tally) -> Iterator[str]:
        """Return the messages of new kinds."""
        sentences = tally.sentences().items()
        new = {kind: words for kind, words in sentences if kind not in self.reported}
        self.reported |= new
        return (f"{self.source}: {words}" for words in new.values())

    def last(self, tally: Tally) -> Iterator[str]:
        """Yield the messages that were not reported, or have changed since."""
        for kind, words in tally.sentences().items():
            if words != self.reported.get(kind):
                yield f"{self.source}: {words}"
