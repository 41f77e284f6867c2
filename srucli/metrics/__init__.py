"""Metrics from probabilities and targets."""

from srucli.metrics.classes import ClassMetrics, confused, confusion, per_class, reliability
from srucli.metrics.intervals import (
    MIN_RESAMPLED,
    calibration_by_chance,
    confidence_intervals,
    wilson,
)
from srucli.metrics.outcome import (
    Array,
    Floats,
    Outcome,
    check_finite,
    check_size,
    decide,
    encode,
)
from srucli.metrics.paired import Difference, correct, differences, mcnemar
from srucli.metrics.pooled import Pooled, Portion, pooled
from srucli.metrics.table import BINS, METRICS, measure, metric_named
from srucli.metrics.thresholds import choose_thresholds
