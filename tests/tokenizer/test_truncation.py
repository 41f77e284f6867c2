"""Length limits, and messages about truncated texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from srucli.config import TrainConfig
from srucli.tokenizer.truncation import MAX_ACTIVATIONS, MAX_TEXT_TOKENS, Limits, Notices, Tally


@pytest.mark.parametrize(
    ("settings", "activations", "longest", "encoder"),
    [
        pytest.param({}, 2**10, 2**20, MAX_ACTIVATIONS // 2**10, id="by memory"),
        pytest.param({}, 2**20, 2**20, 8_192, id="never less than a batch"),
        pytest.param({"batch_tokens": 50}, 2**20, 2**20, 128, id="of small batches more"),
        pytest.param({}, 2**10, 1_024, 1_024, id="by time"),
        pytest.param({}, 1, 2**20, MAX_TEXT_TOKENS, id="never more than is read"),
    ],
)
def test_memory_limits_what_the_encoder_reads(
    settings: dict[str, int], activations: int, longest: int, encoder: int
) -> None:
    limits = Limits.of(TrainConfig(**settings), activations, longest, ngrams=True)
    assert limits == (MAX_TEXT_TOKENS, encoder, False, True)


def test_max_tokens_limits_all_that_is_read() -> None:
    limits = Limits.of(TrainConfig(max_tokens=300_000), 2**20, 1_024, ngrams=False)
    assert limits == (300_000, 300_000, True, False)


WHOLE = Tally(texts=10)
LIMITS = Limits(2_000, 1_500)
SOME = Tally(1_000, 12, 30, 4, 567, 2, LIMITS)


@pytest.mark.parametrize(
    ("tally", "sentences"),
    [
        pytest.param(WHOLE, [], id="all read whole"),
        pytest.param(
            Tally(100, cut=12, limits=Limits(1_024, 1_024, chosen=True)),
            ["12 of 100 texts were cut at 1,024 tokens (train.max_tokens)"],
            id="cut by the setting",
        ),
        pytest.param(
            SOME,
            [
                "12 of 1,000 texts were cut at 2,000 tokens (the most that is read of a text)",
                "30 of 1,000 texts were longer than the 1,500 tokens that the encoder reads: it "
                "read their beginning and end, and the linear model all of it",
                "4 of 1,000 texts have characters that the tokenizer does not know "
                "(unknown tokens: 567)",
                "2 of 1,000 texts have no tokens: they are empty, or become so when normalized",
            ],
            id="every kind",
        ),
        pytest.param(
            Tally(3, encoded_in_part=1, limits=Limits(encoder=9, ngrams=False)),
            [
                "1 of 3 texts were longer than the 9 tokens that the encoder reads: it read their "
                "beginning and end"
            ],
            id="nothing else reads",
        ),
    ],
)
def test_sentences(tally: Tally, sentences: list[str]) -> None:
    assert list(tally.sentences().values()) == sentences


def test_tallies_are_added_subtracted_and_stored_as_json() -> None:
    more = Tally(10, 1, 2, 3, 4, 5, LIMITS)
    assert SOME + more == Tally(1_010, 13, 32, 7, 571, 7, LIMITS)
    assert SOME + more - SOME == more
    assert WHOLE + more == Tally(20, 1, 2, 3, 4, 5, LIMITS)
    kept: Any = json.loads(json.dumps(SOME.to_json()))
    assert kept["cut"] == 12
    assert kept["limits"] == {"text": 2_000, "encoder": 1_500, "chosen": False, "ngrams": True}
    assert Tally.from_json(kept) == SOME


def test_a_stream_is_reported_once_and_at_its_end() -> None:
    notices = Notices("x.txt")
    assert not list(notices.first(WHOLE))
    cut = "x.txt: {} of {} texts were cut at 1,048,576 tokens (the most that is read of a text)"
    assert list(notices.first(WHOLE + Tally(2, cut=1))) == [cut.format(1, 12)]
    empty = "x.txt: 1 of 14 texts have no tokens: they are empty, or become so when normalized"
    assert list(notices.first(Tally(14, cut=2, without_tokens=1))) == [empty]
    assert list(notices.last(Tally(14, cut=2, without_tokens=1))) == [cut.format(2, 14)]
    assert list(notices.last(Tally(12, cut=1))) == []
