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
from contextlib import contextmanager

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_NOTE = re.compile(
    rb"^(WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} \d\d:\d\d:\d\d|To enable the following in)"
)


@contextmanager
def quiet() -> Iterator[None]:
    """Filter TensorFlow's notes out of the standard error of the process."""
    if _LEVEL in os.environ or sys.stderr is None:
        yield
        return
    os.environ[_LEVEL] = "3"  # read once when the libraries are loaded
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                held.seek(0)
                for line in held:
                    if not _NOTE.match(line):
                        os.write(2, line)
    finally:
        os.close(kept)
        del os.environ[_LEVEL]


with quiet():
    import tensorflow as tf

__all__ = ["tf"]
