"""Steps, epochs and positions of the data loader, on non-ASCII texts."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from srucli.config import resolve
from srucli.data.batch import Batch, order
from srucli.data.dataset import Dataset
from srucli.data.loader import DataLoader
from srucli.data.readers import Example
from srucli.data.store import TokenStore
from srucli.tokenizer.model import Tokenizer
from srucli.tokenizer.training import train_tokenizer
from srucli.tokenizer.truncation import Limits

LABELS = ["ärger", "freude", "무"]
WORDS = ["schön", "größte", "좋은", "übel", "나쁜", "blau", "zwölf", "straße", "süß"]
EXAMPLES = 45
Step = list[list[int]]


def examples() -> list[Example]:
    """Texts of 1 to 9 words."""
    draw = np.random.default_rng(0)
    rows = [" ".join(draw.choice(WORDS, draw.integers(1, 10))) for _ in range(EXAMPLES)]
    return [Example(text, (LABELS[n % 3],), n + 1) for n, text in enumerate(rows)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    config = resolve(overrides=["tokenizer.vocab_size=60"]).tokenizer
    texts = [each.text for each in examples()] * 4
    return train_tokenizer(texts, config, lower_vocab=True).tokenizer


def make(tokenizer: Tokenizer, *overrides: str, rows: list[Example] | None = None) -> DataLoader:
    settings = ["train.epochs=3", "train.batch_size=8", *overrides]
    config = resolve(overrides=settings).train
    data = Dataset.make(rows or examples(), LABELS, False, "train.tsv")
    most = config.max_tokens or 2**20
    return DataLoader(config, data, tokenizer, Limits(most, most), torch.device("cpu"))


def taken(loader: DataLoader) -> list[list[Step]]:
    """Return the tokens of each batch of each step of each remaining epoch."""
    epochs = []
    for steps in loader.epochs_left():
        epochs.append([[batch.tokens.tolist() for batch in step] for step in steps])
        loader.end_epoch()
    return epochs


def flat(steps: list[Step]) -> list[int]:
    return sorted(token for step in steps for batch in step for token in batch)


def texts(store: TokenStore) -> list[list[int]]:
    bounds = zip(store.offsets, store.offsets[1:], strict=False)
    return [store.ids[start:stop].tolist() for start, stop in bounds]


# --- epochs ------------------------------------------------------------------------------------


def test_seed_and_number_determine_the_order_of_an_epoch(tokenizer: Tokenizer) -> None:
    settings = ("train.seed=5", "train.subword_dropout=0", "train.batch_tokens=70")
    loader = make(tokenizer, *settings)
    found = taken(loader)
    rows = texts(loader.store)
    for epoch, steps in enumerate(found):
        batches = order(loader.store.lengths, 8, 70, (5, epoch))
        assert steps == [[[t for n in batch for t in rows[n]]] for batch in batches]
    assert found[0] != found[1] != found[2] != found[0]


def test_each_epoch_has_every_example_once(tokenizer: Tokenizer) -> None:
    loader = make(tokenizer, "train.subword_dropout=0", "train.accumulate=4")
    epochs = taken(loader)
    assert len(epochs) == 3
    assert {tuple(flat(steps)) for steps in epochs} == {tuple(sorted(loader.store.ids.tolist()))}
    assert [len(step) for steps in epochs for step in steps] == [4, 2] * 3
    assert loader.position.texts == 3 * EXAMPLES
    assert loader.position.pieces == 3 * len(loader.store.ids)


def test_each_epoch_samples_new_tokens(tokenizer: Tokenizer) -> None:
    loader = make(tokenizer, "train.subword_dropout=0.3", "train.seed=2")
    ids = [loader.tokenize(epoch).ids.tolist() for epoch in (0, 1, 0)]
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]
    other = make(tokenizer, "train.subword_dropout=0.3", "train.seed=3")
    # Neighbouring seeds share no epoch's draw.
    assert other.tokenize(0).ids.tolist() not in ids
    assert other.tokenize(1).ids.tolist() not in ids


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        pytest.param("train.subword_dropout=0.3", 3, id="sampled"),
        pytest.param("train.subword_dropout=0", 1, id="not sampled"),
    ],
)
def test_tokens_without_sampling_are_computed_once(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, settings: str, times: int
) -> None:
    seeds: list[int] = []
    real = TokenStore.encode

    def encode(*arguments: Any, seed: int, **rest: Any) -> TokenStore:
        seeds.append(seed)
        return real(*arguments, seed=seed, **rest)

    monkeypatch.setattr(TokenStore, "encode", encode)
    loader = make(tokenizer, settings)
    loader.tokenize(0)  # as diagnostics do before the first epoch
    taken(loader)
    assert seeds == list(range(times))


@pytest.mark.parametrize("kind", ["word", "char"])
def test_only_unigram_and_bpe_models_sample(tokenizer: Tokenizer, kind: str) -> None:
    config = resolve(overrides=["tokenizer.vocab_size=40", f"tokenizer.model_type={kind}"])
    rows = [each.text for each in examples()] * 4
    other = train_tokenizer(rows, config.tokenizer, lower_vocab=True).tokenizer
    assert not other.samples(0.3)
    assert tokenizer.samples(0.3)
    assert not tokenizer.samples(0)


def test_the_store_has_truncated_tokens_and_targets(tokenizer: Tokenizer) -> None:
    loader = make(tokenizer, "train.max_tokens=4", "train.subword_dropout=0")
    store = loader.tokenize(0)
    assert store.lengths.max() == 4
    assert store.targets is not None
    assert store.targets.tolist() == loader.data.targets.tolist()
    ids, offsets = tokenizer.encode(loader.data.texts)
    assert store.ids[: store.offsets[1]].tolist() == ids[: offsets[1]][:4].tolist()


def test_truncated_texts_are_reported_once(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    taken(make(tokenizer, "train.max_tokens=4", "train.subword_dropout=0"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.tsv: ")
    assert "of 45 texts were cut at 4 tokens" in line


def test_a_gpu_gets_the_same_steps(tokenizer: Tokenizer) -> None:
    """A thread tokenizes the next epoch; the `meta` device stands for a GPU."""
    plain = make(tokenizer, "train.accumulate=2")
    ahead = make(tokenizer, "train.accumulate=2")
    ahead.device = torch.device("meta")
    for one, other in zip(plain.epochs_left(), ahead.epochs_left(), strict=True):
        sizes = [[(b.texts, b.tokens.numel()) for b in step] for step in one]
        assert sizes == [[(b.texts, b.tokens.numel()) for b in step] for step in other]
        assert plain.position == ahead.position
        plain.end_epoch()
        ahead.end_epoch()


# --- positions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_a_restored_position_has_the_same_batches_left(tokenizer: Tokenizer, steps: int) -> None:
    whole = [step for steps in taken(make(tokenizer, "train.accumulate=2")) for step in steps]
    first = make(tokenizer, "train.accumulate=2")
    done: list[list[Batch]] = []
    for left in first.epochs_left():
        done += islice(left, steps - len(done))
        first.end_epoch()
        if len(done) == steps:
            break
    second = make(tokenizer, "train.accumulate=2")
    second.load_state_dict(first.state_dict())
    assert second.position == first.position
    assert second.position.step == steps
    assert [step for steps in taken(second) for step in steps] == whole[steps:]
    assert second.is_exhausted


def test_steps_end_an_epoch_early(tokenizer: Tokenizer) -> None:
    loader = make(tokenizer, "train.steps=8")
    first, second = islice(loader.epochs_left(), 2)
    assert (len(list(first)), loader.is_exhausted) == (6, False)
    loader.end_epoch()
    assert (loader.epoch_number, loader.position.epoch) == (1, 1)
    list(islice(second, 2))
    assert loader.is_exhausted
    loader.end_epoch()
    assert (loader.epoch_number, loader.position.epoch, loader.steps_of_epoch) == (2, 1, 2)


@pytest.mark.parametrize("done", [2, 12], ids=["a whole step", "the short last one"])
def test_the_latest_step_returns_its_examples(tokenizer: Tokenizer, done: int) -> None:
    loader = make(tokenizer, "train.batch_size=2", "train.accumulate=2", "train.epochs=1")
    for steps in loader.epochs_left():
        list(islice(steps, done))
    batches = order(loader.store.lengths, 2, loader.settings.batch_tokens, (0, 0))
    assert len(batches) == 23
    wanted = batches[2:4] if done == 2 else batches[22:]
    assert loader.latest_step().tolist() == np.concatenate(wanted).tolist()


OTHERS = {
    "train.batch_size=9",
    "train.batch_tokens=99",
    "train.accumulate=2",
    "train.max_tokens=9",
    "train.subword_dropout=0.2",
    "train.seed=1",
}


def test_what_the_fingerprint_depends_on(tokenizer: Tokenizer) -> None:
    """It depends on each of six settings and on the texts, and on nothing else."""
    known = make(tokenizer).fingerprint
    assert len({make(tokenizer, override).fingerprint for override in OTHERS} | {known}) == 7
    for override in (
        "optim.lr=0.1",
        "train.epochs=9",
        "train.use_checkpoint=best",
        "train.save_steps=2",
    ):
        assert make(tokenizer, override).fingerprint == known
    first, *rest = examples()
    assert make(tokenizer, rows=[first._replace(text="ß"), *rest]).fingerprint != known


def test_with_other_batches_the_epoch_starts_again(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make(tokenizer)
    epochs = first.epochs_left()
    list(next(epochs))
    first.end_epoch()
    list(islice(next(epochs), 3))
    other = make(tokenizer, "train.batch_size=9")
    other.load_state_dict(first.state_dict())
    assert other.position == first.position.model_copy(
        update={"batches": 0, "taken": 0, "texts": EXAMPLES}
    )
    said = "the texts or their batches have changed: epoch 2 starts again"
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("bad", [-1, "x", 1.5, None], ids=str)
def test_an_invalid_position_is_refused(tokenizer: Tokenizer, bad: Any) -> None:
    state = make(tokenizer).state_dict()
    state["progress"]["batches"] = bad
    with pytest.raises(ValueError, match="batches"):
        make(tokenizer).load_state_dict(state)
