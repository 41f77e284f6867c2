"""A trained classifier in Python: texts to labels and probabilities."""

from __future__ import annotations

import os
import pickle
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srucli.api.sources import check_column, check_text, source_of, texts_of
from srucli.data.formats import data_config, fresh_config
from srucli.data.given import Given
from srucli.data.readers import Input, read_examples
from srucli.errors import InputMissingError, located
from srucli.inference.evaluation import Evaluation
from srucli.inference.evaluation import evaluate as evaluate_examples
from srucli.inference.forward import batch_size
from srucli.inference.predictor import Predictor
from srucli.inference.stream import arriving
from srucli.io.console import say
from srucli.metrics import decide
from srucli.runs.choice import choose
from srucli.runs.copies import copy, pack
from srucli.runs.run_dir import RunDir

# The label of a text, or its labels if the classifier is multi-label.
Label = str | list[str]


class Prediction(NamedTuple):
    """What a classifier says of a text.

    label: a string, or a list of strings if it is multi-label. probabilities (C,): in the order of
    `Classifier.labels`.
    """

    text: str
    label: Label
    probabilities: NDArray[np.float32]


def load(run: str | os.PathLike[str], *, device: str = "auto") -> Classifier:
    """Load the classifier in a run folder, as `srucli train` or `srucli.train` made it.

    device: auto, cpu, cuda or cuda:N. Raises UsageError for an unknown or missing device,
    InputMissingError if there is no run, DataError if it is damaged.
    """
    classifier = Classifier(Path(run), device=device)
    say(*classifier.notes)
    return classifier


class Classifier:
    """A trained classifier, from `load` or `train`.

    labels: the C labels, in the order of the columns of probabilities. path: the folder of the run.

    It pickles as its folder and device, so a process that unpickles it needs the folder. If that
    holds other weights by now, it can be neither pickled nor saved. Its methods raise DivergedError
    if a probability is NaN or Inf, as with weights that are too large.
    """

    def __init__(
        self, path: Path, *, device: str = "auto", temporary: TemporaryDirectory[str] | None = None
    ) -> None:
        """temporary: the folder that contains the run and is removed with this object."""
        self._predictor = Predictor.load(path, device)
        self._device = device
        # With this object, and not by chance at the end of the process, when Python would warn.
        self._remove = weakref.finalize(self, temporary.cleanup) if temporary else None
        self.path = path.absolute()
        name = self._predictor.choice.name
        self._state = name, RunDir(self.path).checkpoints.digest(name), self._predictor.labels

    @property
    def labels(self) -> list[str]:
        """The C labels, sorted."""
        return list(self._predictor.labels)

    @property
    def notes(self) -> list[str]:
        """Sentences about the weights that are used, if others might be expected."""
        return list(self._predictor.notes)

    @property
    def multi_label(self) -> bool:
        """Whether a text may have any number of labels."""
        return self._predictor.multi_label

    def predict(self, texts: Iterable[str]) -> list[Label]:
        """Return the label of each text; if multi-label, a list of labels, which may be empty.

        Raises UsageError for values that are no strings, and for one string in place of a list.
        """
        return self._labels(self.predict_proba(texts))

    def predict_proba(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return the probabilities (B, C) of B texts, in the order of `labels`.

        Rows sum to 1, unless the classifier is multi-label. Raises what `predict` raises.
        """
        found = texts_of(texts)
        with located("texts", lambda number: number + 1):
            return self._predictor.probabilities(found)

    def predict_iter(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """Yield a prediction for each text, in order, as soon as there is one.

        Texts are read in another thread, and those that have arrived are predicted together, so
        `texts` may be an endless stream. Raises what `predict` raises, and what `texts` raises,
        after the predictions before it.
        """
        inputs = (Input(text, line, text) for line, text in enumerate(_checked(texts), 1))
        most, _ = batch_size(self._predictor.device)
        for group in arriving(inputs, most):
            with located("texts", [item.line for item in group].__getitem__):
                found = self._predictor.probabilities([item.text for item in group])
            for item, label, row in zip(group, self._labels(found), found, strict=True):
                yield Prediction(item.text, label, row)

    def _labels(self, probabilities: NDArray[np.float32]) -> list[Label]:
        own, names = self._predictor, np.array(self._predictor.labels, object)
        chosen = decide(probabilities, own.thresholds, own.multi_label, own.at_least_one)
        if own.multi_label:
            return [names[row].tolist() for row in chosen]
        return list(names[chosen])

    def evaluate(self, texts: Any, labels: Any = None, **columns: Any) -> Evaluation:
        """Return the metrics on labelled texts, with 95% intervals.

        `.metrics` and `.intervals` of the result are dicts, `.to_text()` is what `srucli eval`
        prints. Texts and labels are given as to `train`. columns: `text` and `label`, the columns
        of a table or a file, if they are not those of the training.

        Raises UsageError and DataError for what cannot be read.
        """
        own = self._predictor
        source = source_of(texts, labels)
        trained, file = own.config.data, "" if isinstance(source, Given) else os.fspath(source)
        config, fresh = data_config(trained, file, columns), fresh_config(trained, columns)
        reading = read_examples(source, config, own.labels, fresh, own.names)
        return evaluate_examples(
            own,
            reading.reported(say, columns),
            source=reading.task.source,
            merge=config.merge_labels,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the run to a new or empty folder, which this object refers to from now on.

        The copy has all that prediction needs, and no optimizer state. Raises OutputError, and
        InputMissingError if the folder has other weights now than this object.
        """
        copy(self._run(), Path(path))
        self.path = Path(path).absolute()
        if self._remove is not None:
            self._remove()
            self._remove = None
        return Path(path)

    def packed(self) -> bytes:
        """Return the run as `srucli.runs.copies.pack` does, and remove its folder if temporary.

        Raises InputMissingError as `save`.
        """
        packed = pack(self._run())
        if self._remove is not None:
            self._remove()
        return packed

    def _run(self) -> RunDir:
        """Return the folder, if it still has the weights and labels of this object.

        Raises InputMissingError if not.
        """
        run = RunDir.open(self.path)
        if _state_of(run) != self._state:
            raise InputMissingError(
                f"{self.path}: was trained again after this classifier was loaded; load it anew"
            )
        return run

    def __reduce__(self) -> tuple[Any, ...]:
        if self._remove is not None:
            raise pickle.PicklingError(
                "the classifier is in a temporary folder, which another process may not find; "
                "save it first, as classifier.save('runs/mine')"
            )
        return _load, (str(self._run().path), self._device)

    def __repr__(self) -> str:
        return f"<srucli.Classifier {self.path}: {len(self.labels):,} labels>"


def _load(path: str, device: str) -> Classifier:
    return load(path, device=device)


def _state_of(run: RunDir) -> tuple[str, str, list[str]]:
    """Return the name and digest of the checkpoint that is loaded from a run, and its labels."""
    config = run.config()
    name = choose(run, config.train.used_checkpoint, config.metric).name
    return name, run.checkpoints.digest(name), run.labels()


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts as they arrive. Raises UsageError for what is none."""
    if isinstance(texts, (str, bytes)):
        texts_of(texts)  # says that it is no list
    check_column(texts, "texts")
    for number, text in enumerate(texts):
        check_text(text, number)
        yield text
