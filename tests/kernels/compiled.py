"""Compile Triton's kernels for GPUs that need not exist, and print what the compiler made of them.

    python -m tests.kernels.compiled

prints the table of `docs/kernels.md`, and exits with code 1 if a kernel spills registers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from srucli.kernels import triton_loss, triton_pool, triton_rows, triton_sru, triton_walk

CAPABILITIES = (80, 90, 100)
SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}
FLOATS = ("v", "bias", "initial", "mask", "last", "grad_last", "grad_initial", "partial")
SRU = {"PLANES": 3, "TANH": True, "STEPS": triton_walk.STEPS, "STAGES": triton_walk.STAGES}
CONSTANTS: dict[str, dict[str, Any]] = {
    "_forward": {**SRU, "SAVE": True},
    "_backward": SRU,
    "_pool": {"STEPS": 2 * triton_walk.STEPS, "STAGES": triton_walk.STAGES},
    "_pool_backward": {},
}
ROWS = {"PLACES": triton_rows.PLACES, "BLOCK": triton_rows.BLOCK}
# Bytes of a program's columns, and units, as `triton_walk.py` chooses blocks: rows begin at
# multiples of 4 bytes in each dtype (250 units), of 16 (512), and in a small dtype anywhere (257).
SHAPES = ((128, 250), (512, 512), (128, 257))
HEADER = """\
| kernel | dtype | units | columns | registers | spilled | shared KiB | loads ahead | other loads |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


@dataclass(frozen=True)
class Made:
    """A compiled kernel: bytes spilled, bytes of shared memory, bytes per load and thread."""

    ptx: str
    registers: int
    spilled: int
    shared: int

    def ahead(self) -> set[int]:
        """The sizes of asynchronous copies to shared memory."""
        copies = re.findall(r"cp\.async\.c[ag]\.shared\.global [^;]*?, 0x(\w+)", self.ptx)
        return {int(size, 16) for size in copies}

    def loads(self) -> set[int]:
        """The sizes of loads to registers."""
        found = re.findall(r"ld\.global(?:\.(?!v\d|b\d)\w+)*(?:\.v(\d))?\.b(\d+)", self.ptx)
        return {int(count or 1) * int(bits) // 8 for count, bits in found}


def kernel_named(name: str) -> Any:
    modules = triton_loss, triton_pool, triton_rows, triton_sru
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def ptx(kernel: Any, constants: dict[str, Any], dtype: str, capability: int) -> tuple[str, int]:
    """Return a kernel's PTX and its bytes of shared memory.

    Tensors are aligned as torch allocates them, unless the kernel is not specialized on that.
    """
    types = dict.fromkeys(("alpha", "smoothing"), "fp32")
    types |= dict.fromkeys(("offsets", "argument", "index", "targets"), "*i64")
    types |= dict.fromkeys(FLOATS, "*fp32") | dict.fromkeys(constants, "constexpr")
    signature = {each.name: types.get(each.name, f"*{dtype}") for each in kernel.params}
    aligned = {
        (each.num,): [["tt.divisibility", 16]]
        for each in kernel.params
        if signature[each.name].startswith("*")
        and not (each.do_not_specialize or each.do_not_specialize_on_alignment)
    }
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": 1, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return made.asm["ptx"], made.metadata.shared


def compiled(name: str, dtype: str, width: int, units: int, capability: int, folder: Path) -> Made:
    """Compile a kernel for programs of `width` bytes of columns; its files go to the folder."""
    block = width // SIZES[dtype]
    shape = {"UNITS": units, "DIRECTIONS": 1, "BLOCK": block}
    return assembled(name, {**CONSTANTS[name], **shape}, dtype, capability, folder)


def assembled(
    name: str, constants: dict[str, Any], dtype: str, capability: int, folder: Path
) -> Made:
    """Compile a kernel with these constants; its files go to the folder."""
    text, shared = ptx(kernel_named(name), constants, dtype, capability)
    (folder / "kernel.ptx").write_text(text)
    (target,) = re.findall(r"^\.target (\w+)", text, re.MULTILINE)
    assembler = [get_ptxas(capability).path, "-v", "--fmad=false", "--gpu-name", target]
    said = subprocess.run(
        [*assembler, "kernel.ptx", "-o", "kernel.cubin"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    (spilled,) = re.findall(r"(\d+) bytes spill stores", said)
    (registers,) = re.findall(r"Used (\d+) registers", said)
    return Made(text, int(registers), int(spilled), shared)


def row(name: str, dtype: str, width: int, units: int, made: Iterable[Made]) -> str:
    """Return a row of the table; one value stands for all GPUs if they agree."""

    def of_each(values: Iterable[object]) -> str:
        each = [str(value) for value in values]
        return each[0] if len(set(each)) == 1 else " / ".join(each)

    def sizes(found: set[int]) -> str:
        return ", ".join(map(str, sorted(found))) or "none"

    made = list(made)
    cells = (
        name.lstrip("_").replace("_", " "),
        dtype,
        units,
        width // SIZES[dtype],
        of_each(each.registers for each in made),
        of_each(each.spilled for each in made),
        of_each(f"{each.shared / 1024:g}" for each in made),
        of_each(sizes(each.ahead()) for each in made),
        of_each(sizes(each.loads()) for each in made),
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    print(HEADER, flush=True)
    spilled = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder  # so that every kernel is compiled
        for width, units in SHAPES:
            for name in CONSTANTS:
                for dtype in SIZES:
                    shape = name, dtype, width, units
                    made = [compiled(*shape, each, Path(folder)) for each in CAPABILITIES]
                    spilled += sum(each.spilled for each in made)
                    print(row(*shape, made), flush=True)
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
