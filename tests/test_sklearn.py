"""The estimator for scikit-learn: its conventions, parameters, pickles, and use by others."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import validate_data

import srucli
from srucli.errors import OutputError
from srucli.runs.run_dir import RunDir
from srucli.runtime import cores
from srucli.sklearn import SRUClassifier
from tests.support import RunMain, Tiny, child_environment, sentences

# A training that takes a fraction of a second.
FAST: dict[str, Any] = {"encoder": "bag", "embedding_size": 4, "bag_buckets": 64, "epochs": 2}
ROWS = sentences()[:240]
X, Y = [text for _, text in ROWS], [label for label, _ in ROWS]
MATRIX = np.array([[label == "good", "film" in text] for label, text in ROWS]).astype(int)


def fast(**others: Any) -> SRUClassifier:
    return SRUClassifier(**{**FAST, "random_state": 0, **others})


@pytest.fixture(scope="module")
def fitted() -> SRUClassifier:
    """Return an estimator that tests do not change."""
    return fast().fit(X, Y)


@pytest.fixture(scope="module")
def multi_label() -> SRUClassifier:
    return fast().fit(X, MATRIX)


# What it returns.


@pytest.mark.parametrize(
    "classes",
    [
        ["none", "good", "bad"],
        [9, 10, 11],
        [True, False, False],
        [0.0, 2.0, 1.0],
        np.array(["x", "yy", "zzz"], object),
    ],
)
def test_classes_keep_their_type(classes: list[Any]) -> None:
    y = np.asarray(classes)[[("none", "good", "bad").index(label) for label in Y]]
    estimator = fast().fit(X, y)
    assert estimator.classes_.tolist() == sorted(set(y.tolist()))
    assert estimator.classes_.dtype == y.dtype
    found, proba = estimator.predict(X), estimator.predict_proba(X)
    assert found.dtype == y.dtype
    assert estimator.score(X, y) > 0.9
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(estimator.classes_[proba.argmax(axis=1)], found)


def test_multi_label(multi_label: SRUClassifier) -> None:
    found, proba = multi_label.predict(X), multi_label.predict_proba(X)
    assert found.shape == proba.shape == MATRIX.shape
    assert set(found.ravel().tolist()) == {0, 1}
    assert multi_label.classes_.tolist() == [0, 1]
    assert multi_label.score(X, MATRIX) > 0.9
    assert 0.5 < proba.sum(axis=1).max() <= 2
    assert not found[MATRIX.sum(axis=1) == 0].any()  # a text may have no label


def test_multi_label_of_other_forms(multi_label: SRUClassifier) -> None:
    from scipy.sparse import csr_array

    expected = multi_label.predict_proba(X)
    for y in (csr_array(MATRIX), MATRIX.astype(bool), MATRIX.tolist(), MATRIX.astype(float)):
        np.testing.assert_array_equal(fast().fit(X, y).predict_proba(X), expected)


def test_a_label_without_texts_has_the_probability_0(multi_label: SRUClassifier) -> None:
    wider = np.insert(MATRIX, 1, 0, axis=1)
    estimator = fast().fit(X, wider)
    assert estimator.classes_.tolist() == [0, 1, 2]
    proba = estimator.predict_proba(X)
    np.testing.assert_array_equal(proba[:, 1], 0)
    np.testing.assert_array_equal(proba[:, [0, 2]], multi_label.predict_proba(X))
    assert not estimator.predict(X)[:, 1].any()


@pytest.mark.parametrize("package", ["numpy", "numpy objects", "tuple", "pandas", "polars"])
def test_containers_of_texts(fitted: SRUClassifier, package: str) -> None:
    if package in ("pandas", "polars"):
        with patch.dict(os.environ):  # Polars sets a variable
            module = pytest.importorskip(package)
        column, labels = module.Series(X), module.Series(Y)
    else:
        kind: dict[str, Callable[[list[str]], Any]]
        kind = {"numpy": np.array, "numpy objects": lambda x: np.array(x, object), "tuple": tuple}
        column, labels = kind[package](X), kind[package](Y)
    estimator = fast().fit(column, labels)
    np.testing.assert_array_equal(estimator.predict_proba(column), fitted.predict_proba(X))


def test_weights(fitted: SRUClassifier) -> None:
    heavy = np.where(np.array(Y) == "bad", 20.0, 1.0)
    assert (
        fast().fit(X, Y, heavy).predict_proba(["square"])[0, 0]
        > (fitted.predict_proba(["square"])[0, 0])
    )
    for ones in ([1] * len(X), 1.0):
        same = fast().fit(X, Y, ones)
        np.testing.assert_array_equal(same.predict_proba(X), fitted.predict_proba(X))


def test_texts_of_weight_0_are_left_out() -> None:
    weights = np.where(np.array(Y) == "none", 0, 1)
    left = [(text, label) for text, label in zip(X, Y, strict=True) if label != "none"]
    estimator, other = fast().fit(X, Y, weights), fast().fit(*zip(*left, strict=True))
    assert estimator.classes_.tolist() == ["bad", "good", "none"]
    proba = estimator.predict_proba(X)
    np.testing.assert_array_equal(proba[:, 2], 0)
    np.testing.assert_array_equal(proba[:, :2], other.predict_proba(X))


# What it refuses.


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([], [], "X: has 0 samples"),
        (["a", None], [0, 1], r"X\[1\] is missing, not a string; remove it"),
        (["a", float("nan")], [0, 1], r"X\[1\] is missing"),
        (["a", 7], [0, 1], r"X\[1\] is 7, not a string"),
        ("abc", [0, 1, 2], "X: a list of texts is needed, not one text"),
        (np.array([["a"], ["b"]]), [0, 1], r"one column of texts is needed, not .* \(2, 1\)"),
        (np.eye(2), [0, 1], "one column of texts is needed"),
        (np.arange(2.0), [0, 1], r"X\[0\] is 0.0, not a string"),
        (["a", "b\0"], [0, 1], r"X\[1\]: a NUL character"),
        (["a", "b"], None, "requires y to be passed, but the target y is None"),
        (["a", "b"], [1, 1], "y has 1 class, '1'"),
        (["a", "b", "c"], [0, 1], r"inconsistent numbers of samples: \[3, 2, 3\]"),
        (["a", "b"], ["good", None], r"y\[1\] is missing"),
        (["a", "b"], [1.0, float("nan")], "Input y contains NaN"),
        (["a", "b"], [0.5, 1.5], "Unknown label type: continuous"),
        (["a", "b"], [[1, 2], [0, 1]], "y should be a 1d array"),
        (["a", "b"], [[1, 0], [1, 0]], "y has 1 class, '0'"),
        (["a", "b"], [[0, 0], [0, 0]], "y has 0 classes"),
        (["a", "b"], ["", "b"], r"X\[0\]: no label for the text"),
        (["a", "b"], ["b ", "b"], "y has the classes 'b' and 'b ', which look the same"),
        (["a", "b"], ["1", "1.0"], "y has the classes '1' and '1.0', which look the same"),
    ],
)
def test_what_cannot_be_learned(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fast().fit(x, y)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "inconsistent numbers of samples"),
        ([[1], [1]], "one number for each text"),
        ([0, 0], "all weights are zero"),
        ([1, -1], r"X\[1\]: the weight of 'b' is '-1.0'"),
        ([1, float("nan")], "sample_weight contains NaN"),
        ([0, 1], "y has 1 class"),
    ],
)
def test_weights_that_cannot_be_used(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fast().fit(["a", "b"], [0, 1], sample_weight=weights)


def test_rows_in_messages_count_texts_of_weight_0() -> None:
    with pytest.raises(ValueError, match=r"X\[2\]: a NUL character"):
        fast().fit(["a", "b", "\0"], [0, 0, 1], sample_weight=[0, 1, 1])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([], "X: has 0 samples"),
        (["a", None], r"X\[1\] is missing"),
        ("a", "not one text"),
        (np.array([["a"]]), "one column"),
    ],
)
def test_what_cannot_be_predicted(fitted: SRUClassifier, x: Any, message: str) -> None:
    for predict in (fitted.predict, fitted.predict_proba):
        with pytest.raises(ValueError, match=message):
            predict(x)


def test_before_fit(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        fast().predict(X)
    with pytest.raises(NotFittedError):
        fast().save(tmp_path / "run")


# Parameters.


def test_parameters_by_both_names() -> None:
    given: dict[str, Any] = {"epochs": 3, "model.layers": 1}
    estimator = SRUClassifier(**given)
    others = {"base": None, "raw": None, "tokenizer": None, "config": None, "random_state": None}
    assert estimator.get_params() == {**others, "process": False, "verbose": 0, **given}
    estimator.set_params(layers=2, **{"train.epochs": 4, "optim.lr": 0.1}, verbose=1)
    new = {"layers": 2, "train.epochs": 4, "optim.lr": 0.1, "verbose": 1}
    assert estimator.get_params() == {**others, "process": False, **new}
    assert clone(estimator).get_params() == estimator.get_params()
    assert "layers=2" in repr(estimator)
    assert "epochs" in estimator._repr_html_()
    line = make_pipeline(estimator)
    line.set_params(**{"sruclassifier__model.layers": 3})
    assert line.get_params()["sruclassifier__model.layers"] == 3


WRONG = [
    ({"epoch": 3}, r"unknown setting 'epoch' \(did you mean 'epochs'\?\)"),
    ({"model.layer": 3}, "unknown setting 'model.layer'"),
    ({"epochs": 3, "train.epochs": 4}, "train.epochs is given twice"),
    ({"data.label": "x"}, "data.label: says how a labelled file is read"),
    ({"multi_label": True}, "data.multi_label: says how"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_names(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fast().set_params(**settings)
    with pytest.raises(ValueError, match=message):
        SRUClassifier(**settings).fit(X, Y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layers": 0}, "model.layers: "),
        ({"epochs": "many"}, "train.epochs: "),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"random_state": -1}, "train.seed: "),
        ({"random_state": "one"}, "cannot be used to seed"),
        ({"random_state": 1, "seed": 1}, "random_state and seed are both given"),
    ],
)
def test_wrong_values(parameters: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fast(**parameters).fit(X, Y)


def config_of(estimator: SRUClassifier, folder: Path) -> Any:
    """Return the settings of the run of an estimator."""
    return RunDir(estimator.save(folder / "run")).config()


@pytest.mark.parametrize(
    ("parameters", "seed"),
    [
        ({"random_state": 5}, 5),
        ({"random_state": np.int64(5)}, 5),
        ({"random_state": None, "seed": 6}, 6),
        ({"random_state": None, "config": "recipe.yaml"}, 7),
        ({"random_state": np.random.RandomState(1)}, 1791095845),
        ({"random_state": None}, 209652396),
    ],
)
def test_seeds(tmp_path: Path, parameters: dict[str, Any], seed: int) -> None:
    (tmp_path / "recipe.yaml").write_text("train: {seed: 7}")
    if "config" in parameters:
        parameters = {**parameters, "config": tmp_path / parameters["config"]}
    before = np.random.get_state()
    try:
        np.random.seed(0 if parameters["random_state"] is None else 9)
        assert config_of(fast(**parameters).fit(X, Y), tmp_path).train.seed == seed
    finally:
        np.random.set_state(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(tmp_path: Path, threads: int) -> None:
    """As torch, which joblib limits in its workers, and no more than cores; or as given."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        config = config_of(fast(epochs=1).fit(X, Y), tmp_path / "torch")
        assert config.train.threads == min(threads, cores())
        config = config_of(fast(epochs=1, threads=3).fit(X, Y), tmp_path / "given")
        assert config.train.threads == 3
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_verbose(capfd: pytest.CaptureFixture[str]) -> None:
    pickle.loads(pickle.dumps(fast().fit(X, Y))).predict(X)
    assert capfd.readouterr() == ("", "")
    fast().fit([*X, "a lonely text"], [*Y, "rare"])
    assert capfd.readouterr() == ("", "1 label has one training example only: 'rare'\n")
    fast(verbose=1).fit(X, Y)
    out, err = capfd.readouterr()
    assert not out
    assert "240 examples" in err or "216 examples" in err


def test_start_from_a_run(tiny: Tiny) -> None:
    """Its labels that y lacks are no classes."""
    two = [(text, label) for text, label in zip(X, Y, strict=True) if label != "none"]
    x, y = zip(*two, strict=True)
    estimator = SRUClassifier(base=tiny.run, epochs=1, random_state=0).fit(x, y)
    assert estimator.classes_.tolist() == ["bad", "good"]
    np.testing.assert_allclose(estimator.predict_proba(X).sum(axis=1), 1, atol=1e-6)
    assert set(estimator.predict(X)) == {"bad", "good"}
    assert estimator.score(x, y) > 0.9


def test_tokenizer_and_raw_text(tiny: Tiny, tmp_path: Path) -> None:
    tokenizer = tiny.run / "tokenizer.model"
    estimator = fast(tokenizer=tokenizer).fit(X, Y)
    saved = RunDir(estimator.save(tmp_path / "run")).tokenizer()
    assert saved.model_bytes == tokenizer.read_bytes()
    raw = fast(raw=X, **{"pretrain.epochs": 1}).fit(X, Y)
    assert RunDir(raw.save(tmp_path / "raw")).facts().base is not None


def test_in_a_process_of_its_own(fitted: SRUClassifier) -> None:
    estimator = fast(process=True).fit(X, Y)
    np.testing.assert_allclose(estimator.predict_proba(X), fitted.predict_proba(X), atol=1e-4)


# Pickles and run folders.

OTHER_PROCESS = """
import sys, joblib
print(*joblib.load(sys.argv[1]).predict(["lovely", "awful", "wooden"]))
"""


def test_pickle_in_another_process(fitted: SRUClassifier, tmp_path: Path) -> None:
    joblib.dump(fitted, tmp_path / "estimator.joblib")
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, tmp_path / "estimator.joblib"],
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("good bad none\n", "")


@pytest.mark.parametrize("copied", [deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies(fitted: SRUClassifier, copied: Callable[[SRUClassifier], SRUClassifier]) -> None:
    copy = copied(fitted)
    np.testing.assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))
    assert copy.get_params() == fitted.get_params()
    assert copy.set_params(epochs=1).fit(X, Y).score(X, Y) > 0.9


def test_pickle_has_no_code(fitted: SRUClassifier) -> None:
    found = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.add(f"{module}.{name}")
            return super().find_class(module, name)

    Reader(io.BytesIO(pickle.dumps(fitted))).load()
    assert "srucli.sklearn.SRUClassifier" in found
    others = found - {"srucli.sklearn.SRUClassifier"}
    assert {name.partition(".")[0] for name in others} == {"numpy"}  # of `classes_`


def test_memory_has_the_run_once(fitted: SRUClassifier, tmp_path: Path) -> None:
    """The folder of the training is gone, and a second prediction unpacks nothing."""
    copy = deepcopy(fitted)
    copy.predict(X)
    loaded = copy._classifier
    assert loaded is not None
    assert not loaded.path.exists()
    copy.predict(X)
    assert copy._classifier is loaded


def test_save(fitted: SRUClassifier, run_main: RunMain, tmp_path: Path) -> None:
    run = fitted.save(tmp_path / "run")
    assert run == tmp_path / "run"
    assert srucli.load(run).predict(X) == fitted.predict(X).tolist()
    done = run_main("predict", run, "-", input="\n".join(X[:5]) + "\n")
    assert done.out.split() == fitted.predict(X[:5]).tolist()
    with pytest.raises(OutputError):
        fitted.save(run)


# With the rest of scikit-learn.


def test_grid_search_in_two_processes() -> None:
    grid = {"sruclassifier__train.epochs": [1, 2], "sruclassifier__embedding_size": [4]}
    search = GridSearchCV(make_pipeline(fast()), grid, cv=2, n_jobs=2, error_score="raise")
    search.fit(X, Y)
    assert len(search.cv_results_["params"]) == 2
    assert search.score(X, Y) > 0.9
    best = search.best_estimator_[-1].get_params()
    assert {name for name in best if "epochs" in name} == {"train.epochs"}


def test_cross_validation() -> None:
    macro = make_scorer(f1_score, average="macro", pos_label=None)
    assert cross_val_score(fast(), X, Y, cv=2, scoring=macro).min() > 0.8
    assert cross_val_score(fast(), X, Y, cv=2, scoring="neg_log_loss").min() > -1
    proba = cross_val_predict(fast(), X, Y, cv=2, method="predict_proba")
    assert proba.shape == (len(X), 3)
    proba = cross_val_predict(fast(), X, MATRIX, cv=2, method="predict_proba")
    assert proba.shape == MATRIX.shape


@pytest.mark.parametrize(
    "made",
    [
        lambda: CalibratedClassifierCV(fast(), cv=2),
        lambda: VotingClassifier([("sru", fast()), ("linear", linear())], voting="soft"),
        lambda: StackingClassifier([("sru", fast()), ("linear", linear())], cv=2),
    ],
)
def test_other_estimators(made: Callable[[], Any]) -> None:
    estimator = made().fit(X, Y)
    assert estimator.predict_proba(X).shape == (len(X), 3)
    assert estimator.score(X, Y) > 0.9


def linear() -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


def test_tags() -> None:
    tags = get_tags(fast())
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert tags.classifier_tags.multi_label
    assert tags.classifier_tags.multi_class
    assert tags.target_tags.required


# scikit-learn tests only estimators of numbers. This one writes the numbers as texts.


class OfNumbers(SRUClassifier):
    """Learns from a matrix: each value is a word of its column and its rounded value."""

    def __init__(
        self,
        *,
        base: Any = None,
        raw: Any = None,
        tokenizer: Any = None,
        config: Any = None,
        random_state: Any = None,
        process: bool = False,
        verbose: int = 0,
        **settings: Any,
    ) -> None:
        parameters = {name: value for name, value in locals().items() if name in PARAMETERS}
        super().__init__(**parameters, **settings)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> OfNumbers:
        super().fit(self._as_texts(X, reset=True), y, sample_weight)
        return self

    def predict(self, X: Any) -> Any:
        return super().predict(self._as_texts(X))

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(self._as_texts(X))

    def _as_texts(self, X: Any, reset: bool = False) -> Any:
        if isinstance(X, list) and X and isinstance(X[0], str):  # predict calls predict_proba
            return X
        matrix = validate_data(self, X, reset=reset, dtype="numeric").astype(float)
        names = "abcdefghijklmnopqrstuvwxyz"
        return [
            " ".join(f"{name}{round(2 * value)}" for name, value in zip(names, row, strict=False))
            for row in matrix
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = False, True
        return tags


PARAMETERS = ("base", "raw", "tokenizer", "config", "random_state", "process", "verbose")
NOT_FOR_TEXTS = {
    "check_do_not_raise_errors_in_init_or_set_params": "it sets `settings`, which is no name of a "
    "parameter, but stands for all settings; an unknown name raises ValueError",
    "check_sample_weight_equivalence_on_dense_data": "a text of the weight 2 is no two texts: "
    "batches, held-out examples and the tokenizer depend on the number of texts",
}


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [OfNumbers(**FAST)], expected_failed_checks=lambda _: NOT_FOR_TEXTS
)
@pytest.mark.filterwarnings("ignore")
def test_check_of_scikit_learn(
    estimator: Any, check: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    check(estimator)


def test_check_estimator() -> None:
    with pytest.warns(SkipTestWarning, match="Can't test estimator SRUClassifier"):
        check_estimator(fast())


# Its import.


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import srucli, sys; srucli.train; print('sklearn' in sys.modules)", "False"),
        (
            "import sys; sys.modules['sklearn'] = None\n"
            "try: import srucli.sklearn\nexcept ImportError as error: print(error)",
            "pip install 'srucli[sklearn]'",
        ),
    ],
)
def test_import(code: str, expected: str) -> None:
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=child_environment(), capture_output=True, text=True)
    assert done.stdout.strip().endswith(expected), done.stderr
