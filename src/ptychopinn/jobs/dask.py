"""Run jobs on the workers of a Dask cluster, which has to see the same files.

Dask only hands out the jobs; each runs in a process of its own beside its Dask worker.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any, Self

from ptychopinn.errors import PluginError, PtychoPinnError, ResourceError, UsageError
from ptychopinn.failures import explained
from ptychopinn.jobs.pool import Job, run_in_folder
from ptychopinn.jobs.protocol import JobDied, JobError
from ptychopinn.monitor import Monitor

_log = logging.getLogger(__name__)
_CONNECT_S = 30.0
_ASK_S = 1.0  # between two questions of a job whether it is to stop
_END_S = 10.0  # jobs that are told to stop end in this time


class DaskWorkers:
    """The workers of a Dask cluster. Each runs one job at a time.

    Parameters
    ----------
    address:
        That of the scheduler: ``tcp://host:8786``.
    connect_s:
        Seconds to wait for it.
    """

    one_at_a_time = False
    _client: Any
    _executor: Any
    _stop: Any

    def __init__(self, address: str, connect_s: float = _CONNECT_S) -> None:
        self._address, self._connect_s = address, connect_s

    def __enter__(self) -> Self:
        """Connect.

        Raises
        ------
        PluginError
            If Dask is not installed.
        ResourceError
            If there is no scheduler.
        UsageError
            If a worker has several threads, and would run several jobs at a time.
        """
        try:
            import distributed
        except ImportError as error:
            raise PluginError(
                f"Dask is not installed: {error}.", "In a checkout: python -m pip install '.[dask]'."
            ) from error
        try:
            self._client = distributed.Client(self._address, timeout=self._connect_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"There is no Dask scheduler at {self._address}: {error}.", "Start one, or leave --scheduler out."
            ) from error
        self._stop = distributed.Event(f"ptychopinn-stop-{uuid.uuid4().hex}", client=self._client)
        self._executor = self._client.get_executor(pure=False)
        try:
            self._check_threads()
        except PtychoPinnError:
            self._client.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        log = logging.getLogger("distributed.client")
        before, log.disabled = log.disabled, True  # without a scheduler it would print a traceback
        try:
            with contextlib.suppress(OSError):  # the scheduler goes away in this moment
                if self._client.status == "running":
                    self._stop.set()
                    self._executor.shutdown(wait=False)
            self._client.close(timeout=_END_S)
        finally:
            log.disabled = before

    def submit(self, job: Job) -> Future[Any]:
        """Run a job when a worker is free."""
        there = replace(job, on_progress=None, on_memory=None)
        found: Future[Any] = self._executor.submit(run_on_worker, there, self._stop.name)
        return found

    def value(self, future: Future[Any]) -> Any:
        """What an ended job returned.

        Raises
        ------
        JobError
            If it failed.
        ResourceError
            If the scheduler is gone.
        """
        from distributed import KilledWorker

        try:
            return future.result()
        except JobError:
            raise
        except KilledWorker as error:
            raise JobDied(f"The Dask workers that did it were lost: {error}.") from error
        except (CancelledError, OSError) as error:
            raise self._gone() from error
        except Exception as error:
            failure = explained(error)
            raise JobError(failure.problem, failure.remedy, exit_code=failure.exit_code) from error

    def _gone(self) -> ResourceError:
        return ResourceError(
            f"The Dask scheduler at {self._address} is gone.", "Start it again, and continue with --resume."
        )

    def _check_threads(self) -> None:
        for name, threads in self._client.nthreads().items():
            if threads > 1:
                raise UsageError(
                    f"The Dask worker {name} has {threads} threads, and would do as many scans at a time.",
                    "Start workers with --nthreads 1, one for each GPU.",
                )


class _StopEvent(Monitor):
    """Is cancelled when an event of the cluster is set, or cannot be asked for."""

    def __init__(self, event: Any) -> None:
        super().__init__()
        self._event, self._due = event, 0.0

    @property
    def cancelled(self) -> bool:
        """Whether the jobs are to stop."""
        if not super().cancelled and time.monotonic() >= self._due:
            try:
                stops = self._event.is_set()
            except Exception as error:  # whatever Dask raises, the scheduler cannot be asked
                _log.warning("The job stops, because the Dask scheduler cannot be asked: %r", error)
                stops = True
            if stops:
                self.cancel()
            self._due = time.monotonic() + _ASK_S
        return super().cancelled


def run_on_worker(job: Job, stop: str) -> Any:
    """Run a job on this Dask worker until an event of this name is set."""
    from distributed import Event

    return run_in_folder(job, _StopEvent(Event(stop)))
