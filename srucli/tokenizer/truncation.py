"""How much of a text is read, and counts of the texts that were not read whole.

Texts are cut in `data/batch.py`, by these limits. Files are read in `data/readers.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from srucli.config import TrainConfig

# Where train.max_tokens is not set: tokens of a text that are read at all, and numbers (float32)
# that training keeps of the encoder for one text: half a GiB.
MAX_TEXT_TOKENS = 2**20
MAX_ACTIVATIONS = 2**27


class Limits(NamedTuple):
    """Tokens of one text that are read: at all, and by the encoder.

    chosen: train.max_tokens sets both; else memory does. ngrams: whether there are branches of
    n-grams, which read all that is read.
    """

    text: int = MAX_TEXT_TOKENS
    encoder: int = MAX_TEXT_TOKENS
    chosen: bool = False
    ngrams: bool = True

    @classmethod
    def of(cls, settings: TrainConfig, activations: int, longest: int, ngrams: bool) -> Limits:
        """The limits of a run. A text may always be as long as a batch.

        activations: numbers that training keeps of the encoder for each token. longest: tokens
        beyond which the encoder takes too much time.
        """
        if settings.max_tokens is not None:
            return cls(settings.max_tokens, settings.max_tokens, chosen=True, ngrams=ngrams)
        fits = max(MAX_ACTIVATIONS // activations, settings.batch_tokens)
        return cls(encoder=min(fits, longest, MAX_TEXT_TOKENS), ngrams=ngrams)


@dataclass(frozen=True)
class Tally:
    """How many texts were read, and how many of them not whole.

    cut: at the limit of a text. encoded_in_part: whole, but not by the encoder.
    unknown_characters: with some that the tokenizer does not know; unknown_tokens: what they became
    in all of these texts. without_tokens: empty ones.
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
        """What `to_json` made."""
        return cls(**{**value, "limits": Limits(**value["limits"])})

    def to_json(self) -> dict[str, Any]:
        """The counts and the limits by their names."""
        return {**self._counts(), "limits": self.limits._asdict()}

    def _counts(self) -> dict[str, int]:
        names = [each.name for each in fields(self) if each.name != "limits"]
        return {name: getattr(self, name) for name in names}

    def __add__(self, other: Tally) -> Tally:
        """The counts of both, with the limits of the other."""
        own = self._counts()
        return Tally(
            **{name: own[name] + n for name, n in other._counts().items()}, limits=other.limits
        )

    def __sub__(self, before: Tally) -> Tally:
        """What was counted since."""
        own = self._counts()
        return Tally(
            **{name: own[name] - n for name, n in before._counts().items()}, limits=self.limits
        )

    def sentences(self) -> dict[str, str]:
        """A sentence for each kind of text that was not read whole, where there are any."""
        text, encoder, chosen, ngrams = self.limits
        why = "train.max_tokens" if chosen else "the most that is read of a text"
        others = ", and n-gram branches all of them" if ngrams else ""
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
            if (count := self._counts()[kind])
        }


class Notices:
    """What is said of texts that are not read whole, while they come and at their end.

    Each kind is said when it first comes, since a stream may never end, and again at the end
    where there were more by then.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.said: dict[str, str] = {}

    def first(self, tally: Tally) -> Iterator[str]:
        """Sentences of the kinds that were not there before."""
        new = {kind: words for kind, words in tally.sentences().items() if kind not in self.said}
        self.said |= new
        return (f"{self.source}: {words}" for words in new.values())

    def last(self, tally: Tally) -> Iterator[str]:
        """Sentences that were not said as they are now."""
        for kind, words in tally.sentences().items():
            if words != self.said.get(kind):
                yield f"{self.source}: {words}"
