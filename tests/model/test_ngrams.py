"""The characters of tokens, and the branch that reads them."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import torch

from srucli.config import ModelConfig
from srucli.model.classifier import Classifier
from srucli.model.ngrams import SPACE, Speller
from tests.model.test_classifier import LENGTHS, SMALL, SPELLING, SPELT, batch


def test_characters_against_a_plain_loop() -> None:
    tokens, offsets = batch([*LENGTHS, 40])
    found, ends = Speller(SPELLING)(tokens, offsets)
    texts = [tokens[start:stop].tolist() for start, stop in pairwise(offsets.tolist())]
    wanted = [[*(code for token in text for code in SPELT[token]), SPACE] for text in texts]
    assert found.tolist() == list(chain.from_iterable(wanted))
    assert ends.diff().tolist() == list(map(len, wanted))


def test_the_character_branch_does_not_depend_on_the_tokenization() -> None:
    spelling = np.array([7, 8, 9, 7, 8, 9]), np.array([0, 1, 2, 3, 6])  # a, b, c and abc
    model = Classifier(ModelConfig.model_validate(SMALL), spelling, 2).eval()
    tokens = torch.tensor([0, 1, 2, 3, 0, 3, 1, 2])
    *_, found = model.branches(tokens, torch.tensor([0, 3, 4, 6, 8]))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.equal(found[1], found[2])
