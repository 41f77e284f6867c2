"""How threads of OpenMP wait, which torch computes with."""

from __future__ import annotations

import os


def sleep_soon() -> None:
    """Let waiting threads sleep soon, in a process that has not loaded torch yet.

    On a busy machine, threads that spin take the cores from the thread they wait for. OpenMP reads
    the variable when torch loads it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
