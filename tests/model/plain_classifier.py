"""The classifier again, in float64 and in plain loops over one text, from weights by their names.

What the tests of the model compare it with: nothing here is shared with
`srucli/model/classifier.py`, nor with the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srucli.config import ModelConfig

Array = NDArray[np.float64]
Weights = dict[str, Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * np.array([(1 + math.erf(each / math.sqrt(2))) / 2 for each in x]),
}
sigmoid = ACTIVATIONS["sigmoid"]


class PlainClassifier:
    """Logits of one text after the other. weights: a classifier's `state_dict` as float64."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.directions = 2 if config.bidirectional else 1

    def logits(self, tokens: Sequence[int]) -> Array:
        """Logits (C,) from the tokens that the encoder reads."""
        x = self.weights["embedding.weight"][np.array(tokens, int)]
        encoders = {"sru": self.sru, "lstm": self.lstm, "gru": self.gru, "cnn": self.cnn}
        if self.config.encoder == "bag":
            states, last = self.bag(x, tokens)
        else:
            states, last = encoders[self.config.encoder](x)
        return self.head(self.pooled(states, last))

    # --- encoders: x (T, E) to states (T, D) and the last state (D,) ------------------------------

    def sru(self, x: Array) -> tuple[Array, Array]:
        """Section 3 of Lei et al. 2018; the last state is c, not h."""
        last = np.zeros(0)
        for layer in range(self.config.layers):
            name = f"encoder.stack.layers.{layer}"
            weight = self.weights[f"{name}.weight"]
            (v_f, v_r), (b_f, b_r) = self.weights[f"{name}.v"], self.weights[f"{name}.bias"]
            width = len(v_f)
            planes = (x @ weight.T).reshape(len(x), len(weight) // width, width)
            alpha = math.sqrt(1 + 2 * math.exp(self.config.highway_bias))
            ways = planes[:, 3] if planes.shape[1] == 4 else alpha * x
            h, last = np.zeros((len(x), width)), np.zeros(width)
            units = width // self.directions
            for direction in range(self.directions):
                own = slice(direction * units, (direction + 1) * units)
                c = np.zeros(units)
                for t in range(len(x)) if direction == 0 else reversed(range(len(x))):
                    u0, u1, u2 = planes[t, :3, own]
                    forget = sigmoid(u1 + v_f[own] * c + b_f[own])
                    reset = sigmoid(u2 + v_r[own] * c + b_r[own])
                    c = forget * c + (1 - forget) * u0
                    g = np.tanh(c) if self.config.activation == "tanh" else c
                    h[t, own] = reset * g + (1 - reset) * ways[t, own]
                last[own] = c
            x = h
        return x, last

    def lstm(self, x: Array) -> tuple[Array, Array]:
        """As torch documents `nn.LSTM`; the last state is h."""

        def step(x_t: Array, state: tuple[Array, Array], w: list[Array]) -> tuple[Array, Array]:
            h, c = state
            i, f, g, o = np.split(w[0] @ x_t + w[2] + w[1] @ h + w[3], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            return sigmoid(o) * np.tanh(c), c

        zero = np.zeros(self.config.hidden)
        return self._recurrent(x, (zero, zero), step)

    def gru(self, x: Array) -> tuple[Array, Array]:
        """As torch documents `nn.GRU`."""

        def step(x_t: Array, state: tuple[Array], w: list[Array]) -> tuple[Array]:
            (h,) = state
            (r, z, n), (r_h, z_h, n_h) = (
                np.split(w[0] @ x_t + w[2], 3),
                np.split(w[1] @ h + w[3], 3),
            )
            r, z = sigmoid(r + r_h), sigmoid(z + z_h)
            return ((1 - z) * np.tanh(n + r * n_h) + z * h,)

        return self._recurrent(x, (np.zeros(self.config.hidden),), step)

    def _recurrent(self, x: Array, zero: Any, step: Callable[..., Any]) -> tuple[Array, Array]:
        """All layers and directions of one of torch's cells. An empty text is one zero vector."""
        empty = not len(x)
        x = np.zeros((1, self.config.embedding_size)) if empty else x
        last = np.zeros(0)
        for layer in range(self.config.layers):
            columns, ends = [], []
            for direction in range(self.directions):
                ending = f"l{layer}{'_reverse' if direction else ''}"
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                weights = [self.weights[f"encoder.net.{name}_{ending}"] for name in names]
                rows, state = np.zeros((len(x), self.config.hidden)), zero
                for t in range(len(x)) if direction == 0 else reversed(range(len(x))):
                    state = step(x[t], state, weights)
                    rows[t] = state[0]
                columns.append(rows)
                ends.append(state[0])
            x, last = np.concatenate(columns, axis=1), np.concatenate(ends)
        return x[: 0 if empty else len(x)], last

    def cnn(self, x: Array) -> tuple[Array, Array]:
        """Windows around each token, one more to its right where a width is even."""
        columns = []
        for number, width in enumerate(self.config.kernel_sizes):
            weight = self.weights[f"encoder.convolutions.{number}.weight"]
            left = (width - 1) // 2
            padded = np.concatenate(
                [np.zeros((left, x.shape[1])), x, np.zeros((width, x.shape[1]))]
            )
            windows = [padded[t : t + width].T for t in range(len(x))]
            sums = [(weight * window).sum(axis=(1, 2)) for window in windows]
            maps = np.array(sums).reshape(len(x), len(weight))
            columns.append(
                np.maximum(maps + self.weights[f"encoder.convolutions.{number}.bias"], 0)
            )
        states = np.concatenate(columns, axis=1)
        return states, np.zeros(states.shape[1])

    def bag(self, x: Array, tokens: Sequence[int]) -> tuple[Array, Array]:
        """A token's vector and those of the longer n-grams that end with it."""
        table, states = self.weights["encoder.table.weight"], x.copy()
        for end in range(len(tokens)):
            for n in range(2, self.config.bag_ngrams + 1):
                if n <= end + 1:
                    states[end] += table[bucket(tokens[end + 1 - n : end + 1], len(table))]
        return states, np.zeros(x.shape[1])

    # --- the rest -------------------------------------------------------------------------------

    def pooled(self, states: Array, last: Array) -> Array:
        """All kinds of pooling, joined; zeros where there is no token."""
        parts = []
        for kind in self.config.pooling:
            if kind == "last":
                parts.append(last)
            elif not len(states):
                parts.append(np.zeros(states.shape[1]))
            elif kind == "attention":
                scores = np.tanh(states) @ self.weights["pooling.score.weight"][0]
                weights = np.exp(scores - scores.max())
                parts.append(weights @ states / weights.sum())
            else:
                parts.append(states.max(axis=0) if kind == "max" else states.mean(axis=0))
        return np.concatenate(parts)

    def head(self, pooled: Array) -> Array:
        """Logits (C,)."""

        def linear(name: str, x: Array) -> Array:
            return self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]

        if self.config.head == "linear":
            return linear("head", pooled)
        return linear("head.3", ACTIVATIONS[self.config.head_activation](linear("head.0", pooled)))


def bucket(symbols: Sequence[int], buckets: int) -> int:
    """The row of a hashed n-gram: its symbols from the last to the first, mixed in 32 bits."""
    value = 0
    for symbol in reversed(symbols):
        value = (value + symbol + 1) * 0x9E3779B1 % 2**32
    mixed = (value ^ value >> 15) * 0x85EBCA77 % 2**32
    return (mixed >> 8) % buckets
