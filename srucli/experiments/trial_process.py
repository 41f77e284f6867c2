"""The processes of trials: a server that starts them, and what each of them does.

The server imports torch but runs nothing, so it has no threads that a fork would lose, and trials
start at once. On macOS, where the system's own libraries start threads, each trial imports what it
needs. Only `scheduler.py` starts it. These processes may change their threads, file
descriptors and start method, as nothing else runs in them.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TextIO

import torch

from srucli.config import Config, build
from srucli.data.readers import read_examples
from srucli.errors import DivergedError, OutOfMemoryError, SrucliError
from srucli.experiments.trials import LEFTOVERS, PREDICTIONS, config_of_data
from srucli.inference.evaluation import Evaluation, evaluate
from srucli.inference.predictor import Predictor
from srucli.io.files import unwritable, write_files, writing
from srucli.io.folders import Identity, OpenFolder
from srucli.io.json_text import json_text
from srucli.io.memory import NO_MEMORY, enough_memory
from srucli.io.python_warnings import show_warnings
from srucli.runs import run_dir
from srucli.runs.claim import Layout, clear
from srucli.runs.run_dir import read_records
from srucli.runs.tensors import file_of
from srucli.runtime import tune_process
from srucli.training.run import train

# Files of a trial's run that are removed after it is evaluated.
UNNEEDED: Layout = {key: run_dir.LAYOUT[key] for key in ("checkpoints", r"tokenizer\.model")}


def main() -> None:
    """Start a process for each job, and print its number and exit code when it ends.

    Jobs are lines of JSON on stdin. When it closes, the whole process group ends.
    """
    show_warnings()
    if forks := sys.platform != "darwin" and hasattr(os, "fork"):
        import_for_trials()
    # Locks of tqdm and Numba then have no names in the system, which a kill would leave behind.
    multiprocessing.set_start_method("fork" if forks else "spawn", force=True)
    running: dict[Any, tuple[int, multiprocessing.Process]] = {}
    with open(0, "rb", buffering=0) as jobs:
        while True:
            for ready in wait([0, *running]):
                if ready:
                    number, process = running.pop(ready)
                    process.join()
                    print(json.dumps([number, process.exitcode]), flush=True)
                elif line := jobs.readline():
                    number, job = json.loads(line)
                    process = multiprocessing.Process(target=run_trial, kwargs=job)
                    process.start()
                    running[process.sentinel] = number, process
                else:
                    os.killpg(0, signal.SIGKILL)


def import_for_trials() -> None:
    """Import here, once, what every trial would otherwise import in two seconds of CPU time."""
    import_module("torch._dynamo")  # for torch's optimizers
    if find_spec("numba"):
        import_module("srucli.kernels.jit")


def run_trial(
    path: str,
    identity: Sequence[int],
    trial: str,
    config: Mapping[str, Any],
    files: Mapping[str, str | None],
    keep: bool = False,
) -> None:
    """Train and evaluate one trial, and write its result, or exit with 1 or NO_MEMORY.

    identity: the device and inode of the folder that holds all trials, to notice if it was
    replaced. trial: the folder of the trial in it. files: train, dev, test and tokenizer. keep:
    also write the predictions for the test texts.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    opened = _trial_folder(Path(path), (identity[0], identity[1]), trial)
    with opened as (place, people):
        try:
            settings = build(config, str(place.path))
            tune_process(settings.train.threads)
            if find_spec("numba"):
                import_module("srucli.kernels.jit").announce_compiling(people)
            settings = settings.model_copy(update={"data": config_of_data(settings.data)})
            with enough_memory("the trial", "use fewer examples"):
                result = _measure(settings, files, place, keep=keep)
        except DivergedError as error:
            result = {"dev": {}, "test": {}, "history": [], "diverged": str(error)}
        except SrucliError as error:
            write_files(place, {"error.txt": str(error).encode(errors="backslashreplace")})
            sys.exit(NO_MEMORY if isinstance(error, OutOfMemoryError) else 1)
        write_files(place, {"result.json": json_text(result).encode()})


@contextmanager
def _trial_folder(
    path: Path, identity: Identity, trial: str
) -> Iterator[tuple[OpenFolder, TextIO]]:
    """Hold the folder of a trial open, without leftovers of a killed one; print to its log.

    The second value is the old stdout. Raises OutputError.
    """
    with ExitStack() as stack:
        try:
            top = stack.enter_context(OpenFolder.at(path, identity))
            top.check_in_place()
            place = stack.enter_context(top.below(trial, make=True))
            clear(place, LEFTOVERS)
            old = _redirect_output(place.open_to_write("log.txt", os.O_CREAT | os.O_APPEND))
        except OSError as error:
            raise unwritable(path / trial, error) from error
        yield place, old


def _redirect_output(log: int) -> TextIO:
    """Close stdin, and redirect stdout and stderr to an open file. Raises OSError.

    Returns the old stdout. It stays open: its reader notices by its end that this process has
    ended, and passes on what is written there for people.
    """
    os.ftruncate(log, 0)
    old = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return old


def _end_with_parent(parent: int) -> None:
    """End this process if the command is killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _measure(
    config: Config, files: Mapping[str, str | None], place: OpenFolder, *, keep: bool = False
) -> dict[str, Any]:
    """Train and evaluate, and return the content of result.json. Raises SrucliError."""
    run, train_source, test_source = place.path / "run", files["train"], files["test"]
    assert train_source is not None
    assert test_source is not None
    tokenizer = Path(files["tokenizer"]) if files["tokenizer"] else None
    how: dict[str, Any] = {"tokenizer": tokenizer, "force": True, "below": place}
    train(config, train_source, files["dev"], run, **how)
    history = read_records(run / "metrics.jsonl")
    predictor = Predictor.load(run, config.train.device)
    used = predictor.choice.name
    (dev,) = [record["dev"] for record in history if f"step-{record['step']}" == used]
    tested = evaluate(predictor, read_examples(test_source, config.data))
    own = _kept(place, predictor, tested) if keep else {}
    with writing(place, "run"), place.child("run") as trained:
        clear(trained, UNNEEDED)
    test = {name: value for name, value in tested.metrics.items() if math.isfinite(value)}
    reading = {**history[-1].get("reading", {}), "test": tested.tally.to_json()}
    result = {"dev": dev, "test": test, "history": history, "diverged": None}
    return {**result, "reading": reading, **own}


def _kept(place: OpenFolder, predictor: Predictor, tested: Evaluation) -> dict[str, Any]:
    """Write the probabilities, and return what else is needed to decide on labels."""
    probabilities = torch.from_numpy(tested.outcome.probabilities)
    write_files(place, {PREDICTIONS: file_of({"probabilities": probabilities})})
    thresholds = predictor.thresholds
    return {
        "labels": list(predictor.labels),
        "thresholds": None if thresholds is None else thresholds.tolist(),
        "at_least_one": predictor.at_least_one,
    }
