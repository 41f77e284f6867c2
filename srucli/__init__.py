"""Train small, fast text classifiers from raw text.

    import srucli

    classifier = srucli.train(texts, labels, output="runs/reviews")
    classifier.predict(["what a lovely film"])

    classifier = srucli.load("runs/reviews")
    classifier.predict_proba(["what a lovely film"])

Names are imported when they are first used, because torch loads slowly. Nothing is imported here:
under `python -m srucli` the current folder comes first in `sys.path` until `__main__.py` removes
it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from srucli.api.classifier import Classifier, Prediction, load
    from srucli.api.crossval import crossval
    from srucli.api.process import tune_process
    from srucli.api.training import train
    from srucli.errors import SrucliError
    from srucli.model.drop_in import SRU
    from srucli.tokenizer.model import Tokenizer

    __version__: str

__all__ = [
    "SRU",
    "Classifier",
    "Prediction",
    "SrucliError",
    "Tokenizer",
    "__version__",
    "crossval",
    "load",
    "train",
    "tune_process",
]

_MODULES = {
    "Classifier": "srucli.api.classifier",
    "Prediction": "srucli.api.classifier",
    "SRU": "srucli.model.drop_in",
    "SrucliError": "srucli.errors",
    "Tokenizer": "srucli.tokenizer.model",
    "crossval": "srucli.api.crossval",
    "load": "srucli.api.classifier",
    "train": "srucli.api.training",
    "tune_process": "srucli.api.process",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            return version("srucli")
        if name in _MODULES:
            from importlib import import_module

            return getattr(import_module(_MODULES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
