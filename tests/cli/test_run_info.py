"""`srucli run`, `info` and `optimizers`, the help texts, and what `srucli.cli` imports."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from srucli.config import known_keys, recipes
from srucli.optim import OPTIMIZERS
from srucli.runs.run_dir import RunDir
from tests.robustness.mutate import repair_manifests
from tests.support import QUICK, ROOT, RunCli, RunMain, Tiny

COMMANDS = (
    "tokenize",
    "encode",
    "decode",
    "train",
    "eval",
    "predict",
    "run",
    "info",
    "slim",
    "help",
)


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    """A configuration of a small network, with its files."""
    settings: dict[str, dict[str, object]] = {
        "files": {"train": str(tiny.train), "test": str(tiny.test), "output": "out/run"},
        "model": {"hidden": 16, "layers": 1, "embedding_size": 16},
        "optim": {"lr": "LR"},
        "train": {"epochs": 4, "batch_size": 16, "threads": 1},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(settings).replace("LR", "1e-2"))
    return path


def test_run_trains_and_evaluates(run_cli: RunCli, recipe: Path) -> None:
    gate = ("--fail-under", "accuracy=1.01")
    done = run_cli("run", recipe.name, "train.seed=5", *gate, cwd=recipe.parent)
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    assert "test.tsv: 120 examples, " in lines[0]
    assert lines[2].split() == ["metric", "value", "95%", "interval"]
    assert float(lines[3].split()[1]) > 0.8
    assert lines[-1] == "out/run"
    assert done.stderr.splitlines()[-1].startswith("srucli: --fail-under: accuracy ")
    config = RunDir.open(recipe.parent / "out" / "run").config()
    assert (config.optim.lr, config.train.seed) == (1e-2, 5)
    assert config.files is not None
    assert config.files.output == "out/run"


def test_run_without_a_test_file_and_with_a_tokenizer(
    run_main: RunMain, tiny: Tiny, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent)
    model = tiny.run / "tokenizer.model"
    changes = ("files.test=null", f"files.tokenizer={model}", "train.epochs=1")
    ended = run_main("run", recipe, *changes)
    assert (ended.code, ended.out) == (0, "out/run\n"), ended.err
    assert Path("out/run/tokenizer.model").read_bytes() == model.read_bytes()
    ended = run_main("run", recipe, *changes)
    assert (ended.code, ended.out) == (0, "out/run\n")
    assert "out/run: is finished; a larger --epochs continues it" in ended.err
    ended = run_main("run", recipe, *changes, "train.seed=9")
    assert ended.code == 2
    assert "train.seed: 0 -> 9" in ended.err
    assert run_main("run", recipe, *changes, "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.yaml"], 66, "none.yaml: no such file; check the name and the folder"),
        (["empty.yaml"], 2, "empty.yaml: it has no section 'files'; set files.train=FILE"),
        (["c.yaml", "files.train=none.tsv"], 66, "none.tsv: no such file; "),
        (["c.yaml", "files.test=none.tsv"], 66, "none.tsv: no such file; "),
        (["c.yaml", "model.encoder=rnn"], 2, "model.encoder: 'rnn' is unknown"),
        (["c.yaml", "--fail-under", "accuracy"], 2, "write METRIC=NUMBER, such as accuracy=0.9"),
        (["c.yaml", "--fail-under", "acuracy=1"], 2, "acuracy"),
        (["c.yaml", "--fail-under", "hamming_loss=1"], 2, "hamming_loss"),
        (["c.yaml", "files.test=null", "--fail-under", "accuracy=1"], 2, "set files.test=FILE"),
    ],
)
def test_run_reports_mistakes_before_it_reads_data(
    run_main: RunMain,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(recipe.parent)
    Path("empty.yaml").write_text("model: {layers: 1}\n")
    ended = run_main("run", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert not Path("out").exists()


def test_info_of_the_machine(run_cli: RunCli) -> None:
    done = run_cli("info")
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert {"srucli", "torch", "cores"} <= rows.keys()
    assert "SRU on CPU" in done.stdout
    assert int(rows["cores"]) >= 1


def test_a_package_of_another_name_than_its_module(run_cli: RunCli, tmp_path: Path) -> None:
    """As mlflow-skinny, which has the module mlflow."""
    for module in ("mlflow", "wandb"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").touch()
    about = tmp_path / "mlflow_skinny-3.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-skinny\nVersion: 3.1\n")
    (about / "top_level.txt").write_text("mlflow\n")
    done = run_cli("info", env={"PYTHONPATH": os.pathsep.join(map(str, (ROOT, tmp_path)))})
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["mlflow"] == "3.1"
    assert rows["wandb"] == "installed"


def test_info_of_a_run(run_main: RunMain, tiny: Tiny) -> None:
    ended = run_main("info", tiny.run, "--json")
    rows = json.loads(ended.out)
    assert rows["texts"] == "432"
    assert rows["labels"] == "3 (bad, good, none)"
    assert (rows["encoder"], rows["optimizer"]) == ("sru", "adam")
    assert rows["last"].endswith("epoch 5 (used by eval and predict)")
    run = RunDir.open(tiny.run)
    network = sum(map(torch.numel, run.checkpoint("last").weights.values())) - 2  # without blend
    assert rows["parameters"] == f"{network + run.ngrams(3, False).parameters:,}"
    assert f"\nmodel: {rows['parameters']} parameters, sru" in tiny.result.err
    table = run_main("info", tiny.run)
    assert table.code == 0
    assert [line.split("  ")[0] for line in table.out.splitlines()] == list(rows)


def test_info_of_an_unfinished_training(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    for state in run.glob("checkpoints/*/state.json"):
        state.write_text(state.read_text().replace('"finished": true', '"finished": false'))
    repair_manifests(run)

    def said() -> object:
        return json.loads(run_main("info", run, "--json").out)["training"]

    assert said() == f"stopped; to resume: srucli train --resume {run}"
    with RunDir.claim(run):
        assert said() == "is running"
    for needed in run.glob("checkpoints/*/training.json"):
        needed.unlink()
    assert said() == "stopped, and cannot be resumed: it has not saved what that needs"


def test_info_of_a_tokenizer(run_main: RunMain, tiny: Tiny) -> None:
    ended = run_main("info", tiny.run / "tokenizer.model", "--json")
    rows = json.loads(ended.out)
    assert rows["model type"] == "unigram"
    assert int(rows["pieces"]) == RunDir.open(tiny.run).tokenizer().vocab_size


def test_info_of_the_settings(run_cli: RunCli) -> None:
    done = run_cli("info", "settings")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(known_keys())


def test_info_of_the_recipes(run_main: RunMain) -> None:
    ended = run_main("info", "recipes")
    assert (ended.code, ended.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert list(rows) == list(recipes())
    assert rows["korean"] == "Korean and other languages with rich suffixes"


def test_optimizers_are_listed(run_main: RunMain) -> None:
    ended = run_main("optimizers")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["name", *OPTIMIZERS]
    assert run_main("optimizers", "velocity", "fused").out.count("\n") == 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_described(run_main: RunMain, name: str) -> None:
    ended = run_main("optimizers", name)
    assert (ended.code, ended.err) == (0, "")
    row = OPTIMIZERS[name]
    for word in (name, row.paper, f"{row.lr:g}", *row.rule, *row.options, *row.state):
        assert word in ended.out
    assert json.loads(run_main("optimizers", name, "--json").out)["rule"] == list(row.rule)


def test_an_unknown_optimizer_is_refused(run_main: RunMain) -> None:
    ended = run_main("optimizers", "adagard")
    assert (ended.code, ended.out) == (2, "")
    assert "did you mean 'adagrad'" in ended.err
    assert len(json.loads(run_main("optimizers", "--json").out)) == len(OPTIMIZERS)


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("nothing", 2, "'nothing' is no run, no tokenizer and no topic (known: machine, "),
        ("file", 65, "file: not a SentencePiece model; "),
        ("folder", 66, "folder: not a run folder: it has no run.json"),
    ],
)
def test_info_of_something_else(
    run_main: RunMain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("hello")
    Path("folder").mkdir()
    ended = run_main("info", what)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"srucli: {said}")


def test_the_help_names_every_command(run_cli: RunCli) -> None:
    done = run_cli("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in COMMANDS:
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command(run_main: RunMain, command: str) -> None:
    for flag in ("--help", "-h"):
        ended = run_main(command, flag)
        assert (ended.code, ended.err) == (0, "")
        assert f"srucli {command}" in ended.out


def test_no_arguments_and_an_unknown_command(run_cli: RunCli) -> None:
    done = run_cli()
    assert done.returncode == 2
    assert "Usage: " in done.stdout + done.stderr
    done = run_cli("trian", "x.tsv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no command 'trian' (did you mean 'train'?)" in done.stderr


def test_help_to_a_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    for arguments in (["--help"], ["info", "settings"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "srucli", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
        assert done.returncode == 73
        assert done.stderr.startswith("srucli: the output cannot be written (No space left on dev")
        assert done.stderr.count("\n") == 1


def test_the_version(run_main: RunMain) -> None:
    ended = run_main("--version")
    assert (ended.code, ended.out) == (0, f"srucli {importlib.metadata.version('srucli')}\n")


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pydantic", "sentencepiece", "yaml", "numba", "sklearn", "tqdm")
    code = f"import sys, srucli.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_quick_settings_are_settings() -> None:
    assert {word.split("=")[0] for word in map(str, QUICK) if "=" in word} <= set(known_keys())
