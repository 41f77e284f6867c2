"""The fuzzer's target `tokenizers`: mutated SentencePiece models."""

from __future__ import annotations

from pathlib import Path
from random import Random

from srucli.tokenizer.model import Tokenizer
from tests.robustness.mutate import mutate_model
from tests.robustness.targets.seeds import TEXTS, Seeds
from tests.robustness.watch import watched


def use_tokenizer(path: Path) -> None:
    """Do with a tokenizer what commands do."""
    tokenizer = Tokenizer.load(path)
    assert len(tokenizer.vocab) >= tokenizer.vocab_size
    for dropout in (0.0, 0.1):
        ids, offsets = tokenizer.encode(TEXTS, dropout)
        assert len(offsets) == len(TEXTS) + 1
        assert offsets[-1] == len(ids)
        assert ids.min(initial=0) >= 0
        assert ids.max(initial=0) < tokenizer.vocab_size
        for form in (int, str):
            encoded = tokenizer.line_encoder(form, subword_dropout=dropout)
            for text in TEXTS:
                tokenizer.decode(encoded(text))
    if tokenizer.model_type == "unigram":
        tokenizer.line_encoder(str, nbest=3)(TEXTS[1])


def try_tokenizer(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate a SentencePiece model, and use it."""
    model = mutate_model(random, random.choice(seeds.models), random.choice(seeds.models))
    path = folder / "x.model"
    path.write_bytes(model)
    with watched(folder):
        use_tokenizer(path)


def prepare(seeds: Seeds) -> None:
    """Compile and import what using a tokenizer needs."""
    for index, model in enumerate(seeds.models):
        path = seeds.folder / f"{index}.model"
        path.write_bytes(model)
        use_tokenizer(path)
