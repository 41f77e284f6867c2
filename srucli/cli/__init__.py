"""The `srucli` command: parse, call, print. No torch is imported until a command needs it.

Each command has a file beside this one, which imports only typer and the standard library at its
top, so that `srucli --help` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from srucli.cli import (
    compare,
    diagnose,
    encode,
    evaluate,
    info,
    optimizers,
    predict,
    run,
    tokenize,
    train,
    tune,
)
from srucli.errors import OutputError, SrucliError, UsageError
from srucli.io.children import isolate
from srucli.io.console import escaped

# What a write says where the disk, or one's share of it, is full or broken.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Group(TyperGroup):
    """The commands; what becomes of their stdout is known before Typer calls it a failure."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _leave_quietly()
        return result


app = typer.Typer(
    cls=_Group,
    name="srucli",
    help="Train small, fast text classifiers from raw text.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("train")(train.command)
app.command("eval")(evaluate.command)
app.command("predict")(predict.command)
app.command("run")(run.command)
app.command("info")(info.command)
app.command("compare")(compare.command)
app.command("tune")(tune.command)
app.command("diagnose")(diagnose.command)
app.command("optimizers")(optimizers.command)
app.command("tokenize", cls=tokenize.Command, context_settings=tokenize.UNDERSCORES)(
    tokenize.command
)
app.command("encode", context_settings=tokenize.UNDERSCORES)(encode.encode)
app.command("decode", context_settings=tokenize.UNDERSCORES)(encode.decode)


def _drop_stdout() -> None:
    """What is still buffered goes nowhere, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave_quietly() -> NoReturn:
    """End without a message because nobody reads stdout any more (`srucli predict ... | head`)."""
    _drop_stdout()
    raise SystemExit(0)


def _take_descriptors() -> None:
    """See that 0 to 2 are open: the next file that is opened would get what is written to them.

    Raises OutputError where stdout was closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")
    if sys.stdout is None:
        raise OutputError("stdout is closed; send it somewhere, as >/dev/null")


def _fail(error: SrucliError) -> NoReturn:
    """Say it and end. The message may hold what strangers wrote."""

    lines = map(escaped, str(error).split("\n"))
    sys.stderr.write("srucli: " + "\n".join(lines) + "\n")
    raise SystemExit(error.exit_code)


def main() -> None:
    """Run the command line, turning every `SrucliError` into one message and its exit code."""
    # Whatever Python process a package starts imports nothing from the current folder either.
    isolate(os.environ)
    # Threads that wait for each other in a loop keep a core from the one that they wait for as soon
    # as anything else runs on the machine: let them sleep soon. Read when torch loads OpenMP.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:
        _take_descriptors()
        # Data is UTF-8 whatever the locale is; the name of a file is the bytes that it is.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        app(prog_name="srucli")
    except SrucliError as error:
        _fail(error)
    except BrokenPipeError:
        _leave_quietly()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(UsageError(f"{error.filename}: the name is too long; choose a shorter one"))
        if error.errno not in _UNWRITABLE:
            raise
        _drop_stdout()
        _fail(OutputError(f"the output cannot be written ({error.strerror}); make room for it"))
    except KeyboardInterrupt:
        sys.stderr.write("srucli: stopped\n")
        raise SystemExit(130) from None
