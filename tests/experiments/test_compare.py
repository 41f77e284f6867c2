"""Comparisons: their summary, resuming, mistakes, and the page in a browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from srucli.cli.compare import default_folder, find_candidates
from srucli.config import resolve
from srucli.errors import SrucliError, UsageError
from srucli.experiments import compare, grid, page, report, trials
from srucli.experiments.trial_process import _measure
from srucli.experiments.trials import Candidate, Folder, Plan, Trial
from srucli.io.files import read_json
from srucli.io.folders import OpenFolder
from srucli.tokenizer.truncation import Limits, Tally
from tests.experiments.support import ADAMS, finish, plan, results, started, with_data
from tests.experiments.test_grid import searched
from tests.support import NETWORK, RunMain, Tiny


def test_skipped_steps_are_counted(tmp_path: Path) -> None:
    wanted = plan(grid=1, seeds=2)
    for candidate, skipped in zip(ADAMS, (0, 3), strict=True):
        for seed in range(2):
            trial = Trial(candidate.name, wanted.rates(candidate)[0], seed)
            record: dict[str, Any] = {"skipped": skipped} if skipped else {}
            finish(tmp_path, trial, 0.5 + 0.1 * seed, **record)
    found = compare.summary(Folder(tmp_path), wanted)
    said = "sgd: 12 of 20 steps were skipped because of non-finite gradients"
    assert list(compare.skipped(found)) == [said]
    assert f"{said}." in report.sentences(found)


def test_rates_near_the_best_are_counted_for_a_loss_too(tmp_path: Path) -> None:
    wanted = Plan(resolve(), ADAMS, "log_loss", 3, 1, None)
    for candidate in ADAMS:
        for rate, loss in zip(wanted.rates(candidate), (0.5, 0.1, 0.1005), strict=True):
            finish(tmp_path, Trial(candidate.name, rate, 0), 1 - loss)
    assert [row.stable for row in compare.summary(Folder(tmp_path), wanted).rows] == [2 / 3, 2 / 3]


def test_the_summary_is_over_the_seeds_at_the_best_rate(tmp_path: Path) -> None:
    wanted = plan(grid=3, seeds=3)
    for candidate, level in zip(ADAMS, (0.8, 0.6), strict=True):
        low, middle, high = wanted.rates(candidate)
        finish(tmp_path, Trial(candidate.name, low, 0), level - 0.2)
        finish(
            tmp_path,
            Trial(candidate.name, high, 0),
            None if candidate.name == "sgd" else level - 0.007,
        )
        for seed, accuracy in enumerate((level, level + 0.03, level - 0.03)):
            finish(tmp_path, Trial(candidate.name, middle, seed), accuracy)
    found = compare.summary(Folder(tmp_path), wanted)
    adam, sgd = found.rows
    assert (adam.name, sgd.name) == ("adam", "sgd")
    assert adam.dev == pytest.approx((0.8, 0.03))
    assert adam.stable == pytest.approx(2 / 3)
    assert sgd.stable == pytest.approx(1 / 3)
    assert found.target == pytest.approx(0.95 * 0.8)
    # Of adam's seeds 0.77 to 0.83 reach it, of sgd's none.
    assert adam.to_target == (10, 2.0)
    assert sgd.to_target is None
    assert sgd.tried == {0.949: pytest.approx(0.4), 3.0: pytest.approx(0.6), 9.49: None}
    assert json.loads(json.dumps(compare.to_json(found)))["rows"][0]["name"] == "adam"


def test_a_candidate_with_diverged_seeds_is_listed_below_the_others(tmp_path: Path) -> None:
    wanted = plan(grid=1, seeds=3)
    for seed in range(3):
        finish(tmp_path, Trial("adam", 0.002, seed), 0.8)
        finish(tmp_path, Trial("sgd", 3.0, seed), 0.9 if seed == 0 else None)
    found = compare.summary(Folder(tmp_path), wanted)
    assert [(row.name, row.lost) for row in found.rows] == [("adam", 0), ("sgd", 2)]
    assert found.rows[1].to_target is None
    assert "90.0, 2 diverged" in report.table_rows(found)[1]
    said = " ".join(report.sentences(found))
    assert said.startswith("adam leads on dev with 80.0 ± 0.0 accuracy")
    assert "better than sgd" not in said
    assert "sgd diverged with 2 of its seeds at its best rate, 3:" in said


def test_a_best_rate_at_the_edge_is_reported(tmp_path: Path) -> None:
    for candidate in ADAMS:
        wanted = plan(grid=3, seeds=1)
        while missing := grid.search(Folder(tmp_path), wanted, candidate)[0]:
            for trial in missing:
                finish(tmp_path, trial, trial.lr / 1e6)
    said = " ".join(report.sentences(compare.summary(Folder(tmp_path), wanted)))
    assert "adam may be better still at a higher rate than 0.632, the last tried." in said


def test_the_error_names_the_rates_if_everything_diverged(tmp_path: Path) -> None:
    wanted = plan(grid=1, seeds=1)
    for candidate in ADAMS:
        finish(tmp_path, Trial(candidate.name, wanted.rates(candidate)[0], 0), None)
    with pytest.raises(SrucliError, match=r"every training diverged: adam at 0\.002; sgd at 3;"):
        compare.summary(Folder(tmp_path), wanted)


@pytest.mark.parametrize(
    ("tried", "remedy"),
    [(5, "pass --grid 13, which"), (60, "pass --grid 64, which"), (64, "compare other candidates")],
)
def test_the_advice_if_everything_diverged_is_within_the_largest_grid(
    tmp_path: Path, tried: int, remedy: str
) -> None:
    wanted = plan(grid=tried)
    for candidate in ADAMS:
        while missing := grid.search(Folder(tmp_path), wanted, candidate)[0]:
            for trial in missing:
                finish(tmp_path, trial, None)
    with pytest.raises(SrucliError, match=f"; {remedy}"):
        compare.summary(Folder(tmp_path), wanted)
    compare.validate(wanted)


def test_each_result_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although resuming and the summary need them again and again."""
    wanted, read = plan(grid=3, seeds=3), []
    for candidate in ADAMS:
        rates = wanted.rates(candidate)
        for rate, accuracy in zip(rates, (0.1, 0.9, 0.2), strict=True):
            finish(tmp_path, Trial(candidate.name, rate, 0), accuracy)
        for seed in (1, 2):
            finish(tmp_path, Trial(candidate.name, rates[1], seed), 0.8)

    def counted(place: Any, name: str, limit: int) -> Any:
        read.append(name)
        return read_json(place, name, limit)

    monkeypatch.setattr(trials, "read_json", counted)
    folder = Folder(tmp_path)
    grid.run_missing(folder, wanted, 1)
    compare.summary(folder, wanted)
    assert len(read) == len(set(read)) == 10


def test_a_candidate_may_set_its_threads() -> None:
    candidate = Candidate("train.threads=3", {"train.threads": 3})
    trial = Trial(candidate.name, 0.1, 0)
    assert plan(candidates=(candidate,)).config_of(trial, threads=1).train.threads == 3


@pytest.mark.parametrize("part", ["dev", "test"])
def test_a_result_that_cannot_have_been_measured_is_damaged(tmp_path: Path, part: str) -> None:
    """The trial runs again. The variance of such numbers would overflow."""
    trial = Trial("adam", 0.002, 0)
    finish(tmp_path, trial, 0.5)
    file = tmp_path / trial.folder / "result.json"
    assert Folder(tmp_path).result(trial) is not None
    file.write_text(json.dumps({**json.loads(file.read_text()), part: {"accuracy": 1e308}}))
    assert Folder(tmp_path).result(trial) is None


def test_names_of_candidates_are_safe_in_the_drawings(tmp_path: Path) -> None:
    """A control character would make an SVG that no program reads."""
    candidate = Candidate("a\x00b", {"train.threads": 3})
    wanted = plan(candidates=(candidate,), grid=1, seeds=1)
    finish(tmp_path, Trial(candidate.name, wanted.rates(candidate)[0], 0), 0.5)
    found = compare.summary(Folder(tmp_path), wanted)
    for figure in (page.loss_figure(found, "step"), page.rate_figure(found)):
        assert figure.axes[0].get_legend_handles_labels()[1] == ["a\\x00b"]


def test_truncated_texts_are_reported_by_candidate(tmp_path: Path) -> None:
    """Candidates are named if they differ, otherwise the line is printed once."""
    wanted = plan(grid=1, seeds=1)
    limits = Limits(50, 50, chosen=True)
    tallies = {"adam": Tally(90, cut=3, limits=limits), "sgd": Tally(90, cut=5, limits=limits)}
    for candidate in wanted.candidates:
        trial = Trial(candidate.name, wanted.rates(candidate)[0], 0)
        finish(tmp_path, trial, 0.5)
        file = tmp_path / trial.folder / "result.json"
        reading = {"train": tallies[candidate.name], "test": Tally(7, cut=1, limits=limits)}
        parts = {part: tally.to_json() for part, tally in reading.items()}
        file.write_text(json.dumps({**json.loads(file.read_text()), "reading": parts}))
    said = list(compare.truncated(compare.summary(Folder(tmp_path), wanted)))
    assert sorted(said) == [
        "adam: train: 3 of 90 texts were cut at 50 tokens (train.max_tokens)",
        "sgd: train: 5 of 90 texts were cut at 50 tokens (train.max_tokens)",
        "test: 1 of 7 texts were cut at 50 tokens (train.max_tokens)",
    ]
    sentences = list(report.sentences(compare.summary(Folder(tmp_path), wanted)))
    assert [f"{line}." for line in said] == sentences[-3:]


def test_a_candidate_whose_rates_all_diverged_is_listed(tmp_path: Path) -> None:
    searched(tmp_path, lambda rate: 0.5)
    wanted = plan(grid=3, seeds=1)
    while missing := grid.search(Folder(tmp_path), wanted, ADAMS[1])[0]:
        for trial in missing:
            finish(tmp_path, trial, None)
    found = compare.summary(Folder(tmp_path), wanted)
    assert [row.name for row in found.rows] == ["adam"]
    assert found.diverged == ["sgd"]


def test_one_flag_lists_the_candidates() -> None:
    assert find_candidates("adam,sgd", None, None) == list(ADAMS)
    assert find_candidates(None, "sru,bag", None)[1] == Candidate("bag", {"model.encoder": "bag"})
    assert find_candidates(None, None, "model.layers=1,2")[1] == Candidate(
        "model.layers=2", {"model.layers": 2}
    )


def test_the_default_folder() -> None:
    names = [
        str(default_folder(train, find_candidates(*flags)))
        for train, flags in (
            ("a/reviews.tsv.gz", ("adam,sgd", None, None)),
            ("reviews.tsv", (None, "sru,bag", None)),
            ("-", (None, None, "model.layers=1,2")),
        )
    ]
    wanted = ["reviews-optimizer", "reviews-encoder", "stdin-layers"]
    assert names == [f"runs/compare-{name}" for name in wanted]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((None, None, None), "give one of --optimizer, --encoder and --over"),
        (("adam,sgd", "sru,bag", None), "give one of --optimizer"),
        (("adam", None, None), "two or more different values of optim.name"),
        (("adam,adam", None, None), "two or more different values of optim.name"),
        (
            (None, None, f"model.hidden={','.join(map(str, range(1, 102)))}"),
            "101 values of model.hidden are too many to compare; list at most 100 of them",
        ),
        ((None, None, "model.layer=1,2"), "unknown setting 'model.layer' .did you mean"),
    ],
)
def test_wrong_candidates(flags: tuple[str | None, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_candidates(*flags)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--optimizer", "adam,adagard"), 2, "unknown optimizer 'adagard' (did you mean 'adagrad'"),
        (("--encoder", "sru,lsmt"), 2, "model.encoder: 'lsmt' is unknown (did you mean 'lstm'"),
        (("--optimizer", "adam,sgd", "optim.options.momentum=0.5"), 2, "no such option"),
        (("--over", "model.layers=1,0"), 2, "model.layers: 0 is too small; the smallest is 1"),
        (("--over", "train.seed=1,2"), 2, "train.seed cannot be compared"),
        (("--over", "data.format=tsv,csv"), 2, "data.format cannot be compared"),
        (("--optimizer", "adam,sgd", "optim.lr=0.1"), 2, "every optimizer needs rates of its own"),
        (("--optimizer", "adam,sgd", "train.patience=2"), 2, "train.patience ends trainings at"),
        (("--encoder", "sru,bag", "--jobs", "1000000000"), 2, "--jobs: 1000000000 is too large; "),
        (
            ("--encoder", "sru,bag", f"train.seed={2**63 - 2}"),
            2,
            "train.seed: 9223372036854775808 ",
        ),
    ],
)
def test_mistakes_are_reported_before_anything_is_trained(
    tiny: Tiny, tmp_path: Path, run_main: RunMain, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = run_main("compare", tiny.train, *words, "-o", tmp_path / "out")
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert not (tmp_path / "out").exists()


def without_seconds(found: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "to_target", "reached")}
        for row in found["rows"]
    ]
    return {**found, "rows": rows, "page": ""}


@pytest.fixture(scope="module")
def compared(
    tiny: Tiny, run_main: RunMain, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of a comparison, and the JSON that the command printed."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    ended = run_main(*command(tiny, folder))
    assert ended.code == 0, ended.err
    assert "--grid has no effect: the rates are compared" in ended.err
    (folder.parent / "said.txt").write_text(ended.err)
    return folder, json.loads(ended.out)


CANDIDATES = ["optim.lr=0.02", "optim.lr=0.05", "optim.lr=1e+30"]


def command(tiny: Tiny, folder: Path) -> list[object]:
    """Return a command that compares two rates that learn and one that diverges."""
    return [
        *("compare", tiny.train, "-o", folder, "--over", "optim.lr=0.02,0.05,1e30"),
        *("--test", tiny.test, "--seeds", 2, "--epochs", 2, "--json", "--grid", 2),
        *("optim.name=adagrad", "optim.clip=0", "model.ngrams=false", *NETWORK),
    ]


def test_a_comparison(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, found = compared
    assert found["metric"] == "accuracy"
    assert {row["name"] for row in found["rows"]} == set(CANDIDATES[:2])
    assert found["diverged"] == CANDIDATES[2:]
    for row in found["rows"]:
        seeds = sorted((folder / "cells" / row["name"] / f"lr-{row['lr']:g}").iterdir())
        assert [seed.name for seed in seeds] == ["seed-0", "seed-1"]
        results = [json.loads((seed / "result.json").read_text()) for seed in seeds]
        accuracies = [result["test"]["accuracy"] for result in results]
        assert row["test"][0] == pytest.approx(sum(accuracies) / 2)
        assert len({result["history"][-1]["step"] for result in results}) == 1
        assert (seeds[0] / "run" / "diagnostics.jsonl").is_file()
        assert not (seeds[0] / "run" / "checkpoints").exists()


def test_each_trial_is_reported_and_how_to_train_the_best(
    compared: tuple[Path, dict[str, Any]], tiny: Tiny
) -> None:
    folder, found = compared
    said = (folder.parent / "said.txt").read_text().splitlines()
    trials = sorted(line for line in said if "of at least" in line)
    form = r"optim\.lr=0\.02, lr 0\.02, seed 0: dev accuracy [01]\.\d{4}; \d of at least \d trials"
    assert re.fullmatch(form, trials[0])
    assert re.match(r"optim\.lr=1e\+30, lr 1e\+30, seed 0: diverged; \d of", trials[-1])
    best = found["rows"][0]
    assert any(line.startswith(f"{best['name']} leads on dev with ") for line in said)
    name, command = said[-1].split(":  ")
    assert name == "to train the candidate that is best on dev"
    words = shlex.split(command)
    assert words[:3] == ["srucli", "train", str(tiny.train)]
    settings = resolve(overrides=words[3:])
    assert (settings.optim.lr, settings.optim.name) == (best["lr"], "adagrad")
    assert (settings.optim.clip, settings.train.epochs) == (0, 2)


def test_a_comparison_that_is_interrupted_or_killed_resumes(
    tiny: Tiny, run_main: RunMain, compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Finished trials are not run again."""
    folder = tmp_path / "out"
    process = started(command(tiny, folder), folder, finished=1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 75
    assert said.rstrip().endswith("the same command resumes")
    first = results(folder)
    process = started(command(tiny, folder), folder, finished=len(first) + 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    second = results(folder)
    assert len(first) < len(second) < 5
    # As after kills before the data, and before the first file of a trial's run, were written.
    shutil.rmtree(folder / "data")
    for result in results(compared[0]):
        unfinished = (folder / result.relative_to(compared[0])).parent
        if unfinished / "result.json" not in second:
            shutil.rmtree(unfinished, ignore_errors=True)
            (unfinished / "run" / "checkpoints").mkdir(parents=True)
    again = run_main(*command(tiny, folder))
    assert again.code == 0, again.err
    assert first.items() < second.items() < results(folder).items()
    shown = [line for line in again.err.splitlines() if "of at least" in line]
    assert shown[0].startswith(f"{len(second)} of ")
    assert len(shown) == 1 + len(results(folder)) - len(second)
    assert without_seconds(json.loads(again.out)) == without_seconds(compared[1])


def test_tokenizers_can_be_compared(tiny: Tiny, run_main: RunMain, tmp_path: Path) -> None:
    ended = run_main(
        *("compare", tiny.train, "-o", tmp_path / "out", "--over", "tokenizer.vocab_size=60,100"),
        *("--grid", 1, "--seeds", 1, "--epochs", 1, "--jobs", 1, *NETWORK),
        *("train.use_checkpoint=best", "train.max_tokens=4"),
    )
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    data = lines.index("data: 389 train texts, 48 test texts, 43 dev texts")
    assert lines[data + 1].startswith("tokenizer: unigram: 389 lines")
    for part, texts in (("train", 389), ("dev", 43), ("test", 48)):
        assert f"{part}: {texts} of {texts} texts were cut at 4 tokens (train.max_tokens)" in lines
    said = [file.read_text() for file in sorted(tmp_path.glob("out/cells/*/*/*/log.txt"))]
    assert ["100 pieces" in each for each in said] == [True, False]


def test_another_comparison_is_not_mixed_in(
    tiny: Tiny, run_main: RunMain, compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = compared
    words = [*command(tiny, folder), "model.layers=2"]
    ended = run_main(*words)
    assert ended.code == 2
    assert "holds a comparison with other settings; choose another -o, or add --force" in ended.err
    (tmp_path / "mine").write_text("")
    ended = run_main(*command(tiny, tmp_path))
    assert ended.code == 73
    assert "contains no comparison" in ended.err
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("candidate", "overrides", "looked"),
    [
        (Candidate("adam", {"optim.name": "adam"}), [], 50),
        (Candidate("adam", {"optim.name": "adam"}), ["train.diagnose=5"], 5),
        (Candidate("bag", {"model.encoder": "bag"}), [], 0),
        (Candidate("bag", {"model.encoder": "bag"}), ["train.diagnose=5"], 5),
    ],
    ids=["an optimizer", "an optimizer, as asked", "an encoder", "an encoder, as asked"],
)
def test_diagnostics_are_recorded_if_optimizers_differ(
    candidate: Candidate, overrides: list[str], looked: int
) -> None:
    wanted = Plan(resolve(overrides=overrides), (candidate,), "accuracy", 1, 1, None)
    assert wanted.config_of(Trial(candidate.name, 0.1, 0)).train.diagnose == looked


def test_the_best_checkpoint_is_evaluated_if_it_is_the_one_in_use(
    tiny: Tiny, tmp_path: Path
) -> None:
    """It is the first with the best accuracy, and differs from the last in log loss."""
    folder = with_data(tiny, tmp_path)
    words = [*NETWORK, "train.epochs=5", "train.threads=1", "optim.lr=0.03"]
    words += ["train.use_checkpoint=best", "model.ngrams=false"]
    with OpenFolder.at(tmp_path) as place:
        files = {part: str(path) for part, path in folder.data.items()}
        files["tokenizer"] = str(folder.tokenizer)
        found = _measure(resolve(overrides=words), files, place)
    accuracies = [record["dev"]["accuracy"] for record in found["history"]]
    best = found["history"][accuracies.index(max(accuracies))]["dev"]
    assert best["log_loss"] > 1.1 * found["history"][-1]["dev"]["log_loss"]
    assert found["dev"] == best
    for name, value in best.items():
        assert found["test"][name] == pytest.approx(value)


def page_of(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_the_page_is_self_contained(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, found = compared
    page = page_of(folder)
    assert "<script" not in page
    assert not re.search(r"<(img|link|a|iframe)[^>]* (src|href)=\"?(?!\"?data:)", page)
    images = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(images) == 4
    assert all(b"<svg" in base64.b64decode(image) for image in images)
    for row in found["rows"]:
        assert f"<td>{row['name']}</td><td>{row['lr']:g}</td>" in page
        assert f"<td>{100 * row['dev'][0]:.1f} ± {100 * row['dev'][1]:.1f}</td>" in page
    best = found["rows"][0]
    assert f"{best['name']} leads on dev with {100 * best['dev'][0]:.1f}" in page
    assert re.search(r"(Whether it is|On these texts it is) better than ", page)  # of two seeds
    assert f"whether adagrad stalls cannot be told: {best['steps']} steps are too few" in page
    assert "stalls: " not in page
    assert f"Diverged at every rate that was tried: {CANDIDATES[2]}." in page


def test_the_page_in_a_browser(compared: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """At a phone's width, only the table is wider than the page, and every plot loads."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("Debian's chromium is not installed")
    folder, _ = compared
    probe = """<script>addEventListener("load", () => { document.title = JSON.stringify({
      wide: document.documentElement.scrollWidth - innerWidth,
      images: [...document.images].map(image => image.naturalWidth),
      rows: document.querySelectorAll("tbody tr").length,
      headings: [...document.querySelectorAll("h2")].map(h => h.textContent) }) })</script>"""
    probed = tmp_path / "page.html"
    probed.write_text(page_of(folder).replace("</head>", f"{probe}</head>"), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}",
    ]
    size = "--window-size=500,4000"
    dumped = subprocess.run(
        [browser, *flags, size, "--dump-dom", probed.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    title = re.search(r"<title>(.*?)</title>", dumped, re.S)
    assert title is not None
    seen = json.loads(title[1].replace("&amp;", "&"))
    assert seen["wide"] <= 0
    assert seen["rows"] == 3
    assert len(seen["images"]) == 4
    assert min(seen["images"]) > 100
    assert seen["headings"] == [
        "Conclusions",
        "Plots",
        "What each optimizer did",
        "Command",
    ]
    artefacts = Path(os.environ.get("SRUCLI_ARTEFACTS", tmp_path))
    picture = artefacts / "compare.png"
    subprocess.run(
        [browser, *flags, size, f"--screenshot={picture}", (folder / "index.html").as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("overrides", "candidates", "said"),
    [
        pytest.param([], {"model.layers": [1, 2]}, [], id="all work"),
        pytest.param(
            ["model.encoder=lstm"],
            {"model.kernel_sizes": [(2,), (3,)]},
            ["model.kernel_sizes has no effect: it needs model.encoder=cnn"],
            id="what is compared",
        ),
        pytest.param(
            ["train.dev_share=0.3"],
            {"model.layers": [1, 2]},
            ["train.dev_share has no effect: --dev FILE or a tenth of TRAIN chooses the rates"],
            id="another share of dev texts",
        ),
        pytest.param(
            ["optim.lr=0.3"],
            {"optim.lr": [0.1, 0.2]},
            ["optim.lr has no effect: its values are compared"],
            id="a value beside those compared",
        ),
        pytest.param(
            ["model.kernel_sizes=[2]"],
            {"model.encoder": ["sru", "cnn"]},
            [],
            id="works in one candidate",
        ),
        pytest.param(
            ["model.kernel_sizes=[2]"],
            {"model.encoder": ["sru", "gru"]},
            ["model.kernel_sizes has no effect: it needs model.encoder=cnn"],
            id="works in none",
        ),
    ],
)
def test_settings_without_effect_in_all_candidates_are_reported(
    overrides: list[str], candidates: dict[str, list[object]], said: list[str]
) -> None:
    ((key, values),) = candidates.items()
    made = [Candidate(f"{key}={value}", {key: value}) for value in values]
    plan = Plan(resolve(overrides=overrides), made, "accuracy", 1, 1, None)
    assert list(compare.without_effect(plan)) == said


def test_a_setting_that_only_some_candidates_replace_has_an_effect() -> None:
    candidates = [Candidate("deep", {"model.layers": 3}), Candidate("wide", {"model.hidden": 9})]
    plan = Plan(resolve(overrides=["model.layers=1"]), candidates, "accuracy", 1, 1, None)
    assert list(compare.without_effect(plan)) == []
