"""A SentencePiece model: encode texts as tokens (ids or strings, "pieces"), and decode them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from srucli.errors import DataError, InputMissingError, TextError, UsageError
from srucli.io.console import excerpt
from srucli.io.files import read_bounded
from srucli.io.memory import ran_out
from srucli.tokenizer import proto

if TYPE_CHECKING:
    from srucli.tokenizer.sampling import Sampler

MAX_MODEL_BYTES = 256 * 2**20
NAME_ANOTHER = "name a .model file that srucli tokenize or spm_train wrote"

# The most characters of a normalized text: more than the longest line that is read has, but rules
# may replace each of its characters by hundreds.
MAX_NORMALIZED = 5 * 2**24
# The most characters, times the number of encodings, of a line that is encoded as a whole: each of
# them takes a hundred bytes. So does each token of a line that is decoded.
MAX_ENCODED = 2**24
# So many characters are normalized at once to count those that result.
_COUNTED = 2**16


class Tokenizer:
    """A SentencePiece model, from `load`, `from_bytes` or `train_tokenizer`."""

    def __init__(self, model: bytes) -> None:
        """Raises RuntimeError, LookupError or ValueError for bytes that are not a model."""
        self._model = proto.parse_model(model)
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(self._model.proto)
        self.model_bytes = model
        self.model_type, self.pieces = self._model.type, self._model.pieces
        self.unknown = self._model.unknown

    @classmethod
    def from_bytes(cls, data: bytes, source: str, remedy: str = NAME_ANOTHER) -> Tokenizer:
        """Return the tokenizer of a serialized model. Raises DataError naming `source`."""
        try:
            return cls(data)
        except proto.UnusableModelError as error:
            problem = f"a SentencePiece model that cannot be used: {error}"
            raise DataError(source, None, problem, remedy) from None
        except (RuntimeError, LookupError, ValueError) as error:
            if ran_out(error):
                raise
            raise DataError(source, None, "not a SentencePiece model", remedy) from None

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a `.model` file. Raises InputMissingError, DataError naming the file."""
        try:
            with open(path, "rb") as file:
                data = read_bounded(file, MAX_MODEL_BYTES)
        except OSError as error:
            problem, remedy = f"cannot be read ({error.strerror})", NAME_ANOTHER
            if (Path(path) / "tokenizer.model").is_file():
                problem, remedy = "is a run", "name the .model file in it"
            raise InputMissingError(f"{path}: {problem}; {remedy}") from error
        if len(data) > MAX_MODEL_BYTES:
            limit = f"larger than {MAX_MODEL_BYTES >> 20} MB, so not a SentencePiece model"
            raise DataError(str(path), None, limit, NAME_ANOTHER)
        return cls.from_bytes(data, str(path))

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.pieces)

    @property
    def vocab(self) -> str:
        """The content of SentencePiece's `.vocab` file: token, tab, score on each line."""
        rows = zip(self.pieces, self._model.scores, strict=True)
        return "".join(f"{piece}\t{score:g}\n" for piece, score in rows)

    def control_id(self, name: str) -> int:
        """Return the id of the control token "bos", "eos" or "pad"; -1 if the model has none."""
        return int(getattr(self._processor, f"{name}_id")())

    @cached_property
    def _sampler(self) -> Sampler:
        from srucli.tokenizer.sampling import Sampler  # Numba takes a second to import

        return Sampler(self._model)

    def _alpha(self, subword_dropout: float) -> float | None:
        """Return the sampler's alpha for a subword dropout p; None: do not sample.

        For BPE, p is the share of dropped merges. For unigram, alpha = 0.08 sqrt((1 - p) / p)
        sharpens the distribution over all segmentations. Measured growth of the number of tokens at
        p = 0.05, 0.1, 0.2, 0.3: on TREC (vocabulary of 4,000) BPE 1.16, 1.32, 1.62, 1.92 and
        unigram 1.14, 1.29, 1.51, 1.66; on Korean reviews (8,000) BPE 1.06, 1.11, 1.23, 1.36 and
        unigram 1.14, 1.22, 1.30, 1.36. Word and char models have one segmentation only.
        """
        if not 0.0 <= subword_dropout < 1.0:
            raise UsageError(f"subword dropout {subword_dropout} is not in [0, 1)")
        if subword_dropout == 0.0 or self.model_type not in ("unigram", "bpe"):
            return None
        if self.model_type == "bpe":
            return subword_dropout
        return 0.08 * sqrt((1.0 - subword_dropout) / subword_dropout)

    def samples(self, subword_dropout: float) -> bool:
        """Whether `encode` samples tokens, so that they depend on its seed."""
        return self._alpha(subword_dropout) is not None

    def _check_growth(self, texts: Iterable[str], first: int = 0) -> None:
        """Raise TextError for a text that normalization would make too long, before it does."""
        for number, text in enumerate(texts, first):
            if 4 * len(text) * self._model.growth <= MAX_NORMALIZED:
                continue
            parts = (text[start : start + _COUNTED] for start in range(0, len(text), _COUNTED))
            sizes = itertools.accumulate(len(self._processor.Normalize(part)) for part in parts)
            if any(size > MAX_NORMALIZED for size in sizes):
                raise TextError(
                    number,
                    f"a text of {len(text):,} characters would have over {MAX_NORMALIZED:,} when "
                    f"normalized: {excerpt(text)}",
                    "shorten it, or use a tokenizer with other rules",
                )

    def _check_line(self, text: str, copies: int) -> None:
        """Raise TextError for a line whose tokens, `copies` times, take too much memory."""
        self._check_growth([text])
        if len(text) * copies > MAX_ENCODED:
            most = f"{MAX_ENCODED // copies:,} are encoded at once"
            if copies > 1:
                most += f" as {copies} encodings"
            problem = f"a line of {len(text):,} characters, and at most {most}: {excerpt(text)}"
            raise TextError(0, problem, "break it into shorter lines")

    def encode(
        self, texts: Sequence[str], subword_dropout: float = 0.0, seed: int = 0, first: int = 0
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of B texts as one row (N,), and its offsets (B+1,).

        subword_dropout in [0, 1): 0 gives the best segmentation, other values a random one that
        depends only on `seed` and the text's number, counted from `first`. The ids are lists of
        Python for a while, so give few texts at a time. Raises UsageError, and TextError for a text
        that becomes too long.
        """
        alpha = self._alpha(subword_dropout)
        self._check_growth(texts, first)
        if alpha is not None:
            normalized = self._processor.Normalize(list(texts))
            ids, _, offsets = self._sampler.draw(normalized, alpha, seed, first)
            return ids, offsets
        # One thread: most of the time is spent on creating lists, which threads do not share.
        rows = self._processor.Encode(list(texts), return_type=int, num_threads=1)
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        ids = np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(offsets[-1]))
        return ids, offsets

    def line_encoder(
        self,
        form: type[str] | type[int],
        *,
        nbest: int = 1,
        subword_dropout: float = 0.0,
        seed: int = 0,
        bos: bool = False,
        eos: bool = False,
        reverse: bool = False,
    ) -> Callable[[str], list[Any]]:
        """Return a function from a text to its tokens as strings or ids, for a stream of texts.

        The n-th call samples what `encode` samples for the n-th text. nbest: if above 1, the
        function returns that many best segmentations (unigram without dropout). Raises UsageError;
        the function raises TextError for too long a text.
        """
        alpha = self._alpha(subword_dropout)
        if alpha is None:
            arguments: dict[str, Any] = {"return_type": form, "add_bos": bos, "add_eos": eos}
            arguments["reverse"] = reverse
            encode = self._processor.Encode
            if nbest > 1:
                encode = partial(self._processor.NBestEncode, nbest_size=nbest)

            def best(text: str) -> list[Any]:
                self._check_line(text, nbest)
                return list(encode(text, **arguments))

            return best
        controls = [self.control_id("bos")] * bos, [self.control_id("eos")] * eos
        begin, end = (
            [self.pieces[index] if form is str else index for index in row] for row in controls
        )
        number = itertools.count()

        def draw(text: str) -> list[Any]:
            row = self._drawn(text, form, alpha, seed, next(number))
            return [*begin, *(reversed(row) if reverse else row), *end]

        return draw

    def _drawn(
        self, text: str, form: type[str] | type[int], alpha: float, seed: int, number: int
    ) -> list[Any]:
        self._check_line(text, 1)
        normalized = self._processor.Normalize(text)
        ids, ends, _ = self._sampler.draw([normalized], alpha, seed, number)
        if form is int:
            return list(ids.tolist())
        starts, unknown = [0, *ends.tolist()], self.unknown
        return [
            normalized[start:end] if index == unknown else self.pieces[index]
            for index, start, end in zip(ids.tolist(), starts, ends.tolist(), strict=False)
        ]

    def decode(self, row: list[int] | list[str]) -> str:
        """Return the text of a list of ids or strings. Ids must be below `vocab_size`.

        Raises TextError for too long a text.
        """
        words = [self.pieces[word] if isinstance(word, int) else word for word in row]
        unknown = words.count(self.pieces[self.unknown]) * len(self._model.unknown_surface)
        size = (sum(map(len, words)) + unknown) * max(self._model.decoded_growth, 1)
        if size > MAX_NORMALIZED:
            problem = (
                f"tokens of up to {size:,} characters, and at most {MAX_NORMALIZED:,} are decoded"
            )
            raise TextError(0, problem, "break the line into shorter ones")
        return str(self._processor.Decode(row))
