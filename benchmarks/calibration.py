"""The calibration error that a perfectly calibrated model would show.

The error of a finite test set is not zero even then: with few texts, the share that is right in a
bin of confidences differs from the mean confidence by chance. `srucli eval` reports where a model
must be worse than chance (the 95% quantile); the mean here can be subtracted from a measured error.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import numpy as np

from srucli.metrics import METRICS, Outcome

DRAWS = 200


def outcome_of(confidences: np.ndarray, right: np.ndarray) -> Outcome:
    """Return decisions (N,) with their confidences as an outcome of one class, which is right."""
    return Outcome(confidences[:, None], np.where(right, 0, 1))


def read_predictions(file: Path) -> Outcome:
    """Return the decisions of a single-label `srucli eval --predictions FILE.jsonl`."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    right = np.array([row["gold"] == row["predicted"] for row in rows])
    return outcome_of(np.array([row["probability"] for row in rows]), right)


def calibrated_error(outcome: Outcome) -> float:
    """Return the mean calibration error of models whose decisions are right by their confidences.

    The confidences, and so the number of texts in each bin, are those of the outcome.
    """
    confidences, draw = outcome.probabilities.max(axis=1), np.random.default_rng(0)
    simulated = (
        outcome_of(confidences, draw.random(len(confidences)) < confidences) for _ in range(DRAWS)
    )
    return fmean(METRICS["calibration_error"](each) for each in simulated)
