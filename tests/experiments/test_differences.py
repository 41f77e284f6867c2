"""Whether groups of seeds differ, compared with scipy's Welch test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_ind

from srucli.experiments.differences import MIN_TEXTS, doubt, interval

ONE, OTHER = [0.80, 0.83, 0.81], [0.78, 0.79, 0.74, 0.80]


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("one", "other"), [(ONE, OTHER), (OTHER, ONE), (ONE, [0.5, 0.51])])
def test_the_interval_equals_scipys(one: list[float], other: list[float], level: float) -> None:
    wanted = ttest_ind(one, other, equal_var=False).confidence_interval(level)
    assert interval(one, other, level) == pytest.approx((wanted.low, wanted.high))


def test_intervals_cover_the_difference_as_often_as_they_claim() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        one, other = draw.normal(0.8, 0.01, 3), draw.normal(0.77, 0.03, 3)
        low, high = interval(one.tolist(), other.tolist(), 0.95)
        held += low <= 0.03 <= high
    assert 0.93 <= held / 1000 <= 0.99


def test_fewer_than_six_texts_are_not_significant_in_the_exact_test() -> None:
    assert binomtest(MIN_TEXTS, MIN_TEXTS).pvalue < 0.05
    assert binomtest(MIN_TEXTS - 1, MIN_TEXTS - 1).pvalue > 0.05


@pytest.mark.parametrize(
    ("one", "other", "more", "said"),
    [
        (ONE, [0.5, 0.52, 0.51], {}, None),
        (ONE, OTHER[:1], {}, "there is only one seed"),
        (ONE[:1], [0.2, 0.3], {}, "there is only one seed"),
        (
            *(ONE, OTHER, {"scale": 100, "unit": " points"}),
            "over seeds the difference of 3.58 points has the 95% interval -0.528 to 7.69",
        ),
        (
            *(OTHER, ONE, {}),
            "over seeds the difference of 0.0358 has the 95% interval -0.0769 to 0.00528",
        ),
        (ONE, ONE, {}, "over seeds the difference of 0 has the 95% interval -0.0346 to 0.0346"),
        ([0.9, 0.9], [0.9, 0.9], {}, "they are level with every seed"),
        ([0.9, 0.9], [0.8, 0.8], {}, None),
        (
            [0.9, 0.9],
            [0.8, 0.8],
            {"texts": 59, "share": True},
            "the difference is about 5.9 of 59 texts",
        ),
        ([0.9, 0.9], [0.8, 0.8], {"texts": 61, "share": True}, None),
        (
            [0.8, 0.8],
            [0.9, 0.9],
            {"texts": 59, "share": True},
            "the difference is about 5.9 of 59 texts",
        ),
        ([0.8, 0.8], [0.9, 0.9], {"texts": 61, "share": True}, None),
        ([0.9, 0.9], [0.8, 0.8], {"texts": 6}, None),
        ([0.9, 0.9], [0.8, 0.8], {"texts": 5}, "there are only 5 texts"),
        ([0.9, 0.9], [0.8, 0.8], {"texts": 1}, "there is only one text"),
        ([0.82, 0.80, 0.81], [0.78, 0.77, 0.79], {"level": 0.95}, None),
        (
            *([0.82, 0.80, 0.81], [0.78, 0.77, 0.79], {"level": 0.99}),
            "over seeds the difference of 0.03 has the 99% interval -0.00759 to 0.0676",
        ),
    ],
    ids=[
        *("far apart", "one seed of the other", "one seed", "overlap in points", "overlap"),
        *("the same", "the same without spread", "without spread", "few texts", "texts enough"),
        *("few texts the other way", "texts enough the other way", "shares of none", "hardly any"),
        *("one text", "at 95%", "at 99%"),
    ],
)
def test_reasons_for_doubt(
    one: list[float], other: list[float], more: dict[str, object], said: str | None
) -> None:
    assert doubt(one, other, **more) == said  # type: ignore[arg-type]
