"""The process in which SentencePiece trains, which can be killed at any time.

SentencePiece's trainer ignores Ctrl-C until it has finished. `training.py` starts this process. It
reads one line of JSON (the job), then the lines of text, then an empty line. It writes the model,
or, with the exit code REFUSED or NO_MEMORY, the trainer's message. It exits if
standard input closes first.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from sentencepiece import SentencePieceTrainer

from srucli.io.memory import NO_MEMORY, ran_out

REFUSED = 3
TOO_MANY = re.compile(r"Vocabulary size too high .* value <= (\d+)")
TOO_FEW = re.compile(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)")


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    for line in stream:
        if line == b"\n":
            threading.Thread(target=_end_with_parent, daemon=True).start()
            return
        yield line
    os._exit(1)


def _train(options: dict[str, Any], lines: Iterable[bytes]) -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.Train(sentence_iterator=iter(lines), model_writer=model, **options)
    return model.getvalue()


def _train_to_fit(options: dict[str, Any], lines: Iterable[bytes]) -> bytes:
    """Train, and while the text does not allow the size, train again with the size that it does."""
    lines, tried = list(lines), set()
    while True:
        tried.add(options["vocab_size"])
        try:
            return _train(options, lines)
        except RuntimeError as error:
            limit = TOO_MANY.search(str(error)) or TOO_FEW.search(str(error))
            if limit is None or int(limit[1]) in tried:
                raise
            options["vocab_size"] = int(limit[1])


def main() -> None:
    """Do one job, and exit at once: the thread that waits for the parent would never end."""
    job = json.loads(sys.stdin.buffer.readline())
    lines = _lines(sys.stdin.buffer)
    try:
        train = _train_to_fit if job["fit"] else _train
        answer, code = train(job["options"], lines), 0
    except (RuntimeError, ValueError, MemoryError) as error:
        answer, code = str(error).encode(), NO_MEMORY if ran_out(error) else REFUSED
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    os._exit(code)
