"""The JSON Schema of configurations: what srucli accepts is valid, and what it refuses is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from srucli.config import Config, build, describe_settings, known_keys, recipes
from srucli.errors import UsageError
from srucli.io.yaml import load_yaml
from tests.support import ROOT, RunMain, Tiny

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema, of the extra dev")


@pytest.fixture(scope="module")
def found(run_main: RunMain) -> dict[str, Any]:
    """What `srucli info schema` prints."""
    ended = run_main("info", "schema")
    assert (ended.code, ended.err) == (0, "")
    schema: dict[str, Any] = json.loads(ended.out)
    jsonschema.Draft7Validator.check_schema(schema)
    return schema


def is_valid(schema: dict[str, Any], tree: object) -> bool:
    return bool(jsonschema.Draft7Validator(schema).is_valid(tree))


@pytest.mark.parametrize("name", recipes())
def test_recipes_are_valid(found: dict[str, Any], name: str) -> None:
    assert is_valid(found, load_yaml(recipes()[name]))


def test_configurations_of_runs_are_valid(found: dict[str, Any], tiny: Tiny) -> None:
    for run in (tiny.run, *sorted((ROOT / "tests" / "formats").glob("v*/"))):
        assert is_valid(found, load_yaml(run / "config.yaml")), run


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {"model": None, "files": {"train": "x.tsv"}},
        {"data": {"text": ["title", 2]}, "optim": {"options": {"eps": 1e-9}}},
        {"optim": {"name": "schedulefree:AdamWScheduleFree"}},
    ],
)
def test_what_srucli_accepts_is_valid(found: dict[str, Any], tree: Any) -> None:
    build(tree or {}, "c.yaml", partial=True)
    assert is_valid(found, tree)


@pytest.mark.parametrize(
    "tree",
    [
        *([], {"modle": {}}, {"model": {"layer": 3}}, {"model.layers": 3}, {"model": 3}),
        *({"model": {"layers": 0}}, {"model": {"layers": "three"}}, {"model": {"layers": 1.5}}),
        *({"model": {"encoder": "rnn"}}, {"model": {"pooling": []}}, {"optim": {"lr": 0}}),
        *({"model": {"dropout": 1.0}}, {"data": {"delimiter": ",,"}}, {"train": {"seed": -1}}),
        *({"data": {"label_delimiter": "\t"}}, {"files": {"train": None}}),
    ],
)
def test_what_srucli_refuses_is_not_valid(found: dict[str, Any], tree: Any) -> None:
    with pytest.raises(UsageError):
        build(tree, "c.yaml")
    assert not is_valid(found, tree)


@pytest.mark.parametrize("tree", [{"optim": {"name": "adamm"}}, {"train": {"metric": "f2"}}])
def test_names_of_other_tables_are_checked(found: dict[str, Any], tree: Any) -> None:
    assert not is_valid(found, tree)


def test_every_setting_has_its_help_its_default_and_no_more(found: dict[str, Any]) -> None:
    sections = found["properties"]
    settings = {
        f"{section}.{name}": field
        for section, part in sections.items()
        for name, field in part["properties"].items()
    }
    assert list(settings) == list(known_keys())
    described = dict(describe_settings())
    for key, field in settings.items():
        assert described[key].endswith(field["description"])
        assert ("default" in field) == (not described[key].startswith("required"))
        assert not field.keys() & {"title", "may_change_on_resume", "ends_training", "$ref"}
    assert sections.keys() == Config.model_fields.keys()


def test_the_defaults_of_the_schema_are_valid(found: dict[str, Any]) -> None:
    for section, part in found["properties"].items():
        for name, field in part["properties"].items():
            if "default" in field:
                assert is_valid(found, {section: {name: field["default"]}}), (section, name)
