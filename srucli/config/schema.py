"""The JSON Schema of a configuration in YAML, from which editors complete and check settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srucli.config.sections import Config

# What pydantic adds and no editor needs: names of classes, and rules of srucli.
_LEFT_OUT = ("title", "may_change_on_resume", "ends_training")


def schema(more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the schema, in the keywords of draft 7, which editors know best.

    more: keywords of dotted settings whose values other tables list. A section may be empty, and
    `files` incomplete, since flags and overrides are added to a file.
    """
    whole = Config.model_json_schema()
    sections = {}
    for name, field in whole["properties"].items():
        (reference,) = (part["$ref"] for part in field.get("anyOf", [field]) if "$ref" in part)
        sections[name] = _section(whole["$defs"][reference.rpartition("/")[2]])
    for key, keywords in more.items():
        section, _, name = key.partition(".")
        sections[section]["properties"][name] |= keywords
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A configuration of srucli",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": sections,
    }


def _section(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a section, which may be empty and needs no setting."""
    settings = found["properties"].items()
    return {
        "description": found["description"].partition("\n")[0],
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            name: {key: value for key, value in field.items() if key not in _LEFT_OUT}
            for name, field in settings
        },
    }
