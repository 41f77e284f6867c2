"""A training that was asked for in Python, and how it is run: in a thread or in a process.

What loads torch, which takes seconds, is imported where a training runs. So its process starts at
once, and this one loads torch meanwhile.

Ctrl-C raises KeyboardInterrupt in the main thread at any instant. So that it finds the training
between two steps, the training runs in another thread.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from typing import IO, TYPE_CHECKING, Any

from srucli.api.child import SIZE
from srucli.config import Config, DataConfig
from srucli.data.corpus import texts_of
from srucli.data.given import Source
from srucli.errors import InterruptedRun
from srucli.io.children import Child, child, kill_children_of
from srucli.io.console import quiet, say
from srucli.io.memory import ending
from srucli.training.interrupts import Interrupt

if TYPE_CHECKING:
    from srucli.training.pretrain import RawText

# Where the trained classifier is loaded with.
LOADED_LATER = "srucli.api.classifier"
OnEpoch = Callable[[int, Mapping[str, float]], None]
# The seconds between looks for Ctrl-C, which on Windows interrupts no wait.
_POLL = 0.2


@dataclass(frozen=True, eq=False)
class Job:
    """A training. raw: the file of raw text, or the texts. quiet: only warnings are shown."""

    config: Config
    train: Source
    dev: Source | None
    output: Path
    raw: str | list[str] | None = None
    base: Path | None = None
    tokenizer: Path | None = None
    force: bool = False
    quiet: bool = False

    def run(self, stop: Interrupt, on_epoch: OnEpoch | None = None) -> None:
        """Train. Raises SrucliError of any kind, and what `on_epoch` raises."""
        from srucli.training.from_raw import train_from_raw
        from srucli.training.run import train

        how: dict[str, Any] = {"tokenizer": self.tokenizer, "force": self.force, "stop": stop}
        how |= {"on_epoch": on_epoch}
        with quiet() if self.quiet else nullcontext():
            if self.raw is None:
                train(self.config, self.train, self.dev, self.output, base=self.base, **how)
            else:
                train_from_raw(
                    self.config, self.train, self.dev, self.output, self._raw_text, **how
                )

    def _raw_text(self) -> RawText:
        from srucli.training.pretrain import RawText

        if isinstance(self.raw, str):
            config = DataConfig(encoding=self.config.data.encoding, errors=self.config.data.errors)
            return RawText([*texts_of([self.raw], config, False, ())], [self.raw])
        return RawText(self.raw or [], [])


def in_thread(
    work: Callable[[Interrupt], None], tell: Callable[[InterruptedRun | None], None]
) -> None:
    """Run `work` in a thread, and raise what it raises. Ctrl-C requests a stop.

    It waits until the training has saved; where there is nothing to save, the thread gets a
    KeyboardInterrupt too. A second Ctrl-C does not wait. tell: says what is kept after a stop; it
    gets the error of the training, or None if nothing was saved.
    """
    stop, context, failed = Interrupt(), copy_context(), list[BaseException]()
    ended = Event()  # `join` of a thread may return early after a KeyboardInterrupt in it

    def target() -> None:
        try:
            context.run(work, stop)
        except BaseException as error:  # raised again by the thread that waits
            failed.append(error)
        finally:
            ended.set()

    thread = Thread(target=target, daemon=True)
    thread.start()
    try:
        while not ended.wait(_POLL):
            pass
    except KeyboardInterrupt:
        stop.requested = True
        if stop.checked:
            say("stopping after this step; interrupt once more to stop at once")
        else:
            ident = thread.ident or 0
            while not ended.is_set() and _imports(ident):
                time.sleep(_POLL / 10)
            interrupt = ctypes.c_ulong(ident), ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(*interrupt)
            kill_children_of(ident)
        ended.wait()
        tell(next((error for error in failed if isinstance(error, InterruptedRun)), None))
        raise
    thread.join()
    if failed:
        raise failed[0]


def _imports(ident: int) -> bool:
    """Return whether a thread is importing a module, which an exception would leave half loaded."""
    frame = sys._current_frames().get(ident)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def in_process(job: Job, on_epoch: OnEpoch | None, stop: Interrupt) -> None:
    """Train in a process of its own, and raise what the training raises.

    Its process is set up as that of a command. What it says is shown by this one, unless both write
    to a terminal.
    """
    stop.checked = True  # by the process
    helpers: list[Thread] = []
    try:
        with child("srucli.api.child", own_stderr=not sys.stderr.isatty()) as process:
            data = pickle.dumps(job)
            with suppress(BrokenPipeError):  # `_follow` says how the process ended
                process.stdin.write(len(data).to_bytes(SIZE, "big") + data)
                process.stdin.flush()
            helpers += [Thread(target=import_module, args=(LOADED_LATER,), daemon=True)]
            helpers += [Thread(target=_tell, args=(stop, process), daemon=True)]
            if process.stderr is not None:
                helpers += [Thread(target=_pass_on, args=(process.stderr,), daemon=True)]
            for helper in helpers:
                helper.start()
            _follow(process, on_epoch)
    finally:
        for helper in helpers:
            helper.join()


def _follow(process: Child, on_epoch: OnEpoch | None) -> None:
    """Take what a process sends until its training ends. Raises what that raises."""
    while True:
        try:
            kind, *values = pickle.load(process.stdout)
        except EOFError:
            code = process.process.wait()
            raise RuntimeError(f"the process of the training {ending(code)}") from None
        if kind == "epoch":
            if on_epoch is not None:
                on_epoch(*values)
        elif values != [None]:
            raise values[0]
        else:
            process.process.wait()
            return


def _tell(stop: Interrupt, process: Child) -> None:
    """Tell a process when to stop, until it ends."""
    while process.process.poll() is None:
        if stop.requested:
            with suppress(OSError):
                process.stdin.write(b"s")
                process.stdin.flush()
            return
        time.sleep(_POLL)


def _pass_on(stream: IO[bytes]) -> None:
    """Show what a process says."""
    for line in stream:
        say(line.decode("utf-8", "replace").rstrip("\n"))
