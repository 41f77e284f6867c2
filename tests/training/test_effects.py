"""Settings without effect: the table is complete, and its conditions are true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from srucli.config import Config, TokenizerConfig, build, dump, known_keys, resolve
from srucli.model.classifier import Classifier
from srucli.model.encoders import ENCODERS
from srucli.tokenizer.training import train_tokenizer
from srucli.training.effects import (
    NEEDS,
    Setup,
    given_settings,
    has_effect,
    never_reached,
    no_effect,
)
from tests.support import QUICK, RunMain, Tiny, write_tsv

# Settings that always have an effect. A new setting goes here, into NEEDS or to an encoder.
ALWAYS = {
    *("data.format", "data.encoding", "data.errors", "data.multi_label", "data.max_ratio"),
    "data.merge_labels",
    # By the format of each file that is read: see test_data.
    *("data.text", "data.label", "data.weight", "data.header", "data.delimiter", "data.quotes"),
    *("tokenizer.model_type", "tokenizer.character_coverage"),
    *("tokenizer.normalization_rule_tsv", "tokenizer.byte_fallback"),
    *("tokenizer.user_defined_symbols", "tokenizer.control_symbols"),
    "tokenizer.treat_whitespace_as_suffix",
    *("tokenizer.add_dummy_prefix", "tokenizer.remove_extra_whitespaces"),
    *("tokenizer.max_sentence_length", "tokenizer.input_sentence_size", "tokenizer.num_threads"),
    *("tokenizer.hard_vocab_limit", "tokenizer.unk_id", "tokenizer.bos_id", "tokenizer.eos_id"),
    *("tokenizer.pad_id", "tokenizer.unk_piece", "tokenizer.unk_surface"),
    "tokenizer.use_all_vocab",  # refused if it has no effect
    *("model.encoder", "model.embedding_size", "model.dropout", "model.word_dropout"),
    *("model.head", "model.ngrams"),
    *("optim.name", "optim.lr", "optim.options", "optim.weight_decay", "optim.schedule"),
    *("optim.warmup", "optim.clip"),
    *("train.steps", "train.batch_size", "train.batch_tokens", "train.accumulate"),
    *("train.max_tokens", "train.label_smoothing", "train.class_weights", "train.save_steps"),
    *(
        "train.save_minutes",
        "train.keep_checkpoints",
        "train.seed",
        "train.device",
        "train.threads",
    ),
    *("train.precision", "train.detect_anomaly", "train.tensorboard", "train.diagnose"),
    *("train.mlflow", "train.wandb"),
}
BAG = ("model.encoder=bag", "model.pooling=[mean]")
# key -> a value other than the default, overrides with which it has no effect, and overrides with
# which it has one.
Case = tuple[str, Sequence[str], Sequence[str]]
CASES: dict[str, Case] = {
    "data.label_delimiter": ("'|'", [], ["data.multi_label=true"]),
    "tokenizer.vocab_size": (
        "50",
        ["tokenizer.use_all_vocab=true", "tokenizer.model_type=word"],
        ["tokenizer.model_type=word"],
    ),
    "tokenizer.allow_whitespace_only_pieces": (
        "true",
        ["tokenizer.model_type=bpe"],
        ["tokenizer.remove_extra_whitespaces=false"],
    ),
    "tokenizer.normalization_rule_name": ("nfkc", ["tokenizer.normalization_rule_tsv=x"], []),
    "tokenizer.shuffle_input_sentence": ("false", [], ["tokenizer.input_sentence_size=9"]),
    "tokenizer.seed": ("1", [], ["tokenizer.input_sentence_size=9"]),
    "tokenizer.required_chars": ("☃", ["tokenizer.model_type=word"], []),
    "tokenizer.split_digits": ("true", ["tokenizer.model_type=char"], []),
    "tokenizer.split_by_unicode_script": ("false", ["tokenizer.model_type=word"], []),
    "tokenizer.split_by_whitespace": ("false", ["tokenizer.model_type=word"], []),
    "tokenizer.split_by_number": ("false", ["tokenizer.model_type=char"], []),
    "tokenizer.max_sentencepiece_length": ("2", ["tokenizer.model_type=word"], []),
    "tokenizer.seed_sentencepiece_size": ("99", ["tokenizer.model_type=bpe"], []),
    "tokenizer.shrinking_factor": ("0.5", ["tokenizer.model_type=bpe"], []),
    "tokenizer.num_sub_iterations": ("5", ["tokenizer.model_type=word"], []),
    "tokenizer.train_extremely_large_corpus": ("true", ["tokenizer.model_type=char"], []),
    "tokenizer.bos_piece": ("<b>", ["tokenizer.bos_id=-1"], []),
    "tokenizer.eos_piece": ("<e>", ["tokenizer.eos_id=-1"], []),
    "tokenizer.pad_piece": ("<p>", [], ["tokenizer.pad_id=0", "tokenizer.unk_id=3"]),
    "model.hidden": ("8", BAG, ["model.encoder=cnn"]),
    "model.layers": ("1", ["model.encoder=cnn"], ["model.encoder=gru"]),
    "model.bidirectional": ("false", BAG, ["model.encoder=lstm"]),
    "model.activation": ("tanh", ["model.encoder=lstm"], []),
    "model.highway_bias": ("-2", ["model.encoder=gru"], []),
    "model.kernel_sizes": ("[2]", [], ["model.encoder=cnn"]),
    "model.head_hidden": ("7", [], ["model.head=mlp"]),
    "model.head_activation": ("tanh", [], ["model.head=mlp"]),
    "model.pooling": ("[last]", ["model.encoder=cnn"], []),
    "model.bag_ngrams": ("2", [], BAG),
    "model.bag_buckets": ("99", [], BAG),
    "optim.decay_embeddings": ("true", [], ["optim.name=adamw"]),
    "optim.layer_decay": ("0.5", [], ["from"]),
    "train.freeze": ("encoder", [], ["from"]),
    "data.group": ("author", [], []),
    "pretrain.epochs": ("3", [], []),
    "pretrain.window": ("3", [], []),
    "pretrain.negatives": ("3", [], []),
    "pretrain.lr": ("0.1", [], []),
    "train.epochs": ("3", ["train.steps=9"], []),
    "train.subword_dropout": ("0.2", ["tokenizer.model_type=char"], []),
    "train.soft_temperature": ("2", ["hard"], []),
    "train.soft_share": ("0.5", ["hard"], []),
    "train.dev_share": ("0.2", ["file"], []),
    "train.metric": ("accuracy", [], ["dev"]),
    "train.patience": ("2", [], ["dev"]),
    "train.use_checkpoint": ("best", [], ["dev"]),
    "train.kernel": ("reference", ["model.encoder=lstm"], []),
}


def setup(key: str, value: str, beside: Sequence[str]) -> Setup:
    overrides = [word for word in beside if "=" in word]
    config = resolve(overrides=[*overrides, f"{key}={value}"])
    held_out, soft = "file" not in beside, "hard" not in beside
    return Setup(config, "dev" in beside, held_out, soft=soft, based="from" in beside)


# --- the table ---------------------------------------------------------------------------------


def test_every_setting_is_in_the_table_or_always_has_an_effect() -> None:
    keys = {key for key in known_keys() if not key.startswith("files.")}
    needs = NEEDS.keys() | {key for kind in ENCODERS.values() for key in kind.settings}
    assert keys == ALWAYS | needs
    assert not ALWAYS & needs
    assert CASES.keys() == needs


@pytest.mark.parametrize("key", CASES)
def test_a_setting_without_effect_is_named(key: str) -> None:
    value, without, beside = CASES[key]
    (said,) = no_effect(setup(key, value, without), [key])
    assert said.startswith(f"{key} has no effect: it needs ")
    assert list(no_effect(setup(key, value, without), [])) == []
    if not key.startswith(("pretrain.", "data.group")):  # their effect is outside of a training
        assert list(no_effect(setup(key, value, beside), [key])) == []


@pytest.mark.parametrize("key", [key for key in known_keys() if key.startswith("tokenizer.")])
def test_tokenizer_settings_have_no_effect_if_a_tokenizer_is_given(key: str) -> None:
    given = Setup(Config(), dev=False, given_tokenizer="bpe")
    assert list(no_effect(given, [key])) == [
        f"{key} has no effect: the tokenizer is given, not trained"
    ]


def test_the_model_type_of_a_given_tokenizer_counts() -> None:
    kinds = {
        kind: Setup(Config(), dev=False, given_tokenizer=kind) for kind in ("bpe", "char", None)
    }
    assert [has_effect(each, "train.subword_dropout") for each in kinds.values()] == [
        True,
        False,
        True,
    ]


def test_intervals_longer_than_the_training_are_named() -> None:
    config = resolve(overrides=["train.save_steps=40", "train.diagnose=30"])
    assert list(never_reached(config.train, 40)) == []
    assert list(never_reached(config.train, 39)) == [
        "train.save_steps=40 is more than the 39 steps of this training"
    ]
    assert len(list(never_reached(config.train, 29))) == 2


# --- given settings ----------------------------------------------------------------------------


def test_only_settings_of_the_user_count_as_given() -> None:
    assert given_settings(Config()) == []
    given = resolve(overrides=["train.patience=0", "model.layers=3"], flags={"optim.lr": 0.1})
    assert given_settings(given) == ["model.layers", "optim.lr", "train.patience"]


def test_in_a_complete_file_settings_that_differ_from_the_default_count() -> None:
    written = dump(resolve(overrides=["model.ngrams=false", "optim.options.eps=1e-6"]))
    assert given_settings(build(yaml.safe_load(written), "x")) == ["model.ngrams", "optim.options"]


# --- the conditions are true -------------------------------------------------------------------


def outputs(config: Config) -> torch.Tensor:
    """Return the logits of a new model in training mode."""
    torch.manual_seed(0)
    model = Classifier(config.model, 41, 3)
    tokens, offsets = torch.arange(30) % 40, torch.tensor([0, 9, 9, 20, 30])
    torch.manual_seed(1)
    logits: torch.Tensor = model(tokens, offsets)
    return logits


SMALL = ("model.embedding_size=6", "model.dropout=0.1")


@pytest.mark.parametrize("key", [key for key in CASES if key.startswith("model.")])
def test_settings_without_effect_do_not_change_a_model(key: str) -> None:
    value, without, beside = CASES[key]
    if key == "model.pooling":  # its output is all zeros
        config = resolve(overrides=[*SMALL, *without, f"{key}={value}"])
        logits = outputs(config)
        assert torch.equal(logits, logits[:1].expand_as(logits))
        return
    for overrides, same in ((without, True), (beside, False)):
        pair = [
            outputs(resolve(overrides=[*SMALL, *overrides, *more]))
            for more in ((), (f"{key}={value}",))
        ]
        assert torch.equal(*pair) == same, overrides


def vocabulary(config: Config) -> Any:
    lines = [f"{word} {number}   ünder 가나다 {word * 2}" for number in range(60) for word in "abc"]
    made = train_tokenizer(lines, config.tokenizer, lower_vocab=True)
    return made.tokenizer.vocab


UNTOUCHED = [key for key in CASES if key.startswith("tokenizer.") and "normalization" not in key]


@pytest.mark.parametrize("key", UNTOUCHED)
def test_settings_without_effect_do_not_change_a_tokenizer(key: str) -> None:
    value, without, _ = CASES[key]
    base = ["tokenizer.vocab_size=60", *without]
    assert vocabulary(resolve(overrides=base)) == vocabulary(
        resolve(overrides=[*base, f"{key}={value}"])
    )


def test_the_table_names_real_settings_of_a_tokenizer() -> None:
    names = {key.partition(".")[2] for key in NEEDS if key.startswith("tokenizer.")}
    assert names <= TokenizerConfig.model_fields.keys()


# --- messages ----------------------------------------------------------------------------------


def test_train_names_settings_without_effect(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    train = ("train", tiny.train, "-o", tmp_path / "run", "--epochs", 1, *QUICK)
    quiet = run_main(*train, "--tokenizer", tiny.run / "tokenizer.model")
    assert "effect" not in quiet.err
    ended = run_main(
        *train,
        *("--force", "--dev", tiny.test, "--tokenizer", tiny.run / "tokenizer.model"),
        *("model.kernel_sizes=[2,3]", "tokenizer.vocab_size=50", "train.save_steps=999"),
    )
    assert ended.code == 0
    said = [line for line in ended.err.splitlines() if "effect" in line or "more than" in line]
    assert said == [
        "tokenizer.vocab_size has no effect: the tokenizer is given, not trained",
        "model.kernel_sizes has no effect: it needs model.encoder=cnn",
        "train.dev_share has no effect: it needs no file of dev examples",
        "train.save_steps=999 is more than the 30 steps of this training",
    ]


def test_train_names_settings_that_need_dev_examples(run_main: RunMain, tmp_path: Path) -> None:
    data = write_tsv(tmp_path / "four.tsv", [("a", "x y"), ("b", "y"), ("a", "z"), ("b", "x")])
    asked = ("train.patience=2", "train.use_checkpoint=best", "train.metric=macro_f1")
    ended = run_main("train", data, "-o", tmp_path / "run", "--epochs", 1, *QUICK, *asked)
    assert ended.code == 0
    said = [line for line in ended.err.splitlines() if "train." in line]
    assert said.pop().startswith("how good it is was not measured")
    assert said[0] == (
        "train.dev_share=0.1 holds out none of 4 examples: that is less than half an example; give "
        "a larger share, more examples or --dev FILE"
    )
    assert [line.split()[0] for line in said[1:]] == [
        *("train.metric", "train.patience", "train.use_checkpoint")
    ]
    for remedy in (("train.dev_share=0.5",), ("--dev", data)):
        ended = run_main(
            *("train", data, "-o", tmp_path / "run", "--force", "--epochs", 1, *QUICK),
            *asked,
            *remedy,
        )
        assert "train.patience has no effect" not in ended.err
        assert "dev macro_f1" in ended.err


def test_train_says_that_the_files_section_has_no_effect(
    run_main: RunMain, tiny: Tiny, tmp_path: Path
) -> None:
    recipe = tmp_path / "c.yaml"
    recipe.write_text("files:\n  train: x.tsv\n  output: elsewhere\n")
    train = ("train", tiny.train, "-o", tmp_path / "run", "--epochs", 1, *QUICK)
    assert "the section 'files' has no effect" in run_main(*train, "-c", recipe).err


def test_other_commands_name_flags_without_effect(
    run_main: RunMain, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "x.txt"
    text.write_text("ünder 가나다 abc\n" * 20, encoding="utf-8")
    model, flags = tiny.run / "tokenizer.model", ("--vocab-size", 16, "--shrinking-factor", 0.9)
    cases = {
        "--seed has no effect: it needs --subword-dropout": (
            ("encode", model, text, "--seed", 3),
            ("encode", model, text, "--seed", 3, "--subword-dropout", 0.1),
        ),
        "--shrinking-factor has no effect: it needs --model-type=unigram": (
            ("tokenize", text, "-o", "a", *flags, "--model-type", "bpe"),
            ("tokenize", text, "-o", "b", *flags),
        ),
        "--probability has no effect: --json and --top give probabilities anyway": (
            ("predict", tiny.run, text, "-p", "--json"),
            ("predict", tiny.run, text, "-p"),
        ),
    }
    for said, (idle_words, working) in cases.items():
        assert said in run_main(*idle_words).err
        ended = run_main(*working)
        assert ended.code == 0, ended.err
        assert "no effect" not in ended.err
