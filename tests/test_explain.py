"""Every sentence of `srucli explain`, on a run made to have the fault and one made not to."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RunMain, Tiny

from benchmarks.mutate import mutate_tree
from srucli import explain
from srucli.explain import Finding, Story

Diagnosed = Callable[..., Path]
SMALL = (
    *("--threads", 1, "--hidden", 16, "--layers", 1, "--batch-size", 16),
    *("model.embedding_size=16", "model.wide_buckets=64", "model.character_buckets=64"),
    "model.dropout=0.1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def diagnosed(folder: Path, tiny: Tiny, run_main: RunMain) -> Diagnosed:
    """A diagnosed run with these flags, trained once for all tests."""

    def train(*flags: object) -> Path:
        name = re.sub(r"\W+", "_", " ".join(map(str, flags))) or "default"
        if not (folder / name).is_dir():
            ended = run_main(
                *("train", tiny.train, "-o", folder / name, "--diagnose", 5, *SMALL),
                *("--epochs", 8, *flags),
            )
            assert ended.code == 0, ended.err
        return folder / name

    return train


def finding(run: Path, name: str) -> Finding:
    """The one finding of that name."""
    (found,) = [each for each in explain.explain(explain.read(run)) if each.name == name]
    return found


STEADY = ("optim.schedule=constant", "optim.warmup=0")
CASES = {
    "stalling": (
        ("--optimizer", "adagrad"),
        ("--optimizer", "rmsprop", "optim.options.alpha=0.8"),
        r"adagrad stalls: .* \d+(\.\d+)? times shorter at the end .* slope -0\.\d\d .*rmsprop and",
    ),
    "memory": (
        ("--optimizer", "rmsprop", "optim.options.alpha=0.999"),
        ("--optimizer", "rmsprop", "optim.options.alpha=0.9"),
        r"the memory is long.* in 693 steps of 240.*; lower the decay 0\.999",
    ),
    "memory (short)": (
        ("--optimizer", "rmsprop", "optim.options.alpha=0.001"),
        ("--optimizer", "rmsprop", "optim.options.alpha=0.9"),
        r"the memory is short.* in 0 steps .* comes every 0\.\d+ steps; raise the decay 0\.001",
    ),
    "first steps": (
        ("--optimizer", "adam-nobias", *STEADY),
        ("--optimizer", "adam", *STEADY),
        r"first steps are long: step 1 moved a weight by 3\.\d\d .* correction: 3\.16; that makes "
        r"step 12 6\.57 times",
    ),
    "learning rate": (
        ("--optimizer", "sgd", "--lr", 100, *STEADY),
        (),
        r"at its upper edge: .* rose by over 5% in epoch .*; lower optim\.lr",
    ),
    "learning rate (low)": (
        ("--lr", 1e-6),
        (),
        r"at its lower edge: .* from 1\.\d+ to 1\.\d+; raise optim\.lr",
    ),
    "starved": (
        ("--optimizer", "sgd", "--lr", 0.01),
        (),
        r"\w+ are starved: .* by \d\.\de-\d\d of their size, and \w+ most, by",
    ),
    "clipping": (
        ("optim.clip=0.001",),
        ("optim.clip=100",),
        r"clipping decides: the gradients of 100% .* optim\.clip=0\.001 .*; raise optim\.clip",
    ),
    "eps": (
        ("optim.options.eps=1",),
        (),
        r"eps decides: .* below eps for 100\.0% .*; lower optim\.options\.eps",
    ),
    "untouched": (
        ("model.wide_buckets=16384",),
        (),
        r"wide\.table is too large: .*wide\.table 9\d\.\d%",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_told_and_only_where_it_is(case: str, diagnosed: Diagnosed) -> None:
    faulty, sound, said = CASES[case]
    name = case.partition(" (")[0]
    fault = finding(diagnosed(*faulty), name)
    assert fault.fault, fault.text
    assert re.search(said, fault.text), fault.text
    fine = finding(diagnosed(*sound), name)
    assert not fine.fault, fine.text


def test_rmsprops_first_step_is_ten_times_the_rate(diagnosed: Diagnosed) -> None:
    found = finding(diagnosed("--optimizer", "rmsprop", *STEADY), "first steps")
    assert found.fault
    assert re.search(
        r"step 1 moved a weight by (9\.\d\d|10\.0\d) .* correction: 10\.00;", found.text
    )


def test_a_run_too_short_to_tell_says_so(diagnosed: Diagnosed) -> None:
    found = finding(diagnosed("--optimizer", "rmsprop", "optim.options.alpha=0.999"), "stalling")
    assert not found.fault
    assert "cannot be told" in found.text


def test_rare_pieces_are_compared(diagnosed: Diagnosed) -> None:
    found = finding(diagnosed("--optimizer", "adagrad"), "rare pieces")
    times = float(re.search(r"moves ([\d.]+) times", found.text)[1])  # type: ignore[index]
    assert times > 2


def test_no_second_moment_no_sentence_on_it(diagnosed: Diagnosed) -> None:
    names = {each.name for each in explain.explain(explain.read(diagnosed("--optimizer", "sgd")))}
    assert names == {"learning rate", "starved", "clipping", "untouched"}


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.25])
def test_slopes_are_those_of_powers(exponent: float) -> None:
    steps = [1, 2, 4, 8, 16, 32, 64]
    values = [3.0 * step**exponent for step in steps]
    assert explain.slope(steps, values, 4) == pytest.approx(exponent, abs=1e-9)
    assert explain.slope(steps, values, 20) is None


@pytest.mark.parametrize(("step", "wanted"), [(1, 3.162), (12, 6.57), (100, 3.24), (10_000, 1.0)])
def test_the_theory_of_uncorrected_adam(step: int, wanted: float) -> None:
    options = {"betas": [0.9, 0.999]}
    story = Story({"name": "adam-nobias", "lr": 1.0, "options": options}, [], [], [])
    assert explain.theory(story, step) == pytest.approx(wanted, rel=1e-2)
    plain = Story({"name": "adam", "lr": 1.0, "options": options}, [], [], [])
    assert explain.theory(plain, step) is None


@pytest.mark.parametrize("damage", range(40))
def test_damaged_records_are_refused(
    diagnosed: Diagnosed, run_main: RunMain, tmp_path: Path, damage: int
) -> None:
    """A value of a record removed or replaced: still an answer, or one sentence."""
    lines = (diagnosed("--optimizer", "adam") / "diagnostics.jsonl").read_text().splitlines()
    draw = random.Random(damage)
    place = draw.choice((0, draw.randrange(len(lines))))
    lines[place] = json.dumps(mutate_tree(draw, json.loads(lines[place])))
    (tmp_path / "diagnostics.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff{}\n")
    ended = run_main("explain", tmp_path)
    assert ended.code in (0, 65, 66)
    if ended.code == 65:
        assert "diagnostics.jsonl: not as srucli writes it (" in ended.err
        assert ended.err.endswith("; copy the run again\n")


def test_the_command(diagnosed: Diagnosed, run_main: RunMain, tmp_path: Path) -> None:
    run = diagnosed("--optimizer", "adagrad")
    ended = run_main("explain", run, "--plots", tmp_path / "pictures")
    first, *lines = ended.out.splitlines()
    assert (ended.code, first) == (0, "adagrad, learning rate 0.05, 240 steps")
    assert lines[0].startswith("! adagrad stalls: ")
    assert all(line.startswith(("! ", "  ")) for line in lines)
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["optimizer.png", "optimizer.svg"]
    assert "mathdefault" not in pictures[1].read_text()
    told = json.loads(run_main("explain", run, "--json").out)
    assert told["optimizer"]["name"] == "adagrad"
    assert [each["text"] for each in told["findings"]] == [line[2:] for line in lines]


def test_what_cannot_be_explained(run_main: RunMain, tiny: Tiny, tmp_path: Path) -> None:
    ended = run_main("explain", tmp_path / "none")
    assert ended.code == 66
    assert "no such run folder" in ended.err
    ended = run_main("explain", tiny.run)
    assert ended.code == 66
    assert "train it again with --diagnose 20" in ended.err
    ended = run_main("explain", tiny.run, "--diagnose")
    assert ended.code == 2
