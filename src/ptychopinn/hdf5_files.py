"""Open HDF5 files, also on file systems without locks."""

from __future__ import annotations

import errno
import os
from typing import Any

import h5py

from ptychopinn.typing import StrPath

_NO_LOCKS = {os.strerror(number) for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)}


def open_hdf5_file(path: StrPath, mode: str = "r", **settings: Any) -> Any:
    """Open a file as `h5py.File` does. Where the file system has no locks, it is opened without one.

    Parameters
    ----------
    settings:
        Of `h5py.File`.
    """
    try:
        return h5py.File(path, mode, **settings)
    except OSError as error:
        if not ("lock" in str(error) and any(reason in str(error) for reason in _NO_LOCKS)):
            raise
        return h5py.File(path, mode, **settings, locking=False)
