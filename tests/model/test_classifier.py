"""The network: every encoder through the same problems, and against plain loops in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from srucli.config import ModelConfig, resolve
from srucli.config.sections import EncoderName
from srucli.errors import UsageError
from srucli.model.classifier import ACTIVATIONS, Classifier
from srucli.model.embedding import Tabulated
from srucli.model.encoders import ENCODERS
from tests.model.plain_classifier import PlainClassifier

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden": 6,
    "head_hidden": 5,
    "bag_buckets": 64,
}
VOCABULARY = 20
LENGTHS = [3, 0, 1, 7, 2, 0]
encoders = pytest.mark.parametrize("encoder", ENCODERS)


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def batch(lengths: list[int], vocab: int = VOCABULARY, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab, (sum(lengths),), generator=generator), offsets_of(lengths)


def small(classes: int = 3, **settings: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(ModelConfig.model_validate(SMALL | settings), VOCABULARY, classes)


@encoders
@pytest.mark.parametrize("bidirectional", [True, False])
def test_logits_of_a_text_do_not_depend_on_its_batch(encoder: str, bidirectional: bool) -> None:
    pooling = ("max", "mean", "last", "attention")
    model = small(encoder=encoder, pooling=pooling, bidirectional=bidirectional).eval()
    tokens, offsets = batch(LENGTHS)
    together = model(tokens, offsets)
    assert together.shape == (6, 3)
    assert together.dtype == torch.float32
    for text, (start, stop) in enumerate(pairwise(offsets.tolist())):
        alone = model(tokens[start:stop], offsets_of([stop - start]))
        torch.testing.assert_close(alone[0], together[text], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(together[1], together[5])


@encoders
@pytest.mark.parametrize("lengths", [[0], [0, 0], [1], [1, 1]])
def test_tiny_batches_train(encoder: str, lengths: list[int]) -> None:
    model = small(encoder=encoder, pooling=("max", "mean", "last", "attention"))
    logits = model(*batch(lengths))
    assert logits.shape == (len(lengths), 3)
    logits.sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(grad.isfinite().all()) for grad in [logits, *grads])


@encoders
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_gradients_reach_every_parameter(encoder: str, head: str) -> None:
    kinds = ("max", "mean", "attention") if encoder in ("cnn", "bag") else ("last", "attention")
    model = small(encoder=encoder, head=head, head_activation="tanh", pooling=kinds).eval()
    (model(*batch([5, 3, 9])) * torch.randn(3, 3)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@encoders
def test_the_loss_falls(encoder: str) -> None:
    """The label is which half of the vocabulary a text's tokens come from."""
    model = small(2, encoder=encoder, dropout=0.1, word_dropout=0.1)
    targets = torch.arange(32) % 2
    tokens, offsets = batch([4] * 32, vocab=10)
    tokens += 10 * targets.repeat_interleave(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(tokens, offsets), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_the_settings_know_every_encoder() -> None:
    assert get_args(EncoderName) == tuple(ENCODERS)
    with pytest.raises(UsageError, match=r"^model\.encoder: 'lsmt' .* \(did you mean 'lstm'\?\)"):
        resolve(overrides=["model.encoder=lsmt"])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_head_is_linear_or_has_one_hidden_layer(activation: str) -> None:
    pooled = torch.randn(4, 36, generator=torch.Generator().manual_seed(1))
    linear = small(head="linear").head
    assert isinstance(linear, nn.Linear)
    torch.testing.assert_close(linear(pooled), pooled @ linear.weight.T + linear.bias)
    head = small(head="mlp", head_activation=activation).head.eval()
    assert isinstance(head, nn.Sequential)
    first, _, _, second = head
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    hidden = ACTIVATIONS[activation]()(pooled @ first.weight.T + first.bias)
    torch.testing.assert_close(head(pooled), hidden @ second.weight.T + second.bias)


@encoders
def test_tables_of_products_only_change_rounding(encoder: str) -> None:
    model = small(encoder=encoder, hidden=4).eval()
    inputs = batch(LENGTHS)
    wanted = model(*inputs)
    model.tabulate()
    made = [module for module in model.modules() if isinstance(module, Tabulated)]
    assert [module.product is None for module in made] == [False] * (encoder == "sru")
    torch.testing.assert_close(model(*inputs), wanted)
    assert all(module.product is None for module in model.train().modules() if module in made)


def test_no_table_if_it_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srucli.model.encoders.TABLE_BYTES", 20 * 64 * 4 - 1)
    model = small(hidden=8).eval()
    model.tabulate()
    assert model.encoder.product is None


# --- against plain loops in float64 --------------------------------------------------------------


def plain(model: Classifier, **settings: Any) -> PlainClassifier:
    weights = {name: each.double().numpy() for name, each in model.state_dict().items()}
    return PlainClassifier(ModelConfig.model_validate(SMALL | settings), weights)


def assert_like_plain_loops(**settings: Any) -> None:
    """Compare the logits in training without dropout, in eval and from tables."""
    model = small(**{"dropout": 0.0, **settings})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))  # biases of zero would hide mistakes
    tokens, offsets = batch([*LENGTHS, 40])
    texts = [tokens[start:stop].tolist() for start, stop in pairwise(offsets.tolist())]
    reference = plain(model, **settings)
    wanted = np.stack([reference.logits(text) for text in texts])
    for prepare in (model.train, model.eval, model.tabulate):
        prepare()
        found = model(tokens, offsets).detach().double().numpy()
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


@encoders
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("layers", [1, 2], ids=["one layer", "two layers"])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["both ways", "one way"])
def test_every_encoder_and_pooling(
    encoder: str, pooling: str, layers: int, bidirectional: bool
) -> None:
    assert_like_plain_loops(
        encoder=encoder, pooling=(pooling,), layers=layers, bidirectional=bidirectional
    )


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"activation": "tanh", "highway_bias": -2.0}, id="tanh and a highway bias"),
        pytest.param({"embedding_size": 12}, id="a highway without weights"),
        pytest.param({"layers": 3, "hidden": 3}, id="three layers"),
        pytest.param({"pooling": ("mean", "last", "attention", "max")}, id="all poolings, joined"),
        pytest.param({"encoder": "cnn", "kernel_sizes": (1, 7, 2)}, id="other kernels"),
        pytest.param({"encoder": "bag", "bag_ngrams": 5}, id="longer n-grams"),
        *(
            pytest.param({"head": "mlp", "head_activation": name}, id=f"a hidden layer, {name}")
            for name in ACTIVATIONS
        ),
    ],
)
def test_every_other_setting(settings: dict[str, object]) -> None:
    assert_like_plain_loops(**settings)


@encoders
def test_the_encoder_reads_its_part(encoder: str) -> None:
    pooling = ("mean", "last")
    model = small(encoder=encoder, pooling=pooling).eval()
    tokens, offsets = batch([9, 0, 2])
    part = torch.tensor([0, 1, 2, 7, 8, 9, 10]), offsets_of([5, 0, 2])
    first, *rest = (tokens[start:stop].tolist() for start, stop in pairwise(offsets.tolist()))
    parts = [first[:3] + first[7:], *rest]
    reference = plain(model, encoder=encoder, pooling=pooling)
    wanted = np.stack(list(map(reference.logits, parts)))
    found = model(tokens, offsets, part=part).detach().double().numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


# --- dropout -------------------------------------------------------------------------------------


@encoders
@pytest.mark.parametrize(
    "rates",
    [
        pytest.param({"dropout": 0.5, "word_dropout": 0.5}, id="both"),
        pytest.param({"dropout": 0.5}, id="of numbers"),
        pytest.param({"dropout": 0.0, "word_dropout": 0.5}, id="of words"),
    ],
)
def test_either_dropout_works_in_training_and_not_in_eval(
    encoder: str, rates: dict[str, Any]
) -> None:
    model, without = small(encoder=encoder, **rates), small(encoder=encoder, dropout=0.0)
    inputs = batch([6, 5])
    first, second = (model(*inputs) for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(*inputs), without(*inputs))


@encoders
def test_a_dropped_word_is_a_zero_vector(encoder: str) -> None:
    model = small(encoder=encoder, dropout=0.0, word_dropout=1 - 1e-9)
    whole = small(encoder=encoder, dropout=0.0)
    inputs = batch(LENGTHS)
    with torch.no_grad():
        whole.embedding.weight.zero_()
    torch.testing.assert_close(model(*inputs), whole(*inputs))


def test_word_dropout_drops_its_share_of_whole_words() -> None:
    """The mean over a bag of single tokens is the share of the words that are left."""
    model = small(encoder="bag", bag_ngrams=1, pooling=("mean",), dropout=0.0, word_dropout=0.3)
    with torch.no_grad():
        model.embedding.weight.fill_(1.0)
    states = model._states(*batch([4_000]))[0].detach()
    assert set(states.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(states.amin(dim=1), states.amax(dim=1))
    assert float(states.mean()) == pytest.approx(0.7, abs=0.03)


@encoders
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_dropout_is_applied_in_every_place(encoder: str, head: str) -> None:
    """On the embedding, before the head, and in a head's hidden layer."""
    model = small(encoder=encoder, head=head, dropout=0.25)
    seen: list[tuple[float, int, int]] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(
                lambda module, inputs, output: seen.append((module.p, *inputs[0].shape))
            )
    model(torch.arange(7), offsets_of([3, 4]))
    embedded, pooled = (7, 8), (2, model.pooling.output_size)
    hidden = [(2, 5)] if head == "mlp" else []
    assert seen == [(0.25, *shape) for shape in (embedded, pooled, *hidden)]


def test_equal_tokens_of_a_batch_share_a_dropout_mask() -> None:
    model = small(embedding_size=1000, dropout=0.25)
    tokens, _ = batch([5, 9])
    vectors, index = model._vectors(tokens)
    distinct = set(tokens.tolist())
    assert vectors.shape == (len(distinct), 1000)
    assert len(distinct) < len(tokens)
    kept = vectors[index] != 0
    torch.testing.assert_close(vectors[index], kept * model.embedding(tokens) / 0.75)
    assert kept.double().mean(dim=1).sub(0.75).abs().max() < 0.07  # five standard deviations
    assert len(set(map(tuple, kept.tolist()))) == len(distinct)
    again, _ = model._vectors(tokens)
    assert not torch.equal(again, vectors)


@pytest.mark.parametrize("encoder", ["sru", "lstm", "gru"])
def test_dropout_is_applied_between_layers_and_not_after_the_last(encoder: str) -> None:
    inputs = batch([30])
    for layers in (1, 2):
        model = small(encoder=encoder, dropout=0.5, layers=layers, bidirectional=False)
        model.dropout.p = 0.0  # that of the embedding
        first, second = (model._states(*inputs)[0] for _ in range(2))
        assert torch.equal(first, second) is (layers == 1)
