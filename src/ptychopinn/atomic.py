"""Files written aside and renamed into place: a reader sees the old file or the whole new one."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.typing import StrPath

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.part(\.[^.]*)?")


@contextmanager
def atomic_write(path: StrPath) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename what was written there to ``path`` when the block succeeds.

    The block creates the file. When it raises, or creates nothing, the temporary file is removed and ``path`` stays
    as it was. A symbolic link is followed, so that the file it names is replaced and the link stays.

    Parameters
    ----------
    path:
        Where the file shall be; its folder must exist.

    Raises
    ------
    UsageError
        If the folder does not exist or ``path`` is a folder.
    ResourceError
        If the disk is full or does not let itself be written to.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise UsageError(f"The folder {target.parent} does not exist.", "Create it, or write somewhere else.")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; a file is to be written there.", "Give another name.")
    # The suffix stays: some writers choose the format by it. `remove_leftovers` knows the name.
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.part{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if (translated := translate_write_error(error, target)) is None:
            raise
        raise translated from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder; nobody may be writing there now."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def translate_write_error(error: OSError, target: StrPath) -> ResourceError | None:
    """The error that tells a user why ``target`` could not be written, or None if that is not known."""
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
