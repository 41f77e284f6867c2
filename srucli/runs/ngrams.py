"""The linear model of n-grams as tensors: written, and an untrusted one checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from srucli.errors import DataError
from srucli.io.files import COPY_AGAIN
from srucli.ngrams.linear import FEW_LABELS, NgramModel
from srucli.ngrams.vocabulary import MAX_TEXTS, Vocabulary
from srucli.runs.tensors import check_fit


def ngram_tensors(model: NgramModel) -> dict[str, Tensor]:
    """Return the tensors of a model; safetensors has no unsigned 32-bit integers in old torch."""
    known = model.vocabulary
    return {
        "keys": torch.from_numpy(known.keys.view(np.int32)),
        "frequencies": torch.from_numpy(known.frequencies),
        "texts": torch.tensor([known.texts]),
        "counts": torch.from_numpy(model.counts),
        "labels": torch.from_numpy(model.labels).to(_label_type(model.bias.size)),
        "weights": torch.from_numpy(model.weights.astype(np.float16)),
        "bias": torch.from_numpy(model.bias),
    }


def ngram_model(tensors: Mapping[str, Tensor], columns: int, source: str) -> NgramModel:
    """Return the model that such tensors describe, with so many columns. Raises DataError."""
    rows, size = (_length(tensors.get(name)) for name in ("keys", "weights"))
    with torch.device("meta"):
        shapes = {
            "keys": torch.empty(rows, dtype=torch.int32),
            "frequencies": torch.empty(rows, dtype=torch.int32),
            "texts": torch.empty(1, dtype=torch.int64),
            "counts": torch.empty(rows, dtype=torch.int32),
            "labels": torch.empty(size, dtype=_label_type(columns)),
            "weights": torch.empty(size, dtype=torch.float16),
            "bias": torch.empty(columns),
        }
    check_fit(tensors, shapes, source)
    keys = tensors["keys"].numpy().view(np.uint32)
    frequencies, texts = tensors["frequencies"].numpy(), int(tensors["texts"])
    counts, labels = tensors["counts"].numpy(), tensors["labels"].int().numpy()
    valid = (
        (keys[1:] > keys[:-1]).all(),
        0 <= texts <= MAX_TEXTS,
        ((frequencies >= 0) & (frequencies <= texts)).all(),
        ((labels >= 0) & (labels < columns)).all(),
        ((counts >= 0) & (counts <= columns)).all(),
        counts.sum(dtype=np.int64) == size,
    )
    if not all(valid):
        raise DataError(source, None, "damaged: no vocabulary of n-grams", COPY_AGAIN)
    weights = tensors["weights"].float().numpy()
    vocabulary = Vocabulary(keys, frequencies, texts)
    return NgramModel(vocabulary, counts, labels, weights, tensors["bias"].numpy())


def _length(tensor: Tensor | None) -> int:
    return len(tensor) if tensor is not None and tensor.ndim else 0


def _label_type(columns: int) -> torch.dtype:
    return torch.int16 if columns <= FEW_LABELS else torch.int32
