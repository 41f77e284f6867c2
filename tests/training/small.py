"""A small task with non-ASCII texts and unbalanced labels, one of them without dev examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from srucli.config import Config, resolve
from srucli.data.readers import Example
from srucli.training.trainer import Trainer

LABELS = ["ärger", "freude", "무"]
WORDS = {
    "ärger": ["schrecklich", "übel", "나쁜", "gräßlich"],
    "freude": ["schön", "größte", "좋은", "süß"],
    "무": ["blau", "zwölf", "나무", "straße"],
}
SETTINGS = [
    *("model.embedding_size=8", "model.hidden=6", "model.layers=1"),
    *("model.dropout=0.1", "train.batch_size=8", "train.epochs=3"),
    *("train.threads=1", "train.device=cpu"),
]
TRAIN, DEV = 45, 20


def quick(*overrides: str) -> Config:
    return resolve(overrides=[*SETTINGS, *overrides])


def examples(count: int, labels: Sequence[str], seed: int, several: bool) -> list[Example]:
    """Return examples with 1 to 9 words of their labels."""
    draw = np.random.default_rng(seed)
    made = []
    for line in range(count):
        label = labels[0] if draw.random() < 0.6 else labels[int(draw.integers(len(labels)))]
        chosen: tuple[str, ...] = (label,)
        if several:
            chosen = tuple(label for label in labels if draw.random() < 0.4)
        words = [word for label in chosen or labels for word in WORDS[label]]
        text = " ".join(draw.choice(words, draw.integers(1, 10)))
        made.append(Example(text, chosen, line + 1))
    return made


# make("train.epochs=2", dev=False) returns a trainer in a new run folder.
Make = Callable[..., Trainer]
