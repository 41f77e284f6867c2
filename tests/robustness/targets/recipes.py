"""The fuzzer's target `yaml`: mutated recipes."""

from __future__ import annotations

from pathlib import Path
from random import Random

from srucli.config import resolve
from tests.robustness.mutate import mutate_yaml
from tests.robustness.targets.seeds import Seeds
from tests.robustness.watch import watched


def try_yaml(seeds: Seeds, random: Random, folder: Path) -> None:
    """Mutate a recipe, and load it."""
    path = folder / "x.yaml"
    path.write_bytes(mutate_yaml(random, random.choice(seeds.yaml), random.choice(seeds.yaml)))
    with watched(folder):
        resolve(path)
