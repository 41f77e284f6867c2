"""Labels, hash and validation split of the examples of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srucli.config import DataConfig, TrainConfig
from srucli.data.dataset import Dataset, data_hash, default_share, find_labels, hold_out, read_split
from srucli.data.readers import Example
from srucli.errors import DataError
from tests.support import write_tsv


def examples(*labels: str) -> list[Example]:
    """Return a text for each word, whose labels are joined by commas."""
    return [
        Example(f"text {line}", tuple(filter(None, words.split(","))), line)
        for line, words in enumerate(labels, 1)
    ]


def test_labels_are_found_and_sorted() -> None:
    assert find_labels(examples("b", "a", "b", "ä"), "x") == ["a", "b", "ä"]
    assert find_labels(examples("b,a", "", "c"), "x") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [(["a", "a"], "x: only the label 'a' in 2 texts;"), ([""], "x: no label in 1 texts;")],
)
def test_fewer_than_two_labels(labels: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        find_labels(examples(*labels), "x")


def test_hold_out_sets_a_share_aside() -> None:
    given = examples(*["a", "b"] * 50)
    rest, held = hold_out(given, 0.1, seed=0)
    assert (len(rest), len(held)) == (90, 10)
    assert sorted(example.line for example in rest + held) == list(range(1, 101))
    assert [example.line for example in rest] == sorted(example.line for example in rest)
    assert hold_out(given, 0.1, seed=0) == (rest, held)
    assert hold_out(given, 0.1, seed=1)[1] != held
    assert hold_out(given, 0.0, seed=0) == (given, [])


@pytest.mark.parametrize("seed", range(8))
def test_hold_out_leaves_each_label_an_example(seed: int) -> None:
    given = examples(*["a"] * 9, "b", "c", "c", "a,d", "")
    rest, held = hold_out(given, 0.6, seed)
    assert {"a", "b", "c", "d"} == {label for example in rest for label in example.labels}
    assert len(held) == 8


def test_the_hash_depends_on_labels_texts_and_order() -> None:
    given = examples("a", "b")
    hashes = {data_hash(x) for x in (given, given[::-1], given[:1], examples("a", "c"))}
    assert len(hashes) == 4
    assert data_hash(given) == data_hash([example._replace(line=9) for example in given])


# --- a dataset ---------------------------------------------------------------------------------

WORDS = ["b", "a,c", "c", "a", "", "c,b", "a", "b,a"] * 5


def dataset(*words: str, several: bool, labels: tuple[str, ...] = ("a", "b", "c")) -> Dataset:
    return Dataset.make(examples(*words), list(labels), several, "x.tsv")


def test_labels_become_numbers() -> None:
    single = dataset("b", "a", "d", several=False)
    assert (single.targets.tolist(), single.multi_label, len(single)) == ([1, 0, 3], False, 3)
    assert single.label_counts().tolist() == [1, 1, 0]
    several = dataset("b,a", "", "d,a", several=True)
    assert several.targets.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert several.targets.dtype == np.float32
    assert several.multi_label
    assert several.label_counts().tolist() == [2, 1, 0]


@pytest.mark.parametrize("several", [False, True], ids=["single-label", "multi-label"])
def test_dataset_and_examples_are_split_alike(several: bool) -> None:
    words = WORDS if several else [word for word in WORDS if len(word) == 1]
    data = dataset(*words, several=several)
    rest, held = data.split(0.3, seed=4)
    wanted = hold_out(examples(*words), 0.3, seed=4)
    assert held is not None
    for part, own in zip((rest, held), wanted, strict=True):
        again = Dataset.make(own, data.labels, several, "x.tsv")
        assert (part.texts, part.lines) == (again.texts, again.lines)
        assert part.targets.tolist() == again.targets.tolist()
        assert part.sha256 == data.sha256
    assert (rest.source, held.source) == ("x.tsv", "x.tsv, held out")


def test_without_a_split_all_examples_are_left() -> None:
    data = dataset("a", "b", several=False)
    assert data.split(0.5, seed=0) == (data, None)


def test_identities_of_parts_and_files_differ() -> None:
    words = [word for word in WORDS if len(word) == 1]
    data = dataset(*words, several=False)
    draws = [data.split(share, seed) for share, seed in ((0.3, 0), (0.3, 1), (0.2, 0))]
    parts = [data, dataset(*words, "a", several=False)]
    parts += [part for drawn in draws for part in drawn if part is not None]
    assert len({part.identity for part in parts}) == len(parts) == 8
    assert dataset(*words, several=False).identity == data.identity


def test_the_share_that_is_held_out_by_default(tmp_path: Path) -> None:
    """A tenth, at most 2,000 examples, and 2^25 scores of an example for a label."""
    held = [default_share(size, labels) * size for size, labels in SIZES]
    assert held == pytest.approx([0, 20, 2_000, 2_000, 335.5], rel=1e-3)
    rows = [("a", f"one {n}") for n in range(199)] + [("b", "two")]
    train, few = (write_tsv(tmp_path / f"{n}.tsv", rows[n:]) for n in range(2))
    split = read_split(str(train), None, DataConfig(format="tsv"), TrainConfig())
    assert split.dev is not None
    assert (len(split.train), len(split.dev)) == (180, 20)
    assert read_split(str(few), None, DataConfig(format="tsv"), TrainConfig()).dev is None


SIZES = [(199, 2), (200, 2), (20_000, 2), (10**6, 10_000), (10**6, 100_000)]


def test_a_dev_file_or_a_split_of_one_file(tmp_path: Path) -> None:
    rows = [("a", "one"), ("b", "two"), ("a", "three"), ("b", "four")]
    train, dev = (str(write_tsv(tmp_path / name, rows[:n])) for name, n in (("t", 4), ("d", 2)))
    whole = read_split(train, dev, DataConfig(format="tsv"), TrainConfig(dev_share=0.5))
    assert whole.dev is not None
    assert (len(whole.train), len(whole.dev), whole.dev.source) == (4, 2, dev)
    held = read_split(train, None, DataConfig(format="tsv"), TrainConfig(dev_share=0.5))
    assert held.dev is not None
    assert (len(held.train), len(held.dev)) == (2, 2)
    assert held.hashes == {"train": whole.train.sha256, "dev": data_hash([])}
    assert whole.hashes["dev"] == whole.dev.sha256 != held.hashes["dev"]


@pytest.mark.parametrize("dev", [False, True])
def test_examples_without_labels_are_counted_in_the_whole_training_file(
    tmp_path: Path, dev: bool
) -> None:
    """Those that are held out count, and those of a dev file do not."""
    config = DataConfig(multi_label=True)
    rows = [("a,b" if n % 2 else "b", f"text {n}") for n in range(20)]
    rows += [("", f"empty {n}") for n in range(10)]
    file = write_tsv(tmp_path / "train.tsv", rows)
    how = TrainConfig(dev_share=None if dev else 0.5)
    split = read_split(str(file), str(file) if dev else None, config, how)
    assert split.dev is not None
    assert split.dev.without_labels > 0
    assert split.without_labels == 10


def test_labels_of_an_earlier_run_are_added_if_one_of_them_occurs(tmp_path: Path) -> None:
    file = str(write_tsv(tmp_path / "t", [("b", "one"), ("c", "two"), ("b", "three")]))
    config = DataConfig(format="tsv")
    for known, labels in {
        ("b", "a"): ["a", "b", "c"],
        ("x", "a"): ["b", "c"],
        (): ["b", "c"],
    }.items():
        data = read_split(file, None, config, TrainConfig(dev_share=0), known).train
        assert data.labels == labels
        assert [labels[n] for n in data.targets] == ["b", "c", "b"]
        assert data.label_counts().tolist() == [{"b": 2, "c": 1}.get(each, 0) for each in labels]
    one = str(write_tsv(tmp_path / "one", [("b", "one"), ("b", "two")]))
    assert read_split(one, None, config, TrainConfig(dev_share=0), ["a", "b"]).train.labels == [
        "a",
        "b",
    ]
    with pytest.raises(DataError, match="only the label 'b'"):
        read_split(one, None, config, TrainConfig(dev_share=0), ["a"])


def test_labels_like_those_of_an_earlier_run_are_merged_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("Pos", "one"), ("pos ", "two"), ("neg", "three"), ("New", "four"), ("new", "five")]
    file = str(write_tsv(tmp_path / "t", [*rows, ("new", "six")]))
    config = DataConfig(format="tsv", merge_labels=True)
    data = read_split(file, None, config, TrainConfig(dev_share=0), ["POS", "neg"]).train
    assert data.labels == ["POS", "neg", "new"]
    config = DataConfig(format="tsv")
    data = read_split(file, None, config, TrainConfig(dev_share=0), ["POS", "neg"]).train
    assert data.labels == ["New", "POS", "Pos", "neg", "new", "pos"]
    assert "'Pos' (1 text, first in line 1) is not known, but 'POS' is" in capsys.readouterr().err
