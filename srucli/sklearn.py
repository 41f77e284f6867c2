"""A scikit-learn estimator: raw texts to labels. `import srucli` does not import this file.

    from srucli.sklearn import SRUClassifier

    classifier = SRUClassifier(epochs=5, random_state=0)
    cross_val_score(classifier, texts, labels)

How it is trained is in `srucli.api`; this file translates parameters, targets and errors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from srucli.api.classifier import Classifier, load
from srucli.api.sources import texts_of
from srucli.api.training import train
from srucli.config import dotted, resolve, short_names
from srucli.data.labels import clean, same_key
from srucli.errors import DataError, UsageError
from srucli.io.console import excerpt, quiet
from srucli.io.folders import temporary_folder
from srucli.runs.copies import unpack
from srucli.runtime import cores

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import (
        check_array,
        check_consistent_length,
        check_is_fitted,
        column_or_1d,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"srucli.sklearn needs scikit-learn ({error}): pip install 'srucli[sklearn]'",
        name=error.name,
    ) from None

Name = str | os.PathLike[str]
# The only settings of data that texts in memory leave to the user: how a file of raw text is read.
_OF_RAW_FILES = ("data.encoding", "data.errors", "data.max_ratio")


class SRUClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of raw texts, as `srucli train` makes it, for scikit-learn.

    X is one column of strings: a list, an array, or a Series of pandas or Polars. y has a label of
    any type for each text, or is a matrix of 0 and 1 with a column for each label (multi-label).

    settings: any setting by its name in `srucli info settings` or the last part of it, as in
    `SRUClassifier(epochs=5, optimizer="lion", **{"model.layers": 3})`. `set_params` and grids take
    both names of a setting, too. Those that are not given have the defaults of `srucli train`.
    Settings of labelled files, as `data.label`, are refused.
    base: a run to start from, or what `srucli pretrain` made. raw: unlabelled texts to learn
    vectors from first: a list of strings, or a file with a text in each line; they are learned
    again in each fit, while those of `base` are not. tokenizer: a SentencePiece model. config:
    settings in YAML.
    random_state: the setting `train.seed` as an int; a RandomState, or None for numpy's global one,
    which a seed is drawn from. With None, a seed in the settings or the YAML counts.
    process: train in a process of its own that is set up for speed, as a command is.
    verbose: 0 shows only warnings, 1 also what `srucli train` shows.

    A training uses as many threads as torch does in the calling one, within the number of cores,
    unless `threads` is given. So joblib's workers share the cores.

    classes_: the C classes, sorted, with the type that they have in y; multi-label: the numbers of
    the columns. The trained run is kept in memory, and pickled, as bytes without code. The pickle
    needs no folder but a temporary one, when it is first used.

    >>> SRUClassifier(random_state=0).fit(texts, labels).predict(["what a lovely film"])
    array(['positive'], dtype='<U8')
    """

    def __init__(
        self,
        *,
        base: Name | None = None,
        raw: Name | Sequence[str] | None = None,
        tokenizer: Name | None = None,
        config: Name | None = None,
        random_state: int | np.random.RandomState | None = None,
        process: bool = False,
        verbose: int = 0,
        **settings: Any,
    ) -> None:
        self.base = base
        self.raw = raw
        self.tokenizer = tokenizer
        self.config = config
        self.random_state = random_state
        self.process = process
        self.verbose = verbose
        self._settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, with the settings that were given. deep: no effect."""
        return {**super().get_params(deep=deep), **self._settings}

    def set_params(self, **params: Any) -> Self:
        """Set parameters and settings by name, and return this estimator.

        A setting replaces the value that was given by its other name. Raises ValueError for unknown
        names.
        """
        own = {name: params[name] for name in self._get_param_names() if name in params}
        new = {name: value for name, value in params.items() if name not in own}
        with _value_errors():
            keys, names = _dotted(new), short_names()
        kept = {
            name: old for name, old in self._settings.items() if names.get(name, name) not in keys
        }
        super().set_params(**own)
        self._settings = kept | new
        return self

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on B texts and their labels, and return this estimator.

        X (B,): strings. y (B,): labels, or (B, C): 0 and 1. sample_weight (B,): as how many
        examples each text counts; those with 0 are left out.

        Raises ValueError for parameters, texts, labels and weights that cannot be used, and other
        errors as `srucli.train`.
        """
        texts = _texts(X)
        targets, classes = _targets(y)
        weights = _weights(sample_weight, len(texts))
        check_consistent_length(texts, targets, weights)
        rows = np.flatnonzero(weights)
        names = _names(classes)
        labels = _labels(targets[rows], names)
        with _value_errors(rows):
            classifier = train(
                [texts[row] for row in rows],
                labels,
                weights=None if sample_weight is None else weights[rows],
                base=self.base,
                raw=self.raw,
                tokenizer=self.tokenizer,
                config=self.config,
                process=self.process,
                quiet=not self.verbose,
                **self._complete_settings(),
            )
            self._run = classifier.packed()
        self._classifier: Classifier | None = classifier
        self._names, self.classes_ = names, classes
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class of each of B texts (B,), or of 0 and 1 (B, C) if multi-label.

        Raises ValueError for what is no column of strings, and NotFittedError.
        """
        classifier, texts = self._fitted(), _texts(X)
        if not classifier.multi_label:
            return np.asarray(self.classes_[self.predict_proba(texts).argmax(axis=1)])
        with _value_errors():
            found = classifier.predict(texts)
        number = {name: column for column, name in enumerate(self._names)}
        matrix = np.zeros((len(texts), len(number)), int)
        for row, labels in zip(matrix, found, strict=True):
            row[[number[label] for label in labels if label in number]] = 1
        return matrix

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probabilities (B, C) of B texts, with a column for each of `classes_`.

        Rows sum to 1, unless it is multi-label. Raises what `predict` raises.
        """
        classifier, texts = self._fitted(), _texts(X)
        with _value_errors():
            found = classifier.predict_proba(texts)
        number = {label: column for column, label in enumerate(classifier.labels)}
        proba = np.zeros((len(texts), len(self._names)), np.float32)
        for column, name in enumerate(self._names):
            if name in number:  # others had no text to learn from
                proba[:, column] = found[:, number[name]]
        if not classifier.multi_label and set(number) - set(self._names):  # labels of `base`
            proba /= proba.sum(axis=1, keepdims=True)
        return proba

    def save(self, path: Name) -> Path:
        """Write the run to a new or empty folder, as `srucli predict` and `srucli.load` read it.

        Raises OutputError, and NotFittedError.
        """
        check_is_fitted(self)
        unpack(self._run, Path(path))
        return Path(path)

    def _complete_settings(self) -> dict[str, Any]:
        """Return the dotted settings, with the seed and the number of threads."""
        settings = _dotted(self._settings)
        file = Path(self.config) if self.config else None
        own = resolve(file, flags=settings).train
        if self.random_state is not None and "seed" in own.model_fields_set:
            raise UsageError("random_state and seed are both given; give one of them")
        if isinstance(self.random_state, Integral):
            settings["train.seed"] = int(self.random_state)
        elif "seed" not in own.model_fields_set:
            drawn = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            settings["train.seed"] = int(drawn)
        if not own.threads:
            settings["train.threads"] = min(cores(), torch.get_num_threads())
        return settings

    def _fitted(self) -> Classifier:
        """Return the classifier, which is loaded once after this object was unpickled."""
        check_is_fitted(self)
        if self._classifier is None:
            with (
                temporary_folder() as folder,
                nullcontext() if self.verbose else quiet(),
                _value_errors(),
            ):
                run, device = Path(folder, "run"), _dotted(self._settings).get("train.device")
                unpack(self._run, run)
                self._classifier = load(run, device=device or "auto")
        return self._classifier

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_classifier": None}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.classifier_tags.multi_label = True
        return tags


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted key. Raises UsageError for unknown ones, and those of a file."""
    found = dotted(settings)
    for key in found:
        if key.startswith("data.") and key not in _OF_RAW_FILES:
            raise UsageError(f"{key}: says how a labelled file is read, and has no use for X and y")
    return found


def _texts(X: Any) -> list[str]:
    """Return a column of strings as a list. Raises ValueError for anything else."""
    shape = getattr(X, "shape", (0,))
    if len(shape) != 1:
        raise ValueError(f"X: one column of texts is needed, not an array of the shape {shape}")
    with _value_errors():
        texts = texts_of(X, "X")
    if not texts:
        raise ValueError("X: has 0 samples; give one text or more")
    return texts


def _targets(y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the number (B,) of the class of each text, or 0 and 1 (B, C); and the C classes.

    Raises ValueError.
    """
    if y is None:
        raise ValueError("SRUClassifier requires y to be passed, but the target y is None")
    _check_missing(y)
    if type_of_target(y, input_name="y") == "multilabel-indicator":
        matrix = check_array(y, accept_sparse="csr", input_name="y")
        matrix = matrix.toarray() if hasattr(matrix, "toarray") else matrix
        return matrix != 0, np.arange(matrix.shape[1])
    column = column_or_1d(y, warn=True)
    check_classification_targets(column)
    classes, numbers = np.unique(column, return_inverse=True)
    return numbers, classes


def _names(classes: NDArray[Any]) -> list[str]:
    """Return the label of each class in the run. Raises ValueError for two that look the same."""
    first: dict[str, str] = {}
    for label in map(str, classes.tolist()):
        if (key := same_key(label)) in first:
            both = f"{first[key]!r} and {label!r}"
            raise ValueError(f"y has the classes {both}, which look the same; rename one")
        first[key] = label
    return [clean(label) for label in first.values()]


def _check_missing(y: Any) -> None:
    """Raise ValueError for missing labels among strings; scikit-learn reports those of numbers."""
    values = np.asarray(y, dtype=object) if getattr(y, "ndim", 1) == 1 else np.empty(0)
    for number, value in enumerate(values):
        if value is None or type(value).__name__ == "NAType" or value is np.nan:
            raise ValueError(f"Input y contains NaN or None: y[{number}] is missing; remove it")


def _labels(targets: NDArray[Any], names: Sequence[str]) -> list[Any]:
    """Return the label of each text, or a list of labels. Raises ValueError for fewer than two."""
    multi_label = targets.ndim == 2
    used = np.flatnonzero(targets.any(axis=0)) if multi_label else np.unique(targets)
    if len(used) < 2:
        found = f"1 class, {excerpt(names[used[0]])}" if len(used) else "0 classes"
        raise ValueError(f"y has {found}, of texts that count; a classifier needs two or more")
    if multi_label:
        return [[names[column] for column in np.flatnonzero(row).tolist()] for row in targets]
    return [names[number] for number in targets.tolist()]


def _weights(sample_weight: Any, texts: int) -> NDArray[np.float64]:
    """Return the weights (B,) of texts, by default 1. Raises ValueError."""
    if sample_weight is None:
        return np.ones(texts)
    if isinstance(sample_weight, Real):
        return np.full(texts, float(sample_weight))
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.ndim != 1:
        raise ValueError(f"sample_weight: one number for each text, not an array {weights.shape}")
    if not weights.any():
        raise ValueError("sample_weight: all weights are zero; give some a larger one")
    return np.asarray(weights)


@contextmanager
def _value_errors(rows: Sequence[int] | NDArray[Any] | None = None) -> Iterator[None]:
    """Raise ValueError for wrong settings and texts. rows: the rows of X that were given, if some.

    Other errors, such as a full disk, stay what they are.
    """
    try:
        yield
    except DataError as error:
        if error.source != "texts" or error.line is None:
            raise ValueError(str(error)) from None
        row = error.line - 1 if rows is None else rows[error.line - 1]
        raise ValueError(f"X[{row}]: {error.problem}; {error.remedy}") from None
    except UsageError as error:
        raise ValueError(str(error)) from None
