"""Open and write HDF5 files, also on file systems without locks."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py

from ptychopinn.atomic import atomic_write
from ptychopinn.typing import StrPath

_NO_LOCKS = {os.strerror(number) for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)}


def open_hdf5_file(path: StrPath, mode: str = "r", **settings: Any) -> Any:
    """Open a file as `h5py.File` does. Where the file system has no locks, it is opened without one."""
    try:
        return h5py.File(path, mode, **settings)
    except OSError as error:
        if not ("lock" in str(error) and any(reason in str(error) for reason in _NO_LOCKS)):
            raise
        return h5py.File(path, mode, **settings, locking=False)


@contextmanager
def atomic_hdf5_file(path: StrPath) -> Iterator[Any]:
    """Yield a new file that becomes ``path`` when the block succeeds.

    Raises
    ------
    UsageError, ResourceError
        As `ptychopinn.atomic.atomic_write`.
    """
    with atomic_write(path) as temporary, _LastingFile(temporary, "w+b") as disk:
        try:
            with h5py.File(disk, "w") as file:
                yield file
        except (RuntimeError, OSError) as error:
            if disk.failure is None:
                raise
            raise disk.failure from error
        if disk.failure is not None:
            raise disk.failure


class _LastingFile(io.FileIO):
    """A file whose first error of writing is kept in ``failure``, while it seems to be written.

    The HDF5 library must not see that error: it would write again when its objects are freed, and crash in the end.
    """

    failure: OSError | None = None

    def write(self, content: Any) -> int:
        """Write all of it, or nothing any more."""
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while rest and self.failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the size, if that is possible."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def readinto(self, buffer: Any) -> int:
        """Read; what was not written is zero."""
        target = memoryview(buffer).cast("B")
        done = super().readinto(target) or 0
        target[done:] = bytes(len(target) - done)
        return len(target)
