"""Build a `Config` from a YAML file, flags and overrides, and write one as YAML.

A configuration starts from the defaults; a YAML file, flags and dotted overrides (`model.layers=4`)
are applied in this order, each checked on its own. The settings are defined in `sections.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from srucli.config.complaints import complaint
from srucli.config.sections import Config, FilesConfig, Section
from srucli.errors import UsageError, did_you_mean
from srucli.io.console import excerpt


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of the tree, such as `model.layers`."""
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
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _branch(key: str, value: Any) -> dict[str, Any]:
    """Return the tree with one dotted setting."""
    for part in reversed(key.split(".")):
        value = {part: value}
    branch: dict[str, Any] = value
    return branch


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree of settings by dotted key; the optimizer's options are one setting."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and key != "options"
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the tree of overrides such as "model.layers=4"; values are YAML. Raises UsageError."""
    from srucli.io.yaml import parse_value

    tree: dict[str, Any] = {}
    keys = list(known_keys())
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals:
            raise UsageError(
                f"{excerpt(override)} is not an override; write KEY=VALUE, such as model.layers=4"
            )
        if key not in keys and not key.startswith("optim.options."):
            raise UsageError(f"unknown setting {excerpt(key)}{did_you_mean(key, keys)}")
        try:
            value = parse_value(raw) if raw else ""
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from error
        tree = _merge(tree, _branch(key, value))
    return tree


def _key_of(location: Sequence[Any]) -> str:
    """Return the dotted key at which pydantic found an error, without the type it tried."""
    parts = [str(part) for part in location]
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known_keys():
            return ".".join([*parts[:end], *(part for part in parts[end:] if part.isdecimal())])
    return ".".join(parts)


def _explain(first: Mapping[str, Any], source: str) -> str:
    """Return the message for an error of pydantic. If `source` is empty, the key is enough."""
    key = _key_of(first["loc"])
    if first["type"] == "extra_forbidden":
        if key in known_keys():
            section, _, name = key.partition(".")
            return f"{source}: '{key}' is no YAML key; write {section}: {{{name}: VALUE}}"
        words = list(known_keys()) if "." in key else [*Config.model_fields, *known_keys()]
        return f"{source}: unknown setting {excerpt(key)}{did_you_mean(key, words)}"
    if first["type"] == "missing":
        return f"{key} is not set; add it, as {key}=VALUE"
    where = source if source.startswith("--") else ": ".join(filter(None, (source, key)))
    return f"{where}: {complaint(first)}"


def build(tree: Mapping[str, Any], source: str = "", *, partial: bool = False) -> Config:
    """Return the configuration of a tree of settings.

    Raises UsageError naming `source`, a file, or a flag, which stands for the setting. In a
    `partial` tree required settings may be missing; then the result lacks `files`.
    """
    if not isinstance(tree, Mapping):
        raise UsageError(f"{source}: expected settings such as 'model:', found {excerpt(tree)}")
    filled = {key: value for key, value in tree.items() if value is not None}
    try:
        return Config.model_validate(filled)
    except ValidationError as error:
        # A missing setting is reported only if nothing else is wrong.
        errors = sorted(error.errors(), key=lambda each: each["type"] == "missing")
        if partial and errors[0]["type"] == "missing":
            return Config()
        raise UsageError(_explain(errors[0], source)) from None


def stored(data: bytes, source: str) -> Config:
    """Return the configuration in YAML that a version of srucli wrote. Raises UsageError."""
    from srucli.io.yaml import parse_yaml

    return build(parse_yaml(data, source), source)


def given(section: Section) -> list[str]:
    """Return the names of a section's settings that the user gave.

    If all are set, srucli wrote the file, and only those that differ from the default count.
    """
    fields = type(section).model_fields
    found = [name for name in fields if name in section.model_fields_set]
    if len(found) < len(fields):
        return found
    return [name for name in found if getattr(section, name) != fields[name].default]


def short_names() -> dict[str, str]:
    """Return the dotted keys of settings by the names that Python takes: `epochs`, `optimizer`.

    If several sections have a name, the last of these counts.
    """
    sections = ("pretrain", "tokenizer", "data", "model", "optim", "train")
    parts = [key.partition(".") for key in known_keys()]
    names = {
        name: f"{section}.{name}"
        for wanted in sections
        for section, _, name in parts
        if section == wanted
    }
    return {"optimizer": names.pop("name"), **names}


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted key, given by these or by short names; None is not given.

    Raises UsageError.
    """
    names, found = short_names(), dict[str, Any]()
    for name, value in settings.items():
        key = names.get(name, name)
        if key not in known_keys() or key.startswith("files."):
            raise UsageError(f"unknown setting {excerpt(name)}{did_you_mean(name, list(names))}")
        if key in found:
            raise UsageError(f"{key} is given twice; give it once")
        found[key] = value
    return {key: value for key, value in found.items() if value is not None}


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a configuration with some dotted settings replaced. Raises UsageError."""
    tree: dict[str, Any] = config.model_dump(exclude_unset=True)
    for key, value in settings.items():
        *path, name = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[name] = value
    return build(tree)


def resolve(
    file: Path | None = None, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Config:
    """Apply the YAML `file`, `flags` (dotted key to value) and `overrides` to the defaults.

    A flag with the value None was not given. Each layer is checked on its own, so that an error
    names where the wrong value came from. Raises UsageError, InputMissingError.
    """
    from srucli.io.yaml import load_yaml

    tree: dict[str, Any] = {}
    if file is not None:
        loaded = load_yaml(file)
        tree = {} if loaded is None else loaded
        build(tree, str(file), partial=True)
    for key, value in (flags or {}).items():
        if value is not None:
            tree = _merge(tree, _branch(key, value))
    build(tree, "flags", partial=True)
    return build(_merge(tree, parse_overrides(overrides)))


def overridden(overrides: Sequence[str], flags: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each flag whose value an override replaces by another one."""
    replaced = flat(parse_overrides(overrides))
    for key, value in flags.items():
        new = replaced.get(key, value)
        if value is not None and new != value:
            yield f"{key}={new} overrides the value {value} of its flag"


def dump(config: Config) -> str:
    """Return a whole configuration as YAML, from which `resolve` returns an equal one."""
    from srucli.io.yaml import to_yaml

    return to_yaml(config.model_dump(mode="json"))


def _field(key: str) -> tuple[type[Section], FieldInfo]:
    """Return the section and the field of a dotted key."""
    section, _, name = key.partition(".")
    kind: Any = FilesConfig if section == "files" else Config.model_fields[section].annotation
    return kind, kind.model_fields[name]


def _rule(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def choices(key: str) -> list[str]:
    """Return the words that a dotted setting may be, or a list of them; none if unknown."""
    return list(_words(_field(key)[1].annotation)) if key in known_keys() else []


def _words(kind: Any) -> Iterator[str]:
    """Yield the words that a type allows."""
    if kind is bool:
        yield from ("true", "false")
    elif get_origin(kind) is Literal:
        yield from get_args(kind)
    else:
        for part in get_args(kind):
            yield from _words(part)


def may_change_on_resume(key: str) -> bool | str:
    """Return whether a training may be resumed with another value: a bool, or "if larger"."""
    section, field = _field(key)
    rule: bool | str = _rule(field).get("may_change_on_resume", section.may_change_on_resume)
    return rule


def lengths() -> list[str]:
    """Return the dotted keys of the settings that can end a training."""
    return [key for key in known_keys() if _rule(_field(key)[1]).get("ends_training")]


def describe_settings() -> Iterator[tuple[str, str]]:
    """Yield every dotted key with its default and help text."""
    for key in known_keys():
        yield key, f"{default_of(key)}  {_field(key)[1].description or ''}".rstrip()


def default_of(key: str) -> str:
    """Return the default of a dotted setting as it is written in YAML, or `required`."""
    from srucli.io.yaml import to_word

    _, field = _field(key)
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "required" if field.is_required() else to_word(value)
