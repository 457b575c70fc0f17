"""The only module that imports TensorFlow: ``from ptychopinn_tf._tensorflow import tf``.

TensorFlow's libraries write notes about processors and drivers to the terminal while they load and when they first
compute. They are kept out of it, unless the user has set TF_CPP_MIN_LOG_LEVEL; whatever else was written stays.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_NOTE = re.compile(
    rb"^(WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} \d\d:\d\d:\d\d|To enable the following in)"
)


def _temporary_file() -> IO[bytes] | None:
    """A file to hold the output; None if there is no place for one, or no standard error."""
    try:
        sys.stderr.flush()
        os.fstat(2)
        return tempfile.TemporaryFile()
    except (OSError, ValueError):
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """Filter TensorFlow's notes out of the standard error of the process."""
    held = None if _LEVEL in os.environ or sys.stderr is None else _temporary_file()
    if held is None:
        yield
        return
    os.environ[_LEVEL] = "3"  # read once when the libraries are loaded
    kept = os.dup(2)
    try:
        with held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                held.seek(0)
                with suppress(OSError):  # it is full, or its reader is gone
                    for line in held:
                        if not _NOTE.match(line):
                            os.write(2, line)
    finally:
        os.close(kept)
        del os.environ[_LEVEL]


with quiet():
    import tensorflow as tf

__all__ = ["tf"]
