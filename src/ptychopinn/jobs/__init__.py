"""Work in another process: a function of this software, called in a fresh Python.

The parent writes a `Task` and reads events, a line of JSON each. `run_job` waits for the end; `JobProcess` is for a
parent that does something of its own meanwhile. Neither imports what the function needs.
"""

from __future__ import annotations

from ptychopinn.jobs.memory import available_mib
from ptychopinn.jobs.process import JobProcess
from ptychopinn.jobs.protocol import LOG, TASK, JobError, Task
from ptychopinn.jobs.runner import run_job

__all__ = ["LOG", "TASK", "JobError", "JobProcess", "Task", "available_mib", "run_job"]
