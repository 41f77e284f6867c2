"""Mutations of bytes, JSON, YAML, protocol buffers, safetensors and files, for `fuzz.py`.

Every function takes a `random.Random` and valid input, and returns input that is probably invalid.
The same generator state gives the same result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Literal

INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63)
ENDS: tuple[Literal["little", "big"], ...] = ("little", "big")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("inf")),
    *(float("nan"), "", "x", "0", "../x", "/etc/passwd", "step-1/../..", "\ud800", "a\0b"),
    *("a" * 5000, "\u202e\x1b[31m", "한글", [], {}, [[]], [None], {"": None}, [[[[[[]]]]]]),
    *(["x"] * 500, {"tensor": "x"}, {"tuple": []}, "F64", "BF16", "bag", "lstm", "attention"),
)
YAML_TOKENS = (
    *(
        "&a",
        "*a",
        "<<: *a",
        "!!python/object/apply:os.system ['true']",
        "!!binary aGk=",
        "? ",
        "- ",
    ),
    *("{", "}", "[", "]", "|", ">", "\t", "\0", "\x85", "\u2028", "\ufeff", "'", '"', "#", ": "),
    *("1e999", "0o7", "0x", "2024-13-45", "2001-12-14t21:59:43.10-05:00", "!!set", "!!omap [a: 1]"),
    *(
        "!!timestamp x",
        "!!float x",
        "!!int ''",
        "!!null x",
        "!!bool x",
        "!!pairs [a]",
        "--- ",
        "...",
    ),
    *("%YAML 9.9", "%TAG ! x", '"\\ud800"', '"\\U00110000"', "=", "~", "[[[[[[[[", "{a: {a: {a: {"),
    *(
        "1:30:60",
        "_",
        "0b",
        "-.inf",
        ".nan",
        "1_000e1",
        "? [a]\n: b",
        "!<x> y",
        "&a [*a]",
        "@",
        "`",
    ),
)


def mutate_bytes(random: Random, data: bytes, other: bytes = b"") -> bytes:
    """Flip, cut, repeat or move bytes, or insert some of `other`, 1 to 20 times."""
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        data = random.choice(_BYTE_CHANGES)(random, data, other)
    return data


def _span(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randint(0, len(data))
    longest = random.choice((4, 64, len(data)))
    return start, random.randint(start, min(len(data), start + longest))


def _flip(random: Random, data: bytes, _: bytes) -> bytes:
    if not data:
        return b"\0"
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(random: Random, data: bytes, _: bytes) -> bytes:
    at, size = random.randint(0, len(data)), random.choice((1, 2, 4, 8))
    number = random.choice(INTEGERS) & ((1 << 8 * size) - 1)
    return data[:at] + number.to_bytes(size, random.choice(ENDS)) + data[at + size :]


def _truncate(random: Random, data: bytes, _: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _repeat(random: Random, data: bytes, _: bytes) -> bytes:
    start, end = _span(random, data)
    times = random.choice((2, 3, 100)) if end - start < 100 else 2
    return data[:start] + data[start:end] * times + data[end:]


def _remove(random: Random, data: bytes, _: bytes) -> bytes:
    start, end = _span(random, data)
    return data[:start] + data[end:]


def _move(random: Random, data: bytes, _: bytes) -> bytes:
    start, end = _span(random, data)
    rest, at = data[:start] + data[end:], random.randint(0, len(data) - (end - start))
    return rest[:at] + data[start:end] + rest[at:]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    (start, end), (first, last) = _span(random, data), _span(random, other)
    return data[:start] + other[first:last] + data[end:]


_BYTE_CHANGES: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    *(_flip, _flip, _overwrite, _overwrite, _truncate, _repeat, _remove, _move, _splice),
)


def mutate_tree(random: Random, tree: Any) -> Any:
    """Replace, rename, remove or nest one value of a tree of dicts and lists."""
    if random.random() < 0.15 or not isinstance(tree, dict | list) or not tree:
        return random.choice((deepcopy(random.choice(VALUES)), [tree, tree], {"x": tree}))
    if isinstance(tree, list):
        changed, index = list(tree), random.randrange(len(tree))
        if random.random() < 0.3:
            return random.choice((changed[:index], changed * 2, changed[::-1]))
        changed[index] = mutate_tree(random, changed[index])
        return changed
    key = random.choice(list(tree))
    rest = {name: value for name, value in tree.items() if name != key}
    if random.random() < 0.3:
        return random.choice((rest, rest | {str(random.choice(VALUES)): tree[key]}))
    return tree | {key: mutate_tree(random, tree[key])}


def mutate_json(random: Random, data: bytes, other: bytes) -> bytes:
    """Change a value of a JSON document, or its bytes."""
    if random.random() < 0.3:
        return mutate_bytes(random, data, other)
    return json.dumps(mutate_tree(random, json.loads(data))).encode()


def mutate_lines(random: Random, data: bytes, other: bytes) -> bytes:
    """Change a value of one of the JSON documents of which each has a line, or move lines."""
    lines = data.split(b"\n")
    if random.random() < 0.2:
        return mutate_bytes(random, data, other)
    index = random.randrange(len(lines))
    if random.random() < 0.2:
        return b"\n".join(random.choice((lines[:index], lines[index:], lines + lines[index:])))
    lines[index] = mutate_file(random, "x.json", lines[index], other)
    return b"\n".join(lines)


def mutate_yaml(random: Random, data: bytes, other: bytes) -> bytes:
    """Insert tokens into a YAML document, copy lines, or change values, indentation or bytes."""
    if random.random() < 0.2:
        return mutate_bytes(random, data, other)
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(random.choice((1, 1, 2, 8))):
        index = random.randrange(len(lines))
        line, way = lines[index], random.randrange(5)
        key, colon, _value = line.partition(":")
        if way == 0:
            at = random.randint(0, len(line))
            lines[index] = line[:at] + random.choice(YAML_TOKENS) + line[at:]
        elif way == 1:
            lines[index] = f"{key}{colon} {random.choice(YAML_TOKENS)}"
        elif way == 2:
            lines[index] = f"{key}{colon} {json.dumps(random.choice(VALUES))}"
        elif way == 3:
            lines.insert(index, random.choice(lines))
        else:
            lines[index] = random.choice((" ", "  ", "- ", "")) + line.lstrip()
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_safetensors(random: Random, data: bytes, other: bytes) -> bytes:
    """Change a safetensors header and correct its length, or change the file's bytes."""
    size = int.from_bytes(data[:8], "little")
    if random.random() < 0.4 or 8 + size > len(data):
        return mutate_bytes(random, data, other)
    header = mutate_tree(random, json.loads(data[8 : 8 + size]))
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + data[8 + size :]


def varint(number: int) -> bytes:
    """Return a number in the encoding of protocol buffers."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def parse(data: bytes) -> list[tuple[int, Any]]:
    """Return the fields of a well-formed message in order: keys (number and wire type), values."""
    fields: list[tuple[int, Any]] = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value, shift = value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            fields.append((key, number()))
        else:
            size = number() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
            fields.append((key, data[at : at + size]))
            at += size
    return fields


def serialize(fields: list[tuple[int, Any]]) -> bytes:
    """Return the message with these fields, the inverse of `parse`."""
    written = bytearray()
    for key, value in fields:
        written += varint(key)
        if key & 7 == 2:
            written += varint(len(value))
        written += varint(value) if isinstance(value, int) else value
    return bytes(written)


FLOATS = (
    b"\0\0\xc0\x7f",
    b"\0\0\x80\x7f",
    b"\0\0\x80\xff",
    b"\xff\xff\x7f\x7f",
    b"\xff\xff\x7f\xff",
)
NAMES = (
    *(b"", b"\0", b"a\0b", b"\xff", b"\xed\xa0\x80", b"<unk>", b"<s>", b"a", b"<0x41>", b"<0xZZ>"),
    *(b"\xe2\x96\x81", b"a" * 2000, b"a" * 9000, b"\xe2\x96\x81\xe2\x96\x81", b"\n", b"\t", b" "),
)


def mutate_model(random: Random, data: bytes, other: bytes) -> bytes:
    """Change pieces, settings or rules of a SentencePiece model, or its bytes."""
    if random.random() < 0.35:
        return mutate_bytes(random, data, other)
    fields = parse(data)
    for _ in range(random.choice((1, 1, 2, 6))):
        index = random.randrange(len(fields))
        number = random.choice((1, 1, 2, 3))
        indices = [index for index, (key, _) in enumerate(fields) if key >> 3 == number]
        index = random.choice(indices or [index])
        key, value = fields[index]
        way = random.randrange(8)
        if way == 0:
            del fields[index]
        elif way == 1:
            fields.insert(random.randint(0, len(fields)), fields[index])
        elif way == 2:
            fields.append((random.choice((34, 42, 74, 0, 1, 1602)), value))
        elif isinstance(value, bytes):
            fields[index] = key, _mutate_message(random, value)
        if not fields:
            break
    return serialize(fields)


def _mutate_message(random: Random, data: bytes) -> bytes:
    try:
        fields = parse(data)
    except (LookupError, KeyError):
        return mutate_bytes(random, data)
    if not fields or random.random() < 0.1:
        return mutate_bytes(random, data)
    index = random.randrange(len(fields))
    key, value = fields[index]
    if random.random() < 0.2:
        number = random.randint(1, 55)
        value = random.choice(INTEGERS)
        fields.append((number << 3, value))
    elif isinstance(value, int):
        fields[index] = key, random.choice((*range(8), *INTEGERS))
    elif key & 7 == 5:
        fields[index] = key, random.choice((*FLOATS, bytes(random.choices(range(256), k=4))))
    elif len(value) > 1000:
        fields[index] = key, _mutate_rules(random, value)
    else:
        fields[index] = key, random.choice((random.choice(NAMES), mutate_bytes(random, value)))
    return serialize(fields)


def _mutate_rules(random: Random, rules: bytes) -> bytes:
    """Change the size, the units of the trie or the replacements of normalization rules."""
    changed, size = bytearray(rules), int.from_bytes(rules[:4], "little")
    if not 4 <= size < len(rules) - 4:  # already mutated
        return mutate_bytes(random, rules)
    way = random.randrange(4)
    if way == 0:
        changed[:4] = (random.choice(INTEGERS) % 2**32).to_bytes(4, "little")
    elif way == 1:
        for _ in range(random.choice((1, 50))):
            changed[random.randrange(4 + size, len(rules))] = random.choice((0, 65, 0x80, 0xFF))
    elif way == 2:
        return mutate_bytes(random, rules)
    else:
        for _ in range(random.choice((1, 10, 1000))):
            at = 4 + 4 * random.randrange(size // 4)
            other = 4 + 4 * random.randrange(size // 4)
            unit = random.choice((random.randbytes(4), rules[other : other + 4]))
            changed[at : at + 4] = unit
    return bytes(changed)


Change = Callable[[Random, bytes, bytes], bytes]
BY_NAME: Mapping[str, Change] = {
    ".json": mutate_json,
    ".yaml": mutate_yaml,
    ".safetensors": mutate_safetensors,
    ".model": mutate_model,
}


def mutate_file(random: Random, name: str, data: bytes, other: bytes) -> bytes:
    """Mutate a file by its type. `other` is the content of another file."""
    try:
        return BY_NAME.get(Path(name).suffix, mutate_bytes)(random, data, other)
    except (
        ValueError,
        TypeError,
        LookupError,
        RecursionError,
    ):  # already mutated, and no longer of its type
        return mutate_bytes(random, data, other)


def replace_file(random: Random, path: Path, outside: Path) -> None:
    """Replace a file by a folder, a pipe or a link, or remove it."""
    path.unlink()
    way = random.randrange(6)
    if way == 0:
        path.mkdir()
    elif way == 1:
        os.mkfifo(path)
    elif way == 2:
        path.symlink_to(outside)
    elif way == 3:
        path.symlink_to(path.name)
    elif way == 4:
        path.symlink_to(
            random.choice(("run.json", "../x", "/dev/zero", "/dev/stdin", "/proc/self/mem"))
        )


def repair_manifests(run: Path) -> None:
    """Write the current sizes and hashes of each checkpoint's files to its manifest."""
    for manifest in run.glob("checkpoints/*/manifest.json"):
        if manifest.is_symlink() or not manifest.is_file():
            continue
        files = {
            path.name: path.read_bytes()
            for path in manifest.parent.iterdir()
            if path.is_file() and not path.is_symlink() and path != manifest
        }
        entries = {
            name: {"bytes": len(data), "sha256": sha256(data).hexdigest()}
            for name, data in files.items()
        }
        manifest.write_text(json.dumps({"files": entries}))
