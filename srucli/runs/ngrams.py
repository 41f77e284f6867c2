"""The linear model of n-grams as tensors: written, and an untrusted one checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from srucli.errors import DataError
from srucli.io.files import COPY_AGAIN
from srucli.ngrams.linear import NgramModel
from srucli.ngrams.vocabulary import Vocabulary
from srucli.runs.tensors import check_fit

# One more text has to fit the type of frequencies.
MAX_TEXTS = 2**31 - 2


def ngram_tensors(model: NgramModel) -> dict[str, Tensor]:
    """Return the tensors of a model; safetensors has no unsigned 32-bit integers in old torch."""
    known = model.vocabulary
    return {
        "keys": torch.from_numpy(known.keys.view(np.int32)),
        "frequencies": torch.from_numpy(known.frequencies),
        "texts": torch.tensor([known.texts]),
        "table": torch.from_numpy(model.table.astype(np.float16)),
        "bias": torch.from_numpy(model.bias),
    }


def ngram_model(tensors: Mapping[str, Tensor], columns: int, source: str) -> NgramModel:
    """Return the model that such tensors describe, with so many columns. Raises DataError."""
    rows = len(tensors["keys"]) if "keys" in tensors and tensors["keys"].ndim else 0
    with torch.device("meta"):
        shapes = {
            "keys": torch.empty(rows, dtype=torch.int32),
            "frequencies": torch.empty(rows, dtype=torch.int32),
            "texts": torch.empty(1, dtype=torch.int64),
            "table": torch.empty(rows, columns, dtype=torch.float16),
            "bias": torch.empty(columns),
        }
    check_fit(tensors, shapes, source)
    keys = tensors["keys"].numpy().view(np.uint32)
    frequencies, texts = tensors["frequencies"].numpy(), int(tensors["texts"])
    ordered = bool((keys[1:] > keys[:-1]).all())
    counted = texts <= MAX_TEXTS and bool(((frequencies >= 0) & (frequencies <= texts)).all())
    if not ordered or texts < 0 or not counted:
        raise DataError(source, None, "damaged: no vocabulary of n-grams", COPY_AGAIN)
    table = tensors["table"].float().numpy()
    return NgramModel(Vocabulary(keys, frequencies, texts), table, tensors["bias"].numpy())
