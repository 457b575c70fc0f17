"""What operating systems and file systems do in different ways: locks, space, reading and writing at a place."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from ptychopinn.errors import ResourceError

try:
    import fcntl
    import resource
except ImportError:  # on Windows
    fcntl = resource = None  # type: ignore[assignment]

_LOCKED_BYTE = 1 << 30  # on Windows a locked byte cannot be read: it is far behind the text of a lock file
_MIN_ADDRESS_SPACE_MIB = 512
_NO_ALLOCATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})


def address_space_limit() -> int | None:
    """Bytes of address space that this process may have (``ulimit -v``); None if there is no limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else int(limit)


def check_address_space(needed_mib: int = _MIN_ADDRESS_SPACE_MIB) -> None:
    """Refuse a limit of the address space (``ulimit -v``) under which libraries wait for ever, or abort the process.

    Raises
    ------
    ResourceError
        If less than ``needed_mib`` MiB are left.
    """
    limit = address_space_limit()
    if limit is None:
        return
    try:
        used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    except OSError:  # unknown
        return
    if (left := (limit - used) // 2**20) < needed_mib:
        raise ResourceError(
            f"The memory of this process is limited (ulimit -v): {max(left, 0)} MiB of address space are left, and the "
            f"libraries need {needed_mib}.",
            "Raise the limit, or ask the scheduler for more memory.",
        )


def lock_file(descriptor: int) -> None:
    """Lock an open file until it is closed.

    Raises
    ------
    BlockingIOError
        If another process has locked it.
    OSError
        If the file system or the system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        import msvcrt
    except ImportError:
        raise OSError(errno.ENOLCK, "this system has no file locks") from None
    windows: Any = msvcrt
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        windows.locking(descriptor, windows.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(error.errno, error.strerror) from error


def visible_gpus(devices: Path = Path("/dev")) -> tuple[str, ...]:
    """The GPUs of NVIDIA that this process may use, as names for CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip() not in ("", "-1"))
    there = [path for path in devices.glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]
    return tuple(str(number) for number in range(len(there)))


def allocate(file: IO[bytes], size: int) -> None:
    """Give a temporary file its size, with space on the disk if the system can reserve it.

    Raises
    ------
    OSError
        If there is too little space.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:  # the file system cannot reserve space
            if error.errno not in _NO_ALLOCATION:
                raise
        else:
            return
    if shutil.disk_usage(tempfile.gettempdir()).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.truncate(size)


class PlacedFile:
    """Reads and writes an open file, without a buffer, at places; thread-safe."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()  # for systems that only read and write at the position of the file

    def write(self, content: memoryview, at: int) -> None:
        """Write all bytes of a flat view at a place."""
        while content:
            if hasattr(os, "pwrite"):
                done = os.pwrite(self._file.fileno(), content, at)
            else:
                with self._lock:
                    self._file.seek(at)
                    done = self._file.write(content)
            content, at = content[done:], at + done

    def read(self, target: memoryview, at: int) -> None:
        """Fill a flat view from a place.

        Raises
        ------
        OSError
            If the file ends early.
        """
        while target:
            if hasattr(os, "preadv"):
                done = os.preadv(self._file.fileno(), [target], at)
            else:
                with self._lock:
                    self._file.seek(at)
                    done = self._file.readinto(target)  # type: ignore[attr-defined]
            if done == 0:
                raise OSError(errno.EIO, "the temporary file ends early")
            target, at = target[done:], at + done

    def close(self) -> None:
        """Close the file."""
        self._file.close()
