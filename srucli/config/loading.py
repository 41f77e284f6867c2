"""From a YAML file, flags and overrides to a `Config`, and back to YAML.

A configuration is resolved from the defaults, then a YAML file, then flags, then dotted overrides
(`model.layers=4`), each checked as it is applied. The settings themselves are in `sections.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from srucli.config.sections import Config, FilesConfig, Section
from srucli.errors import UsageError, did_you_mean
from srucli.io.yaml import load_yaml, parse_value, parse_yaml, to_word, to_yaml


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree, such as `model.layers`."""
    for name, field in section.model_fields.items():
        kind = FilesConfig if name == "files" else field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from known_keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings by dotted keys; the optimizer's options are one of them."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and key != "options"
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn `["model.layers=4"]` into a tree. Values are YAML. Raises UsageError."""
    tree: dict[str, Any] = {}
    keys = list(known_keys())
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals:
            raise UsageError(f"'{override}' is not an override; write KEY=VALUE, as model.layers=4")
        if key not in keys and not key.startswith("optim.options."):
            raise UsageError(f"unknown setting '{key}'{did_you_mean(key, keys)}")
        try:
            branch: Any = parse_value(raw) if raw else ""
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from error
        for part in reversed(key.split(".")):
            branch = {part: branch}
        tree = _merge(tree, branch)
    return tree


_COMPLAINTS = {
    "model_type": "must be a section of settings",
    "tuple_type": "must be a list, as [one, two]",
}


def _explain(first: Mapping[str, Any], source: str) -> str:
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        if key in known_keys():
            section, _, name = key.partition(".")
            return f"{source}: '{key}' is no key of a file; write {section}: {{{name}: VALUE}}"
        words = list(known_keys()) if "." in key else [*Config.model_fields, *known_keys()]
        return f"{source}: unknown setting '{key}'{did_you_mean(key, words)}"
    if first["type"] == "missing":
        return f"{key} is not set; add it, as {key}=VALUE"
    problem = _COMPLAINTS.get(first["type"], first["msg"].replace("Input should", "must"))
    return f"{source}: {key} = {_short(first['input'])}: {problem}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def build(tree: Mapping[str, Any], source: str) -> Config:
    """Check a tree of settings against the defaults. Raises UsageError naming `source`."""
    found = _check(tree, source)
    if isinstance(found, ValidationError):
        raise UsageError(_explain(found.errors()[0], source))
    return found


def _check(tree: Mapping[str, Any], source: str) -> Config | ValidationError:
    """A configuration, or what is wrong where settings are missing that may yet come.

    Raises UsageError for whatever is wrong besides.
    """
    if not isinstance(tree, Mapping):
        raise UsageError(f"{source}: expected settings such as 'model:', found {_short(tree)}")
    filled = {key: value for key, value in tree.items() if value is not None}
    try:
        return Config.model_validate(filled)
    except ValidationError as error:
        wrong = [each for each in error.errors() if each["type"] != "missing"]
        if not wrong:
            return error
        raise UsageError(_explain(wrong[0], source)) from None


def given(section: Section) -> list[str]:
    """The names of a section's settings that somebody gave.

    One that sets everything comes from a file that srucli wrote: of it, what is no default.
    """
    fields = type(section).model_fields
    found = [name for name in fields if name in section.model_fields_set]
    if len(found) < len(fields):
        return found
    return [name for name in found if getattr(section, name) != fields[name].default]


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """A configuration with some dotted settings replaced. Raises UsageError."""
    tree: dict[str, Any] = config.model_dump(exclude_unset=True)
    for key, value in settings.items():
        *path, name = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[name] = value
    return build(tree, ", ".join(f"{key}={value}" for key, value in settings.items()))


def read(data: bytes, source: str) -> Config:
    """A configuration from a YAML document. Raises UsageError naming `source`."""
    return build(parse_yaml(data, source), source)


def resolve(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Defaults, then the YAML `file`, then `flags` (dotted key to value), then `overrides`.

    A flag whose value is None was not given. Each layer is checked on its own, so that an error
    names where the wrong value came from. Raises UsageError, InputMissingError.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        loaded = load_yaml(file)
        tree = {} if loaded is None else loaded
        _check(tree, str(file))
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in given.items():
        section, _, name = key.partition(".")
        tree = _merge(tree, {section: {name: value}})
    _check(tree, "flags")
    tree = _merge(tree, parse_overrides(overrides))
    return build(tree, "overrides")


def overridden(overrides: Sequence[str], flags: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each flag whose value an override replaces by another one."""
    chosen = parse_overrides(overrides)
    for key, value in flags.items():
        section, _, name = key.partition(".")
        other = chosen.get(section, {}).get(name, value)
        if value is not None and other != value:
            yield f"{key} is {other}, as {key}= says, and not {value}, as its flag does"


def dump(config: Config) -> str:
    """The whole resolved configuration as YAML that `resolve` reads back to an equal one."""
    return to_yaml(config.model_dump(mode="json"))


def _field(key: str) -> tuple[type[Section], FieldInfo]:
    """The section of a dotted key, and its field."""
    section, _, name = key.partition(".")
    kind = FilesConfig if section == "files" else type(Config.model_fields[section].default)
    return kind, kind.model_fields[name]


def may_change_on_resume(key: str) -> bool | str:
    """Whether a training may be resumed with another value of a setting: always, "if larger"."""
    kind, field = _field(key)
    rule: bool | str = _noted(field).get("may_change_on_resume", kind.may_change_on_resume)
    return rule


def lengths() -> list[str]:
    """The dotted keys of the settings that end a training."""
    return [key for key in known_keys() if _noted(_field(key)[1]).get("ends_training")]


def _noted(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def describe_settings() -> Iterator[tuple[str, str]]:
    """Every dotted key with its default and meaning."""
    for key in known_keys():
        _, field = _field(key)
        value = list(field.default) if isinstance(field.default, tuple) else field.default
        shown = "required" if field.is_required() else to_word(value)
        yield key, f"{shown}  {field.description or ''}".rstrip()
