"""Which checkpoint is used: eval, predict, info and the model card follow the same rule."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from srucli.config import Config, resolve
from srucli.errors import DataError
from srucli.runs.checkpoints import Which
from srucli.runs.choice import Choice, choose
from srucli.runs.run_dir import RunDir
from tests.support import QUICK, RunMain, Tiny, write_tsv

USED = " (used by eval and predict)"


def run_with(folder: Path, last: str, best: str | None) -> RunDir:
    """Make a run with these pointers and empty folders of their checkpoints."""
    for name in filter(None, (last, best)):
        (folder / "checkpoints" / name).mkdir(parents=True, exist_ok=True)
    for pointer, pointed in {"last": last, "best": best}.items():
        if pointed:
            (folder / pointer).write_text(f"{pointed}\n")
    return RunDir(folder)


def chosen(run: RunDir, config: Config) -> Choice:
    return choose(run, config.train.used_checkpoint, config.metric)


@pytest.mark.parametrize(
    ("settings", "best", "which", "said"),
    [
        pytest.param([], None, "last", None, id="no best"),
        pytest.param([], "step-9", "last", None, id="the last is the best"),
        pytest.param([], "step-6", "last", "last .*, step-9, not the best, step-6", id="last"),
        pytest.param(
            ["patience=2"], "step-6", "best", "best .*, step-6, not step-9", id="patience"
        ),
        pytest.param(["patience=2"], "step-9", "best", None, id="patience, the last is the best"),
        pytest.param(
            ["patience=2", "use_checkpoint=last"],
            "step-6",
            "last",
            "last .*, step-9, not the best, step-6",
            id="patience, but the last on purpose",
        ),
        pytest.param(
            ["use_checkpoint=best"], "step-6", "best", "best .*, step-6, not step-9", id="best"
        ),
        pytest.param(
            ["use_checkpoint=best"],
            None,
            "last",
            "there is no best checkpoint yet; .*, step-9",
            id="none",
        ),
    ],
)
def test_which_checkpoint_is_chosen(
    tmp_path: Path, settings: list[str], best: str | None, which: Which, said: str | None
) -> None:
    run = run_with(tmp_path, "step-9", best)
    config = resolve(overrides=[f"train.{setting}" for setting in settings])
    found = chosen(run, config)
    wanted = best if which == "best" else "step-9"
    assert (found.which, found.name) == (which, wanted)
    if said is None:
        assert found.note is None
    else:
        assert found.note is not None
        assert re.search(said, found.note), found.note


def test_a_damaged_best_pointer_matters_only_if_it_is_used(tmp_path: Path) -> None:
    run = run_with(tmp_path, "step-9", "step-6")
    shutil.rmtree(run.path / "checkpoints" / "step-6")
    assert chosen(run, resolve()).note is None
    (run.path / "best").write_text("../../elsewhere")
    assert chosen(run, resolve()).note is None
    with pytest.raises(DataError, match="names no checkpoint"):
        chosen(run, resolve(overrides=["train.use_checkpoint=best"]))


def test_there_is_no_note_if_the_last_is_as_good_as_the_best(tmp_path: Path) -> None:
    run = run_with(tmp_path, "step-9", "step-6")
    for last, said in ((0.5, False), (0.4, True), (None, True)):
        rows = [
            {"step": step, "epoch": 1, "dev": {"accuracy": value}}
            for step, value in ((6, 0.5), (9, last))
        ]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert (chosen(run, resolve()).note is not None) == said
    given = resolve(overrides=["train.metric=log_loss"])
    assert chosen(run, given).note is not None


# --- all commands follow it --------------------------------------------------------------------


@pytest.fixture(scope="module")
def early(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose training stopped early: 3 epochs, the first of which is the best.

    The learning rate is tiny, so the metrics are equal; the first accuracy is then raised.
    """
    from srucli.training.run import train

    folder = tmp_path_factory.mktemp("early")
    settings = [str(word) for word in QUICK if "=" in str(word) and "dev_share" not in str(word)]
    settings += ["model.hidden=8", "model.layers=1", "train.batch_size=64", "train.threads=1"]
    config = resolve(overrides=[*settings, "train.epochs=9", "train.patience=2", "optim.lr=1e-12"])
    tokenizer = tiny.run / "tokenizer.model"
    run = train(config, str(tiny.train), str(tiny.test), folder / "run", tokenizer=tokenizer)
    first, *others = (run / "metrics.jsonl").read_text().splitlines()
    record = json.loads(first)
    record["dev"]["accuracy"] = 0.75
    (run / "metrics.jsonl").write_text("\n".join([json.dumps(record), *others, ""]))
    return run


def accuracy_of(run: Path, epoch: int) -> float:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[epoch])["dev"]["accuracy"])


def facts_of(run_main: RunMain, run: Path, file: Path) -> tuple[dict[str, str], list[str], str]:
    """Return what info prints, what eval and predict say on stderr, and the model card."""
    info = json.loads(run_main("info", run, "--json").out)
    ended = [
        run_main("eval", run, file, "--json", "--threads", 1),
        run_main("predict", run, file, "--threads", 1),
    ]
    assert [each.code for each in ended] == [0, 0]
    said = [line for each in ended for line in each.err.splitlines() if "used, " in line]
    return info, said, (run / "README.md").read_text()


def test_after_early_stopping_all_use_the_best(
    run_main: RunMain, early: Path, tiny: Tiny, tmp_path: Path
) -> None:
    file = write_tsv(tmp_path / "x.tsv", [("good", "a lovely film"), ("bad", "an awful film")])
    info, said, card = facts_of(run_main, early, file)
    assert info["best"] == f"step 8, epoch 1{USED}"
    assert info["last"] == "step 24, epoch 3"
    better, worse = "step-8 (accuracy 0.7500)", f"step-24 (accuracy {accuracy_of(early, 2):.4f})"
    assert said == [f"{early}: the best checkpoint is used, {better}, not {worse}"] * 2
    assert "the best checkpoint, step-8 of epoch 1" in card


def test_choosing_the_last_checkpoint_and_the_advice_in_the_note(
    run_main: RunMain, early: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run = shutil.copytree(early, tmp_path / "run")
    file = write_tsv(tmp_path / "x.tsv", [("good", "a lovely film"), ("bad", "an awful film")])
    ended = run_main("train", "--resume", run, "train.use_checkpoint=last")
    assert ended.code == 0
    advice = f"'use_checkpoint: best' in {run}/config.yaml changes that"
    sentence = (
        f"{run}: the last checkpoint is used, step-24 (accuracy {accuracy_of(run, 2):.4f}), "
        f"not the best, step-8 (accuracy 0.7500); {advice}"
    )
    assert sentence in ended.err.splitlines()
    info, said, card = facts_of(run_main, run, file)
    assert info["last"] == f"step 24, epoch 3{USED}"
    assert said == [sentence] * 2
    assert "the last checkpoint, step-24 of epoch 3" in card
    assert f"| accuracy | {accuracy_of(run, 2):.4f} |" in card
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("use_checkpoint: last", "use_checkpoint: best"))
    assert facts_of(run_main, run, file)[0]["best"] == f"step 8, epoch 1{USED}"


def test_without_a_best_checkpoint_all_use_the_last(
    run_main: RunMain, early: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(early, tmp_path / "run")
    (run / "best").unlink()
    file = write_tsv(tmp_path / "x.tsv", [("good", "a lovely film"), ("bad", "an awful film")])
    info, said, _ = facts_of(run_main, run, file)
    assert "best" not in info
    assert info["last"] == f"step 24, epoch 3{USED}"
    assert said == [f"{run}: there is no best checkpoint yet; the last one is used, step-24"] * 2


def test_without_dev_examples_no_checkpoint_is_better(tmp_path: Path) -> None:
    run = run_with(tmp_path, "step-9", "step-6")
    (tmp_path / "metrics.jsonl").write_text('{"step": 6, "dev": {}}\n')
    assert chosen(run, resolve()).note is None


def test_dev_examples_given_on_resume_can_make_a_checkpoint_better(tmp_path: Path) -> None:
    run = run_with(tmp_path, "step-9", "step-6")
    rows = [{"step": 3, "dev": {}}]
    rows += [{"step": step, "dev": {"accuracy": value}} for step, value in ((6, 0.9), (9, 0.5))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "not the best, step-6 (accuracy 0.9000)" in (chosen(run, resolve()).note or "")
