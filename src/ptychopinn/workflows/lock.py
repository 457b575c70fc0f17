"""Lock a directory for one run at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychopinn.atomic import translate_write_error
from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.system import lock_file

LOCK = ".lock"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a directory, or refuse if another run has locked it.

    The lock is a file lock of the system. It ends with its process, and a file left by a killed process locks nothing.
    If the file system has no locks, a warning is logged.

    Raises
    ------
    UsageError
        If another run holds it, with its process.
    ResourceError
        If the directory cannot be written to.
    """
    path = folder / LOCK
    descriptor = _hold(path)
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds, but its holder stays unnamed
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with contextlib.suppress(PermissionError):  # Windows does not remove open files; an old one locks nothing
            path.unlink(missing_ok=True)  # while the lock is held, so no other run can have it
        os.close(descriptor)


def can_lock(folder: Path) -> bool:
    """Whether files in a directory can be locked. Raises OSError if it cannot be written to."""
    path = folder / LOCK
    descriptor = os.open(path, _FLAGS, 0o644)
    try:
        lock_file(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
    return True


def _hold(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, _FLAGS, 0o644)
        except OSError as error:
            translated = translate_write_error(error, path.parent)
            raise translated or ResourceError(
                f"The directory {path.parent} cannot be locked: {error}.", "Choose another one."
            ) from error
        try:
            lock_file(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError as error:
            os.lseek(descriptor, 0, os.SEEK_SET)
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UsageError(
                f"The directory {path.parent} is in use by {holder}.",
                "Wait until it is done, or choose another directory.",
            ) from error
        except FileNotFoundError:
            pass  # its holder has just ended and removed it
        except OSError as error:
            _log.warning("%s cannot be locked (%s); do not start a second run there.", path.parent, error.strerror)
            return descriptor
        os.close(descriptor)
