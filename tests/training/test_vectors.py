"""Trainings that start from vectors of raw text: --from and --raw, resuming, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srucli.cli import completion
from srucli.config import Config, resolve
from srucli.errors import DataError, InputMissingError, OutputError, SrucliError, UsageError
from srucli.inference.predictor import Predictor
from srucli.model.encoders import ENCODERS
from srucli.runs.facts import BaseFacts
from srucli.runs.pretrained_dir import PretrainedDir
from srucli.runs.run_dir import RunDir
from srucli.training.base import VECTORS_LINEAR, VECTORS_NETWORK, VECTORS_STD, load_base
from srucli.training.pretrain import RawText, pretrain
from srucli.training.run import train
from tests.support import OnStep, RunMain, child_environment, sentences, write_tsv

QUICKEST = (
    *("--encoder", "bag", "--epochs", "1", "tokenizer.vocab_size=60", "model.embedding_size=4"),
    *("pretrain.epochs=1", "train.threads=1"),
)
SMALL = ("model.hidden=8", "model.layers=1", "train.batch_size=16", "model.dropout=0.1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return vectors of the words of the small task."""
    settings = ["model.embedding_size=12", "tokenizer.vocab_size=90", "pretrain.epochs=2"]
    texts = [text for _, text in sentences()]
    folder = tmp_path_factory.mktemp("vectors") / "base"
    return pretrain(resolve(overrides=settings), RawText(texts, ["raw.txt"]), folder)


def quick(*overrides: str) -> Config:
    return resolve(overrides=[*SMALL, "train.epochs=2", "train.threads=1", *overrides])


def trained(base: Path, output: Path, *overrides: str) -> Path:
    data = write_tsv(output.parent / "train.tsv", sentences()[:200])
    return train(quick(*overrides), str(data), None, output, base=base)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return RunDir.open(run).checkpoint("last").weights


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_starts_from_vectors(
    encoder: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a learning rate of almost 0, the embedding stays what it was at the start."""
    run = trained(base, tmp_path / "run", f"model.encoder={encoder}", "optim.lr=1e-12")
    vectors = PretrainedDir(base).read().vectors
    found = weights(run)["embedding.weight"]
    torch.testing.assert_close(found, vectors * (VECTORS_STD / vectors.std()))
    assert float(found.std()) == pytest.approx(VECTORS_STD, rel=1e-4)
    own = Predictor.load(run, "cpu").tokenizer
    assert own.model_bytes == PretrainedDir(base).tokenizer().model_bytes
    assert f"from {base}: tokenizer kept, and the vectors" in capsys.readouterr().err
    facts = RunDir(run).facts().base
    assert facts == BaseFacts(run=str(base), sha256=load_base(base, "cpu").sha256)


def test_weights_without_held_out_texts(base: Path, tmp_path: Path) -> None:
    """The linear model keeps a share of the weight that it has beside a new network."""
    settings = ("train.dev_share=0", "train.epochs=1")
    found = weights(trained(base, tmp_path / "run", *settings))["blend"]
    data = tmp_path / "train.tsv"
    train(quick(*settings), str(data), None, tmp_path / "new")
    alone = weights(tmp_path / "new")["blend"]
    assert found.tolist() == pytest.approx([VECTORS_NETWORK, VECTORS_LINEAR * float(alone[1])])


def test_a_killed_run_needs_its_vectors_no_more(
    base: Path, tmp_path: Path, on_step: OnStep
) -> None:
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    whole = trained(copy, tmp_path / "whole", "train.save_steps=3")

    class Killed(BaseException):
        pass

    def kill(number: int) -> None:
        if number == 8:
            raise Killed

    on_step(kill)
    with pytest.raises(Killed):
        trained(copy, tmp_path / "run", "train.save_steps=3")
    shutil.rmtree(copy)
    on_step(lambda number: None)
    run = trained(copy, tmp_path / "run", "train.save_steps=3")
    one, other = weights(run), weights(whole)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_size_and_another_tokenizer_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"embedding_size is 16, but vectors there have 12"):
        trained(base, tmp_path / "run", "model.embedding_size=16")
    with pytest.raises(UsageError, match="has its own tokenizer; leave out --tokenizer"):
        train(quick(), "t", None, tmp_path / "run", base=base, tokenizer=base / "tokenizer.model")
    assert not (tmp_path / "run").exists()


def test_vectors_are_no_classifier(base: Path, run_main: RunMain) -> None:
    with pytest.raises(InputMissingError, match="no classifier; to train one: srucli train FILE"):
        Predictor.load(base, "cpu")
    shown = run_main("info", base, "--json")
    assert json.loads(shown.out)["vectors"] == "of 12 numbers"
    assert str(base) in completion.bases(str(base)[:-1])
    assert str(base) not in completion.runs(str(base)[:-1])


def test_raw_text_is_learned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tsv(tmp_path / "train.tsv", sentences()[:200])
    (tmp_path / "raw.txt").write_text("".join(f"{text}\n" for _, text in sentences()))
    words = ["train", "train.tsv", "--raw", "raw.txt", "--threads", 1, "--epochs", 1, *SMALL]
    words += ["tokenizer.vocab_size=90", "pretrain.epochs=1", "model.embedding_size=8"]
    first = run_main(*words, "-o", "runs/a")
    assert first.code == 0, first.err
    assert "has no effect" not in first.err
    (made,) = tmp_path.glob("runs/raw-*")
    assert f"from runs/{made.name}: tokenizer kept" in first.err
    second = run_main(*words, "-o", "runs/b")
    assert f"runs/{made.name}: is finished already" in second.err
    one, other = weights(tmp_path / "runs/a"), weights(tmp_path / "runs/b")
    assert all(torch.equal(one[name], other[name]) for name in one)
    (tmp_path / "more.txt").write_text("other text\nand more\nof the same\n")
    third = run_main(*words, "--raw", "more.txt", "-o", "runs/c")
    assert third.code == 0, third.err
    (new,) = {*tmp_path.glob("runs/raw-*")} - {made}
    assert len(PretrainedDir(new).facts().sources) == 2


def test_a_run_labels_raw_text_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    """The command that `train` names works as it stands."""
    monkeypatch.chdir(tmp_path)
    write_tsv(tmp_path / "train.tsv", sentences()[:100])
    texts = [text for _, text in sentences()[100:]]
    (tmp_path / "raw.txt").write_text("".join(f"{text}\n" for text in texts))
    words = ["train", "train.tsv", "--raw", "raw.txt", "--threads", 1, "--epochs", 9, *SMALL]
    words += ["tokenizer.vocab_size=90", "pretrain.epochs=2", "model.embedding_size=8"]
    teacher = run_main(*words, "-o", "teacher")
    hint = "to let it label unlabelled text and learn from that:  "
    (line,) = (line for line in teacher.err.splitlines() if line.startswith(hint))
    piped = line.removeprefix(hint).replace("TEXTS", "raw.txt").replace("NEW", "student")
    script = f'srucli() {{ "{sys.executable}" -m srucli "$@"; }}\n{piped} --epochs 1'
    done = subprocess.run(
        ["bash", "-c", script], env=child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"data: {len(texts) - len(texts) // 10} examples" in done.stderr
    assert "with soft labels" in done.stderr
    base = RunDir(tmp_path / "teacher").facts().base
    assert base == RunDir(tmp_path / "student").facts().base


def test_raw_text_and_other_flags(tmp_path: Path, run_main: RunMain, base: Path) -> None:
    data = write_tsv(tmp_path / "train.tsv", sentences()[:60])
    both = run_main("train", data, "--raw", data, "--from", base)
    assert (both.code, both.err) == (2, "srucli: --raw and --from: give one of them\n")
    piped = run_main("train", "-", "--raw", "-")
    assert (piped.code, piped.err) == (2, "srucli: standard input (-) can be read only once\n")
    wrong = run_main(
        "train", data, "--raw", data, "--device", "tpu", "-o", tmp_path / "new" / "run"
    )
    assert wrong.code == 2
    assert not (tmp_path / "new").exists()  # nothing was learned before the setting was refused
    cut = tmp_path / "latin.txt"
    cut.write_bytes("".join(f"{text} caf\xe9\n" for _, text in sentences()[:40]).encode("cp1252"))
    latin = run_main("train", data, "--raw", cut, "-o", tmp_path / "latin" / "run", *QUICKEST)
    assert "not utf-8" in latin.err
    latin = run_main(
        *("train", data, "--raw", cut, "-o", tmp_path / "latin" / "run", *QUICKEST),
        *("--encoding", "cp1252"),
    )
    assert latin.code == 0, latin.err
    (tmp_path / "none.tsv").write_text("no label\n" * 9)
    unlabelled = run_main("train", tmp_path / "none.tsv", "--raw", data, "-o", tmp_path / "u" / "r")
    assert unlabelled.code == DataError.exit_code
    assert not (tmp_path / "u").exists()
    twice = run_main("train", data, "--dev", "-", "--raw", "-")
    assert (twice.code, twice.err) == (2, "srucli: standard input (-) can be read only once\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("notes")
    taken = run_main("train", data, "--raw", data, "-o", tmp_path / "mine")
    assert taken.code == OutputError.exit_code
    assert not [*tmp_path.glob("raw-*")]  # nor before the folder was
    missing = run_main("train", data, "--raw", tmp_path / "none.txt")
    assert missing.code == InputMissingError.exit_code
    none = run_main(
        "train",
        data,
        "pretrain.epochs=1",
        "model.encoder=bag",
        "train.epochs=1",
        "-o",
        tmp_path / "run",
        "model.ngrams=false",
        "tokenizer.vocab_size=90",
    )
    assert "pretrain.epochs has no effect: it needs raw text: --raw CORPUS" in none.err


def test_damaged_vectors_are_refused(base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    (copy / "vectors.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(SrucliError, match="damaged"):
        trained(copy, tmp_path / "run")


def test_raw_text_is_not_replaced_by_the_run(tmp_path: Path, run_main: RunMain) -> None:
    """Not even by --force, if it has the name of a file of the run."""
    data = write_tsv(tmp_path / "train.tsv", sentences()[:60])
    run = train(quick("model.encoder=bag"), str(data), None, tmp_path / "runs" / "run")
    raw = run / "README.md"
    raw.write_text("".join(f"{text}\n" for _, text in sentences()))
    before = raw.read_bytes()
    ended = run_main("train", data, "--raw", raw, "-o", run, "--force", *QUICKEST)
    assert ended.code == OutputError.exit_code
    assert raw.read_bytes() == before
    assert not [*run.parent.glob("raw-*")]


def test_changed_raw_text_is_refused_before_it_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    """Also in the current folder, beside which the vectors are."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    data = write_tsv(tmp_path / "train.tsv", sentences()[:60])
    raw = tmp_path / "raw.txt"
    raw.write_text("".join(f"{text}\n" for _, text in sentences()))
    words = ("train", data, "--raw", raw, "-o", ".", *QUICKEST)
    first = run_main(*words)
    assert first.code == 0, first.err
    (made,) = tmp_path.glob("raw-*")
    again = run_main(*words)
    assert "is finished" in again.err
    assert again.code == 0, again.err
    raw.write_text("other text\nof the same kind\n")
    other = run_main(*words)
    assert other.code == UsageError.exit_code
    assert "was not trained from this raw text with these settings" in other.err
    assert [*tmp_path.glob("raw-*")] == [made]


def test_freezing_needs_an_earlier_run(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder above vectors is new, and is trained."""
    run = trained(base, tmp_path / "run", "train.freeze=encoder", "pretrain.lr=0.1")
    said = capsys.readouterr().err
    assert "train.freeze has no effect: it needs an earlier run: --from RUN" in said
    assert "pretrain.lr has no effect: it needs raw text: --raw CORPUS" in said
    one, other = weights(run), weights(trained(base, tmp_path / "free"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_of_raw_text_with_what_srucli_made(tmp_path: Path, run_main: RunMain) -> None:
    (tmp_path / "raw.txt").write_text("".join(f"{text}\n" for _, text in sentences()))
    words = ("pretrain", tmp_path, "-o", tmp_path / "base", "--vocab-size", 60, "--epochs", 1)
    first, second = run_main(*words), run_main(*words)
    assert (first.code, second.code) == (0, 0), second.err
    assert f"{tmp_path / 'base'}: left out, as srucli made it" in second.err
    assert "is finished already" in second.err
