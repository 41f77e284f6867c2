"""The linear model of n-grams in a run folder, as it may come from anybody."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from srucli.errors import DataError
from srucli.ngrams.linear import NgramModel, fit
from srucli.runs.ngrams import ngram_model, ngram_tensors
from srucli.runs.tensors import file_of, tensors_of

TEXTS = ["a good film", "a poor plot", "a good plot", "a poor film"]
Change = Callable[[dict[str, Tensor]], object]


def made(classes: int = 3) -> NgramModel:
    return fit(TEXTS, np.arange(4) % classes, classes)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_is_read_as_it_was_written(classes: int) -> None:
    model = made(classes)
    tensors = tensors_of(file_of(ngram_tensors(model)), "a file")
    read = ngram_model(tensors, model.bias.size, "a file")
    np.testing.assert_array_equal(read.margins(TEXTS, classes), model.margins(TEXTS, classes))


def test_an_empty_vocabulary_is_read() -> None:
    model = fit(["", " "], np.arange(2), 2)
    read = ngram_model(tensors_of(file_of(ngram_tensors(model)), "a file"), 1, "a file")
    assert read.margins(["a"], 2).shape == (1, 2)


@pytest.mark.parametrize(
    "change",
    {
        "no keys": lambda tensors: tensors.pop("keys"),
        "a scalar": lambda tensors: tensors.update(keys=torch.tensor(1, dtype=torch.int32)),
        "one more": lambda tensors: tensors.update(other=torch.ones(1)),
        "another type": lambda tensors: tensors.update(bias=tensors["bias"].double()),
        "fewer weights": lambda tensors: tensors.update(weights=tensors["weights"][1:].clone()),
        "other counts": lambda tensors: tensors["counts"].add_(1),
        "less than no weights": lambda tensors: tensors["counts"][:2].add_(torch.tensor([-9, 9])),
        "an unknown label": lambda tensors: tensors["labels"].fill_(3),
        "a label before the first": lambda tensors: tensors["labels"].fill_(-1),
        "NaN": lambda tensors: tensors["bias"].fill_(float("nan")),
        "keys twice": lambda tensors: tensors["keys"].fill_(7),
        "more often than texts": lambda tensors: tensors["frequencies"].fill_(5),
        "less than never": lambda tensors: tensors["frequencies"].fill_(-1),
        "no texts": lambda tensors: tensors["texts"].fill_(-1),
        "so many texts that frequencies overflow": lambda tensors: (
            tensors["texts"].fill_(2**31 - 1),
            tensors["frequencies"].fill_(2**31 - 1),
        ),
        "more texts than numbers": lambda tensors: tensors["texts"].fill_(2**63 - 1),
    }.items(),
    ids=lambda item: item[0],
)
def test_damaged_tensors_are_refused(change: tuple[str, Change]) -> None:
    tensors = {name: tensor.clone() for name, tensor in ngram_tensors(made()).items()}
    change[1](tensors)
    with pytest.raises(DataError, match=r"^a file: .*; copy the run again"):
        ngram_model(tensors, 3, "a file")
