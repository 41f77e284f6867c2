"""Devices by name, and thread counts within a block."""

from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from threading import Barrier

import pytest
import torch

from srucli import runtime
from srucli.errors import UsageError
from srucli.runtime import cores, resolve_device, use_device, use_threads


@pytest.mark.parametrize("built", [True, False])
def test_joblib_does_not_warn_of_what_is_not_used(
    monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    """Without /dev/shm there are no semaphores, which only joblib's pools of processes need.

    built: Python was built with them.
    """

    class Missing:
        SEM_VALUE_MAX = 1

        def __init__(self, *_: object, **named: object) -> None:
            raise OSError(38, "Function not implemented")

    for name in [name for name in sys.modules if name.partition(".")[0] == "joblib"]:
        monkeypatch.delitem(sys.modules, name)
    if built:
        monkeypatch.setattr("_multiprocessing.SemLock", Missing)
    else:
        monkeypatch.delattr("_multiprocessing.SemLock")
        monkeypatch.delitem(sys.modules, "multiprocessing.synchronize", raising=False)
    spec = spec_from_file_location("runtime_again", runtime.__file__)
    assert spec is not None
    assert spec.loader is not None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        again = module_from_spec(spec)
        spec.loader.exec_module(again)
        assert again.cores() == cores()
    assert [*map(str, warned)] == []


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "cpu:x"])
def test_missing_devices_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--device {name}: "):
        resolve_device(name)


def test_a_gpu_is_the_current_one_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch cannot be given a second GPU here, so its calls are recorded."""
    current = [0]
    monkeypatch.setattr(torch.cuda, "_exchange_device", lambda index: _exchange(current, index))
    monkeypatch.setattr(
        torch.cuda, "_maybe_exchange_device", lambda index: _exchange(current, index)
    )
    with use_device(torch.device("cpu")):
        assert current == [0]
    with use_device(torch.device("cuda:1")):
        assert current == [1]
    assert current == [0]


def _exchange(current: list[int], index: int) -> int:
    (before,), current[:] = tuple(current), [index]
    return before


def test_use_threads_changes_only_the_calling_thread() -> None:
    outside = torch.get_num_threads()
    with ThreadPoolExecutor(1) as other, use_threads(outside + 1):
        assert torch.get_num_threads() == outside + 1
        assert other.submit(torch.get_num_threads).result() == outside
        with use_threads(0):
            assert torch.get_num_threads() == cores()
        assert torch.get_num_threads() == outside + 1
    assert torch.get_num_threads() == outside


def test_use_threads_in_two_threads_at_once() -> None:
    """Neither thread sees the other's count, and a thread that starts later sees neither."""
    outside, both = torch.get_num_threads(), Barrier(2, timeout=60)

    def block(threads: int) -> tuple[int, int]:
        with use_threads(threads):
            both.wait()
            inside = torch.get_num_threads()
            both.wait()
        return inside, torch.get_num_threads()

    wanted = outside + 1, outside + 2
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(block, wanted)) == [(each, outside) for each in wanted]
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == outside
