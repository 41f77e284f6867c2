"""Whose a folder is: the marker that srucli writes first, and what it may remove by name.

A folder is ours if srucli's marker is in it. Of what it holds only files are ever removed that
srucli writes, by their names, and never one that the command reads; whatever else there is stays.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Union, get_args

from srucli.errors import OutputError, SrucliError
from srucli.io import locks
from srucli.io.console import escaped
from srucli.io.files import COPY_WITHOUT_LINKS, read_json, to_json, unwritable
from srucli.io.folders import Identity, OpenFolder, identity, identity_of

MARKER = "srucli.json"
MARKER_FORMAT = 1
_MAX_MARKER = 2**12
_SHOWN = 5

Kind = Literal["run", "comparison", "tuning"]
# What srucli writes into a folder, in the order in which it is removed: patterns of the names of
# files (None), and of folders with what they hold.
Layout = Mapping[str, Union["Layout", None]]
OWN: Layout = {re.escape(locks.NAME): None, re.escape(MARKER): None}
_TEMPORARY = re.compile(r"\.(.+)\.[0-9]+(-[0-9a-f]+)?\.tmp")
# A file that a command reads, as it was given: `-` is stdin, None is none.
Source = str | os.PathLike[str] | None


# ---------------------------------------------------------------- what there is


def matching(layout: Layout, name: str) -> str | None:
    """The pattern of a layout that a name has, or that a temporary file beside a name has."""
    for pattern, inner in layout.items():
        beside = _TEMPORARY.fullmatch(name) if inner is None else None
        if re.fullmatch(pattern, beside[1] if beside else name):
            return pattern
    return None


def contents(folder: OpenFolder, layout: Layout) -> Iterator[tuple[OpenFolder, str]]:
    """Where in a folder is what srucli writes there: plain files, and folders after their own."""
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
    """The files in a folder that srucli writes there; none where there is no such folder."""
    with suppress(OSError), OpenFolder.at(path) as folder:
        found = contents(folder, layout)
        return [where.path / name for where, name in found if where.is_file(name)]
    return []


def _marker(folder: OpenFolder) -> dict[str, Any] | None:
    """What srucli's marker says of a folder; None where there is none that it wrote."""
    try:
        found = read_json(folder, MARKER, _MAX_MARKER)
    except SrucliError:
        return None
    if not isinstance(found, dict) or found.get("format") != MARKER_FORMAT:
        return None
    whole = isinstance(found.get("id"), str) and re.fullmatch("[0-9a-f]{32}", found["id"])
    return found if whole and found.get("kind") in get_args(Kind) else None


def kind_of(folder: OpenFolder) -> Kind | None:
    """What srucli's marker says that a folder is; None where there is none that it wrote."""
    found = _marker(folder)
    return found["kind"] if found else None


def is_at_home(folder: OpenFolder) -> bool:
    """Whether the marker was made for this folder, and is not copied from another one.

    One that does not say is not asked: srucli wrote such at first.
    """
    found = _marker(folder)
    return found is not None and found.get("inode") in (None, folder.identity[1])


def is_free(folder: OpenFolder) -> bool:
    """Whether there is nothing in a folder but what a kill leaves of making or ending a claim."""
    names = [name for name in folder.names() if not matching(OWN, name) or name == MARKER]
    lock = locks.NAME in folder.names()
    return not names and (not lock or locks.is_left(folder))


def foreign(folder: OpenFolder, layout: Layout) -> list[str]:
    """The names in a folder that srucli writes nothing under."""
    return [name for name in folder.names() if matching({**OWN, **layout}, name) is None]


def _misfits(folder: OpenFolder, layout: Layout, above: str = "") -> Iterator[tuple[str, bool]]:
    """What has a name that srucli writes under but is of another kind, and whether it is a link."""
    for name in folder.names():
        pattern, mode = matching(layout, name), folder.stat(name).st_mode
        if pattern is None:
            continue
        inner = layout[pattern]
        if stat.S_ISLNK(mode):
            yield f"{above}{name} (a link)", True
        elif inner is None and not stat.S_ISREG(mode):
            yield f"{above}{name} (no plain file)", False
        elif inner is not None and not stat.S_ISDIR(mode):
            yield f"{above}{name} (no folder)", False
        elif inner is not None:
            with folder.child(name) as child:
                yield from _misfits(child, inner, f"{above}{name}/")


def _all_misfits(folder: OpenFolder, layout: Layout) -> Iterator[tuple[str, bool]]:
    """The same, with what every claimed folder holds: a lock that says something else is none."""
    yield from _misfits(folder, {**OWN, **layout})
    if folder.is_file(locks.NAME) and folder.stat(locks.NAME).st_size and not locks.is_left(folder):
        yield f"{locks.NAME} (not srucli's)", False


def listing(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(escaped(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


# ---------------------------------------------------------------- what a command reads


def _read_by(sources: Iterable[Source]) -> dict[Identity, str]:
    """The files that a command reads, by what tells them apart whatever they are called."""
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


def _refuse_own_inputs(folder: OpenFolder, layout: Layout, sources: Iterable[Source]) -> None:
    """The same for whatever may be replaced or removed in a folder."""
    if not (read := _read_by(sources)):
        return
    for where, name in contents(folder, {**OWN, **layout}):
        if (given := read.get(identity(where.stat(name)))) is not None:
            raise OutputError(
                f"{where.path / name}: may be replaced or removed, but this command reads it (as "
                f"{given}); choose another -o, or give a copy that is elsewhere"
            )


# ---------------------------------------------------------------- claims


def check_claimable(
    folder: OpenFolder,
    kind: Kind,
    layout: Layout,
    evidence: Callable[[OpenFolder], bool],
    sources: Iterable[Source],
) -> Kind | None:
    """Refuse a folder that is another's; what its own marker says. Raises OutputError.

    evidence: whether a folder without a marker of its own is known to be such a folder all the
    same. A marker may have been copied from elsewhere, into whatever folder.
    """
    found = kind_of(folder)
    if found not in (None, kind):
        raise OutputError(f"{folder.path}: holds a {found} and not a {kind}; choose another -o")
    marked = found is not None and is_at_home(folder)
    unknown = found is None and _has_marker(folder)
    if not (marked or is_free(folder)) and (unknown or not evidence(folder)):
        others = foreign(folder, layout) or folder.names()
        raise OutputError(
            f"{folder.path}: exists already and holds no {kind} that srucli made, but "
            f"{listing(others)}; choose another -o"
        )
    if misfits := list(_all_misfits(folder, layout)):
        linked = any(is_link for _, is_link in misfits)
        raise OutputError(
            f"{folder.path}: in the way: {listing([name for name, _ in misfits])}; "
            f"{COPY_WITHOUT_LINKS if linked else 'move it away, or choose another -o'}"
        )
    _refuse_own_inputs(folder, layout, sources)
    return found if marked else None


def _has_marker(folder: OpenFolder) -> bool:
    """Whether something has the marker's name, be it what it may."""
    return MARKER in folder.names()


def _mark(folder: OpenFolder, kind: Kind) -> None:
    own = {"id": secrets.token_hex(16), "inode": folder.identity[1]}
    marker = {"format": MARKER_FORMAT, "kind": kind, **own}
    folder.write({MARKER: to_json(marker)})


@contextmanager
def claimed(
    path: Path,
    kind: Kind,
    layout: Layout,
    evidence: Callable[[OpenFolder], bool] = lambda folder: False,
    sources: Sequence[Source] = (),
    below: OpenFolder | None = None,
) -> Iterator[tuple[OpenFolder, bool]]:
    """Hold a folder, made where there is none, with marker and lock, for a block that writes there.

    Gives the folder, and whether there is nothing else in it. `below` is the folder that it is in,
    where that is held: then no link leads there. Where the block ends in an error and
    there still is nothing, nothing stays of what was made. Raises OutputError where the folder is
    another's, and where somebody else writes there.
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
        marked = _claim(folder, kind, layout, evidence, sources)
        try:
            stack.enter_context(locks.locked(folder))
        except OutputError as error:
            # Not where somebody else holds the lock, who may rely on the marker by now.
            if marked and isinstance(error.__cause__, OSError):
                with suppress(OSError):
                    folder.remove(MARKER)
            raise
        # Whoever held the lock before may have ended its claim in between.
        _claim(folder, kind, layout, evidence, sources)
        tidy(folder, layout)
        fresh = _is_bare(folder)
        try:
            yield folder, fresh
        except BaseException:
            with suppress(OSError):
                if fresh and folder.is_in_place() and _is_bare(folder):
                    folder.remove(MARKER)
            raise


def _claim(
    folder: OpenFolder,
    kind: Kind,
    layout: Layout,
    evidence: Callable[[OpenFolder], bool],
    sources: Sequence[Source],
) -> bool:
    """Check a folder and mark it, where it is not; whether it was marked here."""
    try:
        if marked := check_claimable(folder, kind, layout, evidence, sources) is None:
            _mark(folder, kind)
        return marked
    except OSError as error:
        raise unwritable(folder.path / MARKER, error) from error


def _is_bare(folder: OpenFolder) -> bool:
    return set(folder.names()) <= {MARKER, locks.NAME}


@contextmanager
def _made(path: Path) -> Iterator[None]:
    """Make a folder and those above it; where the block fails, remove those of them that are empty.

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


# ---------------------------------------------------------------- removal


def clear(folder: OpenFolder, layout: Layout) -> None:
    """Remove what srucli wrote into a folder, in the order of the layout. Raises OSError."""
    for where, name in contents(folder, layout):
        if where.is_folder(name):
            where.remove_folder(name)
        else:
            where.remove(name)


def tidy(folder: OpenFolder, layout: Layout) -> None:
    """Remove temporary files that kills left beside files of the layout. The lock must be held."""
    for where, name in contents(folder, {**OWN, **layout}):
        if _TEMPORARY.fullmatch(name) and where.is_file(name):
            with suppress(OSError):
                where.remove(name)
