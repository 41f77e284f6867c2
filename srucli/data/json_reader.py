"""The reader of JSON objects: one a line, in an array, or over several lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from srucli.data.guess import choose
from srucli.data.labels import Bare
from srucli.data.layout import Job, Names
from srucli.data.names import find_names
from srucli.data.records import Found, InputFile, Label, Record, listed, peek, without_blanks
from srucli.data.tables import Row
from srucli.errors import DataError
from srucli.io.console import excerpt
from srucli.io.encodings import counted, leniently
from srucli.io.json_objects import Item, read_objects


def read_json(job: Job, file: InputFile, count: int) -> Found:
    """Read objects, whose keys are chosen as columns are. Raises DataError."""
    style, items = read_objects(without_blanks(job, file.lines), job.source)
    first, items, whole = peek(items, count, lambda item: len(item.raw))
    if not first:
        return None, _json_records(job, items, "text", None, None)
    keys = list(first[0].value)
    numbers = {what: _key(job, first[0], keys, what) for what in ("text", "label")}
    rows = [
        Row(item.line, item.raw, [_as_cell(item.value.get(key)) for key in keys]) for item in first
    ]
    config = job.config.model_copy(update={**numbers, "header": True})
    rows = [Row(first[0].line, "", keys), *rows]
    job_of_keys = replace(job, config=config, lenient=frozenset())
    found, refusal = choose(job_of_keys, rows, "\t", quoted=True, whole=whole)
    text, label = keys[found.text], None if found.label is None else keys[found.label]
    said = {"text": text} | ({} if label is None else {"label": label})
    what = ", ".join(f"{each} = key {excerpt(key)}" for each, key in said.items())
    layout = file.layout(style, what=what, hint=found.hint, used=Names(text, label))
    return layout, _json_records(job, items, text, label, refusal, lists=found.lists)


def _key(job: Job, item: Item, keys: list[str], what: str) -> int | None:
    """The number of the key that is asked for, None where it is guessed. Raises DataError."""
    wanted, known = getattr(job.config, what), find_names(keys)
    if wanted is not None and str(wanted) in keys:
        return keys.index(str(wanted)) + 1
    unneeded, lenient = what == "label" and not job.labelled, what in job.lenient
    told = known != (None, None) or (job.config.text, job.config.label) != (None, None)
    ours = getattr(job.names, what)
    if ours in keys and (wanted is None or lenient):
        return keys.index(ours) + 1
    if unneeded or (wanted is not None and lenient):
        return None
    if wanted is None and (known[what == "label"] is not None or (told and len(keys) > 1)):
        return None
    raise _no_key(job, item, what if wanted is None else str(wanted), what)


def _no_key(job: Job, item: Item, key: str, what: str) -> DataError:
    problem = f"no key {excerpt(key)}, only {excerpt(', '.join(item.value))}"
    return job.error(item.line, problem, f"add it, or name the {what}'s key with --{what}")


def _as_cell(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _json_records(
    job: Job,
    items: Iterator[Item],
    text: str,
    label: str | None,
    refusal: DataError | None,
    *,
    lists: bool = False,
) -> Iterator[Record]:
    """lists: labels may be lists that are written into strings."""
    if refusal:
        raise refusal
    for item in items:
        line, value = item.line, item.value
        if text not in value:
            raise _no_key(job, item, text, "text")
        if label is not None and label not in value and not job.optional:
            raise _no_key(job, item, label, "label")
        if not isinstance(value[text], str):
            shown = excerpt(json.dumps(value[text], ensure_ascii=False))
            raise job.error(line, f"the text is {shown}, not a string", _remedy(value[text]))
        found = None if label is None else _json_label(job, line, value.get(label))
        if lists and isinstance(found, str) and not isinstance(found, Bare):
            found = listed(job, line, found)
        yield Record(line, item.raw, _json_string(job, line, value[text]), found)


def _remedy(text: Any) -> str:
    if isinstance(text, dict):  # as pandas writes a table, if not told otherwise
        return "write one object for each text, as to_json(FILE, orient='records') does"
    if isinstance(text, list):
        return "join its items with blanks into one string"
    return "put it in quotes"


def _json_string(job: Job, line: int, value: str) -> str:
    """JSON's escapes can spell what no file may hold: NUL, and halves of surrogate pairs."""
    if "\0" in value:
        raise job.error(line, f"a NUL character in {excerpt(value)}", "take it out")
    try:
        errors = counted(job.config.errors)
        return leniently(job.passed, value.encode, "utf-8", errors).decode("utf-8")
    except UnicodeEncodeError:
        problem = f"half of a surrogate pair in {excerpt(value)}"
        raise job.error(line, problem, "mend the text or pass --errors replace") from None


def _json_label(job: Job, line: int, value: Any) -> Label:
    if value is None:
        return None
    if isinstance(value, list) and not any(isinstance(part, (list, dict)) for part in value):
        return ["" if part is None else _json_scalar(job, line, part) for part in value]
    return _json_scalar(job, line, value)


def _json_scalar(job: Job, line: int, value: Any) -> str:
    if isinstance(value, str):
        return _json_string(job, line, value)
    if isinstance(value, float) and not math.isfinite(value):
        problem = f"the label is {json.dumps(value)}, as of a missing value"
        raise job.error(line, problem, "add a label or take the line out")
    if isinstance(value, (bool, int, float)):
        return Bare(json.dumps(value))
    problem = f"the label is {excerpt(json.dumps(value, ensure_ascii=False))}"
    raise job.error(line, problem, "make it a string, a number, a boolean or a list of them")
