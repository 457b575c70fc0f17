"""Open and write HDF5 files, also on file systems without locks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py

from ptychopinn.atomic import atomic_write
from ptychopinn.errors import ResourceError
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
    with atomic_write(path) as temporary:
        try:
            with open_hdf5_file(temporary, "w") as file:
                yield file
        except RuntimeError as error:  # raised by HDF5 for errors at closing a file
            raise ResourceError(f"{path} cannot be written: {error}.", "Check the disk and its free space.") from error
