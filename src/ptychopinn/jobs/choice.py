"""Choose the workers that settings ask for."""

from __future__ import annotations

from collections.abc import Collection

from ptychopinn.config.execution import Accelerator, cuda_number
from ptychopinn.config.workers import WorkerOptions
from ptychopinn.errors import UsageError
from ptychopinn.jobs.dask import DaskWorkers
from ptychopinn.jobs.pool import LocalWorkers, Workers
from ptychopinn.system import visible_gpus


def choose_workers(
    options: WorkerOptions,
    devices: Collection[Accelerator | str],
    *,
    one_at_a_time: bool = False,
    stay: bool = False,
) -> Workers:
    """Those of a Dask cluster, or processes of this machine, one for each GPU where GPUs may be used.

    ``devices`` are those that the jobs ask for. Processes of this machine may ``stay`` for further jobs.

    Raises
    ------
    UsageError
        If several would share a GPU.
    """
    if options.scheduler is not None:
        return DaskWorkers(options.scheduler)
    numbered = {device for device in devices if cuda_number(device) is not None}
    gpus = () if numbered or set(devices) == {Accelerator.CPU} else visible_gpus()
    count = 1 if one_at_a_time else options.workers or max(len(gpus), 1)
    if numbered and count > 1:
        raise UsageError(
            f"{count} workers would share {', '.join(sorted(numbered))}.", "Use accelerator cuda, or one worker."
        )
    if gpus and count > len(gpus):
        raise UsageError(
            f"{count} workers would share {len(gpus)} GPU{'s' * (len(gpus) > 1)}.",
            "Use one worker for each GPU, or accelerator cpu.",
        )
    return LocalWorkers(count, gpus, stay=stay)
