"""Wait for a job, pass its log and progress to the window, and pass Stop to the job."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ptychopinn.errors import Cancelled
from ptychopinn.jobs import JobError, JobProcess
from ptychopinn_ptychodus.losses import LossCurve
from ptychopinn_ptychodus.run_state import PROGRESS_GOAL, Host, Run

POLL_S = 0.1
STOP_LIMIT_S = 9.0  # that a job has from being told to stop to being gone: a training saves its model
STOP_GRACE_S = 10.0  # then it is ended from here
CLOSE_GRACE_S = 0.5  # then the worker is left to save by itself

_WEIGHTS = {  # of the stages in the progress bar
    "train": {"epie": 1, "train": 19},
    "infer": {"predict": 10, "synchronise": 2, "stitch": 2, "slow phase": 2, "refine": 8},
    "reconstruct": {"predict": 1, "rounds": 9},
}


@dataclass(frozen=True)
class _Kept:
    """What a run that is stopped still gives."""

    words: str
    is_file: bool  # whether it is of use when Ptychodus closes


_KEPT = {
    "train": _Kept("the model is saved first", is_file=True),
    "reconstruct": _Kept("the object so far is the result", is_file=False),
}
_log = logging.getLogger("ptychopinn.ptychodus")


def shares_of(kind: str, left_out: str = "") -> Mapping[str, tuple[float, float]]:
    """Stage of a kind of run to its share of the progress bar, from and to, of 1; ``left_out`` is one that has none."""
    weights = {stage: weight for stage, weight in _WEIGHTS[kind].items() if stage != left_out}
    shares, low = {}, 0.0
    for stage, weight in weights.items():
        shares[stage] = (low, low + weight / sum(weights.values()))
        low = shares[stage][1]
    return shares


class Supervision:
    """Waits for one job, on the thread on which Ptychodus runs its tasks."""

    def __init__(self, job: JobProcess, run: Run, host: Host, shares: Mapping[str, tuple[float, float]]) -> None:
        self._job, self._run, self._host, self._shares = job, run, host, shares
        self.progress = 0  # of `PROGRESS_GOAL`
        self._begun = self._gave_up = False
        self._stopped_at: float | None = None
        self._curve = LossCurve(run.losses)

    def wait(self) -> tuple[Any] | None:
        """Wait for the end, and return its `result`."""
        for _ in self.polls():
            pass
        return self.result()

    def polls(self) -> Iterator[None]:
        """Pass on what the job says, several times a second, until it has ended or is not waited for any longer."""
        while not self._job.has_ended:
            self._take_events(POLL_S)
            if self._should_stop_waiting():
                self._gave_up = True
                return
            yield

    def result(self) -> tuple[Any] | None:
        """The end of the job, after `polls`.

        Returns
        -------
        What the job returned; None if it was stopped without a result.

        Raises
        ------
        JobError
            If it failed, was killed, or could not stop in time.
        """
        if self._gave_up:
            return None
        self._job.close()
        self._take_events(0)
        try:
            return (self._job.value(),)
        except Cancelled as cancelled:
            _log.info("%s", cancelled)
            return None
        except JobError as error:
            if error.refused:  # the words say it all
                error.details = error.details.partition("Traceback (most recent call last)")[0]
            raise

    def _take_events(self, timeout_s: float) -> None:
        for event in self._job.read(timeout_s):
            if event["event"] == "log":
                name = event["name"] if event["name"].startswith("ptychopinn") else "ptychopinn.worker"
                logging.getLogger(name).log(event["level"], "%s", event["message"])
            else:
                self._begun = True
                self._show(event["stage"], event["done"], event["total"])
                if math.isfinite(loss := event["figures"].get("loss", math.nan)):
                    self._curve.add(loss, time.monotonic())

    def _show(self, stage: str, done: int, total: int) -> None:
        if stage in self._shares and total > 0:
            low, high = self._shares[stage]
            progress = round((PROGRESS_GOAL - 1) * (low + (high - low) * min(done / total, 1.0)))
            if progress > self.progress:
                self.progress = progress
                self._host.show_progress(progress)

    def _should_stop_waiting(self) -> bool:
        """Act on Stop and on a window that closes; returns whether to give up waiting."""
        now = time.monotonic()
        if self._stopped_at is None:
            if not (self._host.stop_wanted or self._host.closing):
                return False
            self._stopped_at, self._run.stopping = now, True
            kept = _KEPT.get(self._run.kind)
            if kept is None or not self._begun or (self._host.closing and not kept.is_file):
                _log.info("Stopped.")
                return True
            _log.info("Stopping; %s.", kept.words)
            self._job.stop()
        if self._host.closing and now - self._stopped_at > CLOSE_GRACE_S:
            self._job.leave()
            self._run.left_alone = True
            return True
        if now - self._stopped_at > STOP_GRACE_S:
            raise JobError("The work did not stop in time; it has no result.", details=self._job.tail())
        return False
