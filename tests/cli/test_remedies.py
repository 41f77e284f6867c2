"""Follow the advice of each message literally, and check that the error is gone.

A row of REMEDIES has a command that causes a message, and how to follow its advice, with the words
of the message. The last tests search the source for advice without a row.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import shlex
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from srucli.config import known_keys
from srucli.runs.run_dir import RunDir
from srucli.training.trainer import Trainer
from tests.support import ROOT, CommandResult, RunMain, Tiny, sentences, write_tsv

Words = list[str]
Match = re.Match[str]
# A training that takes a fraction of a second.
TRAIN = (
    "train two.tsv -o run --tokenizer m.model --threads 1 --encoder bag --epochs 1 "
    "model.embedding_size=4 train.dev_share=0"
)
# One that fine-tunes its run.
FROM = "train two.tsv --from run -o new --threads 1 --epochs 1 train.dev_share=0"
# The first with a tokenizer of its own.
OWN_TOKENIZER = TRAIN.replace("--tokenizer m.model", "tokenizer.vocab_size=60")
# The same for vectors of tokens.
PRETRAIN = "pretrain two.tsv -o base --tokenizer m.model --embedding-size 4 --epochs 1"
# In a folder whose name has to be quoted.
QUOTED = """-o 'my "run"'"""
# In front of a command in `before`: it is interrupted after its first epoch, or reads texts from
# stdin. Instead of a command: another process holds the run, or files that resuming needs are gone.
STOPPED, STDIN, LOCKED, DAMAGED = "(stopped) ", "(stdin) ", "(locked)", "(damaged "
# The marker of a run folder.
MARKED = json.dumps({"format": 1, "kind": "run", "id": "0" * 32})
COMPARE = "compare one.tsv --epochs 1"
TUNE = "tune one.tsv"
# The error for a file with one label, so that commands that train many times end early.
ENDS = "a classifier needs two or more"


def added(words: Words, match: Match) -> Words:
    """Return the command with the words that the message says to add."""
    return [*words, *(word for group in match.groups() for word in shlex.split(group))]


def pasted(words: Words, match: Match) -> Words:
    """Return the command that the message names."""
    program, *rest = shlex.split(match[1])
    assert program == "srucli"
    return rest


def without(*flags: str) -> Callable[[Words, Match], Words]:
    """Return a function that removes flags and their values from the command."""

    def follow(words: Words, match: Match) -> Words:
        kept = list(words)
        for flag in flags:
            at = kept.index(flag)
            valued = at + 1 < len(kept) and not kept[at + 1].startswith("-")
            del kept[at : at + 1 + valued]
        return kept

    return follow


def changed(old: str, new: str) -> Callable[[Words, Match], Words]:
    """Return a function that replaces a word; \\1 stands for the message's words."""

    def follow(words: Words, match: Match) -> Words:
        assert old in words
        return [match.expand(new) if word == old else word for word in words]

    return follow


def plus(more: str) -> Callable[[Words, Match], Words]:
    """Return a function that adds words; \\1 stands for the message's words."""
    return lambda words, match: [*words, *shlex.split(match.expand(more))]


def moved_away(words: Words, match: Match) -> Words:
    """Move what the message names out of the folder `run`, and keep the command."""
    Path("run", match[1]).rename("aside")
    return words


def file(name: str, content: str | bytes) -> Callable[[Words, Match], Words]:
    """Return a function that writes a file and keeps the command."""

    def follow(words: Words, match: Match) -> Words:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return words

    return follow


@dataclass(frozen=True)
class Remedy:
    """How to cause a message, and how to follow it.

    command: causes the message. said: a pattern of the message; its groups are the advice. follow:
    makes the next command. advice: a part of the message in the source, if it differs from `said`
    without its pattern characters. files: files to write first. before: commands to run first.
    ends: a part of the next command's error, if that command is not expected to succeed.
    """

    command: str
    said: str
    follow: Callable[[Words, Match], Words] = added
    advice: str = ""
    files: dict[str, str | bytes] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    ends: str = ""


def table(form: str) -> str:
    """Return the examples of two.tsv as lines of another format."""
    rows = [(label, text) for label, text in sentences() if label != "none"][:60]
    return "".join(form.format(label, text.replace(" ,", "")) for label, text in rows)


# A training file, and one that lacks its column of labels.
NO_CLASS: dict[str, str | bytes] = {
    "x.csv": "class,text\n" + table("{},{}\n"),
    "new.csv": "title,text\n" + "".join(f"title {n},word {n}\n" for n in range(20)),
}
TEXT = "".join(f"{text}\n" for _, text in sentences()[:40])
SETTINGS = "files: {train: two.tsv}\ntrain: {epochs: 1, threads: 1}\nmodel: {encoder: bag}\n"

REMEDIES = {
    # ------------------------------------------------ tokenizers
    "vocabulary too large": Remedy(
        "tokenize t.txt -o new --vocab-size 5000",
        r"more than this text allows; pass (--vocab-size \d+) or less",
        advice="is more than this text allows; pass ",
    ),
    "no hard limit": Remedy(
        "tokenize t.txt -o new --vocab-size 5000",
        r"or less, or (--no-hard-vocab-limit)",
        advice="is more than this text allows; pass ",
    ),
    "vocabulary too small": Remedy(
        "tokenize t.txt -o new --vocab-size 5",
        r"too small for this text's characters and the symbols; pass (--vocab-size \d+) or more",
        advice="is too small for this text's characters and the symbols; pass ",
    ),
    "lower coverage": Remedy(
        "tokenize t.txt -o new --vocab-size 40 --character-coverage 1",
        r"or lower (--character-coverage)",
        plus(r"\1 0.98"),
        advice="is too small for this text's characters and the symbols; pass ",
        files={"t.txt": TEXT * 9 + "".join(map(chr, range(0x4E00, 0x4E00 + 30))) + "\n"},
    ),
    "no room for the symbols": Remedy(
        "tokenize t.txt -o new --model-type word --vocab-size 9 --byte-fallback "
        "--control-symbols one,two,three --user-defined-symbols four",
        r"too small for the symbols alone; pass (--vocab-size \d+) or more",
        advice="is too small for the symbols alone; pass ",
    ),
    "the same in a training": Remedy(
        TRAIN.replace(
            "--tokenizer m.model",
            "tokenizer.model_type=word tokenizer.vocab_size=9 tokenizer.byte_fallback=true",
        ),
        r"too small for the symbols alone; pass (tokenizer\.vocab_size=\d+) or more",
        advice="is too small for the symbols alone; pass ",
    ),
    "ids must differ": Remedy(
        "tokenize t.txt -o new --vocab-size 30 --bos-id 2",
        r"--unk-id, (--bos-id), --eos-id and --pad-id must differ \(or be (-1)\)",
        advice=" must differ (or be -1) and lie below ",
    ),
    "ids must differ in a training": Remedy(
        TRAIN.replace("--tokenizer m.model", "tokenizer.bos_id=2"),
        r"tokenizer\.unk_id, (tokenizer\.bos_id), .* must differ \(or be (-1)\)",
        plus(r"\1=\2"),
        advice=" must differ (or be -1) and lie below ",
    ),
    "lines too long": Remedy(
        "tokenize t.txt -o new --vocab-size 30 --max-sentence-length 10",
        r"no line to train on; raise (--max-sentence-length)",
        plus(r"\1 100"),
        advice="raise ",
    ),
    "lines too long in a training": Remedy(
        TRAIN.replace("--tokenizer m.model", "tokenizer.max_sentence_length=10"),
        r"no line to train on; raise (tokenizer\.max_sentence_length)",
        plus(r"\1=100"),
        advice="raise ",
    ),
    "one label only": Remedy(
        TRAIN.replace("two.tsv", "columns.csv"),
        r"a classifier needs two or more; check (--label) and --format",
        plus(r"\1 3 --text 2"),
        advice="a classifier needs two or more; check --label and --format",
        files={"columns.csv": "label,text,kind\n" + "x,b c,bad\nx,a b,good\n" * 9},
    ),
    "no model": Remedy(
        "encode two.tsv t.txt",
        r"not a SentencePiece model; name a .model file that (srucli) tokenize or spm_train wrote",
        changed("two.tsv", "m.model"),
        advice="name a .model file that srucli tokenize or spm_train wrote",
    ),
    "a run in a model's place": Remedy(
        "encode run t.txt",
        r"run: is a run; name the (\.model) file in it",
        changed("run", r"run/tokenizer\1"),
        advice="name the .model file in it",
        before=(TRAIN,),
    ),
    "no prefix": Remedy(
        "tokenize t.txt --vocab-size 30",
        r"no --model-prefix; pass (-o m) to write m.model",
        plus(r"\1 --force"),
        advice="no --model-prefix; pass -o m",
    ),
    "a prefix that is a folder": Remedy(
        "tokenize t.txt --vocab-size 30 --force -o ./",
        r"name a file, as (\S+)",
        changed("./", r"\1"),
        advice="name a file, as ",
    ),
    "a model that exists": Remedy(
        "tokenize t.txt --vocab-size 30 -o m",
        r"choose another prefix or pass (--force)",
        advice="exists already; choose another prefix or pass --force",
    ),
    "lines for labels": Remedy(
        f"{TRAIN} --format lines",
        r"lines are texts without labels; pass (--format auto)",
        advice="lines are texts without labels; pass --format auto",
    ),
    "probabilities of several labels": Remedy(
        TRAIN.replace("two.tsv", "soft.jsonl"),
        r"have the sum 1\.8, not 1; write those of all labels, or pass (--multi-label)",
        advice="write those of all labels, or pass --multi-label if each is independent",
        files={"soft.jsonl": '{"text": "a b", "probabilities": {"x": 0.9, "y": 0.9}}\n' * 9},
    ),
    "a weight that is the text": Remedy(
        TRAIN.replace("two.tsv", "trust.csv --text 2 --weight text"),
        r"--weight text is the column of texts or of labels; name another",
        changed("text", "trust"),
        advice=" is the column of texts or of labels; name another",
        files={"trust.csv": "label,text,trust\n" + table("{},{},2\n")},
    ),
    "a weight in fastText lines": Remedy(
        TRAIN.replace("two.tsv", "trust.txt --weight 2"),
        r"--weight names a column, but fasttext lines have none; use tsv, csv or jsonl",
        file("trust.txt", table("{}\t2\t{}\n")),
        advice=" names a column, but ",
        files={"trust.txt": table("__label__{} {}\n")},
    ),
    "too many folds": Remedy(
        "crossval few.tsv --folds 9",
        r"there are only 4 examples, and each fold needs one; pass (--folds 4)",
        plus(r"\1 -o two.tsv/out"),
        advice="pass --folds {}",
        files={"few.tsv": "a\tx\nb\ty\nb\tz\na\tw\n"},
        ends="two.tsv/out: cannot be made",
    ),
    "too many repeats": Remedy(
        "crossval one.tsv --repeats 300",
        r"1,500 trainings are more than anyone waits for; pass (--repeats 200) or less",
        advice="--repeats {}",
        ends=ENDS,
    ),
    "far too many folds": Remedy(
        "crossval one.tsv --folds 3000",
        r"3,000 trainings are more than anyone waits for; pass (--folds 1000 --repeats 1) or less",
        advice="--folds {} --repeats 1",
        ends=ENDS,
    ),
    "one group": Remedy(
        "crossval trust.csv --group trust",
        r"all examples have the group '2'; name another column with (--group)",
        lambda words, match: [*words[:2], match[1], "word"],
        advice="name another column with --group",
        files={"trust.csv": "label,word,text,trust\n" + "a,x,b c,2\na,y,e d,2\n" * 9},
        ends=ENDS,
    ),
    "labels and all": Remedy(
        "tokenize two.tsv -o new --vocab-size 30 --model-type char --force",
        r"read as raw text, labels and all; (--format auto) takes the texts",
        advice="--format auto takes the texts of labelled files",
    ),
    "labels and all of raw text": Remedy(
        f"{OWN_TOKENIZER} --raw two.tsv",
        r"labels and all; `(srucli pretrain --format auto)`, then --from, takes the texts alone",
        lambda words, match: [*pasted(words, match), *["two.tsv", "-o", "b", "--vocab-size", "40"]],
        advice="`srucli pretrain --format auto`, then --from, takes the texts alone",
    ),
    "other raw text": Remedy(
        f"{OWN_TOKENIZER} --raw two.tsv",
        r"was not trained from this raw text with these settings; choose another (-o)",
        plus(r"\1 other"),
        advice="was not trained from this raw text with these settings; choose another -o",
        before=(f"{OWN_TOKENIZER} --raw t.txt",),
    ),
    "nbest and dropout": Remedy(
        "encode m.model t.txt --nbest 2 --subword-dropout 0.1",
        r"--nbest and (--subword-dropout) exclude each other; pass one of them",
        without("--nbest"),
        advice="--nbest and --subword-dropout exclude each other",
    ),
    "a seed without draws": Remedy(
        "encode m.model t.txt --seed 3",
        r"--seed has no effect: it needs (--subword-dropout)",
        plus(r"\1 0.1"),
    ),
    "text to decode in another encoding": Remedy(
        "decode m.model t.txt",
        r"pass the right (--encoding) \((cp1252)",
        files={"t.txt": "é\n".encode("latin-1")},
        advice="pass the right --encoding ({}, ...) or --errors replace",
    ),
    # ------------------------------------------------ files
    "another encoding": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"is not utf-8; pass the right (--encoding) \((cp1252)",
        advice="pass the right --encoding ({}, ...) or --errors replace",
        files={"x.tsv": "good\té b\nbad\tb c\n".encode("latin-1") * 9},
    ),
    "bytes to replace": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"is not utf-8; .* or (--errors replace)",
        advice="pass the right --encoding ({}, ...) or --errors replace",
        files={"x.tsv": "good\té b\nbad\tb c\n".encode("latin-1") * 9},
    ),
    "another encoding in run": Remedy(
        "run c.yaml files.train=x.tsv -o out --force",
        r"is not utf-8; pass the right (--encoding) \((cp1252)",
        advice="pass the right --encoding ({}, ...) or --errors replace",
        files={"x.tsv": "good\té b\nbad\tb c\n".encode("latin-1") * 9, "c.yaml": SETTINGS},
    ),
    **{
        f"NUL characters of {name}": Remedy(
            TRAIN.replace("two.tsv", "x.tsv"),
            rf"a NUL character after .* or pass (--encoding {name})",
            advice="remove it, or pass --encoding {}-{} if that is what this is",
            files={"x.tsv": ("good\ta b\nbad\tb c\n" * 9).encode(name)},
        )
        for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
    },
    "no such encoding": Remedy(
        f"{TRAIN} --encoding utf-9",
        r"(--encoding) utf-9: no such encoding; try (utf-8)",
        advice="no such encoding; try utf-8",
    ),
    "a file that grows": Remedy(
        TRAIN.replace("two.tsv", "x.tsv.gz --max-ratio 2"),
        r"grows beyond 2 times its size; raise (--max-ratio) if you trust it",
        plus(r"\1 9999"),
        advice="raise --max-ratio if you trust it",
        files={"x.tsv.gz": gzip.compress(b"good\t" + b"a" * 1_500_000 + b"\n")},
        ends=ENDS,
    ),
    "half of a surrogate pair": Remedy(
        TRAIN.replace("two.tsv", "x.jsonl"),
        r"half of a surrogate pair .* or pass (--errors replace)",
        advice="correct the text or pass --errors replace",
        files={"x.jsonl": '{"label": "a", "text": "x\\ud800"}\n{"label": "b", "text": "y"}\n' * 9},
    ),
    "no delimiter": Remedy(
        f"{TRAIN.replace('two.tsv', 'x.csv')} --delimiter '\"'",
        r"--delimiter .*: cannot separate columns; see (,)",
        changed('"', r"\1"),
        advice="cannot separate columns; see , ; or |",
        files={"x.csv": "label,text\n" + "good,a b\nbad,b c\n" * 9},
    ),
    # ------------------------------------------------ settings
    "no override": Remedy(
        f"{TRAIN} layers",
        r"'layers' is not an override; write KEY=VALUE, such as (model\.layers=\d)",
        changed("layers", r"\1"),
        advice="is not an override; write KEY=VALUE, such as model.layers=",
    ),
    "an unknown setting": Remedy(
        f"{TRAIN} model.layer=1",
        r"unknown setting 'model\.layer' \(did you mean '(.*)'\?\)",
        changed("model.layer=1", r"\1=1"),
        advice="unknown setting ",
    ),
    "too many threads": Remedy(
        f"{TRAIN} train.threads=1000",
        r"(train\.threads)=1000: this machine has \d+ processors; use at most (\d+) threads",
        plus(r"\1=\2"),
        advice=" processors; use at most ",
    ),
    "a table that is too large": Remedy(
        f"{TRAIN} model.bag_buckets=200000000 model.embedding_size=64",
        r"weights of 47\.7 GiB, and at most 4 GiB are possible; lower (model\.bag_\w+) \(now",
        plus(r"\1=512"),
        advice=" GiB are possible; lower ",
    ),
    "a file of settings without one": Remedy(
        "run c.yaml --force",
        r"files\.output is not set; add it, as (files\.output=)VALUE",
        plus(r"\1out"),
        advice=" is not set; add it, as ",
        files={"c.yaml": SETTINGS},
    ),
    "no files": Remedy(
        "run c.yaml model.encoder=bag train.epochs=1",
        r"no section 'files'; set (files\.train=)FILE and (files\.output=)FOLDER",
        plus(r"\1two.tsv \2out"),
        files={"c.yaml": "train: {threads: 1}\n"},
    ),
    "a gate without a test": Remedy(
        "run c.yaml files.output=out --fail-under accuracy=0",
        r"--fail-under has nothing to measure on; set (files\.test=)FILE",
        plus(r"\1two.tsv"),
        files={"c.yaml": SETTINGS},
    ),
    "a flag of the data in run": Remedy(
        "run c.yaml files.output=out files.train=same.tsv",
        r"pass (--merge-labels) to read them as one",
        advice="write them alike, or pass ",
        files={"c.yaml": SETTINGS, "same.tsv": "1\ta b\n1.0\tb c\n0\tc d\n" * 9},
    ),
    "an unknown optimizer": Remedy(
        f"{TRAIN} --optimizer adan",
        r"unknown optimizer 'adan' \(did you mean '(\w+)'",
        changed("adan", r"\1"),
        advice=": unknown optimizer ",
    ),
    "an unknown option": Remedy(
        f"{TRAIN} optim.options.ep=1e-8",
        r"adam has no such option \(did you mean '(\w+)'",
        changed("optim.options.ep=1e-8", r"optim.options.\1=1e-8"),
        advice="has no such option",
    ),
    "an unknown package": Remedy(
        f"{TRAIN} --optimizer schedulfree:SGDScheduleFree",
        r"no optimizers are taken from 'schedulfree' \(did you mean '(\w+)'",
        changed("schedulfree:SGDScheduleFree", r"\1:SGDScheduleFree"),
        advice="optim.name: no optimizers are taken from ",
    ),
    "an unknown class": Remedy(
        f"{TRAIN} --optimizer schedulefree:SGDScheduleFre",
        r"has no optimizer 'SGDScheduleFre' \(did you mean '(\w+)'",
        changed("schedulefree:SGDScheduleFre", r"schedulefree:\1"),
        advice="has no optimizer ",
    ),
    "an unknown option of a class": Remedy(
        f"{TRAIN} --optimizer schedulefree:SGDScheduleFree optim.options.momentu=0.8",
        r"has no such option \(did you mean '(\w+)'",
        changed("optim.options.momentu=0.8", r"optim.options.\1=0.8"),
        advice="has no such option",
    ),
    "an unknown flag": Remedy(
        f"{TRAIN} --epoch 3",
        r"did you mean '.*'\?\); see (srucli train --help)",
        pasted,
        advice="see {} --help",
    ),
    "an unknown command": Remedy(
        "trian two.tsv",
        r"no command 'trian' .*; see (srucli --help)",
        pasted,
        advice="; see srucli --help",
    ),
    "an unknown encoder": Remedy(
        f"{TRAIN} model.encoder=bags",
        r"model\.encoder: 'bags' is unknown \(did you mean '(\w+)'",
        changed("model.encoder=bags", r"model.encoder=\1"),
        advice=" is unknown",
    ),
    "an invalid device": Remedy(
        f"{TRAIN} --device gpu",
        r"write auto, (cpu), cuda or cuda:N",
        changed("gpu", r"\1"),
        advice=": write auto, cpu, cuda or cuda:N",
    ),
    "a device that is not there": Remedy(
        f"{TRAIN} --device cuda:99",
        r"torch sees \d+ GPUs; use --device (cpu)",
        changed("cuda:99", r"\1"),
        advice=" GPUs; use --device cpu",
    ),
    "a device that is not there, in run": Remedy(
        "run c.yaml files.output=out train.device=cuda:99",
        r"torch sees \d+ GPUs; use (--device cpu)",
        lambda words, match: [*without("train.device=cuda:99")(words, match), *added([], match)],
        advice=" GPUs; use --device cpu",
        files={"c.yaml": SETTINGS},
    ),
    "a precision without a GPU": Remedy(
        f"{TRAIN} --device cpu train.precision=bf16",
        r"(train\.precision=)bf16 needs a GPU; use (float32)",
        plus(r"\1\2"),
        advice=" needs a GPU; use float32",
    ),
    "no TRAIN": Remedy(
        TRAIN.replace("two.tsv ", ""),
        r"no TRAIN; name a labelled (file), or a run with --resume",
        lambda words, match: ["train", "two.tsv", *words[1:]],
    ),
    "what a run has itself": Remedy(
        "train --resume run -o other",
        r"the run has its own; leave out (-o)",
        without("-o"),
        advice="the run has its own; leave out ",
        before=(TRAIN,),
    ),
    # ------------------------------------------------ data files
    "commas": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"separated by commas; pass (--format csv)",
        advice="--format csv",
        files={"x.tsv": table("{},{}\n")},
    ),
    "bars": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"separated by bars; pass (--format csv --delimiter '\|')",
        advice="--format csv --delimiter '{}'",
        files={"x.tsv": "good|a film\nbad,a story\n" + table("{}|{}\n")},
        ends="1 column only, no text in column 2: 'bad,a story'",
    ),
    "tabs": Remedy(
        TRAIN.replace("two.tsv", "x.csv --delimiter ';'"),
        r"separated by tabs; pass (--format tsv)",
        lambda words, match: [*without("--delimiter")(words, match), *match[1].split()],
        advice="--format tsv",
        files={"x.csv": table("{}\t{}\n")},
    ),
    "pairs": Remedy(
        TRAIN.replace("two.tsv", "x.txt"),
        r"a label, a blank and a text; pass (--format pairs)",
        advice="--format pairs",
        files={"x.txt": table("{} {}\n")},
    ),
    "pairs of a label of two parts": Remedy(
        TRAIN.replace("two.tsv", "x.txt"),
        r"a label, a blank and a text; pass (--format pairs)",
        advice="--format pairs",
        files={"x.txt": table("{0}:{0}s {1}\n")},
    ),
    "JSON in a tsv": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"JSON, but read as tsv: .*; pass (--format jsonl)",
        advice="pass --format {}",
        files={"x.tsv": table('{{"label": "{}", "text": "{}"}}\n')},
    ),
    "JSON in what is said to be a tsv": Remedy(
        TRAIN.replace("two.tsv", "x.tsv --format tsv"),
        r"it seems to be JSON lines; pass (--format jsonl)",
        changed("tsv", "jsonl"),
        advice="--format jsonl",
        files={"x.tsv": table('{{"label": "{}", "text": "{}"}}\n')},
    ),
    "fastText in a tsv": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"fastText lines, but read as tsv: .*; pass (--format fasttext)",
        advice="pass --format {}",
        files={"x.tsv": table("__label__{} {}\n")},
    ),
    "fastText in a csv": Remedy(
        TRAIN.replace("two.tsv", "x.csv --format csv"),
        r"it seems to be fastText lines; pass (--format fasttext)",
        changed("csv", "fasttext"),
        advice="--format fasttext",
        files={"x.csv": table("__label__{} {}\n")},
    ),
    "swapped columns": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"nearly all different .*; pass (--label 2 --text 1), or --label 1 --text 2 if they are",
        advice="--label {} --text {}",
        files={"x.tsv": table("{1}\t{0}\n")},
    ),
    "labels that all differ": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"name others \(--label, --text\), or (--label 1 --text 2) if they are right",
        advice="name others (--label, --text)",
        files={"x.tsv": "".join(f"{n}\tthe film number {n}\n" for n in range(20))},
    ),
    "columns that nothing names": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"all of the first rows have 4 columns, .*; pass (--label 2 --text 4), or --label 1",
        advice="--label {} --text {}",
        files={"x.tsv": table("gj04\t{}\t*\t{}\n")},
    ),
    "a column for each label": Remedy(
        TRAIN.replace("two.tsv", "x.csv"),
        r"hold 0 and 1, as if each were a label; .* or pass (--label 2 --text 1) for the first",
        advice="for the first of them",
        files={"x.csv": "body,toxic,rude\n" + "a b c,0,1\nb c d,1,0\n" * 9},
    ),
    "columns that may both hold labels": Remedy(
        TRAIN.replace("two.tsv", "x.csv"),
        r"nothing says which column holds the labels: .*, or (--label 3 --text 2) for 'b'",
        advice="--label {} --text {}",
        files={"x.csv": "a,text,b\n" + "x,b c d,q\nx,a b c,r\ny,b c d,r\n" * 9},
    ),
    "another mark": Remedy(
        TRAIN.replace("two.tsv", "x.txt"),
        r"separated by '\^'; pass (--format csv --delimiter '\^')",
        advice="--format csv --delimiter {}",
        files={"x.txt": table("{}^it {}\n")},  # "it" is no part of one label
    ),
    "another mark after the text": Remedy(
        TRAIN.replace("two.tsv", "x.csv --delimiter @"),
        r"are nearly all different .*; pass (--label 2 --text 1)",
        advice="--label {} --text {}",
        files={"x.csv": "".join(f"text {n} so@{'ab'[n % 2]}\n" for n in range(30))},
    ),
    "a list that is broken": Remedy(
        f"{TRAIN.replace('two.tsv', 'x.tsv')} --multi-label",
        r"a list of labels that is broken: .*; write it as (\['one', 'two'\])",
        lambda words, match: file("x.tsv", table("['{}', 'b']\t{}\n") + f"{match[1]}\tso\n")(
            words, match
        ),
        advice="write it as ['one', 'two']",
        files={"x.tsv": table("['{}', 'b']\t{}\n") + "['one', 'two\tso\n"},
    ),
    "a second column of texts": Remedy(
        f"train both.tsv {TRAIN.split(' ', 2)[2]}",
        r"(--text 2,3) reads these columns together",
        plus(r"\1 -o other"),
        advice=" reads these columns together",
        files={"both.tsv": "label\ttitle\tbody\n" + table("{0}\t{1} it was\t{1} once more\n")},
    ),
    "a column named twice": Remedy(
        f"train both.tsv --text title,title {TRAIN.split(' ', 2)[2]}",
        r"--text title,title names a column twice; name it once",
        changed("title,title", "title"),
        advice=" names a column twice; name it once",
        files={"both.tsv": "label\ttitle\n" + table("{0}\t{1}\n")},
    ),
    "another delimiter of labels": Remedy(
        TRAIN.replace("two.tsv", "x.csv --multi-label"),
        r"labels look joined by ';', and (--label-delimiter ';') splits them",
        plus(r"\1 -o other"),
        advice="--label-delimiter {}",
        files={"x.csv": "text,label\n" + "a b c,good;new\nb c d,bad;new\n" * 9},
    ),
    "a header": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"looks like a header: .*; pass (--header), or --no-header if it is not a name",
        advice="pass --header, or --no-header if it is not a name",
        files={"x.tsv": "kind\twords\n" + table("{}\t{}\n")},
    ),
    "no header": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"looks like a header: .*; pass --header, or (--no-header) if it is not a name",
        advice="pass --header, or --no-header if it is not a name",
        files={"x.tsv": "kind\twords\n" + table("{}\t{}\n")},
    ),
    "the same column twice": Remedy(
        f"{TRAIN} --text 1 --label 1",
        r"both column 1; see (--text) and --label",
        plus(r"\1 2"),
        advice="text and label are both column {}; see --text and --label",
    ),
    "tabs in texts": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"a text is all that follows its label, and (--text 2) reads column 2 alone",
        advice="a text is all that follows its label, and --text 2 reads column 2 alone",
        files={"x.tsv": table("{}\t{}\n") + "good\ta film\tof 1999\n"},
    ),
    "texts without labels": Remedy(
        "eval run new.csv",
        r"no column 'class' in the header .*, or label the texts with srucli (predict)",
        changed("eval", r"\1"),
        advice=", or label the texts with srucli predict",
        files=NO_CLASS,
        before=(TRAIN.replace("two.tsv", "x.csv"),),
    ),
    "labels of another name": Remedy(
        "eval run new.csv",
        r"no column 'class' in the header .*; name the label column with (--label), or ",
        plus(r"\1 title"),
        advice="name the label column with --label{}",
        files=NO_CLASS,
        before=(TRAIN.replace("two.tsv", "x.csv"),),
    ),
    "commas outside of quotes": Remedy(
        TRAIN.replace("two.tsv", "x.csv"),
        r"3 columns, but the first row has 2: .*, or pass (--no-quotes)",
        advice=", or pass --no-quotes",
        files={"x.csv": "label,text\n" + table("{},{}, so\n")},
    ),
    "commas in texts alone": Remedy(
        "predict run x.csv",
        r"or pass (--format tsv) if each line is a text",
        advice=", or pass --format tsv if each line is a text",
        files={"x.csv": "one, two\nthree\none, two, three\n"},
        before=(TRAIN,),
    ),
    "a quote that opens": Remedy(
        TRAIN.replace("two.tsv", "x.csv"),
        r"never closes: .*; close it, or pass (--no-quotes) if quotes are part of the texts",
        advice="close it, or pass --no-quotes if quotes are part of the texts",
        files={"x.csv": table("{},{}\n") + 'good,"so\n'},
    ),
    "a quote that closes": Remedy(
        TRAIN.replace("two.tsv", "x.csv"),
        r"after the closing quote of a field: .*; write .* twice \(\"\"\), or pass (--no-quotes)",
        advice='write a quote inside a quoted field twice (""), or pass --no-quotes',
        files={"x.csv": table("{},{}\n") + 'good,"so" it is\n'},
    ),
    "cells that look quoted": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"cells look quoted, and (--quotes) removes the quotes",
        files={"x.tsv": table("{}\t{}\n") + 'good\t"so ""it"" is"\n'},
        ends="different examples would have no effect",
    ),
    "a mark of UTF-16": Remedy(
        TRAIN.replace("two.tsv", "x.tsv --encoding latin-1"),
        r"byte-order mark, so this is not .*; pass --encoding (utf-16)",
        changed("latin-1", r"\1"),
        advice="pass --encoding {}",
        files={"x.tsv": table("{}\t{}\n").encode("utf-16")},
    ),
    "a mark of UTF-8": Remedy(
        TRAIN.replace("two.tsv", "x.tsv --encoding latin-1"),
        r"byte-order mark, so this is not .*; pass --encoding (utf-8)",
        changed("latin-1", r"\1"),
        advice="pass --encoding {}",
        files={"x.tsv": table("{}\t{}\n").encode("utf-8-sig")},
    ),
    # ------------------------------------------------ runs in use
    "a gate that is none": Remedy(
        "eval run two.tsv --fail-under accuracy",
        r"write METRIC=NUMBER, such as (accuracy)=0\.9",
        changed("accuracy", r"\1=0"),
        advice=": write METRIC=NUMBER, such as accuracy=0.9",
        before=(TRAIN,),
    ),
    "no label in eval": Remedy(
        "eval run x.ft --threads 1",
        r"(\d) labels?: .*; keep one, or train with (--multi-label)",
        lambda words, match: shlex.split(
            TRAIN.replace("two.tsv -o run", f"x.ft -o several {match[2]}")
        ),
        advice="keep one, or train with --multi-label",
        files={"x.ft": "__label__a __label__b one\n__label__b two\n"},
        before=(TRAIN,),
    ),
    "several labels in eval": Remedy(
        "eval run x.jsonl --threads 1",
        r"2 labels: 'a, b'; keep one, or train with (--multi-label)",
        lambda words, match: shlex.split(
            TRAIN.replace("two.tsv -o run", f"x.jsonl -o several {match[1]}")
        ),
        advice="keep one, or train with --multi-label",
        files={"x.jsonl": '{"label": ["a", "b"], "text": "t"}\n{"label": [], "text": "u"}\n'},
        before=(TRAIN,),
    ),
    "keep and JSON": Remedy(
        "predict run two.tsv --with-input --json",
        r"(--with-input) adds the record as text; leave it out with --json",
        without("--with-input"),
        advice="--with-input adds the record as text; leave it out with --json",
        before=(TRAIN,),
    ),
    "top and threshold": Remedy(
        "predict run two.tsv --top 2 --threshold 0.5",
        r"--threshold rejects a single label; with --top it needs (--json)",
        advice="--threshold rejects a single label; with --top it needs --json",
        before=(TRAIN,),
    ),
    "reject without a threshold": Remedy(
        "predict run two.tsv --reject other",
        r"--reject needs (--threshold), below which",
        plus(r"\1 0.5"),
        before=(TRAIN,),
    ),
    "a reject label of two columns": Remedy(
        r"predict run two.tsv --threshold 0.5 --reject 'a	b'",
        r"(--reject): a label is on one line and has no tab; choose another",
        plus(r"\1 other"),
        before=(TRAIN,),
    ),
    "a reject label of the run": Remedy(
        "predict run two.tsv --threshold 0.5 --reject good",
        r"choose another, as (--reject \w+)",
        advice="; choose another, as --reject ",
        before=(TRAIN,),
    ),
    "thresholds of several labels": Remedy(
        "predict run two.tsv --threshold 0.5",
        r"(--threshold) is for a single label a text",
        without("--threshold"),
        advice="--threshold is for a single label a text",
        before=(f"{TRAIN} --multi-label",),
    ),
    "no run": Remedy(
        "eval non two.tsv",
        r"non: no such run; give the folder that `(srucli train)` printed",
        changed("non", "run"),
        advice="; give the folder that `srucli train` printed",
        before=(TRAIN,),
    ),
    "no run to resume": Remedy(
        "train --resume non --threads 1",
        r"non: no such run; give the folder that `(srucli train)` printed",
        changed("non", "run"),
        advice="; give the folder that `srucli train` printed",
        before=(TRAIN,),
    ),
    "no run to diagnose": Remedy(
        "diagnose non",
        r"non: no such run; give the folder that `(srucli train)` printed",
        changed("non", "run"),
        advice="; give the folder that `srucli train` printed",
        before=(f"{TRAIN} --diagnose 1",),
    ),
    "an unfinished run": Remedy(
        """info 'my "run"'""",
        r"stopped; to resume: (srucli train --resume .*)",
        pasted,
        before=(f"{STOPPED}{TRAIN.replace('-o run', QUOTED)} train.epochs=2",),
        advice="stopped; to resume: srucli train --resume ",
    ),
    "no diagnostics": Remedy(
        "diagnose run",
        r"train it again with (--diagnose 20) and another (-o)",
        lambda words, match: ["diagnose", "diagnosed"],
        advice="train it again with --diagnose 20 and another -o",
        before=(TRAIN, TRAIN.replace("-o run", "-o diagnosed") + " --diagnose 20"),
    ),
    "a model card": Remedy(
        """info 'my "run"'""",
        r"(best)",
        lambda words, match: next(
            shlex.split(line)[1:]
            for line in Path('my "run"/README.md').read_text().splitlines()
            if line.startswith("    srucli ")
        ),
        advice="    srucli predict ",
        files={"texts.txt": TEXT},
        before=(TRAIN.replace("-o run", QUOTED),),
    ),
    # ------------------------------------------------ comparing and tuning
    "nothing to compare": Remedy(
        COMPARE,
        r"give one of --optimizer, (--encoder) and --over",
        plus(r"\1 bag,cnn"),
        ends=ENDS,
    ),
    "patience in a comparison": Remedy(
        f"{COMPARE} --encoder bag,cnn train.patience=2",
        r"(train\.patience) ends trainings at different steps; set it to (0)",
        plus(r"\1=\2"),
        ends=ENDS,
    ),
    "a rate for every optimizer": Remedy(
        f"{COMPARE} --optimizer adam,sgd optim.lr=0.1",
        r"compare rates by (--over optim\.lr)=A,B",
        lambda words, match: [
            *without("--optimizer")(words, match),
            *shlex.split(f"{match[1]}=0.1,0.2"),
        ],
        ends=ENDS,
    ),
    "too large a grid": Remedy(
        f"{COMPARE} --encoder bag,cnn --grid 1000000000",
        r"--grid 1,000,000,000: more trials than anyone waits for; pass (--grid 64) or less",
        advice=": more trials than anyone waits for; pass --",
        ends=ENDS,
    ),
    "too many seeds": Remedy(
        f"{COMPARE} --encoder bag,cnn --seeds 1000000000",
        r"--seeds 1,000,000,000: more trials than anyone waits for; pass (--seeds 1000) or less",
        advice=": more trials than anyone waits for; pass --",
        ends=ENDS,
    ),
    "too few texts to hold some out": Remedy(
        "compare few.tsv --encoder bag,cnn --epochs 1",
        r"too few texts to hold some out; give (--dev) and (--test)",
        plus(r"\1 two.tsv \2 two.tsv optim.name=adam -o no/folder/\0 --threads 1"),
        files={"few.tsv": "a\tx\nb\ty\n"},
        ends="compare has no flag --threads; write train.threads=VALUE",
    ),
    "a recipe that is a folder": Remedy(
        f"{TUNE} -o runs",
        r"runs: is a folder; name a file with (-o)",
        plus(r"\1 recipe.yaml"),
        advice=": is a folder; name a file with -o",
        files={"runs/x": ""},
        ends=ENDS,
    ),
    "a recipe that exists": Remedy(
        f"{TUNE} -o recipe.yaml",
        r"exists already; choose another -o, or add (--force)",
        files={"recipe.yaml": ""},
        ends=ENDS,
    ),
    "the smallest model": Remedy(
        "tune two.tsv --minutes 0.05 --max-mb 0.01 tokenizer.vocab_size=100 train.epochs=1 "
        "train.threads=1",
        r"allow (--max-mb \d+\.\d)",
        advice="; allow --max-mb ",
    ),
    # ------------------------------------------------ folders
    "a folder of somebody": Remedy(
        TRAIN,
        r"contains no run that srucli made, but mine; choose another (-o)",
        plus(r"\1 other"),
        advice="that srucli made, but {}; choose another -o",
        files={"run/mine": ""},
    ),
    "a folder of somebody, in run": Remedy(
        "run c.yaml",
        r"contains no run that srucli made, but mine; choose another (-o)",
        plus(r"\1 other"),
        advice="that srucli made, but {}; choose another -o",
        files={"run/mine": "", "c.yaml": SETTINGS.replace("two.tsv", "two.tsv, output: run")},
    ),
    "a folder of a comparison": Remedy(
        TRAIN,
        r"contains a comparison and not a run; choose another (-o)",
        plus(r"\1 other"),
        advice=": contains a {} and not a {}; choose another -o",
        files={"run/srucli.json": MARKED.replace("run", "comparison")},
    ),
    "a folder in the way": Remedy(
        TRAIN,
        r"in the way: (README.md) \(not a regular file\); move it away$",
        moved_away,
        advice="move it away",
        files={"run/srucli.json": MARKED, "run/README.md/x": ""},
    ),
    "an input in the folder": Remedy(
        f"{TRAIN} --force --dev run/metrics.jsonl",
        r"but this command reads it \(as .*\); choose another (-o), or give a copy",
        plus(r"\1 other"),
        advice="; choose another -o, or give a copy that is elsewhere",
        files={"run/srucli.json": MARKED, "run/metrics.jsonl": '{"text": "a", "label": "bad"}'},
    ),
    "a folder in a file": Remedy(
        TRAIN.replace("-o run", "-o two.tsv/run"),
        r"two.tsv: is not a folder; choose another (-o)",
        plus(r"\1 other"),
        advice=": is not a folder; choose another -o",
    ),
    "a folder with too long a name": Remedy(
        TRAIN.replace("-o run", f"-o {'long' * 99}"),
        r"the name is too long; choose a (shorter) one",
        plus(r"-o \1"),
        advice=": the name is too long; choose a shorter one",
    ),
    "a run that cannot go on": Remedy(
        TRAIN.replace("-o run", "-o v4"),
        r"v4: exists already; choose another (-o), or add --force",
        plus(r"\1 other"),
        advice=": exists already; choose another -o, or add --force",
    ),
    "a run to replace": Remedy(
        TRAIN.replace("-o run", "-o v4"),
        r"v4: exists already; choose another -o, or add (--force)",
        advice=": exists already; choose another -o, or add --force",
    ),
    "a folder that is in use": Remedy(
        TRAIN,
        r"another training writes there .* or train in another folder, with (-o)",
        plus(r"\1 other"),
        advice="stop it, or train in another folder, with -o",
        before=(LOCKED,),
    ),
    "an unknown topic": Remedy(
        "help guide",
        r"no topic or command 'guide'; see (srucli help)",
        pasted,
        advice="no topic or command {}{}; see srucli help",
    ),
    "a recipe's file": Remedy(
        f"{TRAIN} -c configs/no_spaces.yaml",
        r"no such file; pass -c (no_spaces) for the recipe",
        lambda words, match: [*words[:-1], match[1]],
        advice=": no such file; pass -c {} for the recipe",
    ),
    "an unknown recipe": Remedy(
        f"{TRAIN} -c defaults",
        r"neither a recipe nor a file; the recipes are (default), ",
        lambda words, match: [*words[:-1], match[1]],
        advice=": neither a recipe nor a file; the recipes are {}",
    ),
    "a file named as a recipe": Remedy(
        f"{TRAIN} -c no_spaces",
        r"the file of this name is -c (./no_spaces)",
        lambda words, match: [*words[:-1], match[1], "-o", "other"],
        advice=" is the recipe; the file of this name is -c ./",
        files={"no_spaces": "model: {layers: 2}\n"},
    ),
    "a dotted key in a file": Remedy(
        f"{TRAIN} -c dotted.yaml",
        r"write (model: \{layers: )VALUE(\})",
        lambda words, match: [*words[:-1], "right.yaml"],
        advice="' is no YAML key; write ",
        files={"dotted.yaml": "model.layers: 2\n", "right.yaml": "model: {layers: 2}\n"},
    ),
    "no run to predict": Remedy(
        "info run/",
        r"not a run folder",
        lambda words, match: shlex.split(TRAIN.replace("-o run", "-o other")),
        advice="not a run folder: it has no run.json",
        files={"run/mine": ""},
    ),
    "an interrupted run": Remedy(
        TRAIN.replace("-o run", QUOTED),
        r"to resume with these: (srucli train --resume .*); or train in another folder",
        pasted,
        advice="; to resume with these: {}; or train in another folder",
        before=(f"{STOPPED}{TRAIN.replace('-o run', QUOTED)} train.epochs=3 train.batch_size=7",),
    ),
    "other texts": Remedy(
        TRAIN.replace("two.tsv", "'2 more.tsv' --dev two.tsv optim.options.betas=[0.8,0.9]")
        + " train.epochs=2",
        r"to resume with these: (srucli train --resume .*); or train in another folder",
        pasted,
        advice="; to resume with these: {}; or train in another folder",
        files={"2 more.tsv": "good\ta b\nbad\tb c\n" * 9},
        before=(TRAIN,),
    ),
    "other settings of a finished run": Remedy(
        f"{TRAIN} optim.lr=0.05",
        r"or start again in this one, with (--force) and without",
        plus(r"\1"),
        advice="; train in another folder, with -o, or start again in this one, with --force",
        before=(TRAIN,),
    ),
    "a folder that is there already": Remedy(
        TRAIN.replace(" -o run", ""),
        r"the run is runs/two-2; (-o) FOLDER sets another",
        plus(r"\1 other"),
        advice="; -o FOLDER sets another",
        before=(TRAIN.replace(" -o run", ""),),
    ),
    "labels that are several": Remedy(
        TRAIN.replace("two.tsv", "x.tsv"),
        r"1 of 3 labels are others joined by ',', .*; (--multi-label) splits them",
        plus(r"\1 -o other"),
        advice="; --multi-label splits them",
        files={"x.tsv": table("{}\t{}\n") + "good,bad\tso and so\n" * 9},
    ),
    "a run that was not measured": Remedy(
        TRAIN,
        r"with (train\.dev_share=0\.1)",
        plus(r"\1 -o other"),
    ),
    "a run to evaluate": Remedy(
        TRAIN,
        r"to evaluate it:  (srucli eval .*) FILE",
        lambda words, match: [*pasted(words, match), "two.tsv"],
        advice="to evaluate it:  srucli eval ",
    ),
    "a run to label texts with": Remedy(
        TRAIN,
        r"to label texts:  (srucli predict .*) -",
        lambda words, match: [*pasted(words, match), "t.txt"],
        advice="to label texts:  srucli predict ",
    ),
    "held-out texts with soft labels": Remedy(
        f"{TRAIN} train.dev_share=0.5".replace("two.tsv", "soft.jsonl"),
        r"not how often it is right; (--dev) FILE measures that",
        plus(r"\1 two.tsv -o other"),
        advice="not how often it is right; --dev FILE measures that",
        files={"soft.jsonl": '{"text": "a b", "probabilities": {"good": 0.9, "bad": 0.1}}\n' * 9},
    ),
    "few texts, and unlabelled ones": Remedy(
        TRAIN,
        r"to use unlabelled text of the same kind too:  srucli train FILE (--raw) CORPUS",
        plus(r"\1 t.txt -o other"),
        advice="to use unlabelled text of the same kind too:  srucli train FILE --raw CORPUS",
    ),
    "few texts, and unlabelled ones that were used": Remedy(
        FROM.replace("--from run", "--from base --encoder bag"),
        r"unlabelled text and learn from that:  (srucli predict .*) TEXTS (--json) \|",
        lambda words, match: [*pasted(words, match), "t.txt", match[2]],
        advice="to let it label unlabelled text and learn from that:  ",
        before=(PRETRAIN,),
    ),
    "tokens to see": Remedy(
        "tokenize t.txt -o new --vocab-size 60",
        r"to see its tokens:  (srucli encode .*) FILE",
        lambda words, match: [*pasted(words, match), "t.txt"],
        advice="to see its tokens:  srucli encode ",
    ),
    "a tokenizer to train with": Remedy(
        "tokenize t.txt -o new --vocab-size 60",
        r"to train with it:   srucli train FILE (--tokenizer .*)",
        lambda words, match: [*TRAIN.split()[:4], *match[1].split(), *TRAIN.split()[6:]],
        advice="to train with it:   srucli train FILE --tokenizer ",
    ),
    "another network": Remedy(
        "train --resume run model.embedding_size=8 --force",
        r"whose weights do not fit; train in (another folder)",
        lambda words, match: shlex.split(f"{TRAIN} model.embedding_size=8 -o other"),
        before=(TRAIN,),
    ),
    "other labels": Remedy(
        "train other.tsv --resume run --force",
        r"was trained with different labels; train in (another folder)",
        lambda words, match: shlex.split(TRAIN.replace("two.tsv -o run", "other.tsv -o new")),
        files={"other.tsv": "a\ta b\nb\tb c\n" * 9},
        before=(TRAIN,),
    ),
    "no checkpoint": Remedy(
        """train --resume 'my "run"' --threads 1""",
        r"no checkpoint to resume from: .* to start again: (srucli .*)",
        lambda words, match: [*pasted(words, match), *TRAIN.split()[4:]],
        advice="to start again: ",
        before=(TRAIN.replace("-o run", QUOTED), f'{DAMAGED}model.safetensors) my "run"'),
    ),
    "a run that only predicts": Remedy(
        "train --resume run",
        r"no checkpoint to resume from: .*; train in another folder, with (-o); it can still",
        lambda words, match: shlex.split(TRAIN.replace("-o run", f"{match[1]} other")),
        advice="train in another folder, with -o; it can still predict",
        before=(TRAIN, f"{DAMAGED}training.json) run"),
    ),
    "a run of an old format": Remedy(
        "predict old two.tsv",
        r"format version 2, from before the first release, is no longer read; (train) again",
        lambda words, match: shlex.split(TRAIN.replace("train", match[1], 1)),
        advice="train again",
        files={"old/run.json": '{"format_version": 2}'},
    ),
    "another tokenizer": Remedy(
        f"{TRAIN} --tokenizer v4/tokenizer.model",
        r"--tokenizer: the run was trained with another one; (leave it out)",
        lambda words, match: without("--tokenizer", "--tokenizer")(words, match),
        before=(TRAIN,),
        ends="is finished",
    ),
    "a training that is interrupted": Remedy(
        f"{STOPPED}{TRAIN.replace('-o run', QUOTED)} train.epochs=2",
        r"and saved; to resume: (srucli train --resume .*)",
        pasted,
        advice="to resume: srucli train --resume ",
    ),
    "a state that is not needed": Remedy(
        TRAIN.replace("-o run", QUOTED),
        r"MB, which only longer training needs:  (srucli slim .*)",
        pasted,
        advice="to remove ",
    ),
    "a rate that is too high": Remedy(
        f"{TRAIN} --batch-size 2 --optimizer sgd optim.clip=0 optim.lr=1e38",
        r"training diverged; lower (optim\.lr) \(now",
        plus(r"\1=0.1"),
        advice=": training diverged; lower optim.lr",
    ),
    "no clipping": Remedy(
        f"{TRAIN} --batch-size 2 --optimizer sgd optim.clip=0 optim.lr=1e15",
        r"training diverged; lower .* or set (optim\.clip=1)",
        advice="set optim.clip=1",
    ),
    "too little clipping": Remedy(
        f"{TRAIN} --batch-size 2 --optimizer sgd optim.clip=1e30 optim.lr=1e15",
        r"training diverged; lower .* or (optim\.clip) \(now 1e\+30\)",
        plus(r"\1=1"),
        advice="optim.clip (now ",
    ),
    "thresholds without dev examples": Remedy(
        f"{TRAIN} --multi-label",
        r"a dev file or (train\.dev_share=0\.1) lets the thresholds be fitted",
        plus(r"\1 -o other"),
    ),
    "a share of no example": Remedy(
        f"{TRAIN} train.dev_share=0.001",
        r"holds out none of 60 examples: .* give a larger share, more examples or (--dev) FILE",
        plus(r"\1 two.tsv -o other"),
        advice="; give a larger share, more examples or --dev FILE",
    ),
    "a finished run": Remedy(
        TRAIN,
        r"run: is finished; a larger (--epochs) continues it",
        plus(r"\1 2"),
        advice="a larger ",
        before=(TRAIN,),
    ),
    "texts that came from stdin": Remedy(
        """train --resume 'my "run"'""",
        r"were not in a file; give them again: (srucli train --resume .*) FILE",
        lambda words, match: [*pasted(words, match), "two.tsv"],
        advice=" examples were not in a file; give them again: srucli train --resume ",
        before=(f"{STDIN}{TRAIN.replace('two.tsv', '-').replace('-o run', QUOTED)}",),
    ),
    "a target in percent": Remedy(
        f"{COMPARE} --over model.layers=1,2 --target 95",
        r"accuracy is a share, at most 1; pass (--target 0\.95)",
        advice=" is a share, at most 1; pass --target ",
        ends=ENDS,
    ),
    "the same texts twice": Remedy(
        "compare two.tsv --optimizer adam,sgd --dev two.tsv --test two.tsv -o v4",
        r"are the same texts, .*; leave out (--dev), and a tenth of TRAIN",
        without("--dev"),
        advice="--dev and --test are the same texts",
        ends="contains a run and not a comparison",
    ),
    # ------------------------------------------------ fine-tuning
    "a tokenizer beside that of a run": Remedy(
        f"{FROM} --tokenizer m.model",
        r"has its own tokenizer; leave out (--tokenizer)",
        without("--tokenizer"),
        before=(TRAIN,),
    ),
    "fine-tuned in place": Remedy(
        FROM.replace("-o new", "-o run"),
        r"is in the run that --from names; choose another (-o)",
        plus(r"\1 new"),
        before=(TRAIN,),
    ),
    "a multi-label run": Remedy(
        FROM, r"this run is multi-label; add (--multi-label)", before=(f"{TRAIN} --multi-label",)
    ),
    "a single-label run": Remedy(
        f"{FROM} --multi-label",
        r"this run is single-label; leave out (--multi-label)",
        without("--multi-label"),
        before=(TRAIN,),
    ),
    "another network than that of a run": Remedy(
        f"{FROM} model.embedding_size=8",
        r"was trained with 4; leave (model\.embedding_size) out, or train without --from",
        lambda words, match: [word for word in words if not word.startswith(match[1])],
        advice="out, or train without --from",
        before=(TRAIN,),
    ),
    "another network, without the run": Remedy(
        f"{FROM} model.embedding_size=8",
        r"was trained with 4; leave .* out, or train without (--from)",
        without("--from"),
        advice="out, or train without --from",
        before=(TRAIN,),
    ),
    "a run that another one fine-tuned": Remedy(
        FROM.replace(" --from run", ""),
        r"was trained with (--from '.*/run'); add that, or choose another -o",
        lambda words, match: added([*words, "model.encoder=bag"], match),
        advice="; add that, or choose another -o",
        before=(TRAIN, FROM),
    ),
    "a run that none was trained from": Remedy(
        FROM.replace("-o new", "-o other"),
        r"was trained without --from; leave it out, or choose another (-o)",
        plus(r"\1 new"),
        before=(TRAIN, TRAIN.replace("-o run", "-o other")),
    ),
    "another run than before": Remedy(
        FROM.replace("--from run", "--from other"),
        r"not from other; to go on as it began: srucli train --resume new; .* or add (--force)",
        advice="; or choose another -o, or add --force",
        before=(TRAIN, f"{TRAIN} train.seed=1".replace("-o run", "-o other"), FROM),
    ),
    "frozen, but not from a run": Remedy(
        f"{FROM} train.freeze=encoder".replace("--from run", "--encoder bag"),
        r"train\.freeze has no effect: it needs an earlier run: (--from) RUN",
        lambda words, match: [*without("--encoder")(words, match), match[1], "run", "-o", "b"],
        advice="an earlier run: --from RUN",
        before=(TRAIN,),
    ),
    # ------------------------------------------------ raw text
    "raw text without a folder": Remedy(
        PRETRAIN.replace(" -o base", ""),
        r"no --output; pass (-o runs/base) to make",
    ),
    "other raw text in the same folder": Remedy(
        f"{PRETRAIN} --seed 1",
        r"with other settings; choose another -o, or add (--force)",
        advice=" on other texts or with other settings; choose another -o, or add --force",
        before=(PRETRAIN,),
    ),
    "vectors as a run": Remedy(
        "predict base two.tsv",
        r"no classifier; to train one: (srucli train) FILE (--from .*)",
        lambda words, match: [*shlex.split(match[1])[1:], "two.tsv", *shlex.split(match[2])],
        advice="has vectors, but no classifier; to train one: srucli train FILE --from ",
        before=(PRETRAIN,),
    ),
    "vectors of another size": Remedy(
        f"{FROM} model.embedding_size=5".replace("--from run", "--from base --encoder bag"),
        r"but vectors there have 4 numbers; leave (model\.embedding_size) out",
        lambda words, match: [word for word in words if not word.startswith(match[1])],
        advice="but vectors there have ",
        before=(PRETRAIN,),
    ),
    "raw text twice": Remedy(
        f"{FROM} --raw two.tsv",
        r"(--raw) and --from: give one of them",
        without("--raw"),
        before=(TRAIN,),
    ),
    "pretraining without raw text": Remedy(
        f"{OWN_TOKENIZER} pretrain.epochs=1",
        r"pretrain\.epochs has no effect: it needs raw text: (--raw) CORPUS",
        lambda words, match: [*words, match[1], "two.tsv", "-o", "b"],
        advice="raw text: --raw CORPUS",
    ),
    # ------------------------------------------------ settings without effect
    "n-grams without a bag": Remedy(
        f"{TRAIN.replace('--encoder bag', 'model.encoder=cnn')} model.bag_ngrams=2",
        r"model\.bag_ngrams has no effect: it needs (model\.encoder=bag)",
        plus(r"\1 -o other"),
        advice="model.encoder",
    ),
    "a seed of no draw": Remedy(
        f"{OWN_TOKENIZER} tokenizer.seed=3",
        r"tokenizer\.seed has no effect: it needs (tokenizer\.input_sentence_size) above 0",
        plus(r"\1=50 -o other"),
        advice="tokenizer.input_sentence_size above 0",
    ),
    "patience without dev texts": Remedy(
        f"{TRAIN} train.patience=2",
        r"train\.patience has no effect: it needs dev examples: (--dev) FILE or",
        plus(r"\1 two.tsv -o other"),
        advice="dev examples: --dev FILE or train.dev_share=0.1",
    ),
    "a metric without dev texts": Remedy(
        f"{TRAIN} train.metric=macro_f1",
        r"train\.metric has no effect: it needs .*: --dev FILE or (train\.dev_share=0\.1)",
        plus(r"\1 -o other"),
        advice="dev examples: --dev FILE or train.dev_share=0.1",
    ),
    "a size beside all": Remedy(
        f"{OWN_TOKENIZER} tokenizer.model_type=char tokenizer.use_all_vocab=true",
        r"tokenizer\.vocab_size has no effect: it needs no (tokenizer\.use_all_vocab)",
        plus(r"\1=false -o other"),
        advice="no tokenizer.use_all_vocab, which makes every word or character a token",
    ),
    "no runs of spaces": Remedy(
        f"{OWN_TOKENIZER} tokenizer.allow_whitespace_only_pieces=true",
        r"has no effect: it needs runs of spaces: (tokenizer\.remove_extra_whitespaces=false)",
        plus(r"\1 -o other"),
        advice="runs of spaces: tokenizer.remove_extra_whitespaces=false",
    ),
    "rules beside rules": Remedy(
        f"{OWN_TOKENIZER} tokenizer.normalization_rule_tsv=r.tsv "
        "tokenizer.normalization_rule_name=nfkc",
        r"it needs no (tokenizer\.normalization_rule_tsv), which replaces it",
        plus(r"\1= -o other"),
        advice="no tokenizer.normalization_rule_tsv, which replaces it",
        files={"r.tsv": "41\t61\n"},
    ),
    "the last state of a bag": Remedy(
        f"{TRAIN} model.pooling=[last]",
        r"model\.pooling has no effect: it needs .*`last`.* or model\.encoder=(sru), lstm or gru",
        lambda words, match: [*changed("bag", match[1])(words, match), "-o", "other"],
        advice="model.pooling without `last`, which would be all zeros",
    ),
    "no decay": Remedy(
        f"{TRAIN} optim.decay_embeddings=true",
        r"optim\.decay_embeddings has no effect: it needs (optim\.weight_decay) above 0",
        plus(r"\1=0.1 -o other"),
        advice="optim.weight_decay above 0",
    ),
    "epochs beside steps": Remedy(
        f"{TRAIN} train.steps=2",
        r"train\.epochs has no effect: it needs no (train\.steps), which sets the length",
        plus(r"\1=null -o other"),
        advice="no train.steps, which sets the length instead",
    ),
    "a character that no text has": Remedy(
        "tokenize t.txt -o new --vocab-size 30 --model-type char --required-chars ☃",
        r"(--required-chars) ☃: a char model has no piece for .*; remove it",
        lambda words, match: without(match[1])(words, match),
        advice=": a char model has no piece for a character that its text lacks; remove it",
    ),
    "no run in the folder": Remedy(
        "train --resume two --threads 1",
        r"not a run folder: it has no run.json; give the folder that `(srucli train)` printed",
        changed("two", "run"),
        advice="; give the folder that `srucli train` printed",
        files={"two/mine": ""},
        before=(TRAIN,),
    ),
}


@pytest.fixture
def place(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two labelled files, one of them with a single label, and a model."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    rows = [(label, text) for label, text in sentences() if label != "none"][:60]
    write_tsv(folder / "two.tsv", rows)
    (folder / "t.txt").write_text(TEXT)
    write_tsv(folder / "one.tsv", [("good", text) for _, text in rows])
    shutil.copytree(Path(__file__).parents[1] / "formats" / "v4", folder / "v4")
    for file in (folder / "v4").glob("checkpoints/*/training.json"):
        file.unlink()  # so that it cannot be resumed
    shutil.copy(tiny.run / "tokenizer.model", folder / "m.model")
    return folder


def ended(run_main: RunMain, command: str) -> CommandResult:
    """Run a command, with the condition in front of it."""
    how, words = re.fullmatch(r"(?:\((\w+)\) )?(.*)", command).groups()  # type: ignore[union-attr]
    with pytest.MonkeyPatch.context() as patch, open("two.tsv", "rb") as texts:
        real = Trainer._end_epoch

        def end_epoch(trainer: Trainer) -> dict[str, float]:
            signal.raise_signal(signal.SIGTERM)
            return real(trainer)

        if how == "stopped":
            patch.setattr(Trainer, "_end_epoch", end_epoch)
        if how == "stdin":
            patch.setattr("sys.stdin", texts)
        return run_main(*shlex.split(words))


def prepare(run_main: RunMain, command: str) -> None:
    """Run a command, or cause the damage, that comes before."""
    if command.startswith(DAMAGED):
        name, _, run = command.removeprefix(DAMAGED).partition(") ")
        for path in Path(run).glob(f"checkpoints/*/{name}"):
            path.unlink()
        return
    done = ended(run_main, command)
    assert done.code == (75 if command.startswith(STOPPED) else 0), done.err


@pytest.mark.parametrize("remedy", REMEDIES.values(), ids=REMEDIES)
def test_advice_helps(place: Path, run_main: RunMain, remedy: Remedy) -> None:
    for name, content in remedy.files.items():
        file(name, content)([], re.match("", ""))  # type: ignore[arg-type]
    with ExitStack() as stack:
        for command in remedy.before:
            if command == LOCKED:
                stack.enter_context(RunDir.claim(Path("run")))
            else:
                prepare(run_main, command)
        follow(run_main, remedy)


def follow(run_main: RunMain, remedy: Remedy) -> None:
    """Cause the message, follow its advice, and check that it does not appear again."""
    words = shlex.split(remedy.command.removeprefix(STOPPED))
    wrong = ended(run_main, remedy.command)
    match = re.search(remedy.said, wrong.err + wrong.out)
    assert match, wrong.err
    right = run_main(*remedy.follow(words, match))
    assert not re.search(remedy.said, right.err), right.err
    if remedy.ends:
        assert remedy.ends in right.err
    else:
        assert right.code == 0, right.err


# Flags, settings, packages and commands that a message may name.
CONCRETE = re.compile(
    r"(?<![\w-])(?:--[a-z][a-z-]+|-o\b|(?:data|tokenizer|model|optim|train|files)\.[a-z_]+\w"
    r"|pip install|srucli [a-z]+)"
)
# Calls whose strings describe a flag, setting or optimizer, and are not messages.
HELP = {"Option", "Argument", "Field", "setting", "Row", "Typer"}
# Examples of help pages, which test_docs parses.
NOT_MESSAGES = {"examples"}
# Advice without a row, and why.
UNFOLLOWED = {
    "{}: left out, as srucli made it": "a report",
    "pip install": "tests install no packages; see test_settings_and_packages_that_are_named",
    "; trials share the memory: --jobs {}": "memory ran out: test_scheduler",
    "a smaller train.batch_tokens": "the same: test_tune",
    "use --device cpu": "the same, on a GPU",
    "model.hidden (now {})": "memory ran out: test_memory",
    "train.max_tokens (a text has {} tokens)": "the same",
    "train again, with a lower optim.lr": "a training, for weights that are NaN or Inf",
    "set optim.clip=1, or ": "followed on handmade results in test_compare",
    "compare lower rates": "the same",
    "set a lower optim.lr": "the same",
    ", which tries lower rates": "the same",
    "look at the text, and lower optim.lr": "the text is the fault, in test_hazards",
    "srucli train --resume {} --force": "followed in test_hazards",
    "--encoding {} asks for that": "followed in test_other_files",
    "adam corrects for this, a longer optim.warmup": "a finding on a finished run: test_findings",
    "{} optim.lr": "the same",
    "raise optim.clip": "the same",
    "were longer than optim.clip=": "the same",
    "lower optim.options.eps": "the same",
    "a lower optim.lr": "a search that diverged: as long as its minutes",
    "a larger --max-mb": "the same",
    "more --minutes": "the same",
    "srucli tune": "the use of a package",
    "Found by `srucli tune`": "a report",
    "`srucli eval` measures them": "a report",
    "late enough; train with a smaller --diagnose": "a finding on a finished run: test_findings",
    "is not defined on the {} texts, because of their labels": "a whole comparison: test_compare",
    "is not defined on the dev texts, because of their labels": "a search: test_tune",
    "--top {}: the run has": "a report",
    "--against: the labels differ": "another run: test_comparison",
    "--against: {}; compare runs of the same kind": "the same",
    "--against reads the examples twice": "a pipe, of which a copy is needed: test_comparison",
    "say how to read it with --format, --label and --text": "two runs: test_comparison",
    "give each text one label, or train": "said to Python alone: files are refused before",
    ", which srucli did not draw; name another folder": "test_plots",
    "Topics of `srucli help TOPIC`:": "a heading",
    # Not advice: they report facts, or name a flag that has no other value.
    "--nbest needs a unigram model": "the model has to be another one",
    "model has one way to cut": "the model has to be another one",
    "takes no {}, so srucli cannot use it": "the optimizer has to be another one",
    "cannot be used here": "what another package says",
    "options (optim.options.NAME=VALUE)": "a heading",
    "to train with them:  srucli train FILE --from {}": "followed in test_vectors",
    "learned from raw text by srucli {}": "a model card",
    "lower pretrain.lr": "vectors that diverged: test_pretrain",
    "run `srucli pretrain` again with the same arguments": "an interrupt: test_pretrain",
    "the section 'files' has no effect": "a report",
    "--grid has no effect: the rates are compared": "a report",
    "has no effect: --dev FILE or a tenth of TRAIN chooses the rates": "a report",
    "holds a {} with other": "test_force_replaces_what_a_comparison_wrote, test_crossval",
    "--folds {}: {}, and each fold needs one; {}": "its end is followed",
    "`srucli crossval`, whose folds keep groups apart": "a report",
    "--probability has no effect": "a report",
    "train.dev_share={} holds out {} examples, not {}": "a report",
    "not as srucli writes it": "a damaged file",
    "is not as srucli writes it": "a damaged file",
    "this srucli reads up to": "a newer format",
    "cannot be made ({}); choose another -o": "where a folder cannot be made; the same advice",
    "cannot be opened ({}); choose another -o": "a folder that goes meanwhile; the same advice",
    "no permission to write there; choose another -o": "root may; the same advice",
    "nothing more is written there: start again": "another training takes the folder: test_claim",
    "start it with --nproc-per-node 1": "a flag of torchrun",
    "predict --json tells them apart": "a flag of another command, later",
}


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield the strings of a file, without docstrings and help, with {} for inserted values."""
    passed = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in HELP:
                passed |= {id(part) for part in ast.walk(node)}
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in NOT_MESSAGES:
            passed |= {id(part) for part in ast.walk(node)}
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            passed.add(id(body[0].value))
    for node in ast.walk(tree):
        if id(node) in passed:
            continue
        if isinstance(node, ast.JoinedStr):
            passed |= {id(part) for part in node.values}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


SOURCE = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "srucli").rglob("*.py"))}
ADVICE = {
    text: path.relative_to(ROOT).as_posix()
    for path, tree in SOURCE.items()
    for text in strings(tree)
    if " " in text.strip() and CONCRETE.search(text)
}


def fragment(remedy: Remedy) -> str:
    """Return the part of a message that identifies it in the source."""
    return remedy.advice or re.sub(r"\\(.)|[()]", r"\1", remedy.said)


def test_every_advice_has_a_row() -> None:
    rows = [*map(fragment, REMEDIES.values()), *UNFOLLOWED]
    left_out = {text: path for text, path in ADVICE.items() if not any(row in text for row in rows)}
    assert left_out == {}, "add rows to REMEDIES"


def test_every_row_is_for_a_message() -> None:
    whole = [text for tree in SOURCE.values() for text in strings(tree)]
    rows = [*map(fragment, REMEDIES.values()), *UNFOLLOWED]
    assert [row for row in rows if not any(row in text for text in whole)] == []


def test_settings_and_packages_that_are_named() -> None:
    known = {*known_keys(), "optim.options.eps", "optim.options.NAME"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for text, path in ADVICE.items():
        for setting in re.findall(r"(?:data|tokenizer|model|optim|train)\.[a-z_]+\w", text):
            missing = [key for key in known if key == setting or key.startswith(f"{setting}.")]
            assert missing or (ROOT / "srucli" / setting).exists(), (path, setting)
        for extra in re.findall(r"srucli\[([\w-]+)\]", text):
            assert extra in extras, (path, extra)
