"""Hide what another system lacks, to run the tests of the core as on it: ``AS_ON=windows pytest -p portability tests``.

It is a plugin of pytest, because modules must be hidden before they are imported.
"""

from __future__ import annotations

import os
import signal
import sys
from enum import IntEnum

_MODULES = {"windows": ("fcntl", "resource"), "macos": ()}
_FUNCTIONS = {
    "windows": (
        *("posix_fallocate", "pread", "preadv", "pwrite", "pwritev", "sched_getaffinity", "sysconf", "waitid"),
        *("O_NOFOLLOW", "O_CLOEXEC"),
    ),
    "macos": ("posix_fallocate", "sched_getaffinity", "waitid"),
}
_SIGNALS = {  # those that stay; SIGKILL for Python itself, which ends processes with it here
    "windows": {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGKILL", "SIGSEGV", "SIGTERM"},
    "macos": set(signal.Signals.__members__) - {"SIGPWR", "SIGSTKFLT", "SIGRTMIN", "SIGRTMAX", "SIGPOLL", "SIGCLD"},
}

if system := os.environ.get("AS_ON"):
    for module in _MODULES[system]:
        sys.modules[module] = None  # type: ignore[assignment]
    for name in _FUNCTIONS[system]:
        if hasattr(os, name):
            delattr(os, name)
    for name in set(signal.Signals.__members__) - _SIGNALS[system]:
        delattr(signal, name)
    there = {number.name: number.value for number in signal.Signals if number.name in _SIGNALS[system]}
    signal.Signals = IntEnum("Signals", there)  # type: ignore[misc, assignment]
