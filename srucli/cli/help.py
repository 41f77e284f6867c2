"""Help pages, and what the parser says of a wrong command line in one sentence.

A page has examples, and its flags in groups: Typer's `rich_help_panel` names the group. Rich itself
would take longer to import than all of `srucli --help`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand

from srucli.errors import UsageError, closest
from srucli.io.console import beginning, excerpt

# The groups of flags for settings; a section stands for its other settings.
OF_SETTINGS = {
    "Reading files": {"data"},
    "Labels": {"data.multi_label", "data.label_delimiter", "data.merge_labels"},
    "Model": {"model"},
    "Training": {"optim", "train", "tokenizer", "pretrain"},
    "Checkpoints": {"train.save_steps", "train.save_minutes", "train.keep_checkpoints"},
    "Normalization": {
        *("tokenizer.normalization_rule_name", "tokenizer.normalization_rule_tsv"),
        *("tokenizer.add_dummy_prefix", "tokenizer.remove_extra_whitespaces"),
    },
    "Splitting": {
        *("tokenizer.split_digits", "tokenizer.split_by_unicode_script"),
        *("tokenizer.split_by_whitespace", "tokenizer.split_by_number"),
        *("tokenizer.treat_whitespace_as_suffix", "tokenizer.allow_whitespace_only_pieces"),
        *("tokenizer.max_sentencepiece_length", "tokenizer.byte_fallback"),
    },
    "Special tokens": {
        *(f"tokenizer.{name}_id" for name in ("unk", "bos", "eos", "pad")),
        *(f"tokenizer.{name}_piece" for name in ("unk", "bos", "eos", "pad")),
        *("tokenizer.user_defined_symbols", "tokenizer.control_symbols"),
        *("tokenizer.required_chars", "tokenizer.unk_surface"),
    },
    "Computing": {"train.device", "train.threads", "tokenizer.num_threads"},
}
OFTEN, OTHER = "Often used", "Other flags"
# All groups, in the order of a page.
GROUPS = ("Arguments", OFTEN, *OF_SETTINGS, "Output", OTHER)
# The widest flag that has its help beside it.
WIDTH = 22


class Page:
    """The help page of a command: examples, and flags in groups; one sentence for each error.

    `examples` are command lines. `often` has the flags that come first, in their order.
    """

    examples: Sequence[str] = ()
    often: Sequence[str] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raise the parser's errors as UsageError. Without arguments, a group shows its help."""
        shows_help, words = not args, list(args)
        try:
            rest = list(super().parse_args(ctx, args))  # type: ignore[misc]
        except typer.TyperException as error:
            if shows_help and not isinstance(error, typer.BadParameter):
                raise
            raise UsageError(in_words(error, ctx, words)) from None
        for param in self.get_params(ctx):
            value = ctx.params.get(param.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{_name(param)}: {value} is not a finite number")
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters. Typer's own flags, as --help, are False if they are not given.

        Typer would load pydantic to find out that their default, None, is no bool.
        """
        params = list(super().get_params(ctx))  # type: ignore[misc]
        for param in params:
            if not param.expose_value and param.type_descriptor.annotation is bool:
                param.default = False
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line after the command."""
        pieces = [name_of(each) for each in self.params if each.param_type_name == "argument"]  # type: ignore[attr-defined]
        group = getattr(self, "subcommand_metavar", None)
        return ["[OPTIONS]", *pieces, *([group] if group else [])]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the description and the examples."""
        super().format_help_text(ctx, formatter)  # type: ignore[misc]
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.examples))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and flags in their groups."""
        rows: dict[str, list[tuple[int, tuple[str, str]]]] = {group: [] for group in GROUPS}
        for param in self.get_params(ctx):
            flag = next((opt for opt in param.opts if opt in self.often), "")
            panel = "Arguments" if param.param_type_name == "argument" else param.rich_help_panel
            group = OFTEN if flag else panel or OTHER
            place = self.often.index(flag) if flag else 0
            rows[group].append((place, (name_of(param).ljust(WIDTH), _text(param))))
        for group, found in rows.items():
            if found:
                title = group if any(rows[each] for each in GROUPS[1:-1]) else group.split()[-1]
                with formatter.section(title[0].upper() + title[1:]):
                    listed = [row for _, row in sorted(found, key=lambda each: each[0])]
                    formatter.write_dl(listed, col_max=WIDTH)
        if hasattr(self, "format_commands"):
            self.format_commands(ctx, formatter)


class Command(Page, TyperCommand):
    """A command with such a help page."""


def name_of(param: Any) -> str:
    """Return an argument or flag as a help page lists it: `-o, --output DIR`, `--[no-]header`."""
    value = param.metavar
    if param.param_type_name == "argument":
        return f"[{value}]" if not (param.required or value.startswith("[")) else str(value)
    names = sorted(param.opts, key=len)
    if param.secondary_opts == [f"--no-{names[-1][2:]}"]:
        return f"--[no-]{names[-1][2:]}"
    value = "" if param.is_flag else f" {value or '|'.join(param.type_descriptor.choices)}"
    return ", ".join([*names, *param.secondary_opts]) + value


def _text(param: Any) -> str:
    default = param.default.value if isinstance(param.default, Enum) else param.default
    if not param.show_default or default in (None, False, ()):
        return str(param.help)
    shown = f"{default:g}" if isinstance(default, float) else default
    return f"{param.help} [default: {shown}]"


def in_words(error: typer.TyperException, ctx: Any, words: Sequence[str] = ()) -> str:
    """Return an error of the parser as one sentence: what is wrong, what to do.

    words: the command line, of which the parser reads `-epoch` as `-e` with the value `poch`.
    """
    see = f"see {ctx.command_path} --help"
    flag = str(getattr(error, "option_name", ""))
    if hasattr(error, "possibilities"):
        if len(flag) == 2:
            flag = next((word for word in words if word.startswith(flag)), flag)
        return f"{ctx.info_name} has no flag {beginning(flag)}{_meant(flag, ctx) or f'; {see}'}"
    if flag:
        wants = "takes no value" if "not take" in error.message else "needs a value"
        return f"{beginning(flag)} {wants}; {see}"
    if isinstance(error, typer.BadParameter) and error.param:
        name, problem = _name(error.param), _value_problem(error)
        return f"{name}: {problem}" if problem else f"no {name}; {see}"
    extra = re.search(r"unexpected extra argument\(s\) \((.*)\)", error.message, re.DOTALL)
    problem = f"{excerpt(extra[1])} is one argument too many" if extra else error.message.lower()
    return f"{problem.rstrip('.')}; {see}"


def _name(param: Any) -> str:
    """Return what a parameter is called in messages."""
    return str(next((opt for opt in param.opts if opt[:2] == "--"), param.metavar))


def _value_problem(error: typer.BadParameter) -> str:
    """Return what is wrong with a value; "" if there is none."""
    from pydantic import ValidationError

    from srucli.config.complaints import complaint

    cause = error.__cause__
    return complaint(cause.errors()[0]) if isinstance(cause, ValidationError) else error.message


def _meant(flag: str, ctx: Any) -> str:
    """Return the flag, or the setting without a flag, that an unknown flag stands for."""
    from srucli.config import known_keys

    params = ctx.command.get_params(ctx)
    name = "." + flag.strip("-").replace("-", "_")
    files = () if ctx.command.name == "run" else ("files.",)
    keys = [key for key in known_keys() if key.endswith(name) and not key.startswith(files)]
    key = min(keys, key=lambda key: not key.startswith("train."), default=None)
    flags = [opt for each in params for opt in (*each.opts, *each.secondary_opts)]
    named = f"--{flag.strip('-')}" in flags
    if key and not named and any(param.name == "overrides" for param in params):
        return f"; write {key}=VALUE"
    close = closest(flag, [opt for opt in flags if opt.startswith("--")])
    # Any two flags are alike in their dashes.
    alike = close and closest(flag.lstrip("-"), [close[2:]])
    return f" (did you mean '{close}'?); see {ctx.command_path} --help" if alike else ""
