"""Run a function of this software in another process.

The parent writes a `Task` and reads events, one line of JSON each. `run_job` waits for the end; `JobProcess` is for a
parent that works in the meantime. Neither imports what the function needs. `run_jobs` runs many side by side.
"""

from __future__ import annotations

from ptychopinn.jobs.choice import choose_workers
from ptychopinn.jobs.memory import available_mib
from ptychopinn.jobs.pool import Job, LocalWorkers, Workers, run_jobs
from ptychopinn.jobs.process import JobProcess
from ptychopinn.jobs.protocol import LOG, TASK, JobDied, JobError, JobLimits, JobOverLimit, Task
from ptychopinn.jobs.runner import run_job

__all__ = [
    "LOG",
    "TASK",
    "Job",
    "JobDied",
    "JobError",
    "JobLimits",
    "JobOverLimit",
    "JobProcess",
    "LocalWorkers",
    "Task",
    "Workers",
    "available_mib",
    "choose_workers",
    "run_job",
    "run_jobs",
]
