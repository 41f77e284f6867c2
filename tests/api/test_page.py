"""The examples of docs/python.md run as they are written, on small data and a small network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srucli import sklearn
from srucli.api import training
from srucli.config import dotted, short_names
from tests.support import sentences, write_tsv
from tests.test_pages import blocks

SMALL: dict[str, Any] = {"threads": 1, "hidden": 16, "embedding_size": 16, "pretrain.epochs": 1}


def test_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The settings that an example gives itself count.
    train, names = training.train, short_names()

    def small(*given: Any, **how: Any) -> Any:
        own = {names.get(name, name): value for name, value in how.items()}
        return train(*given, **{**dotted({"epochs": 1, **SMALL}), **own})

    for module in (training, sklearn):
        monkeypatch.setattr(module, "train", small)
    monkeypatch.setattr("srucli.api.process.tune_process", lambda: None)
    (labels, texts), (dev_labels, dev_texts) = (
        map(list, zip(*rows, strict=True)) for rows in (sentences()[:200], sentences()[200:300])
    )
    write_tsv(tmp_path / "reviews.tsv", sentences()[:200])
    write_tsv(tmp_path / "dev.tsv", sentences()[200:300])
    scope = {"texts": texts, "labels": labels, "dev_texts": dev_texts, "dev_labels": dev_labels}
    scope |= {"unlabelled": texts}
    examples = blocks("docs/python.md")
    assert len(examples) > 12
    for example in examples:
        # Another process would not have the small network.
        code = example.replace("n_jobs=2", "n_jobs=1")
        exec(compile(code, "docs/python.md", "exec"), scope)
    assert (tmp_path / "runs" / "second" / "last").is_file()
