"""Skip-gram with negative sampling on a CPU, in float32.

Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality":
every token predicts the tokens around it, against tokens drawn at random.
"""

from __future__ import annotations

import numpy as np

from srucli.kernels.jit import inner, kernel

_FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}


@inner
def _next(state):  # type: ignore[no-untyped-def]
    """Return 64 random bits: splitmix64 (Steele et al. 2014). state (1,) uint64 changes."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    bits = state[0]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@inner
def _below(state, most):  # type: ignore[no-untyped-def]
    """Return a random integer from 0 to `most` - 1, which is below 2^31."""
    return np.int64((_next(state) >> np.uint64(32)) * np.uint64(most) >> np.uint64(32))


@inner
def _uniform(state):  # type: ignore[no-untyped-def]
    """Return a random float32 in [0, 1)."""
    return np.float32(_next(state) >> np.uint64(40)) * np.float32(2.0**-24)


@kernel(fastmath=_FAST)
def learn(  # type: ignore[no-untyped-def]
    ids, starts, stops, kept, sure, other, rates, window, negatives, inputs, outputs, state
):
    """Take a gradient step for each pair of a token and one around it; return loss and pairs.

    ids (N,): the tokens; starts (B,) and stops (B,): where those of each text are, in the order in
    which the texts are learned. kept (V,): the probability with which each token is kept. sure
    (V,) and other (V,): the distribution of the negatives, as an alias table. rates (2,): the first
    and the last learning rate. A token sees 1 to `window` others on either side. inputs, outputs
    (V, D) and state (1,) uint64 change. The loss is the sum over pairs.
    """
    size, tokens = inputs.shape[1], sure.size
    text = np.empty(max(1, (stops - starts).max()), np.int64)
    change = np.empty(size, np.float32)
    total, done, loss, pairs = (stops - starts).sum(), 0, 0.0, 0
    for own in range(starts.size):
        start, stop, count = starts[own], stops[own], 0
        for place in range(start, stop):
            if _uniform(state) < kept[ids[place]]:
                text[count] = ids[place]
                count += 1
        rate = np.float32(rates[0] + (rates[1] - rates[0]) * done / total)
        done += stop - start
        for place in range(count):
            token, reach = text[place], 1 + _below(state, window)
            for near in range(max(0, place - reach), min(count, place + reach + 1)):
                if near == place:
                    continue
                change[:] = 0.0
                for drawn in range(1 + negatives):
                    target = text[near]
                    if drawn:
                        target = _below(state, tokens)
                        if _uniform(state) >= sure[target]:
                            target = np.int64(other[target])
                        if target == text[near]:
                            continue
                    score = np.float32(0.0)
                    for d in range(size):
                        score += inputs[token, d] * outputs[target, d]
                    signed = -score if drawn else score
                    # The gradient of -log sigmoid(signed) with respect to the score.
                    slope = np.float32(1.0) / (np.float32(1.0) + np.exp(signed))
                    loss += np.log1p(np.exp(-abs(signed))) + max(-signed, np.float32(0.0))
                    step = -rate * slope if drawn else rate * slope
                    for d in range(size):
                        change[d] += step * outputs[target, d]
                        outputs[target, d] += step * inputs[token, d]
                for d in range(size):
                    inputs[token, d] += change[d]
                pairs += 1
    return loss, pairs
