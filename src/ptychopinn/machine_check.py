"""What a bug report needs to know of a machine: versions, devices, memory, places for files, plugins."""

from __future__ import annotations

import errno
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from ptychopinn.config.execution import Accelerator
from ptychopinn.config.model import ModelConfig
from ptychopinn.cores import granted_cores
from ptychopinn.errors import PtychoPinnError
from ptychopinn.failures import explained
from ptychopinn.jobs import JobLimits, Task, available_mib, run_job
from ptychopinn.plugins import discover, missing_requirements
from ptychopinn.workflows.lock import can_lock

Facts = Mapping[str, str]
_DISTRIBUTIONS = (
    *("ptychopinn", "ptychopinn-torch", "ptychopinn-tf", "ptychopinn-ptychi", "ptychopinn-ptychodus", "ptychodus"),
    *("numpy", "scipy", "h5py", "pydantic", "matplotlib", "scikit-image", "pyzmq"),
    *("torch", "lightning-fabric", "tensorflow", "ptychi", "cupy-cuda12x"),
)
_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"),
    *("HDF5_USE_FILE_LOCKING", "MPLBACKEND", "MATPLOTLIBRC", "TF_CPP_MIN_LOG_LEVEL", "SLURM_JOB_ID", "LD_PRELOAD"),
)
_BACKEND_SECONDS = 120.0
_MAX_SOCKET_NAME = 107  # bytes; other programs fail with a longer one
_MAX_TEXT = 400


def check_machine() -> dict[str, Facts]:
    """Look at this machine: title of a section to its facts. Nothing that fails stops the others."""
    sections: dict[str, Callable[[], Facts]] = {
        "versions": _versions,
        "machine": _machine,
        "places": _places,
        "backends": _backends,
        "environment": lambda: {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    found: dict[str, Facts] = {}
    for title, look in sections.items():
        try:
            found[title] = look()
        except Exception as error:
            found[title] = {"could not be checked": f"{type(error).__name__}: {error}"[:_MAX_TEXT]}
    return found


def backend_devices(name: str) -> dict[str, str]:
    """The devices of a backend: the default, and CUDA or why there is none. Imports its framework."""
    spec = discover().get(name)
    cls = spec.load_class()
    facts = {"framework": str(getattr(cls, "framework", "unknown"))}
    for accelerator in (Accelerator.AUTO, Accelerator.CUDA):
        messages: list[str] = []
        handler = _Messages(messages)
        logger = logging.getLogger("ptychopinn")
        logger.addHandler(handler)
        try:
            cls(ModelConfig(), spec.options(accelerator=accelerator))
            facts[str(accelerator)] = " ".join(messages) or "can be used"
        except PtychoPinnError as error:
            facts[str(accelerator)] = error.problem
        finally:
            logger.removeHandler(handler)
    return facts


class _Messages(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.INFO)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


def _versions() -> Facts:
    found = {"python": f"{platform.python_version()} ({sys.executable})", "system": platform.platform()}
    for name in _DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    found.setdefault("ptychodus", "not found")
    driver = Path("/proc/driver/nvidia/version")
    found["NVIDIA driver"] = driver.read_text("utf-8", "replace").splitlines()[0] if driver.is_file() else "not found"
    return found


def _machine() -> Facts:
    memory = available_mib()
    return {
        "cores": f"{granted_cores()} granted of {os.cpu_count()}",
        "free memory": "unknown" if memory is None else f"{memory} MiB",
        "/dev/shm": _space(Path("/dev/shm")),
        "encoding of the output": str(getattr(sys.stdout, "encoding", None)),
    }


def _places() -> Facts:
    temporary = Path(tempfile.gettempdir())
    length = len(os.fsencode(temporary))
    too_long = "" if length < _MAX_SOCKET_NAME - 20 else f"; its name has {length} bytes, too long for sockets in it"
    return {
        "TMPDIR": f"{_describe(temporary)}{too_long}",
        "here": _describe(Path.cwd()),
        "home": _describe(Path.home()),
    }


def _describe(folder: Path) -> str:
    """Free space of a directory, and whether files there can be written and locked."""
    try:
        with tempfile.TemporaryDirectory(prefix=".ptychopinn-", dir=folder) as made:
            locks = "locks work" if can_lock(Path(made)) else "no file locks"
    except OSError as error:
        locks = f"not writable ({errno.errorcode.get(error.errno or 0, error)})"
    return f"{folder}: {_space(folder)}, {locks}"


def _space(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return f"not there ({error.strerror})"
    return f"{usage.free / 2**30:.2f} of {usage.total / 2**30:.2f} GiB free"


def _backends() -> Facts:
    registry = discover()
    found = {}
    for name, spec in registry.specs.items():
        if missing := missing_requirements(spec):
            found[name] = f"not usable: {', '.join(missing)} missing"
        else:
            found[name] = _try_backend(name)
    for name, solver in registry.solvers.items():
        missing = missing_requirements(solver)
        found[name] = f"not usable: {', '.join(missing)} missing" if missing else "solver"
    for plugin in registry.broken:
        found[plugin.name] = f"broken ({plugin.distribution}): {' '.join(plugin.reason.split())}"[:_MAX_TEXT]
    return found


def _try_backend(name: str) -> str:
    """The devices of a backend, asked in a process of its own: a framework may crash or hang."""
    try:
        with tempfile.TemporaryDirectory(prefix="ptychopinn-") as folder:
            task = Task("ptychopinn.machine_check:backend_devices", {"name": name})
            facts: dict[str, Any] = run_job(task, Path(folder), limits=JobLimits(seconds=_BACKEND_SECONDS))
    except Exception as error:
        return f"broken: {explained(error).problem}"[:_MAX_TEXT]
    return "; ".join(f"{what}: {' '.join(str(fact).split())}" for what, fact in facts.items())[: 2 * _MAX_TEXT]
