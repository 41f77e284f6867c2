"""The configuration: the order of its layers, error messages, and round trips."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from srucli.config import (
    Config,
    DataConfig,
    build,
    describe_recipes,
    describe_settings,
    dump,
    known_keys,
    lengths,
    overridden,
    parse_overrides,
    recipes,
    resolve,
)
from srucli.config.sections import ON_ONE_LINE
from srucli.errors import InputMissingError, UsageError, closest, did_you_mean
from srucli.io.yaml import load_yaml
from srucli.optim import validate


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "c.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_overrides_win_over_flags_over_yaml_over_defaults(tmp_path: Path) -> None:
    default = Config()
    file = written(
        tmp_path, "model: {hidden: 7, layers: 7, dropout: 0.7, encoder: lstm}\noptim: {lr: 7e-1}"
    )
    found = resolve(
        file,
        ["model.hidden=9", "model.embedding_size=9"],
        {"model.hidden": 8, "model.layers": 8, "optim.name": "sgd", "optim.lr": None},
    )
    assert (found.model.hidden, found.model.layers, found.model.dropout) == (9, 8, 0.7)
    assert (found.model.embedding_size, found.model.encoder) == (9, "lstm")
    assert (found.optim.name, found.optim.lr) == ("sgd", 0.7)
    assert found.train == default.train


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "+1e-3", "1.e-3", ".1e-2", "0.001", "10_0e-5"])
def test_exponents_are_numbers(tmp_path: Path, number: str) -> None:
    assert resolve(overrides=[f"optim.lr={number}"]).optim.lr == pytest.approx(1e-3)
    file = written(tmp_path, f"optim:\n  lr: {number}\n")
    assert resolve(file).optim.lr == pytest.approx(1e-3)


def test_a_word_that_resembles_an_exponent_stays_text() -> None:
    assert parse_overrides(["data.text=e3"]) == {"data": {"text": "e3"}}
    assert parse_overrides(["data.text='1e3'"]) == {"data": {"text": "1e3"}}


def test_the_last_of_two_equal_overrides_counts() -> None:
    assert resolve(overrides=["model.layers=3", "model.layers=4"]).model.layers == 4


def test_options_of_an_optimizer_come_from_every_layer(tmp_path: Path) -> None:
    file = written(tmp_path, "optim:\n  options:\n    eps: 1e-7\n    amsgrad: true\n")
    found = resolve(file, ["optim.options.eps=1e-6"]).optim
    assert found.options == {"eps": 1e-6, "amsgrad": True}
    with pytest.raises(UsageError, match=r"optim\.options\.x: adam has no such option"):
        validate(resolve(overrides=["optim.options.x=1"]).optim)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model:\n  layer: 3\n", "unknown setting 'model.layer' (did you mean 'model.layers'?)"),
        ("modle:\n  layers: 3\n", "unknown setting 'modle' (did you mean 'model'?)"),
        ("model.layers: 3\n", r"'model.layers' is no YAML key; write model: {layers: VALUE}"),
        ("layers: 3\n", "unknown setting 'layers' (did you mean 'model.layers'?)"),
        ("model:\n  layers: x\n", "model.layers: 'x' is not a whole number"),
        ("model: 3\n", "model: 3 is not a section; write its settings"),
        ("optim: {lr: -1}\n", "optim.lr: -1 is too small; it must be above 0"),
        (
            "model: {highway_bias: 1e6}\n",
            "model.highway_bias: 1000000.0 is too large; the",
        ),
        ("optim: {lr: .inf}\n", "optim.lr: inf is not a finite number"),
        ("model: {pooling: max}\n", "model.pooling: 'max' is not a list; write [one, two]"),
        (
            "model: {pooling: [max, mena]}\n",
            "model.pooling.1: 'mena' is unknown (did",
        ),
        ("1: 2\n", "1: 1 is not a name of a setting"),
        ("[]", "expected settings such as 'model:', found []"),
        ("- a\n- b\n", "expected settings such as 'model:', found ['a', 'b']"),
        ("a" * 500, "expected settings such as 'model:', found 'aaaa"),
        (bytes(range(256)), "not UTF-8 text at byte 128"),
        ("a\0b: 1", "not valid YAML"),
        ("train: {seed: 2024-13-45}", "not valid YAML: month must be in 1..12"),
        ("[" * 3000, "not valid YAML"),
    ],
)
def test_errors_in_a_yaml_file(tmp_path: Path, content: str | bytes, said: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        resolve(file)
    assert str(caught.value).startswith(f"{file}: {said}")
    assert len(str(caught.value)) < len(str(file)) + 200


@pytest.mark.parametrize(
    "value", [None, "", "x{a}", -1, 1e99, 2**70, [1], ["a"] * 5, {"a": 1}, {1: 2}, True, b"x", [[]]]
)
def test_every_wrong_value_is_refused_in_plain_words(value: object) -> None:
    refusals = []
    for key in known_keys():
        section, _, name = key.partition(".")
        try:
            build({section: {name: value}}, "f")
        except UsageError as error:
            refusals.append(str(error))
    plain = re.compile(r".* (is (not|unknown|too|neither)|has too|is not set;).*")
    assert [said for said in refusals if not plain.fullmatch(said)] == []
    assert [said for said in refusals if re.search("Input|valid|should|instance", said)] == []


def test_an_override_may_set_what_a_file_leaves_out(tmp_path: Path) -> None:
    file = written(tmp_path, "files: {train: x}\n")
    with pytest.raises(UsageError, match=r"^files\.output is not set; add it, as files\.output="):
        resolve(file)
    with pytest.raises(UsageError, match=r"c\.yaml: train\.epochs: 0 is too small"):
        resolve(written(tmp_path, "files: {train: x}\ntrain: {epochs: 0}\n"))
    files = resolve(written(tmp_path, "files: {train: x}\n"), ["files.output=y"]).files
    assert files is not None
    assert (files.train, files.output) == ("x", "y")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("model:\n  layers: 3\n  layers: 4\n", "3: not valid YAML: the key 'layers' appears twice"),
        ("model: {}\nmodel: {}\n", "2: not valid YAML: the key 'model' appears twice"),
        ("model:\n\tlayers: 3\n", "2: not valid YAML: a tab where the indentation is; indent with"),
        ("a: 1\n---\nb: 2\n", "2: not valid YAML: a second document; remove the line ---"),
        ("? [a]\n: 1\n", "1: not valid YAML"),
        ("model: {layers: 3\n", "2: not valid YAML: settings that began with {"),
        ("a: [1, 2\nb: 3\n", "2: not valid YAML: a list that began with ["),
        ("model:\n  layers: 3\n hidden: 4\n", "3: not valid YAML: uneven indentation; indent"),
        ("model: layers: 3\n", "1: not valid YAML: a colon in a value; put the value in quotes"),
        ("model:\n  layers\n  hidden: 4\n", "3: not valid YAML: a colon in a value; put"),
    ],
)
def test_a_yaml_error_names_its_line(tmp_path: Path, content: str, said: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        resolve(file)
    assert str(caught.value).startswith(f"{file}:{said}")


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "model:\noptim:\n", "\ufeffmodel:\n"])
def test_files_that_set_nothing(tmp_path: Path, content: str) -> None:
    assert resolve(written(tmp_path, content)) == Config()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path / "none" / "x.yaml"):
        with pytest.raises(InputMissingError, match="no such file; check the name and the folder"):
            load_yaml(path)
    with pytest.raises(InputMissingError, match="is a folder; name a file in it"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.layers", "'model.layers' is not an override; write KEY=VALUE"),
        ("=3", "unknown setting ''"),
        ("layers=3", "unknown setting 'layers' (did you mean 'model.layers'?)"),
        ("train.sed=1", "unknown setting 'train.sed' (did you mean 'train.seed'?)"),
        ("model.layers=", "model.layers: '' is not a whole number"),
        ("optim.lr=[", "optim.lr: '[' is not a YAML value"),
        ("train.seed=2024-13-45", "train.seed: '2024-13-45' is not a YAML value"),
        ("train.batch_size=0", "train.batch_size: 0 is too small; the smallest is 1"),
        ("optim.options=3", "optim.options: 3 is not a list of options; write {NAME: VALUE}"),
        ("train.dev_share=1", "train.dev_share: 1 is too large; it must be below 1"),
    ],
)
def test_errors_in_an_override(override: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(overrides=[override])
    assert str(caught.value).startswith(said)


def test_an_error_in_a_flag_names_the_flags() -> None:
    with pytest.raises(
        UsageError,
        match=r"^flags: data\.errors: 'lose' is unknown \(known: strict, ",
    ):
        resolve(flags={"data.errors": "lose"})


def test_did_you_mean() -> None:
    assert did_you_mean("lstmm", ["sru", "lstm"]) == " (did you mean 'lstm'?)"
    assert did_you_mean("adma", ["adamax", "adam"]) == " (did you mean 'adam'?)"
    metrics = ["accuracy", "macro_f1", "micro_f1", "auc"]
    assert closest("acc", metrics) == closest("ACCURACY", metrics) == "accuracy"
    assert closest("f1", metrics) == "macro_f1"
    assert closest("macro-f", metrics) == "macro_f1"
    assert closest("ada", ["adagrad", "adam"]) == "adam"
    assert closest("--epoch", ["--epochs", "--encoder"]) == "--epochs"
    assert closest("layers", ["model.layers"]) == "model.layers"
    assert closest("", metrics) is closest("--", metrics) is closest("x" * 200, ["x"]) is None
    assert did_you_mean("zzz", ["sru", "lstm"]) == " (known: sru, lstm)"
    assert did_you_mean("zzz", [str(number) for number in range(25)]) == ""


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
TRICKY = st.sampled_from(["1e-3", "1e5", "yes", "null", "0x1F", "~", "2024-01-01", "\x85", " ⁇ "])
TREES = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries(
            {},
            optional={
                "text": TEXTS | TRICKY | st.integers(1, 9) | st.none(),
                "label_delimiter": TEXTS.filter(lambda text: re.fullmatch(ON_ONE_LINE, text)),
                "header": st.booleans() | st.none(),
            },
        ),
        "tokenizer": st.fixed_dictionaries(
            {}, optional={"user_defined_symbols": st.lists(TEXTS | TRICKY), "unk_surface": TRICKY}
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "layers": st.integers(1, 256),
                "dropout": st.floats(0, 1, exclude_max=True),
                "pooling": st.lists(st.sampled_from(["max", "attention"]), min_size=1, max_size=4),
                "kernel_sizes": st.lists(st.integers(1, 64), min_size=1, max_size=9),
            },
        ),
        "optim": st.fixed_dictionaries(
            {},
            optional={
                "lr": st.floats(0, 1e30, exclude_min=True) | st.none(),
                "options": st.dictionaries(TEXTS, st.floats(0, 1) | st.booleans() | TRICKY),
            },
        ),
    },
)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_a_resolved_configuration_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]
) -> None:
    config = build(tree, "a tree")
    file = written(tmp_path_factory.getbasetemp(), dump(config))
    assert resolve(file) == config


def test_a_dump_contains_every_setting() -> None:
    tree = yaml.safe_load(dump(Config()))
    keys = {f"{section}.{name}" for section, part in tree.items() for name in part or ()}
    assert keys == {key for key in known_keys() if not key.startswith("files.")}


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().model.layers = 3  # type: ignore[misc]


def test_settings_are_described_with_their_defaults() -> None:
    described = dict(describe_settings())
    assert list(described) == list(known_keys())
    assert described["files.train"].startswith("required")
    assert described["model.layers"] == "2  Layers of the encoder."
    assert described["model.pooling"].startswith("[max, mean, last]  ")
    assert all("  " in described[key] for key in known_keys())  # each has a help text
    assert described["data.text"].startswith("null  Column of the text")
    assert set(described) >= {f"data.{name}" for name in DataConfig.model_fields}


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads(name: str) -> None:
    validate(resolve(recipes()[name]).optim)
    assert dict(describe_recipes())[name]


def test_a_flag_that_an_override_replaces_is_reported() -> None:
    flags = {"optim.lr": 0.2, "model.layers": 2, "model.hidden": None, "data.text": 1}
    given = ["optim.lr=0.1", "model.layers=2", "model.hidden=8", "optim.options.eps=1"]
    assert list(overridden(given, flags)) == ["optim.lr=0.1 overrides the value 0.2 of its flag"]


def test_which_settings_can_end_a_training() -> None:
    assert lengths() == ["train.epochs", "train.steps", "train.patience"]


@pytest.mark.parametrize("mark", ["\n", "\t", "\r", ";\n", "\0", "\x85", "\u2028", "\x1b", ""])
def test_a_label_delimiter_keeps_labels_in_their_line_and_column(mark: str) -> None:
    with pytest.raises(UsageError, match=r"data.label_delimiter: .*(control character|too short)"):
        build({"data": {"label_delimiter": mark}})
    assert build({"data": {"label_delimiter": " | "}}).data.label_delimiter == " | "
