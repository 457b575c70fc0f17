"""Solvers that misbehave, and one that does not: a plugin for the tests of comparisons."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.hookspecs import hookimpl
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import SolverSpec
from ptychopinn.solvers import frame_of
from ptychopinn.typing import ComplexArray


class Options(BaseModel):
    """None."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, eq=False)
class Found:
    """An object and a probe."""

    object: ComplexArray
    probe: ComplexArray


class Flat:
    """Ones, and the scan's own probe."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> Found:
        print("printed by a solver")  # must not reach the parent's pipe
        return self.result(data, frame_of(data).shape)

    def result(self, data: ScanDataset, shape: tuple[int, int]) -> Found:
        """An object of a shape."""
        return Found(np.ones(shape, np.complex64), probe_in_counts(data, fit_scaling(data), follow_offset=True))


class Misshapen(Flat):
    """An object of another shape."""

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> Found:
        return self.result(data, (3, 4))


class Hog(Flat):
    """Takes memory, in a process of its own, until it is ended; the training scan is done before."""

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> Found:
        if (data.metadata.model_extra or {}).get("simulation", {}).get("seed") != 1:
            code = "a = []\nfor _ in range(64): a.append(bytearray(b'x') * 2**25)\nimport time; time.sleep(60)"
            subprocess.run([sys.executable, "-c", code], check=False)
        return super().reconstruct(data, monitor=monitor)


class Dies(Flat):
    """Ends its process."""

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> Found:
        os.kill(os.getpid(), 9)
        return super().reconstruct(data, monitor=monitor)


class Sleeps(Flat):
    """For a minute."""

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> Found:
        time.sleep(60)
        return super().reconstruct(data, monitor=monitor)


@hookimpl
def ptychopinn_solvers() -> list[SolverSpec]:
    """What this module registers when it is named as an entry point."""
    return [
        SolverSpec(cls.__name__.lower(), "", f"solver_plugin:{cls.__name__}", Options)
        for cls in (Flat, Misshapen, Hog, Dies, Sleeps)
    ]
