"""The `srucli` command: run a command, and map errors to messages and exit codes.

The files of the commands import only typer and the standard library at module level, so that
`srucli --help` answers at once.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from srucli.cli import (
    compare,
    crossval,
    diagnose,
    encode,
    evaluate,
    info,
    optimizers,
    predict,
    pretrain,
    process,
    run,
    slim,
    tokenize,
    topics,
    train,
    tune,
)
from srucli.cli import help as pages
from srucli.errors import (
    OutOfMemoryError,
    OutputError,
    SrucliError,
    UsageError,
    did_you_mean,
)
from srucli.io.console import excerpt, fail
from srucli.io.memory import enough_memory
from srucli.io.python_warnings import show_warnings
from srucli.io.system_limits import reached

# Errors of a write to a disk, or within a quota, that is full or broken.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Group(pages.Page, TyperGroup):
    """The commands. A closed stdout ends them quietly, before Typer exits with 1 for it."""

    examples = (
        "srucli train reviews.tsv",
        "srucli eval runs/reviews test.tsv",
        "srucli predict runs/reviews new.txt > labels.txt",
    )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is named. Raises UsageError if there is none."""
        if not ctx.resilient_parsing and args[0] not in self.commands:
            hint = did_you_mean(args[0], list(self.commands))
            raise UsageError(f"no command {excerpt(args[0])}{hint}; see srucli --help")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _leave_quietly()
        except typer.TyperException as error:
            raise UsageError(pages.in_words(error, ctx)) from None
        return result


app = typer.Typer(
    cls=_Group,
    name="srucli",
    help="Train small, fast text classifiers from raw text.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    """Print the version and exit, if it is wanted."""
    if wanted:
        from importlib.metadata import version

        print(f"srucli {version('srucli')}")
        raise typer.Exit


@app.callback()
def _before_a_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.command("train", cls=train.Command)(train.command)
app.command("eval", cls=evaluate.Command)(evaluate.command)
app.command("predict", cls=predict.Command)(predict.command)
app.command("run", cls=run.Command)(run.command)
app.command("info", cls=info.Command)(info.command)
app.command("slim", cls=slim.Command)(slim.command)
app.command("compare", cls=compare.Command)(compare.command)
app.command("crossval", cls=crossval.Command)(crossval.command)
app.command("tune", cls=tune.Command)(tune.command)
app.command("diagnose", cls=diagnose.Command)(diagnose.command)
app.command("optimizers", cls=optimizers.Command)(optimizers.command)
app.command("tokenize", cls=tokenize.Command, context_settings=tokenize.UNDERSCORES)(
    tokenize.command
)
app.command("pretrain", cls=pretrain.Command)(pretrain.command)
app.command("encode", cls=encode.Command, context_settings=tokenize.UNDERSCORES)(encode.encode)
app.command("decode", cls=encode.DecodeCommand, context_settings=tokenize.UNDERSCORES)(
    encode.decode
)
app.command("help", cls=topics.Command)(topics.command)


def _leave_quietly() -> NoReturn:
    """Exit without a message: nobody reads stdout any more, as in `srucli predict ... | head`."""
    process.drop_stdout()
    raise SystemExit(0)


def _fail(error: SrucliError) -> NoReturn:
    """Print an error and exit."""
    fail(str(error))
    raise SystemExit(error.exit_code)


def main() -> None:
    """Run the command line. Print each `SrucliError` as one message; exit with its code."""
    process.set_environment()
    show_warnings()
    try:
        process.take_descriptors()
        # Data is UTF-8 in every locale. Names of files keep bytes that are not.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    except SrucliError as error:
        _fail(error)
    with process.escaped_output():
        _run()


def _run() -> None:
    try:
        with enough_memory("the command", "free some of it, or give it less at once"):
            app(prog_name="srucli")
    except SrucliError as error:
        if isinstance(error, OutOfMemoryError):
            process.end_quietly()
        _fail(error)
    except BrokenPipeError:
        _leave_quietly()
    except KeyboardInterrupt:
        fail("stopped")
        raise SystemExit(130) from None
    except Exception as error:
        if limit := reached(error):
            process.end_quietly()
            _fail(limit)
        if isinstance(error, OSError):
            _refuse(error)
        raise


def _refuse(error: OSError) -> None:
    """Exit with a message if the error is about a name or a write."""
    if error.errno == errno.ENAMETOOLONG:
        _fail(UsageError(f"{error.filename}: the name is too long; choose a shorter one"))
    if error.errno in _UNWRITABLE:
        from srucli.io.files import remedy_for

        process.drop_stdout()
        what = f"the output cannot be written ({error.strerror})"
        _fail(OutputError(f"{what}; {remedy_for(error)}"))
