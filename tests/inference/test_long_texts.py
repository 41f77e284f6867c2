"""Truncated texts: every command reports them; by default almost none are truncated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srucli.config import Config, ModelConfig, resolve
from srucli.data.batch import Batch, Ints, order
from srucli.data.store import TokenStore
from srucli.inference.forward import all_logits, is_wide, limited
from srucli.inference.predictor import Predictor
from srucli.model.classifier import Classifier
from srucli.model.encoders import ENCODERS
from srucli.runs.run_dir import read_records
from srucli.tokenizer.truncation import MAX_TEXT_TOKENS, Limits, Tally
from srucli.training.objectives import loss_function
from srucli.training.step import Step
from tests.support import QUICK, RunMain, Tiny, write_tsv

KNOWN = "the soup was lovely and the train was awful "
SHORT = [("good", "the soup was lovely"), ("bad", "the train was awful")] * 8
LONG = [("good", KNOWN * 30), ("bad", KNOWN * 40), ("bad", KNOWN * 50)]
ODD = [("good", "\u3042 soup"), ("bad", "\u200b")]
# Three texts are long, one has an unknown character, one is empty after normalization.
TRAIN, DEV = SHORT + LONG, SHORT + LONG[:2] + ODD
NETWORK = ("--threads", 1, "--epochs", 1, *(word for word in QUICK if "dev_share" not in str(word)))
CUT = "{}: {} of {} texts were cut at 50 tokens (train.max_tokens)"
UNKNOWN = "{}: 1 of {} texts have characters that the tokenizer does not know (unknown tokens: 1)"
EMPTY = "{}: 1 of {} texts have no tokens: they are empty, or become so when normalized"


def warnings_in(stderr: str) -> list[str]:
    """Return the lines about truncated texts, unknown characters and empty texts."""
    return [
        line for line in stderr.splitlines() if " texts were " in line or " texts have " in line
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with labelled train and dev files, and a file of texts without labels."""
    made = tmp_path_factory.mktemp("long")
    write_tsv(made / "train.tsv", TRAIN)
    write_tsv(made / "dev.tsv", DEV)
    (made / "texts.txt").write_text("".join(f"{text}\n" for _, text in DEV), encoding="utf-8")
    return made


@pytest.fixture
def cut_run(folder: Path, run_main: RunMain) -> Path:
    """Train a run with train.max_tokens=50."""
    run = folder / "run"
    if not run.exists():
        files = folder / "train.tsv", "--dev", folder / "dev.tsv", "-o", run
        ended = run_main("train", *files, *NETWORK, "train.max_tokens=50")
        assert ended.code == 0, ended.err
        (folder / "said.txt").write_text(ended.err, encoding="utf-8")
    return run


# --- messages ------------------------------------------------------------------------------------


def test_train_reports_truncated_texts(cut_run: Path, folder: Path) -> None:
    said = warnings_in((folder / "said.txt").read_text(encoding="utf-8"))
    train, dev = folder / "train.tsv", folder / "dev.tsv"
    sentences = [CUT.format(dev, 2, 20), UNKNOWN.format(dev, 20), EMPTY.format(dev, 20)]
    assert said == [*sentences, CUT.format(train, 3, 19)]
    (record,) = read_records(cut_run / "metrics.jsonl")
    assert Tally.from_json(record["reading"]["train"]) == Tally(
        19, cut=3, limits=Limits(50, 50, chosen=True)
    )
    assert record["reading"]["dev"]["cut"] == 2


def test_a_resumed_training_reports_them_again(
    cut_run: Path, folder: Path, run_main: RunMain
) -> None:
    ended = run_main("train", "--resume", cut_run, "--epochs", 2)
    assert ended.code == 0, ended.err
    assert warnings_in(ended.err) == warnings_in((folder / "said.txt").read_text(encoding="utf-8"))


def test_train_reports_truncated_texts_that_are_held_out(
    folder: Path, run_main: RunMain, tmp_path: Path
) -> None:
    settings = "train.max_tokens=50", "train.dev_share=0.5"
    ended = run_main("train", folder / "train.tsv", "-o", tmp_path / "run", *NETWORK, *settings)
    assert ended.code == 0, ended.err
    counts = {
        line.split(" texts were ")[0].removeprefix(f"{folder / 'train.tsv'}")
        for line in warnings_in(ended.err)
    }
    assert counts == {": 2 of 9", ", held out: 1 of 10"}


def test_eval_reports_them_once_in_its_tables_or_on_stderr_and_as_json(
    cut_run: Path, folder: Path, run_main: RunMain
) -> None:
    file = folder / "dev.tsv"
    sentences = [form.format(file, *more, 20) for form, *more in ((CUT, 2), (UNKNOWN,), (EMPTY,))]
    ended = run_main("eval", cut_run, file)
    assert warnings_in(ended.err) == []
    assert [f"{file}: {line}" for line in warnings_in(ended.out)] == sentences
    ended = run_main("eval", cut_run, file, "--json")
    assert warnings_in(ended.err) == sentences
    found = json.loads(ended.out)["reading"]
    assert found.pop("limits") == {"text": 50, "encoder": 50, "chosen": True, "ngrams": True}
    assert Tally(**found) == Tally(20, 2, 0, 1, 1, 1)


def test_predict_reports_them_once_per_file(cut_run: Path, folder: Path, run_main: RunMain) -> None:
    file = folder / "texts.txt"
    ended = run_main("predict", cut_run, file)
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == 20
    assert set(warnings_in(ended.err)) == {
        CUT.format(file, 2, 20),
        UNKNOWN.format(file, 20),
        EMPTY.format(file, 20),
    }


def test_predict_reports_them_early_in_a_stream_and_at_its_end(
    cut_run: Path, folder: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srucli.inference.forward.BATCH_TEXTS", 2)
    file = folder / "stream.txt"
    file.write_text(f"{KNOWN}\n" * 4 + f"{KNOWN * 30}\n" * 3 + f"{KNOWN}\n" * 5)
    said = warnings_in(run_main("predict", cut_run, file).err)
    assert len(said) == 2
    assert said[0] in (CUT.format(file, 1, 5), CUT.format(file, 1, 6), CUT.format(file, 2, 6))
    assert said[1] == CUT.format(file, 3, 12)


def test_nothing_is_reported_if_no_text_is_truncated(
    tiny: Tiny, run_main: RunMain, tmp_path: Path
) -> None:
    file = write_tsv(tmp_path / "x.tsv", [("good", KNOWN * 500)])
    ended = run_main("eval", tiny.run, file, "--json")
    assert warnings_in(ended.err) == []
    assert json.loads(ended.out)["reading"]["cut"] == 0
    assert not any("reading" in record for record in read_records(tiny.run / "metrics.jsonl"))


def test_top_is_limited_to_the_number_of_labels(
    tiny: Tiny, run_main: RunMain, tmp_path: Path
) -> None:
    (tmp_path / "x.txt").write_text("the soup was lovely\n")
    ended = run_main("predict", tiny.run, tmp_path / "x.txt", "--top", 5)
    assert ended.err.splitlines()[0] == "--top 5: the run has 3 labels, so all 3 are given"
    assert len(ended.out.split("\t")) == 6


# --- which tokens are read -----------------------------------------------------------------------


def logits(run: Path, *texts: str, **limits: Any) -> Any:
    """Return logits (B, C), in float64."""
    predictor = Predictor.load(run, "cpu")
    given = predictor.tally.limits._replace(**limits)
    store = TokenStore.encode(predictor.tokenizer, texts, limits=given)
    with torch.inference_mode():
        parts = [store.batch(np.array([text])) for text in range(len(texts))]
        found = [predictor.model(part.tokens, part.offsets, part.part) for part in parts]
        return torch.cat(found).double()


def test_by_default_the_last_of_thousands_of_words_counts(tiny: Tiny) -> None:
    """It changes the logits, and the scores of the n-grams."""
    texts = KNOWN * 400 + "lovely", KNOWN * 400 + "awful"
    predictor = Predictor.load(tiny.run, "cpu")
    assert predictor.ngrams is not None
    label = predictor.labels.index
    for good, bad in (logits(tiny.run, *texts), predictor.ngrams.margins(texts, 3)):
        assert (good - bad)[label("good")] > 1e-4
        assert (good - bad)[label("bad")] < -1e-4


def test_max_tokens_keeps_the_beginning(cut_run: Path) -> None:
    texts = KNOWN * 40, KNOWN * 40 + "awful", "awful " + KNOWN * 40
    first, same, other = logits(cut_run, *texts)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    predictor = Predictor.load(cut_run, "cpu")
    first, same, other = predictor.probabilities(texts)
    assert first.tobytes() == same.tobytes()
    assert first.tobytes() != other.tobytes()
    predictor.tally = Tally(limits=predictor.tally.limits)
    alone = [predictor.probabilities([text])[0] for text in texts]
    np.testing.assert_allclose(alone, [first, same, other], atol=1e-6)


@pytest.mark.parametrize(
    ("place", "encoder"),
    [
        pytest.param(0, True, id="at the beginning"),
        pytest.param(300, False, id="in the middle"),
        pytest.param(600, True, id="at the end"),
    ],
)
def test_beyond_its_limit_the_encoder_reads_both_ends(
    tiny: Tiny, place: int, encoder: bool
) -> None:
    words = (KNOWN * 70).split()[:600]
    changed = [*words[:place], "awful", *words[place:]]
    texts = " ".join(words), " ".join(changed)
    tokens = Predictor.load(tiny.run, "cpu").tokenizer.encode(list(texts))[1]
    assert (np.diff(tokens) > 200).all()
    one, other = logits(tiny.run, *texts, encoder=100)
    assert torch.equal(one, other) != encoder


# --- memory --------------------------------------------------------------------------------------


def test_the_limit_depends_on_the_size_of_the_network() -> None:

    def limits(*settings: str) -> Limits:
        config = resolve(overrides=settings)
        return Classifier(config.model, 20, 2).limits(config.train)

    assert limits() == Limits(MAX_TEXT_TOKENS, 2**27 // 1_792)
    assert limits("model.hidden=128").encoder < limits().encoder
    assert limits("model.layers=4").encoder < limits().encoder
    assert limits("model.hidden=1024").encoder == 8_192
    assert limits("model.encoder=gru").encoder == 1_024
    assert limits("model.ngrams=false").ngrams is False


def saved_numbers(model: Classifier, tokens: int) -> float:
    """Return how many numbers the encoder saves for backward for one text."""
    sizes = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() / 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = model._states(torch.arange(tokens), torch.tensor([0, tokens]))
    return sum(sizes.values()) if states is not None else 0.0


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({}, id="the default"),
        pytest.param({"hidden": 32, "layers": 3}, id="narrow and deep"),
        pytest.param({"hidden": 128, "embedding_size": 64}, id="wide"),
    ],
)
def test_the_limit_follows_the_memory_that_training_needs(
    encoder: str, sizes: dict[str, int]
) -> None:
    """The limit includes gradients, which are not counted here; torch's LSTM saves some twice."""
    settings = {"encoder": encoder, "dropout": 0.1, **sizes}
    model = Classifier(ModelConfig.model_validate(settings), 200, 2)
    share = (saved_numbers(model, 120) - saved_numbers(model, 40)) / 80 / model.encoder.activations
    least, most = (0.75, 1.0) if encoder == "sru" else (0.15, 2.0)
    assert least < share < most


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_long_text_among_short_ones_causes_no_padding(encoder: str) -> None:
    """With padding, 256 texts with 2,255 tokens would have 512,000 rows."""
    config = resolve(overrides=[f"model.encoder={encoder}", "model.hidden=8"])
    model = Classifier(config.model, 20, 2).eval()
    offsets = torch.tensor([0, 2_000, *range(2_001, 2_256)])
    with torch.inference_mode(), Largest() as largest:
        model._states(torch.zeros(2_255, dtype=torch.int64), offsets)
    assert 2_255 * 8 <= largest.numbers <= 2_255 * 128 * 4


class Recorded(TokenStore):
    """Records the number of tokens and of texts in each batch."""

    def batch(self, texts: Ints) -> Batch:
        made = super().batch(texts)
        self.sizes = [*getattr(self, "sizes", []), (made.tokens.numel(), made.texts)]
        return made


def test_a_wide_network_is_applied_to_few_tokens_at_once() -> None:
    """The activations of a batch are limited, whatever the width: here 1,170 tokens, 73 texts."""
    config = resolve(overrides=["model.hidden=8192", "model.layers=1", "model.embedding_size=4"])
    model = Classifier(config.model, 20, 2)
    lengths = np.array([1] * 100 + [100] * 20 + [1_500])
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    store = Recorded(np.zeros(offsets[-1], np.int32), offsets)
    assert all_logits(model, store, torch.device("cpu")).shape == (1, 121, 2)
    assert store.sizes == [(73, 73), (1_127, 38), (900, 9), (1_500, 1)]
    assert is_wide(model)
    longest = model.limits(resolve(overrides=["train.batch_tokens=1000000"]).train)
    assert longest.encoder == 1_000_000
    assert limited(longest, model).encoder == 2**29 // model.width < 10_000


def settings(*overrides: str) -> Config:
    small = "model.embedding_size=8", "model.hidden=4"
    return resolve(overrides=[*small, "optim.lr=1e-3", *overrides])


@pytest.mark.parametrize("encoder", ["sru", "cnn", "bag"])
def test_a_step_on_a_text_of_fifty_thousand_tokens(encoder: str) -> None:
    config = settings(f"model.encoder={encoder}", "model.dropout=0.1", "model.layers=2")
    torch.manual_seed(0)
    model = Classifier(config.model, 20, 2)
    ids = np.random.default_rng(0).integers(0, 20, 50_003).astype(np.int32)
    offsets = np.array([0, 50_000, 50_003])
    tally = Tally(2, limits=model.limits(config.train))
    store = TokenStore(ids, offsets, np.array([0, 1]), tally)
    batches = [store.batch(texts) for texts in order(store.lengths, 32, 8_192, (0,))]
    assert sorted(batch.tokens.numel() for batch in batches) == [3, 50_000]
    assert all(batch.part is None for batch in batches)
    loss = loss_function(config.train, np.array([0, 1]), 2, multi_label=False)
    step = Step(config.train, config.optim, model, loss)
    before = [weight.detach().clone() for weight in model.parameters()]
    for batch in batches:
        step([batch], 1.0)
    assert step.stats.skipped == 0
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert any(
        not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)
    )


@pytest.mark.parametrize("command", ["eval", "predict", "train", "train --dev"])
def test_a_text_that_becomes_too_long_is_named_by_its_file_and_line(
    tiny: Tiny,
    run_main: RunMain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setattr("srucli.tokenizer.model.MAX_NORMALIZED", 300)
    long = tmp_path / "long.tsv"
    long.write_text(f"good\tshort\nnone\tshort too\nbad\t{'long ' * 80}\ngood\tshort again\n")
    words: dict[str, tuple[object, ...]] = {
        "eval": ("eval", tiny.run, long),
        "predict": ("predict", tiny.run, long),
        "train": ("train", long),
        "train --dev": ("train", tiny.train, "--dev", long),
    }
    train = ("-o", tmp_path / "run", "--tokenizer", tiny.run / "tokenizer.model", *NETWORK)
    ended = run_main(*words[command], *(train if "train" in command else ()))
    assert ended.code == 65
    assert f"{long}:3: a text of " in ended.err
    assert "characters would have over 300 when normalized: 'long long" in ended.err
