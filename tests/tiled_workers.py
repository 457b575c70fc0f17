"""Workers and figures for tests of scans in tiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy as np

from ptychopinn.assembly import PhaseRule
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.jobs import Job, JobDied, JobError
from ptychopinn.product import read_product
from ptychopinn.tiled.store import TileStore
from ptychopinn.typing import ComplexArray
from ptychopinn.workflows import RunResult

ARCHIVE = Path(__file__).parents[1] / "models" / "src" / "ptychopinn_models" / "family-64.zip"  # of a network


class InThisProcess:
    """Workers that do jobs in this process, and count them.

    Parameters
    ----------
    dies:
        Says of a job, before it is done, whether its process dies.
    """

    def __init__(self, dies: Callable[[Job], bool] = lambda job: False) -> None:
        self._dies, self.done = dies, list[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def submit(self, job: Job) -> Future[Any]:
        future: Future[Any] = Future()
        job.folder.mkdir(parents=True, exist_ok=True)
        if self._dies(job):
            future.set_exception(JobDied("The process was killed by the system or a user."))
            return future
        self.done.append(job.name)
        try:
            future.set_result(json.loads(json.dumps(job.task.call())))
        except Exception as error:
            future.set_exception(JobError(str(error)))
        return future

    def value(self, future: Future[Any]) -> Any:
        return future.result()


def fixed_middle(rule: PhaseRule | None, free: list[str]) -> Callable[[str], dict[str, Any]]:
    """What stands for the reconstruction of the middle of a scan: its probe is right, and the rest is given."""

    def solve_middle(store: str) -> dict[str, Any]:
        files = TileStore(store)
        data = files.scan(np.arange(9))
        files.put_model(probe=probe_in_counts(data, fit_scaling(data), follow_offset=True))
        return {"story": [], "rule": rule, "free": free}

    return solve_middle


def picture(found: RunResult) -> ComplexArray:
    return read_product(found.files["product"]).object


def difference(found: ComplexArray, expected: ComplexArray) -> float:
    """Relative error after a common phase is removed."""
    overlap = np.vdot(found, expected)
    return float(np.linalg.norm(found * (overlap / abs(overlap)) - expected) / np.linalg.norm(expected))
