"""Waiting for a worker: passing on what it says, and telling it to stop."""

from __future__ import annotations

import logging
import time
from typing import Any

from ptychopinn_ptychodus.jobs import STOP_FAILED, Job
from ptychopinn_ptychodus.process import Worker, WorkerError
from ptychopinn_ptychodus.runs import PROGRESS_GOAL, Host, Run

POLL_S = 0.1
STOP_GRACE_S = 10.0  # a training saves its model; the worker itself gives up a little earlier
CLOSE_GRACE_S = 0.5  # then the worker is left to save by itself

_STAGES = {  # share of the progress bar, from and to
    "train": {"epie": (0, 50), "train": (50, PROGRESS_GOAL - 1)},
    "infer": {"predict": (0, 700), "synchronise": (700, 800), "stitch": (800, PROGRESS_GOAL - 1)},
}
_log = logging.getLogger("ptychopinn.ptychodus")


class Supervision:
    """Looks after one worker, on the thread that Ptychodus works its tasks on.

    Parameters
    ----------
    worker, job:
        What works, and on what.
    run:
        Is kept up to date for the window.
    host:
        Says whether to stop, and shows the progress.
    """

    def __init__(self, worker: Worker, job: Job, run: Run, host: Host) -> None:
        self._worker, self._job, self._run, self._host = worker, job, run, host
        self._progress = 0
        self._begun = False
        self._stopped_at: float | None = None
        self._result: dict[str, Any] | None = None
        self._error: WorkerError | None = None

    def wait(self) -> dict[str, Any] | None:
        """Wait for the end.

        Returns
        -------
        The worker's result; None if it was stopped without one.

        Raises
        ------
        WorkerError
            If it failed, was killed, or could not stop in time.
        """
        while True:
            found = self._worker.next_event(POLL_S)
            if found is not None:
                self._take(found)
            elif self._worker.ended:
                break
            if self._must_go():
                return None
        if self._error is not None:
            raise self._error
        if self._result is None and self._stopped_at is None:
            raise self._worker.failure()
        if self._result is None and self._worker.exit_code == STOP_FAILED:
            raise WorkerError("The training did not stop in time; there is no model of it.", "", self._worker.tail)
        if self._result is None:
            _log.info("Stopped; there is no result.")
        return self._result

    def _take(self, found: dict[str, Any]) -> None:
        kind = found["event"]
        if kind == "log":
            name = str(found["name"])
            logging.getLogger(name if name.startswith("ptychopinn") else "ptychopinn.worker").log(
                int(found["level"]), "%s", found["message"]
            )
        elif kind == "progress":
            self._show(str(found["stage"]), int(found["done"]), int(found["total"]))
        elif kind == "stage":
            self._begun = self._begun or found["stage"] == "begin"
        elif kind == "loss" and found["value"] is not None:
            self._run.losses.append((int(found["batches"]), float(found["value"])))
        elif kind == "cancelled":
            _log.info("%s", found["message"])
        elif kind in ("model", "result"):
            self._result = found
        elif kind == "error":
            details = "\n".join(part for part in (str(found["trace"]), self._worker.tail) if part)
            self._error = WorkerError(str(found["problem"]), str(found["remedy"]), details)

    def _show(self, stage: str, done: int, total: int) -> None:
        share = _STAGES[self._job.kind].get(stage)
        if share is None or total <= 0:
            return
        low, high = share
        self._progress = max(self._progress, low + round((high - low) * min(done / total, 1.0)))
        self._host.show_progress(self._progress)

    def _must_go(self) -> bool:
        """Look after Stop and closing; whether to give up waiting."""
        now = time.monotonic()
        if self._stopped_at is None:
            if not (self._host.stop_wanted or self._host.closing):
                return False
            self._stopped_at, self._run.stopping = now, True
            if self._job.kind == "infer" or not self._begun:
                _log.info("Stopped.")
                self._worker.kill()
                return True
            _log.info("Stopping; the model is saved first.")
            self._worker.stop()
        if self._host.closing and now - self._stopped_at > CLOSE_GRACE_S:
            self._worker.leave()
            self._run.left_alone = True
            return True
        if now - self._stopped_at > STOP_GRACE_S:
            raise WorkerError("The training did not stop in time; there is no model of it.", "", self._worker.tail)
        return False
