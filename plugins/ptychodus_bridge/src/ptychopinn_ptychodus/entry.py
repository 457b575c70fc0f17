"""What the entries of the dropdown share: settings, and jobs in a process of their own that the window watches."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptychodus.api.reconstruct import Reconstructor

from ptychopinn.jobs import JobProcess, Task
from ptychopinn_ptychodus.run_state import PROGRESS_GOAL, Host, Run
from ptychopinn_ptychodus.settings import EntrySettings
from ptychopinn_ptychodus.supervision import STOP_LIMIT_S, Supervision

_log = logging.getLogger("ptychopinn.ptychodus")


class Entry(Reconstructor):
    """An entry of the dropdown."""

    def __init__(self, settings: EntrySettings, host: Host) -> None:
        self.settings = settings
        self._host = host

    def get_progress_goal(self) -> int:
        """Always above 0: without a goal Ptychodus shows neither progress nor Stop."""
        return PROGRESS_GOAL

    def expect_product(self, item: Any) -> None:
        """Note Ptychodus's item for the product of the next inference."""
        self._host.expect_product(item)

    @contextlib.contextmanager
    def _job(
        self, function: str, arguments: Mapping[str, Any], run: Run, folder: Path, shares: Mapping[str, Any]
    ) -> Iterator[Supervision]:
        """Start a job with a folder, which it removes when it is stopped, and end it with the block."""
        with JobProcess(Task(function, arguments, STOP_LIMIT_S, scratch=True), folder) as job:
            run.worker_pid = job.pid
            yield Supervision(job, run, self._host, shares)

    @contextlib.contextmanager
    def _report_run(self, run: Run) -> Iterator[None]:
        """Show a run to the window, and its error if it fails."""
        self._host.latest_run = run
        try:
            yield
        except Exception as error:
            run.error = error
            _log.error("%s: %s", self.name, error)
            raise
        finally:
            run.finished = True


@contextlib.contextmanager
def scratch_folder(run: Run) -> Iterator[Path]:
    """A temporary folder for one job. A worker that was left alone removes it itself."""
    folder = Path(tempfile.mkdtemp(prefix="ptychopinn-ptychodus-"))
    try:
        yield folder
    finally:
        if not run.left_alone:
            shutil.rmtree(folder, ignore_errors=True)
