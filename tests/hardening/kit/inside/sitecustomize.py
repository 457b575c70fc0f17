"""Makes a process fail from inside, as the variable FAULT_INSIDE says; Python imports this module when it starts.

The variable holds JSON: ``missing`` names modules that cannot be imported; ``memory_mb`` is how much more memory a
process may have than at its start; ``worker`` is what befalls a worker process, ``after`` some seconds.
"""

import importlib.abc
import json
import os
import signal
import sys
import threading


class _Missing(importlib.abc.MetaPathFinder):
    """Finds the modules that are missing, and refuses them."""

    def __init__(self, names):
        self._names = frozenset(names)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _mute():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


_FATES = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "frozen": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "gone": lambda: os._exit(7),
    "mute": _mute,
}


def _limit_memory(mebibytes):
    import resource

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + mebibytes * (1 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _fail(fault):
    if fault.get("missing"):
        sys.meta_path.insert(0, _Missing(fault["missing"]))
    if fault.get("memory_mb"):
        _limit_memory(fault["memory_mb"])
    if fault.get("worker") and "ptychopinn.jobs.worker" in sys.orig_argv:
        timer = threading.Timer(fault["after"], _FATES[fault["worker"]])
        timer.daemon = True
        timer.start()


_fail(json.loads(os.environ.get("FAULT_INSIDE", "{}")))
