"""Which folders belong to srucli, and which of their files it may remove.

srucli writes a marker into its folders first. It removes only files that it writes, by name, and
never one that the command reads; everything else stays.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args

from srucli.errors import InputMissingError, OutputError, SrucliError
from srucli.io import locks
from srucli.io.console import escaped, shell_word
from srucli.io.files import COPY_WITHOUT_LINKS, read_json, to_json, unwritable
from srucli.io.folders import Identity, OpenFolder, identity, identity_of

MARKER = "srucli.json"
MARKER_FORMAT = 1
_MAX_MARKER = 2**12
_SHOWN = 5

Kind = Literal["run", "base", "comparison", "cross-validation", "tuning"]
# What srucli writes into a folder, in the order in which it is removed: patterns of file names
# (None), and of folder names with what the folders contain.
Layout = Mapping[str, Union["Layout", None]]
OWN: Layout = {re.escape(locks.NAME): None, re.escape(MARKER): None}
_TEMPORARY = re.compile(r"\.(.+)\.[0-9]+(-[0-9a-f]+)?\.tmp")
# A file that a command reads, as the user gave it: `-` is stdin, None is no file.
Source = str | os.PathLike[str] | None


def matching(layout: Layout, name: str) -> str | None:
    """Return the pattern that matches a name, or the final name of a temporary file."""
    for pattern, inner in layout.items():
        temporary = _TEMPORARY.fullmatch(name) if inner is None else None
        if re.fullmatch(pattern, temporary[1] if temporary else name):
            return pattern
    return None


def contents(folder: OpenFolder, layout: Layout) -> Iterator[tuple[OpenFolder, str]]:
    """Yield the files and folders that srucli wrote; a folder comes after its contents."""
    names = {name: matching(layout, name) for name in folder.names()}
    for pattern, inner in layout.items():
        for name in (name for name, own in names.items() if own == pattern):
            if inner is None and folder.is_file(name):
                yield folder, name
            elif inner is not None and folder.is_folder(name):
                with folder.child(name) as child:
                    yield from contents(child, inner)
                yield folder, name


def files_of(path: Path, layout: Layout) -> list[Path]:
    """Return the files in a folder that srucli wrote; none if there is no such folder."""
    with suppress(OSError), OpenFolder.at(path) as folder:
        found = contents(folder, layout)
        return [where.path / name for where, name in found if where.is_file(name)]
    return []


def _marker(folder: OpenFolder) -> dict[str, Any] | None:
    """Return the content of srucli's marker; None if there is no valid one."""
    try:
        found = read_json(folder, MARKER, _MAX_MARKER)
    except SrucliError:
        return None
    if not isinstance(found, dict) or found.get("format") != MARKER_FORMAT:
        return None
    valid = isinstance(found.get("id"), str) and re.fullmatch("[0-9a-f]{32}", found["id"])
    return found if valid and found.get("kind") in get_args(Kind) else None


def need_run(path: Path) -> None:
    """Raise InputMissingError if there is no run, before anything slow happens."""
    if (path / "pretrained.json").is_file():
        raise InputMissingError(
            f"{path}: has vectors, but no classifier; to train one: srucli train FILE --from "
            f"{shell_word(str(path))}"
        )
    if not (path / "run.json").is_file():
        problem = "not a run folder: it has no run.json" if path.exists() else "no such run"
        raise InputMissingError(f"{path}: {problem}; give the folder that `srucli train` printed")


def kind_of(folder: OpenFolder) -> Kind | None:
    """Return the kind of folder that the marker states; None if there is no valid marker."""
    found = _marker(folder)
    return found["kind"] if found else None


def is_at_home(folder: OpenFolder) -> bool:
    """Return whether the marker was made for this folder, and not copied from another one.

    The first markers did not record their folder; they count as made for it.
    """
    found = _marker(folder)
    return found is not None and found.get("inode") in (None, folder.identity[1])


def is_free(folder: OpenFolder) -> bool:
    """Return whether a folder is empty, but for what a kill leaves of making or ending a claim."""
    names = [name for name in folder.names() if not matching(OWN, name) or name == MARKER]
    lock = locks.NAME in folder.names()
    return not names and (not lock or locks.is_left(folder))


def foreign(folder: OpenFolder, layout: Layout) -> list[str]:
    """Return the names in a folder that srucli does not write."""
    return [name for name in folder.names() if matching({**OWN, **layout}, name) is None]


def _misfits(folder: OpenFolder, layout: Layout, above: str = "") -> Iterator[tuple[str, bool]]:
    """Yield what has a name that srucli writes but another type, and whether it is a link."""
    for name in folder.names():
        pattern, mode = matching(layout, name), folder.stat(name).st_mode
        if pattern is None:
            continue
        inner = layout[pattern]
        if stat.S_ISLNK(mode):
            yield f"{above}{name} (a link)", True
        elif inner is None and not stat.S_ISREG(mode):
            yield f"{above}{name} (not a regular file)", False
        elif inner is not None and not stat.S_ISDIR(mode):
            yield f"{above}{name} (not a folder)", False
        elif inner is not None:
            with folder.child(name) as child:
                yield from _misfits(child, inner, f"{above}{name}/")


def listing(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    shown = ", ".join(escaped(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def _read_by(sources: Iterable[Source]) -> dict[Identity, str]:
    """Return the files that a command reads by their identity, which no other name hides."""
    found = {}
    for source in sources:
        with suppress(OSError, ValueError):
            if source is not None:
                status = os.fstat(0) if os.fspath(source) == "-" else os.stat(source)
                if stat.S_ISREG(status.st_mode):
                    found[identity(status)] = os.fspath(source)
    return found


def refuse_inputs(outputs: Iterable[Path], sources: Iterable[Source]) -> None:
    """Refuse to write to files that the command reads. Raises OutputError."""
    read = _read_by(sources)
    for output in outputs:
        with suppress(OSError, ValueError):
            if (given := read.get(identity(os.stat(output)))) is not None:
                raise OutputError(
                    f"{output}: would be overwritten, but this command reads it (as {given}); "
                    "choose another name"
                )


@dataclass(frozen=True)
class Claim:
    """What a command wants to write into a folder.

    evidence: whether a folder without a marker of its own is of this kind all the same. sources:
    the files that the command reads.
    """

    kind: Kind
    layout: Layout
    evidence: Callable[[OpenFolder], bool] = lambda folder: False
    sources: Sequence[Source] = ()

    def check(self, folder: OpenFolder) -> bool:
        """Refuse a folder that may not be used; return whether it has its own marker.

        A marker may have been copied from another folder. Raises OutputError.
        """
        found = kind_of(folder)
        if found not in (None, self.kind):
            raise OutputError(
                f"{folder.path}: contains a {found} and not a {self.kind}; choose another -o"
            )
        marked = found is not None and is_at_home(folder)
        unknown = found is None and MARKER in folder.names()
        if unknown and self.evidence(folder):
            raise OutputError(f"{folder.path / MARKER}: is damaged; move it away")
        if not (marked or is_free(folder)) and (unknown or not self.evidence(folder)):
            others = foreign(folder, self.layout) or folder.names()
            raise OutputError(
                f"{folder.path}: exists already and contains no {self.kind} that srucli made, but "
                f"{listing(others)}; choose another -o"
            )
        self._check_types(folder)
        self._check_inputs(folder)
        return marked

    def _check_types(self, folder: OpenFolder) -> None:
        """Refuse links and other types in the place of srucli's files, and a lock of others."""
        misfits = list(_misfits(folder, {**OWN, **self.layout}))
        is_lock = folder.is_file(locks.NAME) and folder.stat(locks.NAME).st_size
        if is_lock and not locks.is_left(folder):
            misfits.append((f"{locks.NAME} (not srucli's)", False))
        if misfits:
            linked = any(is_link for _, is_link in misfits)
            raise OutputError(
                f"{folder.path}: in the way: {listing([name for name, _ in misfits])}; "
                f"{COPY_WITHOUT_LINKS if linked else 'move it away'}"
            )

    def _check_inputs(self, folder: OpenFolder) -> None:
        """Refuse a folder if the command reads a file that it may replace or remove there."""
        if not (read := _read_by(self.sources)):
            return
        for where, name in contents(folder, {**OWN, **self.layout}):
            if (given := read.get(identity(where.stat(name)))) is not None:
                raise OutputError(
                    f"{where.path / name}: may be replaced or removed, but this command reads it "
                    f"(as {given}); choose another -o, or give a copy that is elsewhere"
                )

    def make(self, folder: OpenFolder) -> bool:
        """Check a folder and write the marker if it has none; return whether it was written."""
        try:
            if self.check(folder):
                return False
            own = {"id": secrets.token_hex(16), "inode": folder.identity[1]}
            marker = {"format": MARKER_FORMAT, "kind": self.kind, **own}
            folder.write({MARKER: to_json(marker)})
            return True
        except OSError as error:
            raise unwritable(folder.path / MARKER, error) from error


@contextmanager
def claimed(
    path: Path, claim: Claim, below: OpenFolder | None = None
) -> Iterator[tuple[OpenFolder, bool]]:
    """Hold a folder with marker and lock for a block that writes there; make it if need be.

    Yields the folder, and whether it is empty otherwise. `below` is the folder that contains it, if
    that is held open: then no link is followed. If the block raises and the folder is still empty,
    what was made is removed. Raises OutputError if the folder belongs to others, or if another
    process writes there.
    """
    with ExitStack() as stack:
        opening = below.child(path.name, make=True) if below else OpenFolder.at(path)
        if not below:
            stack.enter_context(_made(path))
        try:
            folder = stack.enter_context(opening)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be opened ({error.strerror}); choose another -o"
            ) from error
        marked = claim.make(folder)
        try:
            stack.enter_context(locks.locked(folder))
        except OutputError as error:
            # The marker stays if another process holds the lock, because it may rely on it by now.
            if marked and isinstance(error.__cause__, OSError):
                with suppress(OSError):
                    folder.remove(MARKER)
            raise
        # The process that held the lock before may have ended its claim in between.
        claim.make(folder)
        tidy(folder, claim.layout)
        fresh = _is_bare(folder)
        try:
            yield folder, fresh
        except BaseException:
            with suppress(OSError):
                if fresh and folder.is_in_place() and _is_bare(folder):
                    folder.remove(MARKER)
            raise


def _is_bare(folder: OpenFolder) -> bool:
    return set(folder.names()) <= {MARKER, locks.NAME}


@contextmanager
def _made(path: Path) -> Iterator[None]:
    """Make a folder and its parents; if the block raises, remove those that are empty.

    Raises OutputError.
    """
    made: list[tuple[Path, Identity | None]] = []
    try:
        for part in reversed([part for part in (path, *path.parents) if not part.exists()]):
            with suppress(FileExistsError):
                os.mkdir(part)
                made.append((part, identity_of(part)))
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be made ({error.strerror}); choose another -o"
        ) from error
    try:
        yield
    except BaseException:
        for part, own in reversed(made):
            with suppress(OSError):
                if identity_of(part) == own:
                    os.rmdir(part)
        raise


def clear(folder: OpenFolder, layout: Layout) -> None:
    """Remove what srucli wrote into a folder, in the order of the layout. Raises OSError."""
    for where, name in contents(folder, layout):
        if where.is_folder(name):
            where.remove_folder(name)
        else:
            where.remove(name)


def tidy(folder: OpenFolder, layout: Layout) -> None:
    """Remove temporary files that killed processes left. The caller must hold the lock."""
    for where, name in contents(folder, {**OWN, **layout}):
        if _TEMPORARY.fullmatch(name) and where.is_file(name):
            with suppress(OSError):
                where.remove(name)
