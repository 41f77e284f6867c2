"""Cross-validate from Python."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from srucli.api.sources import labels_of, source_of
from srucli.api.training import (
    Name,
    settings_of,
    tell_that_nothing_is,
    tell_what_is_kept,
)
from srucli.config import resolve, with_settings
from srucli.data.dataset import read_as_written
from srucli.data.given import Given, display_name
from srucli.errors import InterruptedRun
from srucli.experiments.crossval import check, crossval_examples
from srucli.experiments.crossval_results import Crossval
from srucli.experiments.fold_trials import Plan
from srucli.io import console
from srucli.io.folders import temporary_folder


def crossval(
    texts: Any,
    labels: Any = None,
    *,
    groups: Any = None,
    weights: Any = None,
    folds: int = 5,
    repeats: int = 1,
    config: Name | None = None,
    output: Name | None = None,
    jobs: int = 0,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Crossval:
    """Cross-validate a recipe on labelled texts, as `srucli crossval` does.

    texts, labels, weights, config, settings: see `train`. groups: for each text a group, such as
    its author, whose texts are never in two folds. folds: how many. repeats: how often folds are
    drawn. output: the folder of the results, where the same call resumes what was stopped; without
    it they are kept only in memory. jobs: folds at once; 0: one per core, or one on a GPU. force:
    replace another cross-validation in that folder. quiet: show warnings only.

    Raises what `train` raises, and SrucliError on Windows.

    >>> found = srucli.crossval(texts, labels, epochs=5)
    >>> found.summary["accuracy"].mean, found.probabilities.shape
    """
    labels = None if labels is None else labels_of(labels)  # once, since it may be a generator
    given = settings_of(settings, labels, weights=weights, groups=groups)
    plan = Plan(with_settings(resolve(Path(config) if config else None), given), folds, repeats)
    check(plan)
    source = source_of(texts, labels, weights=weights, groups=groups)
    reads = [] if isinstance(source, Given) else [os.fspath(source)]
    with ExitStack() as stack:
        if quiet:
            stack.enter_context(console.quiet())
        if output is None:
            folder = Path(stack.enter_context(temporary_folder()), "crossval")
        else:
            folder = Path(output)
        examples, _ = read_as_written(source, plan.config.data)
        how: dict[str, Any] = {"source": display_name(source), "reads": reads}
        try:
            found = crossval_examples(plan, examples, folder, jobs=jobs, force=force, **how)
        except InterruptedRun as error:
            (tell_what_is_kept if output else tell_that_nothing_is)(error)
            raise KeyboardInterrupt from None
    return found if output else replace(found, predictions=None)
