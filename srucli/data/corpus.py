"""The texts of files, without their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from srucli.config import DataConfig
from srucli.data.readers import read_inputs
from srucli.io.console import say


def texts_of(
    files: Sequence[str], config: DataConfig, labelled: bool, data: Iterable[str]
) -> Iterator[str]:
    """Yield all texts. `data` names the settings of `config` that were given as flags."""
    for file in files:
        reading = read_inputs(file, config, plain=None if labelled else config)
        for record in reading.reported(say, data) if labelled else reading:
            yield record.text
        for line in () if labelled else reading.dropped():
            say(f"{file}: {line}")
