"""The library in a real Jupyter kernel: what it changes, shows, and does when it is interrupted."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, Tiny

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FIRST = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
"""
STATE = """
from tests.test_library_calls import calls, changes
changes(calls(Path({data!r}), Path({run!r}), Path({folder!r})))
"""
TRAINING = """
import srucli
from tests.support import sentences
labels, texts = map(list, zip(*sentences()))
def train(**settings):
    return srucli.train(texts, labels, output={output!r}, hidden=8, layers=1, **settings)
"""


class Notebook:
    """A kernel that runs cells one after the other."""

    def __init__(self, folder: Path) -> None:
        notebook = nbformat.v4.new_notebook()
        resources = {"metadata": {"path": str(folder)}}
        self.client = nbclient.NotebookClient(
            notebook, timeout=240, resources=resources, allow_errors=True
        )
        # A kernel that is installed elsewhere may have another Python.
        self.client.create_kernel_manager()
        self.client.km.kernel_spec.argv[0] = sys.executable

    async def run(self, code: str, interrupt_at: str | None = None) -> list[Any]:
        """Run a cell and return its outputs; interrupt it when it shows that text."""
        cell = nbformat.v4.new_code_cell(code)
        self.client.nb.cells.append(cell)
        running = asyncio.ensure_future(
            self.client.async_execute_cell(cell, len(self.client.nb.cells) - 1)
        )
        while interrupt_at is not None and not running.done():
            await asyncio.sleep(0.05)
            if interrupt_at in shown(cell.outputs):
                await self.client.km.interrupt_kernel()
                break
        await running
        return list(cell.outputs)


def shown(outputs: list[Any]) -> str:
    """Return what a cell has written."""
    return "".join(output.get("text", "") for output in outputs)


def results(outputs: list[Any]) -> list[str]:
    """Return the value of a cell's last line, and its error if it has one."""
    values = [output["data"]["text/plain"] for output in outputs if "data" in output]
    return values + [output["ename"] for output in outputs if output.output_type == "error"]


def in_a_kernel(folder: Path, cells: Any) -> None:
    """Run a coroutine function with a notebook."""

    async def run() -> None:
        notebook = Notebook(folder)
        async with notebook.client.async_setup_kernel():
            await notebook.run(FIRST)
            await cells(notebook)

    asyncio.run(run())


def test_calls_leave_the_kernel_unchanged(tiny: Tiny, tmp_path: Path) -> None:
    async def cells(notebook: Notebook) -> None:
        paths = {"data": str(tiny.train), "run": str(tiny.run), "folder": str(tmp_path)}
        outputs = await notebook.run(STATE.format(**paths))
        assert results(outputs)[-1:] == ["[]"], outputs

    in_a_kernel(tmp_path, cells)


def test_a_training_is_shown_stopped_and_resumed(tmp_path: Path) -> None:
    def steps() -> int:
        return int((tmp_path / "run" / "last").read_text().removeprefix("step-"))

    async def cells(notebook: Notebook) -> None:
        await notebook.run(TRAINING.format(output=str(tmp_path / "run")))
        outputs = await notebook.run("train(epochs=400)", interrupt_at="1/400")
        assert results(outputs)[-1:] == ["KeyboardInterrupt"], outputs
        assert "Warning" not in shown(outputs)
        stopped = steps()
        outputs = await notebook.run("train(epochs=400)", interrupt_at=f"from step {stopped}")
        assert results(outputs)[-1:] == ["KeyboardInterrupt"], outputs
        assert steps() > stopped

    in_a_kernel(tmp_path, cells)
