"""Mutations of bytes, of values and of paths that every kind of file gets."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

Mutation = Callable[[random.Random, Path], str]
T = TypeVar("T")

NASTY_JSON = (
    *("null", "true", "-1", "0", "1e999", "-1e999", "NaN", "Infinity", "1e-320", "9" * 400, "9" * 5000, '""', "[]"),
    *("{}", '"\\ud800"', '"\\u0000"', '"' + "x" * 10_000 + '"', "[" * 100_000, '{"a":' * 5000, "[[1], 2]", '"../x"'),
    *('{"__class__": "os.system"}', "0.1", "1e30", '"on"', "[" + "0," * 5000 + "0]", "2147483648", "-0.0", '"64"'),
)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of them."""
    return items[rng.randrange(len(items))]


def mangle(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Harm bytes somewhere; also says how."""
    n = len(content)
    at = rng.randrange(n)
    length = min(n - at, 1 << rng.randrange(1, 13))
    how = pick(rng, ("truncate", "flip", "flip", "flip", "zero", "ones", "repeat", "drop", "swap", "append", "prepend"))
    data = bytearray(content)
    if how == "truncate":
        data = data[:at]
    elif how == "flip":
        # headers and directories lie at the ends of most formats: most flips go there
        for _ in range(rng.choice((1, 1, 2, 8, 32))):
            place = rng.choice((rng.randrange(n), rng.randrange(min(n, 2048)), n - 1 - rng.randrange(min(n, 2048))))
            data[place] ^= 1 << rng.randrange(8)
    elif how in ("zero", "ones"):
        data[at : at + length] = (b"\0" if how == "zero" else b"\xff") * length
    elif how == "repeat":
        data[at:at] = data[at : at + length]
    elif how == "drop":
        del data[at : at + length]
    elif how == "swap":
        other = rng.randrange(n)
        a, b = sorted((at, other))
        data = data[:a] + data[b:] + data[a:b]
    elif how == "append":
        data += rng.randbytes(length)
    else:
        data = bytearray(rng.randbytes(length)) + data
    return how, bytes(data)


def mutate_json(rng: random.Random, text: str) -> str:
    """A JSON text with one value, key or place changed; not necessarily JSON any more."""
    value = json.loads(text)
    places = list(_places(value))
    how = pick(rng, ("value", "value", "value", "value", "remove", "add", "twice", "cut", "whole", "bom"))
    if how == "cut":
        return text[: rng.randrange(len(text))]
    if how == "whole":
        return pick(rng, NASTY_JSON)
    if how == "bom":
        return "\ufeff" + text
    holder, key = pick(rng, places)
    if how == "remove":
        del holder[key]
    elif how == "add" and isinstance(holder, dict):
        holder["surplus"] = 1
    else:
        holder[key] = "@@"
    changed = json.dumps(value)
    if how == "twice" and isinstance(holder, dict):
        return changed.replace(f'"{key}": "@@"', f'"{key}": 1, "{key}": 2')
    return changed.replace('"@@"', pick(rng, NASTY_JSON))


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def strange_path(rng: random.Random, path: Path) -> str:
    """Something that is no ordinary file under the path."""
    how = pick(rng, ("fifo", "folder", "loop", "dangling", "null", "zero", "empty", "absent", "socket"))
    if how == "fifo":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how in ("null", "zero"):
        path.symlink_to(f"/dev/{how}")
    elif how == "empty":
        path.touch()
    elif how == "socket":
        import socket

        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)
    return how
