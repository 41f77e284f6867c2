"""What the lines of diagnostics.jsonl and metrics.jsonl have to have, before they are explained.

`watch.py` and `training/logs.py` write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from srucli import optim
from srucli.config import OptimConfig
from srucli.errors import DataError, UsageError
from srucli.io.console import beginning
from srucli.io.files import COPY_AGAIN
from srucli.optim import OPTIMIZERS

# Sizes and their products stay finite. One that is NaN or Inf, as in a step that a GPU has skipped,
# is written as null.
Size = Annotated[float, Field(ge=0, le=1e100)]
# The most parameter groups, and parts of the tokens by frequency, which are ten.
MAX_PARTS = 100
Count = Annotated[int, Field(ge=1, le=2**53)]


class Line(BaseModel):
    """A part of a line. What else it has is not read."""

    model_config = ConfigDict(strict=True)


class Group(Line):
    """A parameter group in a recorded step."""

    ratio: Size | None
    stride: Size | None = None
    eps_dominates: Size | None = None
    effective: Annotated[list[Size], Field(min_length=3, max_length=3)] | None = None


class Step(Line):
    """A recorded step."""

    step: Count
    lr: Size
    grad_norm: Size | None
    clipped: Size
    groups: Annotated[dict[str, Group], Field(min_length=1, max_length=MAX_PARTS)]
    untouched: dict[str, Size]
    by_frequency: Annotated[list[Size | None], Field(max_length=MAX_PARTS)] | None


class Epoch(Line):
    """An epoch in metrics.jsonl."""

    step: Count
    epoch: Count
    train_loss: Size | None = None


class Optimizer(Line):
    """The settings of the optimizer."""

    name: str
    lr: Annotated[Size, Field(gt=0)]
    clip: Size | None
    options: dict[str, Any]


class First(Line):
    """The first line of diagnostics.jsonl."""

    optimizer: Optimizer
    counts: Annotated[list[Size], Field(max_length=MAX_PARTS)] = []
    rows: bool = False


def check_first(line: Mapping[str, Any], source: str) -> None:
    """Check the line with the optimizer's settings. Raises DataError naming `source`."""
    _check(First, [line], source)
    name, options = line["optimizer"]["name"], line["optimizer"]["options"]
    if name in OPTIMIZERS:
        try:
            optim.resolve(OptimConfig(name=name, options=options))
        except (UsageError, ValidationError) as error:
            raise damaged(source, str(error)) from error


def check_records(lines: Sequence[Mapping[str, Any]], source: str) -> None:
    """Check the recorded steps, which have the same groups. Raises DataError naming `source`."""
    _check(Step, lines, source)
    if any(line["groups"].keys() != lines[0]["groups"].keys() for line in lines):
        raise damaged(source, "the groups differ")


def check_epochs(lines: Sequence[Mapping[str, Any]], source: str) -> None:
    """Check the epochs. Raises DataError naming `source`."""
    _check(Epoch, lines, source)


def damaged(source: str, found: str) -> DataError:
    """Return the error for a file that is not as it was written."""
    problem = f"not as srucli writes it ({beginning(found)})"
    return DataError(source, None, problem, COPY_AGAIN)


def _check(kind: type[Line], lines: Sequence[Mapping[str, Any]], source: str) -> None:
    try:
        for line in lines:
            kind.model_validate(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise damaged(source, f"{place}: {first['msg']}") from None
