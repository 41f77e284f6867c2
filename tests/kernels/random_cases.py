"""Run Triton's kernels on random batches and compare them with float64.

    python -m tests.kernels.random_cases --cases 400 --seed 0

runs them in Triton's interpreter; with `--device cuda`, on a GPU, where nearly every case is
compiled first. It prints one line per kernel and one per failure, and exits with code 1 if there is
a failure. `--only NUMBER` repeats one case.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kernels.triton_cases import Case

WIDTHS = (1, 3, 33, 64, 65, 130)
LONGEST = 300
# One case in so many has a text of more than 250 tokens, which takes the interpreter seconds.
LONG = 25
KERNELS = {
    "SRU forward": ("h", "c", "last", "unsaved"),
    "SRU backward": ("grad_u", "grad_x", "grad_v", "grad_bias", "grad_initial"),
    "pool": ("largest", "mean", "argument"),
    "pool backward": ("grad_h",),
}


def random_case(number: int, seed: int) -> Case:
    """Return a case; number 0 and every LONG-th have texts of 0, 1 and over 250 tokens."""
    import torch

    from tests.kernels.triton_cases import Case

    draw = random.Random(f"{seed} {number}")
    dtype = draw.choice((torch.float32, torch.bfloat16, torch.float16))
    wide = 512 // dtype.itemsize
    units, directions, planes = draw.choice(WIDTHS), draw.choice((1, 2)), draw.choice((3, 4))
    tanh = draw.random() < 0.5
    block: int | None = wide
    if number % LONG == 0:  # few programs
        lengths = [0, 1, draw.randint(251, LONGEST)]
    else:
        lengths = [draw.choice((0, 1, draw.randint(0, 9))) for _ in range(draw.randint(0, 4))]
        (limits,) = draw.choices(((0, 20), (21, 80), (81, 250)), (90, 8, 2))
        lengths.append(draw.randint(*limits))
        block = draw.choice((None, wide))
    draw.shuffle(lengths)
    place = seed * 1_000_003 + number
    return Case(tuple(lengths), units, directions, planes, tanh, dtype, block, place)


def errors_of(case: Case, number: int) -> dict[str, float]:
    """Return the error of each result of all kernels, in units of the allowed one."""
    from tests.kernels import triton_cases
    from tests.poison import poison

    with poison():
        errors = triton_cases.sru_errors(case, unsaved=number % 2 == 1)
        return errors | triton_cases.pool_errors(case, whole=number % 4 < 2)


def run(numbers: Iterable[int], seed: int, say: Callable[[str], None]) -> int:
    """Run the cases, say what fails and a line per kernel, and return how many failed."""
    largest: dict[str, list[float]] = {kernel: [] for kernel in KERNELS}
    failed = 0
    for number in numbers:
        case = random_case(number, seed)
        try:
            errors = errors_of(case, number)
        except Exception as error:  # also a kernel that stops; the next case may tell more
            errors = {}
            wrong = [f"{type(error).__name__}: {error}"]
        else:
            wrong = [f"{name} {error:.3g}" for name, error in errors.items() if error > 1]
        if wrong:
            failed += 1
            say(f"--seed {seed} --only {number}: {case}: {', '.join(wrong)}")
        for kernel, names in KERNELS.items():
            if errors:
                largest[kernel].append(max(errors[name] for name in names if name in errors))
    for kernel, each in largest.items():
        at_most = f"largest error {max(each):.2f} of the allowed one" if each else "no result"
        say(f"{kernel}: {len(each)} cases, {at_most}")
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=400, help="of each kernel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run this case alone")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cpu: Triton's interpreter"
    )
    given = parser.parse_args(arguments)
    if given.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    else:
        os.environ.pop("TRITON_INTERPRET", None)
    from tests.kernels import triton_cases

    if given.device != triton_cases.DEVICE:
        parser.error("there is no GPU that torch can use")
    numbers = range(given.cases) if given.only is None else [given.only]
    began = time.monotonic()
    failed = run(numbers, given.seed, lambda line: print(line, flush=True))
    print(f"{failed} of {len(numbers)} cases failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
