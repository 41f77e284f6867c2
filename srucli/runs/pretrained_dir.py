"""The folder of `srucli pretrain`: a tokenizer and vectors of its tokens, from raw text.

    pretrained.json        format version, versions, machine, raw text, settings
    tokenizer.model        the SentencePiece model
    vectors.safetensors    the vectors; once it exists, the folder is complete
    training.safetensors   what resuming needs, until then
    metrics.jsonl          one line per epoch
    README.md              the model card
    srucli.json, lock      as in a run folder

`srucli train --from` starts from it. It may come from anybody, so files are checked when they
are read, have size limits, and must not be links.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from srucli.errors import DataError, SrucliError
from srucli.io.files import (
    COPY_AGAIN,
    Place,
    append,
    path_of,
    read_json,
    read_within,
    to_json,
    write_files,
    writing,
)
from srucli.io.folders import OpenFolder
from srucli.io.json_text import json_text
from srucli.runs.claim import Claim, Layout, Source, claimed, clear
from srucli.runs.facts import MAX_FACTS, checked, machine
from srucli.runs.tensors import check_fit, file_of, max_bytes, tensors_of
from srucli.tokenizer.model import MAX_MODEL_BYTES, Tokenizer

FORMAT_VERSION = 1
FACTS, TOKENIZER, VECTORS = "pretrained.json", "tokenizer.model", "vectors.safetensors"
STATE, METRICS, CARD = "training.safetensors", "metrics.jsonl", "README.md"
# What pretraining writes, in the order in which it is removed.
LAYOUT: Layout = {
    r"vectors\.safetensors": None,
    r"training\.safetensors": None,
    r"README\.md": None,
    r"metrics\.jsonl": None,
    r"tokenizer\.model": None,
    r"pretrained\.json": None,
}


class PretrainedFacts(BaseModel):
    """The content of pretrained.json.

    fingerprint: a hash of all that determines the vectors. sha256: of the texts.
    """

    format_version: PositiveInt
    srucli: str
    command: list[str]
    sources: list[str]
    texts: PositiveInt
    tokens: NonNegativeInt
    size: Annotated[int, Field(ge=1, le=2**16)]
    epochs: PositiveInt
    sha256: str
    fingerprint: str


class Pretrained(NamedTuple):
    """A tokenizer of V tokens, and their vectors (V, E) float32."""

    path: Path
    facts: PretrainedFacts
    tokenizer: Tokenizer
    vectors: Tensor


class Progress(NamedTuple):
    """Of pretraining: the sums of losses and pairs in an epoch that is not over, and seconds."""

    loss: float = 0.0
    pairs: float = 0.0
    seconds: float = 0.0


class PretrainedDir:
    """A folder of pretrained vectors, by its path or held open.

    Methods that write raise OutputError; those that read raise InputMissingError and DataError.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.path = place, path_of(place)

    @classmethod
    @contextmanager
    def claim(cls, path: Path, sources: tuple[Source, ...]) -> Iterator[PretrainedDir]:
        """Hold the folder, marked and locked, for a block; make it if need be.

        If the block raises before anything is saved in a folder that was empty, everything is
        removed. `sources` are files that must not be replaced. Raises OutputError.
        """
        with claimed(path, Claim("base", LAYOUT, is_pretrained, sources)) as (folder, fresh):
            found = cls(folder)
            try:
                yield found
            except BaseException:
                with suppress(OSError):
                    if fresh and folder.is_in_place() and not found.has_vectors:
                        clear(folder, LAYOUT)
                raise

    @property
    def has_vectors(self) -> bool:
        """Whether there are vectors, finished or to be resumed."""
        return self._has(VECTORS) or self._has(STATE)

    def _has(self, name: str) -> bool:
        return (self.path / name).is_file()

    @property
    def is_complete(self) -> bool:
        """Whether the vectors are finished."""
        return self._has(VECTORS)

    def clear(self) -> None:
        """Remove what an earlier pretraining wrote."""
        with writing(self.place, "") as folder:
            clear(folder, LAYOUT)

    def begin(self, tokenizer: Tokenizer, facts: Mapping[str, Any]) -> None:
        """Write what is known before the first step, pretrained.json last."""
        write_files(self.place, {TOKENIZER: tokenizer.model_bytes})
        content = {"format_version": FORMAT_VERSION, **machine(), **facts}
        write_files(self.place, {FACTS: to_json(content)})

    def save(self, state: Mapping[str, Tensor], progress: Progress) -> None:
        """Write what resuming needs."""
        size = self.path.joinpath(METRICS).stat().st_size if self._has(METRICS) else 0
        numbers = torch.tensor([*progress, size], dtype=torch.float64)
        write_files(self.place, {STATE: file_of({**state, "progress": numbers})})

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        append(self.place, METRICS, json_text(record).encode() + b"\n")

    def finish(self, vectors: Tensor, card: str) -> None:
        """Write the vectors (V, E) and the model card; drop what resuming needed."""
        write_files(self.place, {CARD: card.encode(errors="backslashreplace")})
        write_files(self.place, {VECTORS: file_of({"vectors": vectors})})
        self.drop_state()

    def drop_state(self) -> None:
        """Remove what resuming needed."""
        with writing(self.place, STATE) as folder:
            if STATE in folder.names():
                folder.remove(STATE)

    def facts(self) -> PretrainedFacts:
        """Return the content of pretrained.json."""
        read, source = read_json(self.place, FACTS, MAX_FACTS), str(self.path / FACTS)
        found = read if isinstance(read, dict) else {}
        return checked(PretrainedFacts, found, FORMAT_VERSION, source)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer."""
        data = read_within(self.place, TOKENIZER, MAX_MODEL_BYTES)
        return Tokenizer.from_bytes(data, str(self.path / TOKENIZER), COPY_AGAIN)

    def state(self, tokens: int, facts: PretrainedFacts) -> tuple[dict[str, Tensor], Progress]:
        """Return what resuming needs: inputs, outputs (V, E) of V tokens, and position (2,).

        Lines that metrics.jsonl has got since are cut off.
        """
        with torch.device("meta"):
            both = {name: torch.empty(tokens, facts.size) for name in ("inputs", "outputs")}
            counts = {"progress": torch.empty(4, dtype=torch.float64)}
            shapes = both | counts | {"position": torch.empty(2, dtype=torch.int64)}
        state = self._tensors(STATE, shapes)
        epoch, texts = state["position"].tolist()
        if not (0 <= epoch <= facts.epochs and 0 <= texts < facts.texts):
            problem = f"damaged: there is no text {texts} in epoch {epoch}"
            raise DataError(str(self.path / STATE), None, problem, COPY_AGAIN)
        numbers = state.pop("progress")
        if not (numbers >= 0).all():
            problem = f"damaged: its progress is {numbers.tolist()}"
            raise DataError(str(self.path / STATE), None, problem, COPY_AGAIN)
        *progress, size = numbers.tolist()
        if self._has(METRICS) and (self.path / METRICS).stat().st_size > size:
            with writing(self.place, METRICS) as folder:
                folder.cut(METRICS, int(size))
        return state, Progress(*progress)

    def read(self) -> Pretrained:
        """Return the complete content."""
        facts, tokenizer = self.facts(), self.tokenizer()
        if not self.is_complete:
            remedy = "run `srucli pretrain` again with the same arguments"
            raise DataError(str(self.path), None, "the vectors are not finished", remedy)
        with torch.device("meta"):
            shapes = {"vectors": torch.empty(tokenizer.vocab_size, facts.size)}
        vectors = self._tensors(VECTORS, shapes)["vectors"]
        return Pretrained(self.path, facts, tokenizer, vectors)

    def _tensors(self, name: str, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        source = str(self.path / name)
        tensors = tensors_of(read_within(self.place, name, max_bytes(shapes)), source)
        check_fit(tensors, shapes, source)
        return tensors


def is_pretrained(folder: OpenFolder) -> bool:
    """Return whether a folder has a valid pretrained.json."""
    try:
        return bool(PretrainedDir(folder).facts())
    except SrucliError:
        return False
