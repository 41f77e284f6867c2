"""The fuzzer's target `decode`: mutated lines for `srucli decode`, odd texts for `srucli encode`.

Models are valid or mutated. Encoding is the best one, n-best or sampled.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from srucli.cli.encode import Form, _decoded
from srucli.errors import SrucliError
from srucli.io.lines import Lines
from srucli.tokenizer.model import Tokenizer
from tests.robustness.mutate import mutate_bytes, mutate_model, mutate_tree
from tests.robustness.targets.json_values import ODD, written
from tests.robustness.targets.seeds import TEXTS, Seeds
from tests.robustness.watch import watched

WORDS = (
    *("", "▁", "<s>", "</s>", "<unk>", "<0x41>", "<0xFF>", "<0xF0>", "<0x0A>", "a" * 3000, "한"),
    *("-1", "0", "1", "2", "79", "80", "2147483648", "9" * 30, "9" * 5000, "1.0", "1e3", "0x1"),
    *("+1", "1_0", "٣", "\t", "\u2028", "\x1b[31m", "\u202e", "\ufeff", "\x00", "[1]", '["a"]'),
)
ODD_TEXTS = (*TEXTS, *WORDS, "a " * 500, "한글" * 200, "\u0301" * 50, "\U0001f468\u200d" * 20)


def try_codes(seeds: Seeds, random: Random, folder: Path) -> None:
    """Decode mutated tokens, and encode odd texts, with a model that may be mutated."""
    model = random.choice(seeds.models)
    if random.random() < 0.3:
        model = mutate_model(random, model, random.choice(seeds.models))
    path, lines = folder / "x.model", folder / "x.txt"
    path.write_bytes(model)
    with watched(folder):
        tokenizer = Tokenizer.load(path)
        encoded = encode(random, tokenizer)
    form, as_json = random.choice(list(Form)), random.random() < 0.5
    lines.write_bytes(mutate_lines(random, encoded, as_json))
    with watched(folder):
        for line in _decoded(tokenizer, Lines(str(lines)), str(lines), form, as_json):
            line.encode()
            assert "\n" not in line
            if as_json:
                json.loads(line)


def encode(random: Random, tokenizer: Tokenizer) -> list[list[Any]]:
    """Return tokens of odd texts, as `srucli encode` writes them with random flags."""
    flags: dict[str, Any] = {key: random.random() < 0.3 for key in ("bos", "eos", "reverse")}
    for key in ("bos", "eos"):
        flags[key] &= tokenizer.control_id(key) >= 0
    way = random.random()
    if way < 0.35 and tokenizer.model_type == "unigram":
        flags["nbest"] = random.choice((2, 3, 64, 512))
    elif way < 0.7:
        flags["subword_dropout"] = random.choice((0.0, 1e-9, 0.1, 0.5, 0.999999, 1.0))
        flags["seed"] = random.choice((0, 1, 2**31, 2**63, 2**64, 2**70))
    form, rows = random.choice((int, str)), []
    with suppress(SrucliError):
        encoder = tokenizer.line_encoder(form, **flags)
        for text in random.choices(ODD_TEXTS, k=4):
            if "\n" in text:
                continue
            row = encoder(text.replace("\0", ""))
            json.dumps(row, ensure_ascii=False).encode()
            for each in row if "nbest" in flags else [row]:
                assert all(isinstance(token, form) for token in each)
                rows.append(each)
    return rows


def mutate_lines(random: Random, rows: list[list[Any]], as_json: bool) -> bytes:
    """Return tokens as lines to decode, with changed tokens, lines or bytes."""
    lines = []
    for row in rows:
        changed: Any = list(row)
        for _ in range(random.choice((0, 0, 1, 3))):
            changed.insert(random.randint(0, len(changed)), random.choice(WORDS))
        if as_json:
            way = random.random()
            changed = mutate_tree(random, changed) if way < 0.3 else changed
            changed = [*row, random.choice(ODD)] if way > 0.8 else changed
            lines.append(written(random, changed))
        else:
            lines.append(random.choice((" ", " ", "  ", "\t")).join(map(str, changed)))
    data = random.choice(("\n", "\n", "\r\n")).join(lines).encode("utf-8", "surrogatepass")
    return mutate_bytes(random, data, b"\xff 99 <0x") if random.random() < 0.15 else data
