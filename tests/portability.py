"""Hide what another system lacks, to run the tests of the core as on it: ``AS_ON=windows pytest -p portability tests``.

It is a plugin of pytest, because modules must be hidden before they are imported.
"""

from __future__ import annotations

import os
import sys

_MODULES = {"windows": ("fcntl", "resource"), "macos": ()}
_FUNCTIONS = {
    "windows": (
        *("posix_fallocate", "pread", "preadv", "pwrite", "pwritev", "sched_getaffinity", "sysconf", "waitid"),
        *("O_NOFOLLOW", "O_CLOEXEC"),
    ),
    "macos": ("posix_fallocate", "sched_getaffinity", "waitid"),
}

if system := os.environ.get("AS_ON"):
    for module in _MODULES[system]:
        sys.modules[module] = None  # type: ignore[assignment]
    for name in _FUNCTIONS[system]:
        if hasattr(os, name):
            delattr(os, name)
