"""NumPy under the names of CuPy, so that what is written for a GPU runs without one."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest

from ptychopinn_tf.arrays import CupyLibrary

FREE_BYTES = 1 << 30


class _Pool:
    """A pool of memory that holds one MiB more than is used."""

    def __init__(self) -> None:
        self.used, self.freed = 0, 0

    def used_bytes(self) -> int:
        return self.used

    def free_bytes(self) -> int:
        return 1 << 20

    def free_all_blocks(self) -> None:
        self.freed += 1


class CpuCupyLibrary(CupyLibrary):
    """`CupyLibrary` where `install` has been called: NumPy tells addresses by another name."""

    def address(self, array: Any) -> int | None:
        return int(array.ctypes.data) if array.flags.c_contiguous else None


def install(patch: pytest.MonkeyPatch) -> ModuleType:
    """Let ``import cupy`` find NumPy; returns that module."""
    pool = _Pool()
    stream = SimpleNamespace(waits=0)

    def synchronize() -> None:
        stream.waits += 1

    stream.synchronize = synchronize
    cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
    names = {name: getattr(np, name) for name in ("empty", "zeros", "linalg", "random")}
    cuda = SimpleNamespace(
        Device=lambda: SimpleNamespace(id=0, mem_info=(FREE_BYTES, 2 * FREE_BYTES)), get_current_stream=lambda: stream
    )
    vars(cupy).update(names, asnumpy=np.asarray, cuda=cuda, get_default_memory_pool=lambda: pool)
    vars(cupyx)["scatter_add"] = np.add.at
    for name, module in (("cupy", cupy), ("cupyx", cupyx), ("array_api_compat.cupy", array_api_compat.numpy)):
        patch.setitem(sys.modules, name, module)
    patch.setattr(array_api_compat, "cupy", array_api_compat.numpy, raising=False)
    return cupy
