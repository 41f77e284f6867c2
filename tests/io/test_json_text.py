"""JSON that is always valid and readable, and untrusted numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from srucli.io.json_text import json_text, json_value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("긍정 é नमस्ते می\u200cخواهم 東京\u3000駅", None),
        ("\x9b31m\x7f\x85", r"\u009b31m\u007f\u0085"),
        ("\u2028\u2029\u202e\u2066\u200b\ufeff", r"\u2028\u2029\u202e\u2066\u200b\ufeff"),
        ("\x1b\t\n", r"\u001b\t\n"),
        ("half \ud800", r"half \ud800"),
        ("\U000e0041", r"\udb40\udc41"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_controls_are_escaped_and_scripts_stay(
    text: str, written: str | None, indent: int | None
) -> None:
    line = json_text({text: [text]}, indent)
    assert line.count(f'"{text if written is None else written}"') == 2
    assert json.loads(line) == {text: [text]}
    assert line.encode()


def test_numbers_that_are_not_finite_are_null() -> None:
    assert json_text({"a": math.nan, "b": [(math.inf, 1.5)]}) == '{"a": null, "b": [[null, 1.5]]}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", None),
        ("[-Infinity, 1e999, -1e999]", [None] * 3),
        ("9" * 5000, None),
        ("1" + "0" * 20, 1e20),
        ("-123456789012345678", -1.2345678901234568e17),
        ("123456789012345678", 123456789012345678),
        ("1.5e3", 1500.0),
    ],
)
def test_numbers_fit_64_bits_or_are_none(text: str, value: Any) -> None:
    assert json_value(text) == value
