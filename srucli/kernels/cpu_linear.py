"""A linear model of n-grams on a CPU: its vocabulary, features, training and scores, in float32.

Features are rows of a table with their values, text by text; `starts` (B,) and `stops` (B,) say
where those of each text are. A feature's row is found by open addressing: `slots` (S,) int32 has
the rows, or -1, and S is a power of two.
"""

from __future__ import annotations

import numpy as np

from srucli.kernels.jit import inner, kernel

_U = np.uint64


@inner
def _slot(gram, keys, slots):  # type: ignore[no-untyped-def]
    """Return the slot that holds the row of an n-gram, or the empty one where it belongs."""
    most = _U(slots.size - 1)
    slot = _U(gram >> np.uint32(1)) & most
    while slots[slot] >= 0 and keys[slots[slot]] != gram:
        slot = (slot + _U(1)) & most
    return slot


@kernel()
def count(grams, keys, counts, size, slots):  # type: ignore[no-untyped-def]
    """Count in how many texts n-grams occur; return the new number of different ones.

    keys, counts: of the `size` known ones, with room for more; slots: of all of them.
    """
    for gram in grams:
        slot = _slot(gram, keys, slots)
        row = slots[slot]
        if row < 0:
            row = size
            slots[slot], keys[row], counts[row] = row, gram, 0
            size += 1
        counts[row] += 1
    return size


@kernel()
def index(keys, slots):  # type: ignore[no-untyped-def]
    """Enter all keys (R,) into empty slots."""
    for row in range(keys.size):
        slots[_slot(keys[row], keys, slots)] = row


@kernel()
def features(first, end, grams, times, ends, keys, slots, idf, rows, values, stops):  # type: ignore[no-untyped-def]
    """Write the rows and values of the n-grams of each text that are in the vocabulary.

    A value is idf (1 + log count), and the values of either block of a text have the norm 1.
    """
    for text in range(first, end):
        at = ends[text]
        sums = np.zeros(2, np.float32)
        for place in range(ends[text], ends[text + 1]):
            row = slots[_slot(grams[place], keys, slots)]
            if row >= 0:
                value = idf[row]
                if times[place] > 1:
                    value *= np.float32(1.0) + np.log(np.float32(times[place]))
                sums[grams[place] & np.uint32(1)] += value * value
                rows[at], values[at] = row, value
                at += 1
        stops[text] = at
        scales = np.float32(1.0) / np.sqrt(np.maximum(sums, np.float32(1e-30)))
        for place in range(ends[text], at):
            values[place] *= scales[keys[rows[place]] & np.uint32(1)]


@kernel()
def class_counts(rows, starts, stops, texts, labels, counts):  # type: ignore[no-untyped-def]
    """Count in how many texts of each label every row occurs (R, K): labels of texts, in pairs."""
    for pair in range(texts.size):
        text = texts[pair]
        for place in range(starts[text], stops[text]):
            counts[rows[place], labels[pair]] += np.float32(1.0)


@kernel(fastmath={"nsz", "arcp", "contract", "afn", "reassoc"})
def variances(first, end, keys, frequencies, logs, shares, floor, power, counts):  # type: ignore[no-untyped-def]
    """Replace counts (R, K) by (|r| + floor)^power, r the log ratio of an n-gram's frequencies.

    logs: of the smoothed numbers from 0; shares (2, K): for either block, the log ratio of the
    frequencies of all its n-grams in texts with and without the label.
    """
    for row in range(first, end):
        block = keys[row] & np.uint32(1)
        for k in range(shares.shape[1]):
            inside = np.int64(counts[row, k])
            ratio = logs[inside] - logs[frequencies[row] - inside] - shares[block, k]
            counts[row, k] = (np.abs(ratio) + floor) ** power


@kernel(fastmath={"nsz", "arcp", "contract", "afn", "reassoc"})
def scores(first, end, rows, values, starts, stops, ends, labels, weights, bias, found):  # type: ignore[no-untyped-def]
    """Write the scores (B, K) of the weights (E,) of rows, from ends (R+1,), and a bias (K,)."""
    for text in range(first, end):
        for k in range(bias.size):
            found[text, k] = bias[k]
        for place in range(starts[text], stops[text]):
            row, value = rows[place], values[place]
            for weight in range(ends[row], ends[row + 1]):
                found[text, labels[weight]] += value * weights[weight]


@kernel(fastmath={"nsz", "arcp", "contract", "afn", "reassoc"})
def ascend(  # type: ignore[no-untyped-def]
    first,
    end,
    rows,
    values,
    starts,
    stops,
    order,
    signs,
    slack,
    scale,
    prior,
    table,
    bias,
    dual,
    norms,
):
    """Take one pass of dual coordinate ascent over the texts in `order`, for labels of a range.

    signs (B, K) int8: 1 where a text has a label, else -1. slack (2, K): 1 / (2 C) of the squared
    hinge loss where a label is false, and where it is true. scale (B,): its factors of texts, or
    None. prior (R, K): the variances of the weights. table (R, K), bias (K,) and dual (B, K)
    change. norms (B, K): what the diagonal is.
    """
    first, end = _U(first), _U(end)  # a signed index may be negative, and LLVM would not vectorize
    score, change = np.zeros(bias.size, np.float32), np.zeros(bias.size, np.float32)
    for text in order:
        for k in range(first, end):
            score[k] = bias[k]
        for place in range(starts[text], stops[text]):
            row, value = rows[place], values[place]
            for k in range(first, end):
                score[k] += value * table[row, k]
        changed = False
        for k in range(first, end):
            sign, before = np.float32(signs[text, k]), dual[text, k]
            own = slack[1, k] if sign > 0 else slack[0, k]
            if scale is not None:  # of which Numba compiles a version of its own
                own *= scale[text]
            slope = sign * score[k] - np.float32(1.0) + own * before
            after = max(before - slope / (norms[text, k] + np.float32(1.0) + own), np.float32(0.0))
            dual[text, k] = after
            change[k] = sign * (after - before)
            bias[k] += change[k]
            changed |= after != before
        if changed:
            for place in range(starts[text], stops[text]):
                row, value = rows[place], values[place]
                for k in range(first, end):
                    table[row, k] += value * prior[row, k] * change[k]


@kernel(fastmath={"nsz", "arcp", "contract", "afn", "reassoc"})
def diagonal(first, end, rows, values, starts, stops, prior, norms):  # type: ignore[no-untyped-def]
    """Write the squared norms (B, K) of texts: sums of values squared times the prior (R, K)."""
    for text in range(first, end):
        for k in range(prior.shape[1]):
            norms[text, k] = 0.0
        for place in range(starts[text], stops[text]):
            row, value = rows[place], values[place]
            for k in range(prior.shape[1]):
                norms[text, k] += value * value * prior[row, k]
