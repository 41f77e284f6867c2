"""Every sentence of `srucli diagnose`, on artificial records with and without the fault.

The tests of the command and of damaged records use a real training.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import linregress, t

from srucli import optim
from srucli.config import OptimConfig
from srucli.diagnostics import findings
from srucli.diagnostics.findings import Finding
from srucli.diagnostics.records import Diagnostics, slope
from srucli.diagnostics.watch import is_recorded
from srucli.errors import DataError
from srucli.experiments import plots
from srucli.experiments.page import effective_figure
from srucli.runs.claim import Claim, claimed
from tests.robustness.mutate import mutate_tree
from tests.support import RunMain, Tiny

GROUPS = ("embeddings", "matrices", "head")
PEAK = 0.01


def flat(step: int) -> float:
    """An effective learning rate that stays constant."""
    return 2.0


def falling(step: int) -> float:
    """A step that falls as with a sum of squares that only grows."""
    return 2.0 / math.sqrt(step)


def made(
    name: str = "adam",
    steps: int = 1000,
    every: int = 20,
    effective: Callable[[int], float] | None = flat,
    groups: dict[str, dict[str, Any]] | None = None,
    rate: Callable[[int], float] = lambda step: PEAK,
    losses: tuple[float, ...] = (1.0, 0.6, 0.5, 0.45),
    counts: tuple[float, ...] = (500.0, 100.0, 50.0, 20.0, 10.0, 8.0, 5.0, 3.0, 2.0, 1.0),
    clip: float = 1.0,
    options: dict[str, Any] | None = None,
    **record: Any,
) -> Diagnostics:
    """Return artificial diagnostics. effective: effective learning rates at a rate of 1.

    groups: additional values of each group's records; record: additional values of every record.
    All epochs have equally many steps.
    """
    settings = optim.resolve(OptimConfig(name=name, options=options or {}))
    own = {name: {} for name in GROUPS} if groups is None else groups
    records = []
    for step in range(1, steps + 1):
        if not is_recorded(step, every):
            continue
        group: dict[str, Any] = {"ratio": 1e-3, "stride": 1.0, "eps_dominates": 0.0}
        if effective is not None:
            middle = effective(step) * rate(step)
            group["effective"] = (middle / 3, middle, middle * 3)
        records.append(
            {
                "step": step,
                "lr": rate(step),
                "grad_norm": 0.5,
                "clipped": 0.0,
                "groups": {name: group | more for name, more in own.items()},
                "untouched": {"embedding": 0.1},
                "by_frequency": None,
                **record,
            }
        )
    metrics = [
        {"step": steps * epoch // len(losses), "epoch": epoch, "train_loss": loss}
        for epoch, loss in enumerate(losses, start=1)
    ]
    optimizer = {"name": name, "lr": PEAK, "options": dict(settings.options), "clip": clip}
    return Diagnostics(optimizer, records, metrics, list(counts))


def finding(run: Diagnostics, name: str) -> Finding:
    """Return the only finding of that name."""
    (found,) = [each for each in findings.diagnose(run) if each.name == name]
    return found


def ratios(**groups: float) -> dict[str, dict[str, Any]]:
    """Groups with these ratios of step to weights."""
    return {name: {"ratio": ratio} for name, ratio in groups.items()}


def noisy(step: int) -> float:
    """A slope of -0.3, times 2 or 1/2 from record to record."""
    return math.pow(step, -0.3) * (2.0 if step % 40 else 0.5)


def filling(step: int) -> float:
    """Steps of rmsprop with alpha 0.99, whose mean of squares first grows."""
    return 1 / math.sqrt(1 - 0.99 ** min(step, 207))


def warmed(step: int) -> float:
    """A learning rate that rises over 100 steps and falls to 0 at step 1000."""
    return PEAK * min(step / 100, (1000 - step) / 900)


TREND = r"without the schedule, the effective learning rate is "
# Arguments of `made`, the finding's name, whether it is a fault, and its sentence.
CASES: dict[str, tuple[dict[str, Any], str, bool, str]] = {
    "adagrad stalls": (
        {"name": "adagrad", "effective": falling},
        "stalling",
        True,
        rf"adagrad stalls: {TREND}4\.\d+ times lower at the end than at step 60; the slope of its "
        r"log against log\(step\) is -0\.50 \(-0\.50 to -0\.50; .*; "
        r"rmsprop and adam forget old gradients",
    ),
    "adagrad with a slope of -0.1": (
        {"name": "adagrad", "effective": lambda step: step**-0.1},
        "stalling",
        False,
        r"adagrad does not stall: .* is -0\.10 \(",
    ),
    "rmsprop whose mean stopped growing": (
        {"name": "rmsprop", "effective": filling},
        "stalling",
        False,
        rf"rmsprop does not stall: {TREND}1 times higher at the end than at step 220; .* is .0",
    ),
    "rmsprop whose mean grows too long": (
        {"name": "rmsprop", "options": {"alpha": 0.999}, "effective": flat},
        "stalling",
        False,
        "whether rmsprop stalls cannot be told: its mean of squared gradients grows for 2,078 "
        "steps, over half of them$",
    ),
    "rmsprop whose mean grows just too long": (
        {"name": "rmsprop", "steps": 410},
        "stalling",
        False,
        "whether rmsprop stalls cannot be told: its mean of squared gradients grows for 207 s",
    ),
    "rmsprop whose mean stops growing in time": (
        {"name": "rmsprop", "steps": 420},
        "stalling",
        False,
        "rmsprop does not stall: ",
    ),
    "rmsprop whose steps fall": (
        {"name": "rmsprop", "effective": falling},
        "stalling",
        True,
        r"rmsprop stalls: .*; it forgets old gradients, so the gradients have grown",
    ),
    "adam": (
        {"steps": 2100},
        "stalling",
        False,
        r"adam does not stall: .*at step 120; .* is .0\.00",
    ),
    "adam with too few steps to forget": (
        {"steps": 2000},
        "stalling",
        False,
        "whether adam stalls cannot be told: it takes 2,078 steps to forget the first "
        "gradients, more than there are$",
    ),
    "adam whose steps fall": (
        {"effective": falling, "steps": 2100},
        "stalling",
        True,
        "adam stalls: .*; it forgets old gradients, so the gradients have grown",
    ),
    "amsgrad, which never forgets": (
        {"effective": falling, "options": {"amsgrad": True}},
        "stalling",
        True,
        "adam stalls: .*; rmsprop and adam forget",
    ),
    "a slope that may be either": (
        {"name": "adagrad", "effective": noisy},
        "stalling",
        False,
        r"whether adagrad stalls cannot be told: .* is -0\.\d\d \(-0\.[4-9]\d to -?0\.[01]\d; .*"
        "which is neither$",
    ),
    "a slope between both": (
        {"name": "adagrad", "effective": lambda step: step**-0.25},
        "stalling",
        False,
        r"whether adagrad stalls cannot be told: .* is -0\.25 \(.*, which is neither$",
    ),
    "a slope that is just stalling": (
        {"name": "adagrad", "effective": lambda step: step**-0.31},
        "stalling",
        True,
        "adagrad stalls: .* is -0.31",
    ),
    "a slope that is just steady": (
        {"name": "adagrad", "effective": lambda step: step**-0.19},
        "stalling",
        False,
        "adagrad does not stall: .* is -0.19",
    ),
    "a schedule, which is no stalling": (
        {"name": "adagrad", "rate": warmed},
        "stalling",
        False,
        r"adagrad does not stall: .*1 times higher at the end than at step 60; .* is .0\.00",
    ),
    "the steps that are always recorded": (
        {"name": "adagrad", "effective": falling, "steps": 104, "every": 1000},
        "stalling",
        True,
        "adagrad stalls",
    ),
    "16 steps": (
        {"name": "adagrad", "effective": falling, "steps": 16},
        "stalling",
        False,
        "whether adagrad stalls cannot be told: 16 steps are too few, at least 100 are needed$",
    ),
    "a long memory": (
        {"name": "rmsprop", "options": {"alpha": 0.999}},
        "memory",
        True,
        r"the memory is long, nearly a sum as in adagrad: squared gradients lose half their weight "
        r"in 693 of 1,000 steps, and a token of median frequency occurs every 31\.2 steps; lower "
        r"the decay 0\.999$",
    ),
    "a memory that fits": (
        {"name": "rmsprop", "options": {"alpha": 0.99}},
        "memory",
        False,
        "the memory fits: squared gradients lose half their weight in 69 of 1,000 steps, and",
    ),
    "a short memory": (
        {"name": "rmsprop", "options": {"alpha": 0.9}},
        "memory",
        True,
        r"the memory is short: .* in 7 of 1,000 steps, .* every 31\.2 steps; raise the decay 0\.9$",
    ),
    "a long memory that is corrected": (
        {},
        "memory",
        False,
        "the memory is long, a mean over nearly all of the run: .* in 693 of 1,000 steps, and",
    ),
    "a memory of 16 steps": (
        {"steps": 16},
        "memory",
        False,
        "whether the memory of squared gradients fits cannot be told: 16 steps are too few",
    ),
    "one epoch, which may have been cut short": (
        {"name": "rmsprop", "losses": (1.0,)},
        "memory",
        False,
        "the memory fits: squared gradients lose half their weight in 69 of 1,000 steps$",
    ),
    "long first steps": (
        {"name": "adam-nobias", "groups": {name: {"stride": 3.16} for name in GROUPS}},
        "first steps",
        True,
        r"the first steps are too long: step 1 moved a weight by 3\.16 times the learning rate "
        r"\(theory without bias correction: 3\.16, at step 12 6\.57\); the longest was step 1, "
        r"by 3\.16 times the peak learning rate; adam corrects for this",
    ),
    "rmsprop's first steps": (
        {"name": "rmsprop", "groups": {name: {"stride": 10.0} for name in GROUPS}},
        "first steps",
        True,
        r"step 1 moved a weight by 10\.00 .* correction: 10\.00, at step 12 2\.97\)",
    ),
    "first steps that warmup hides": (
        {"name": "rmsprop", "groups": {name: {"stride": 10.0} for name in GROUPS}}
        | {"rate": lambda step: PEAK * min(step / 10_000, 1)},
        "first steps",
        False,
        r"are not too long: step 1 moved .* 10\.00 .*the longest was step 100, by 0\.10 times the "
        r"peak learning rate",
    ),
    "first steps that are not too long": (
        {},
        "first steps",
        False,
        r"are not too long: step 1 moved a weight by 1\.00 .* \(theory: about 1\)",
    ),
    "a rate that is too high": (
        {"losses": (1.0, 0.6, 0.7, 0.9)},
        "learning rate",
        True,
        r"the learning rate is at its upper edge: at the peak, 0\.01, a step changes \w+ most, by "
        r"1\.0e-03 of their size; the training loss went from 1\.000 to 0\.900 and rose by over 5% "
        r"in epoch 3, 4; lower optim\.lr",
    ),
    "steps that are too large": (
        {"groups": ratios(embeddings=0.4, matrices=1e-3)},
        "learning rate",
        True,
        r"at its upper edge: .* changes embeddings most, by 4\.0e-01 of their size",
    ),
    "a rate that is too low": (
        {"losses": (1.0, 0.98, 0.97)},
        "learning rate",
        True,
        r"at its lower edge: .* from 1\.000 to 0\.970; raise optim\.lr",
    ),
    "steps that are too small": (
        {"groups": ratios(embeddings=9e-6, matrices=1e-6)},
        "learning rate",
        True,
        r"at its lower edge: .* changes embeddings most, by 9\.0e-06",
    ),
    "a rate at no edge": ({}, "learning rate", False, "the learning rate is at no edge: "),
    "a loss of nearly nothing that rises": (
        {"losses": (1.0, 0.01, 0.015)},
        "learning rate",
        False,
        "at no edge",
    ),
    "vectors, which start at zero": (
        {"groups": ratios(vectors=5.0, matrices=1e-3)},
        "learning rate",
        False,
        "at no edge: .* changes matrices most",
    ),
    "one epoch's loss": (
        {"losses": (1.0,)},
        "learning rate",
        False,
        "whether the learning rate is at an edge cannot be told: at the peak.*; but fewer than 2",
    ),
    "a peak within the run": (
        {"rate": warmed},
        "learning rate",
        False,
        r"at no edge: at the peak, 0\.01, a step",
    ),
    "a peak without a record": (
        {"rate": lambda step: PEAK * step / 2000},
        "learning rate",
        False,
        r"at no edge: at 0\.005, a step",
    ),
    "a starved group": (
        {"groups": ratios(embeddings=1e-5, matrices=1e-3, head=2e-3)},
        "starved",
        True,
        r"embeddings are starved: the median step changes embeddings least, by 1\.0e-05 of their "
        r"size, and head most, by 2\.0e-03; an optimizer with a step size for every weight",
    ),
    "a starved group of two": (
        {"groups": ratios(embeddings=2.5e-5, matrices=1e-3)},
        "starved",
        True,
        "embeddings are starved: ",
    ),
    "a group that learns slower": (
        {"groups": ratios(embeddings=1e-4, matrices=1e-3, head=2e-3)},
        "starved",
        False,
        "no group is starved: .* changes embeddings least",
    ),
    "steps that are clipped": (
        {"clipped": 0.6, "grad_norm": 7.0},
        "clipping",
        True,
        r"clipping determines most steps: the gradients of 60% of the steps were longer than "
        r"optim\.clip=1 \(median norm 7\); raise optim\.clip",
    ),
    "steps that are not": (
        {"clipped": 0.5},
        "clipping",
        False,
        "clipping does not determine most steps: the gradients of 50%",
    ),
    "eps": (
        {"groups": {"head": {"eps_dominates": 0.05}, "matrices": {"eps_dominates": 0.2}}},
        "eps",
        True,
        r"eps dominates: at the end, the root is below eps for 20\.0% of the weights in matrices "
        r"that ever had a gradient, the most of all groups; lower optim\.options\.eps",
    ),
    "eps that is small": ({}, "eps", False, r"eps does not dominate: .* for 0\.0% of"),
    "rare tokens": (
        {"by_frequency": [0.1, *[0.2] * 8, 0.5]},
        "rare tokens",
        False,
        r"rare tokens take longer steps than common ones: a unit of gradient moves the rarest "
        r"tenth \(each occurs 1 times per epoch\) 5 times as far as the most common tenth \(500 t",
    ),
    "rare tokens that move less far": (
        {"by_frequency": [0.4, *[0.2] * 8, 0.1]},
        "rare tokens",
        False,
        r"take shorter steps than common ones: .* 0\.25 times as far",
    ),
    "rare tokens that move as far": (
        {"by_frequency": [0.4, *[0.2] * 8, 0.42]},
        "rare tokens",
        False,
        "take steps as long as common ones: ",
    ),
    "rare tokens in one epoch": (
        {"by_frequency": [0.1, *[0.2] * 8, 0.5], "losses": (1.0,)},
        "rare tokens",
        False,
        "whether rare tokens take longer steps cannot be told: no epoch is known to be complete",
    ),
    "a table that is too large": (
        {"untouched": {"embedding": 0.1, "encoder.table": 0.95}},
        "untouched",
        True,
        r"encoder\.table is too large: .*: embedding 10\.0%, encoder\.table 95\.0%; "
        r"lower model\.bag_buckets$",
    ),
    "tables that are too large": (
        {"untouched": {"embedding": 0.6, "encoder.table": 0.95}},
        "untouched",
        True,
        r"embedding and encoder\.table are too large: .*; "
        r"lower tokenizer\.vocab_size and model\.bag_buckets$",
    ),
    "tables that are used": ({}, "untouched", False, r"the tables are used: .*embedding 10\.0%$"),
    "a table in one epoch": (
        {"untouched": {"encoder.table": 0.95}, "losses": (1.0,)},
        "untouched",
        False,
        "whether a table is too large cannot be told: no epoch is known to be complete",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_sentences(case: str) -> None:
    records, name, fault, said = CASES[case]
    found = finding(made(**records), name)
    assert found.fault is fault, found.text
    assert re.search(said, found.text), found.text


@pytest.mark.parametrize("case", ["a rate that is too low", "steps that are clipped"])
def test_no_advice_against_the_best_of_the_tried_learning_rates(case: str) -> None:
    how, name, _, _ = CASES[case]
    run = made(**how)
    assert re.search(r"(raise|lower) optim\.lr$", finding(run, name).text)
    chosen = finding(replace(run, chosen=True), name)
    assert not re.search(r"(raise|lower) optim\.lr", chosen.text)


@pytest.mark.parametrize("effective", [falling, flat], ids=["falling", "flat"])
@pytest.mark.parametrize("name", [name for name in optim.OPTIMIZERS if optim.second_moment(name)])
def test_16_steps_support_no_conclusion(name: str, effective: Callable[[int], float]) -> None:
    found = findings.diagnose(made(name, steps=16, effective=effective))
    assert not any(each.fault for each in found)
    said = {each.name: each.text for each in found}
    assert said["stalling"].startswith(f"whether {name} stalls cannot be told: 16 steps are too")
    short = [text for name, text in said.items() if name != "first steps"]
    assert all(" cannot be told: 16 steps are too few" in text for text in short)


def test_a_slope_needs_six_records() -> None:
    """The run has enough steps, but only its first ones are recorded."""
    run = made("adagrad", steps=1000, effective=falling)
    run = Diagnostics(run.optimizer, run.records[:17], run.metrics, run.counts)
    assert run.records[-1]["step"] == 96
    found = finding(run, "stalling")
    assert found.text == (
        "whether adagrad stalls cannot be told: fewer than 6 records are late enough; train with "
        "a smaller --diagnose"
    )


def test_slopes_are_medians_of_the_groups() -> None:
    """If one of three groups stalls, the optimizer does not."""
    run = made("adagrad")
    for record in run.records:
        record["groups"]["head"]["effective"] = (0.0, record["step"] ** -0.9, 0.0)
    found = finding(run, "stalling")
    assert not found.fault
    assert "is +0.00 (" in found.text.replace("-0.00 (", "+0.00 (")


def test_first_steps_without_a_record() -> None:
    run = made("rmsprop", groups={"head": {"stride": 10.0}})
    later = [record for record in run.records if record["step"] > 3]
    found = finding(Diagnostics(run.optimizer, later, run.metrics, run.counts), "first steps")
    assert found == Finding(
        "first steps",
        False,
        "whether the first steps were long cannot be told: the first record is of step 4",
    )


def test_the_first_epoch_gives_the_length_of_an_epoch() -> None:
    run = made("rmsprop")
    ends = [(400, 1), (800, 2), (1000, 3)]
    metrics = [{"step": step, "epoch": epoch, "train_loss": 1.0} for step, epoch in ends]
    found = finding(Diagnostics(run.optimizer, run.records, metrics, run.counts), "memory")
    assert "a token of median frequency occurs every 50 steps" in found.text


def test_rows_that_are_left_alone_do_not_forget_between_their_tokens() -> None:
    run = made("rmsprop")
    assert "a token of median frequency" in finding(run, "memory").text
    found = finding(replace(run, rows=True), "memory").text
    assert found.endswith("lose half their weight in 69 of 1,000 steps")


def test_findings_without_a_second_moment() -> None:
    run = made("sgd", effective=None)
    for record in run.records:
        for group in record["groups"].values():
            del group["stride"], group["eps_dominates"]
    names = {each.name for each in findings.diagnose(run)}
    assert names == {"learning rate", "starved", "clipping", "untouched"}


def test_questions_that_do_not_apply_are_left_out() -> None:
    run = made("adam", clip=0.0, untouched={}, options={"amsgrad": True})
    names = {each.name for each in findings.diagnose(run)}
    assert names == {"stalling", "first steps", "learning rate", "starved", "eps"}


def test_eps_is_judged_by_the_last_record() -> None:
    run = made()
    for record in run.records:
        record["groups"]["head"]["eps_dominates"] = 0.3 if record["step"] > 900 else 0.0
    assert finding(run, "eps").fault


def test_a_last_step_of_length_zero_is_ignored() -> None:
    run = made(rate=warmed, by_frequency=[0.1, *[0.2] * 8, 0.5])
    assert run.records[-1]["lr"] == 0
    records = [*run.records[:-1], {**run.records[-1], "by_frequency": [0.0] * 10}]
    run = replace(run, records=records)
    assert "5 times as far" in finding(run, "rare tokens").text


def test_clipped_shares_are_weighted_by_their_steps() -> None:
    """The first 480 of 1,000 steps were clipped, and have more records."""
    run = made()
    records = [{**each, "clipped": float(each["step"] <= 480)} for each in run.records]
    run = replace(run, records=records)
    assert "the gradients of 48% of the steps" in finding(run, "clipping").text


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.25])
def test_slopes_of_powers_are_their_exponents(exponent: float) -> None:
    steps = [1, 2, 4, 8, 16, 32, 64, 128]
    values = [3.0 * step**exponent for step in steps]
    assert slope(steps, values, 4) == pytest.approx([exponent] * 3, abs=1e-9)
    assert slope(steps, values, 5) is None


def test_the_interval_of_a_slope_is_students() -> None:
    draw = np.random.default_rng(0)
    steps = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    values = [
        step**-0.4 * factor for step, factor in zip(steps, draw.uniform(0.5, 2, 12), strict=True)
    ]
    wanted = linregress(np.log(steps[3:]), np.log(values[3:]))
    reach = t.ppf(0.975, 7) * wanted.stderr
    middle = wanted.slope
    found = slope(steps, values, 4)
    assert found == pytest.approx((middle, middle - reach, middle + reach))


@pytest.mark.parametrize(("step", "wanted"), [(1, 3.162), (12, 6.57), (100, 3.24), (10_000, 1.0)])
def test_the_theory_of_uncorrected_adam(step: int, wanted: float) -> None:
    for run in (made("adam-nobias"), made("adam", options={"bias_correction": False})):
        assert run.excess(step) == pytest.approx(wanted, rel=1e-2)
    assert made("adam").excess(step) is None


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("rmsprop", {"alpha": 0.5}, 3),
        ("adadelta", {"rho": 0.5}, 3),
        ("adam", {"betas": [0.9, 0.5]}, 3),
        ("adam", {"betas": [0.9, 0.5], "amsgrad": True}, 0),
        ("adagrad", {}, 0),
        ("lion", {"betas": [0.9, 0.5]}, 0),
    ],
)
def test_steps_to_forget(name: str, options: dict[str, Any], wanted: int) -> None:
    assert made(name, options=options).steps_to_forget() == pytest.approx(wanted)


# --- a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diagnosed(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """A run of 108 steps with diagnostics."""
    from srucli.config import resolve
    from srucli.training.run import train

    folder = tmp_path_factory.mktemp("runs") / "adagrad"
    words = (
        *("optim.name=adagrad", "train.epochs=4", "train.batch_size=16", "train.diagnose=5"),
        *("train.threads=1", "model.hidden=8", "model.layers=1", "model.embedding_size=16"),
        "model.dropout=0.1",
    )
    tokenizer = tiny.run / "tokenizer.model"
    return train(resolve(overrides=words), str(tiny.train), None, folder, tokenizer=tokenizer)


@pytest.mark.parametrize("damage", range(40))
def test_damaged_records_are_refused(
    diagnosed: Path, run_main: RunMain, tmp_path: Path, damage: int
) -> None:
    """With a value removed or replaced, there is still an answer or a clear message."""
    lines = (diagnosed / "diagnostics.jsonl").read_text().splitlines()
    draw = random.Random(damage)
    place = draw.choice((0, draw.randrange(len(lines))))
    lines[place] = json.dumps(mutate_tree(draw, json.loads(lines[place])))
    (tmp_path / "diagnostics.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff{}\n")
    ended = run_main("diagnose", tmp_path)
    assert ended.code in (0, 65, 66)
    if ended.code == 65:
        assert "diagnostics.jsonl: not as srucli writes it (" in ended.err
        assert ended.err.endswith("; copy the run again\n")


@pytest.mark.parametrize("damaged", ["counts", "groups"])
def test_records_of_too_many_parts_are_refused(
    diagnosed: Path, run_main: RunMain, tmp_path: Path, damaged: str
) -> None:
    """3,000 parts of the tokens took 20 seconds to draw, and a file may have millions."""
    first, second, *_ = map(json.loads, (diagnosed / "diagnostics.jsonl").read_text().splitlines())
    if damaged == "counts":
        first["counts"] = [1.0] * 101
    else:
        second["groups"] = {f"g{number}": {"ratio": 0.1} for number in range(101)}
    lines = json.dumps(first) + "\n" + json.dumps(second) + "\n"
    (tmp_path / "diagnostics.jsonl").write_text(lines)
    ended = run_main("diagnose", tmp_path, "--plots", tmp_path / "pictures")
    assert ended.code == 65
    assert "diagnostics.jsonl: not as srucli writes it (" in ended.err
    assert "should have at most 100 items" in ended.err


def test_the_command(diagnosed: Path, run_main: RunMain, tmp_path: Path) -> None:
    ended = run_main("diagnose", diagnosed, "--plots", tmp_path / "pictures")
    first, *lines = ended.out.splitlines()
    assert (ended.code, first) == (0, "adagrad, learning rate 0.05, 108 steps")
    assert all(line.startswith(("! ", "  ")) for line in lines)
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["optimizer.png", "optimizer.svg"]
    assert "mathdefault" not in pictures[1].read_text()
    printed = json.loads(run_main("diagnose", diagnosed, "--json").out)
    assert printed["optimizer"]["name"] == "adagrad"
    assert [each["text"] for each in printed["findings"]] == [line[2:] for line in lines]
    assert [each["fault"] for each in printed["findings"]] == [line[0] == "!" for line in lines]
    # Real records answer every question except those on bias correction and memory.
    names = [each["name"] for each in printed["findings"]]
    wanted = ["stalling", "learning rate", "starved", "clipping", "eps", "rare tokens", "untouched"]
    assert names == wanted


def test_a_step_that_was_skipped_on_a_gpu_is_no_damage() -> None:
    run = made()
    records = [{**run.records[0], "grad_norm": None}, *run.records[1:]]
    assert "norm 0.5" in finding(replace(run, records=records), "clipping").text
    assert "norm nan" in finding(made(grad_norm=None), "clipping").text


def test_damaged_records_are_not_drawn(tmp_path: Path) -> None:
    for wrong in ("many", 1e300):
        with pytest.raises(DataError, match="not as srucli writes it"):
            effective_figure({"adam": made(step=wrong)})
        run = made(groups={"head": {"ratio": wrong}})
        with pytest.raises(DataError, match="not as srucli writes it"):
            plots.draw_diagnostics(run, tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_names_of_groups_are_safe_in_a_drawing(tmp_path: Path) -> None:
    """A control character would make the SVG one that no program reads."""
    group = "a\x00\u202eb" + 1_000 * "c"
    plots.draw_diagnostics(made(groups={group: {"ratio": 0.1}}), tmp_path)
    drawn = "".join(ElementTree.parse(tmp_path / "optimizer.svg").getroot().itertext())
    assert "a\\x00\\u202ebc" in drawn
    assert "ccc...ccc" in drawn


def test_a_bug_in_a_finding_is_no_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What records have is checked when they are read, so a missing key is not their fault."""
    monkeypatch.setattr(findings, "TABLES", None)
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'get'"):
        findings.diagnose(made(untouched={"embedding": 0.9}))


def test_options_that_are_no_decay() -> None:
    """Optimizers of other packages have betas of other kinds."""
    for betas in (None, [], "x", [0.9, None], [0.9, 1.0], 2):
        run = made()
        run = replace(run, optimizer={**run.optimizer, "name": "p:X", "options": {"betas": betas}})
        assert run.decay() is None
        findings.diagnose(run)


def test_a_bug_in_drawing_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What matplotlib does not know is the fault of the drawing."""
    monkeypatch.setattr(plots, "PALE", "no colour")
    with pytest.raises(ValueError, match="valid color"):
        plots.draw_diagnostics(made(by_frequency=[1.0] * 10), tmp_path)


def test_runs_that_cannot_be_diagnosed(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    ended = run_main("diagnose", tmp_path / "none")
    assert ended.code == 66
    assert "no such run; give the folder that `srucli train` printed" in ended.err
    ended = run_main("diagnose", tiny.run)
    assert ended.code == 66
    assert "train it again with --diagnose 20" in ended.err
    with claimed(tmp_path / "c", Claim("comparison", {})):
        ended = run_main("diagnose", tmp_path / "c")
    assert ended.code == 2
    assert f"{tmp_path / 'c'}: is a comparison; its page explains its trainings" in ended.err
    ended = run_main("diagnose", tiny.run, "--diagnose")
    assert ended.code == 2
