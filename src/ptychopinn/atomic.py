"""Write files atomically: a reader sees the old file or the complete new one. Read records that may be missing."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.typing import StrPath

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.part(\.[^.]*)?")


@contextmanager
def atomic_write(path: StrPath) -> Iterator[Path]:
    """Yield a temporary name next to ``path``, and rename that file to ``path`` when the block succeeds.

    The block creates the file. If it raises or creates nothing, the temporary file is removed and ``path`` is
    unchanged. A symbolic link is followed: its target is replaced.

    Raises
    ------
    UsageError
        If the folder does not exist or ``path`` is a folder.
    ResourceError
        If the disk is full or not writable.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise UsageError(f"The folder {target.parent} does not exist.", "Create it, or write somewhere else.")
    if target.is_dir():
        raise UsageError(f"{target} is a folder, not a file.", "Give another name.")
    # Keeps the suffix, by which some writers choose the format. `remove_leftovers` knows this pattern.
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.part{target.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if (translated := translate_write_error(error, target)) is None:
            raise
        raise translated from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: StrPath, content: bytes) -> Path:
    """Write a file; errors as in `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_json(path: StrPath, value: Any) -> Path:
    """Write plain values as JSON; errors as in `atomic_write`."""
    text = json.dumps(value, indent=2, allow_nan=False, default=float)
    return write_bytes(path, f"{text}\n".encode())


def read_record(path: StrPath) -> dict[str, Any]:
    """The mapping in a JSON file, such as `write_json` writes; empty if there is none that can be read."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def nan_to_none(value: Any) -> Any:
    """Plain values for JSON: numbers that are not finite become None, tuples become lists, keys become text."""
    if isinstance(value, Mapping):
        return {str(key): nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: StrPath, columns: Iterable[str], lines: Iterable[Sequence[Any]]) -> Path:
    """Write a table; numbers have nine digits, None and NaN are empty. Errors as in `atomic_write`."""

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            with contextlib.suppress(UnicodeEncodeError):  # names of files that Python took apart, as with LC_ALL=C
                return value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        return value if not isinstance(value, float) else f"{value:.9g}" if math.isfinite(value) else ""

    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([cell(value) for value in line] for line in lines)
    return Path(path)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed writers left in a folder; no writer may be active there."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def translate_write_error(error: OSError, target: StrPath) -> ResourceError | None:
    """Translate an error of writing ``target`` for the user; None if the reason is unknown."""
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        return ResourceError(
            f"{target} could not be written: {reason}.",
            "Free some space or write to another disk; nothing was changed.",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return ResourceError(
            f"{target} could not be written: {reason}.",
            "Write to a folder of your own, or change its permissions.",
        )
    return None
