"""Do one workflow with many scans."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptychopinn.atomic import read_record, write_json
from ptychopinn.batch.plan import PlannedScan, planned_scans, read_plan
from ptychopinn.batch.table import ScanOutcome, ScanStatus, write_batch_report, write_outcomes
from ptychopinn.batch.worker import THUMBNAIL
from ptychopinn.config.batch import BatchConfig, Workflow
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.run import AllSettings
from ptychopinn.errors import Cancelled, ResourceError
from ptychopinn.jobs import Job, JobError, Task, Workers, choose_workers, run_jobs
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.report import attempt
from ptychopinn.typing import StrPath
from ptychopinn.workflows.folders import CHECKPOINTS, PRODUCT, FolderKind, output_folder

MANIFEST, TABLE, REPORT = "batch.json", "batch.csv", "report.html"
_SCANS, _JOBS, _RECORD = "scans", "jobs", "scan.json"
_KEEP = (TABLE, f"{_SCANS}/*/{CHECKPOINTS}")  # a scan has ended, or was trained for a while
_BATCH = FolderKind(
    "batch",
    frozenset({MANIFEST, TABLE, REPORT, _SCANS, _JOBS}),
    keep=_KEEP,
    marker=MANIFEST,
    creates_on_resume=True,
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchResult:
    """Results of a batch."""

    folder: Path
    scans: tuple[ScanOutcome, ...]  # in the order of the plan
    files: Mapping[str, Path]  # written files by kind

    @property
    def failed(self) -> Mapping[str, str]:
        """Scan to the reason of its failure."""
        return {one.name: one.message for one in self.scans if one.status is ScanStatus.FAILED}


def batch_run(
    plan: StrPath | AllSettings[Any, Any],
    output: StrPath,
    *,
    resume: bool = False,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> BatchResult:
    """Do a workflow with many scans, each in a process and a run directory of its own.

    A scan that fails loses no other.

    Parameters
    ----------
    plan:
        A plan as `read_plan` takes it, or what it returns.
    resume:
        Keep the results of scans with the same files and settings, and do the others. Failed ones are tried again.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    ResourceError
        If results cannot be recorded, or the Dask scheduler is gone; what is done stays for ``resume``.
    Cancelled
        If the monitor was cancelled; table and report show what is done, which stays for ``resume``.
    """
    settings = plan if isinstance(plan, AllSettings) else read_plan(plan)
    scans = planned_scans(settings)
    devices = {getattr(scan.settings.execution, "accelerator", Accelerator.AUTO) for scan in scans}
    workers = choose_workers(settings.batch, devices, one_at_a_time=settings.batch.chain)
    with output_folder(output, _BATCH, overwrite=overwrite, resume=resume, keep=_KEEP) as folder:
        config = settings.model_dump(mode="json", exclude_unset=True)
        write_json(folder / MANIFEST, {"settings": config, "scans": {one.name: str(one.path) for one in scans}})
        batch = _Batch(folder.absolute(), settings.batch, scans, monitor)
        try:
            with workers:
                batch.run(workers)
        except (Cancelled, ResourceError) as error:
            if any(one.status is not ScanStatus.OPEN for one in batch.outcomes):
                batch.write()
            if isinstance(error, ResourceError):
                raise
            done = sum(one.status is ScanStatus.DONE for one in batch.outcomes)
            raise Cancelled(
                f"The batch was cancelled; {done} of {len(scans)} scans are done.", "Continue with --resume."
            ) from error
        return BatchResult(folder, batch.outcomes, batch.write())


class _Batch:
    """The state of a batch."""

    def __init__(self, folder: Path, config: BatchConfig, scans: Sequence[PlannedScan], monitor: Monitor) -> None:
        self._folder, self._config, self._scans, self._monitor = folder, config, scans, monitor
        self._keys: dict[str, str] = {}
        self._outcomes = {
            scan.name: ScanOutcome(scan.name, scan.path, folder / _SCANS / scan.name, ScanStatus.OPEN) for scan in scans
        }

    @property
    def outcomes(self) -> tuple[ScanOutcome, ...]:
        """What became of the scans so far, in their order."""
        return tuple(self._outcomes.values())

    def run(self, workers: Workers) -> None:
        """Do all scans that are not done, and keep the table up to date."""
        self._report()
        if not self._config.chain:
            jobs = [job for scan in self._scans if (job := self._job(scan, scan.key(None))) is not None]
            self._run(jobs, workers)
            return
        before: tuple[PlannedScan, str] | None = None
        for scan in self._scans:
            key = scan.key(None if before is None else before[1])
            if (job := self._job(scan, key, None if before is None else before[0])) is not None:
                self._run([job], workers)
            if self._outcomes[scan.name].status is ScanStatus.DONE:  # else the next starts from the last that is
                before = (scan, key)

    def write(self) -> dict[str, Path]:
        """Write table and report."""
        files = {"table": self._write_table()}
        path = self._folder / REPORT
        report = attempt("The report", lambda: write_batch_report(path, self.outcomes, self._config.workflow))
        return files if report is None else {**files, "report": report}

    def _write_table(self) -> Path:
        return write_outcomes(self._folder / TABLE, self.outcomes)

    def _run(self, jobs: Sequence[Job], workers: Workers) -> None:
        for job, found in run_jobs(jobs, workers, retries=self._config.retries, monitor=self._monitor):
            record: dict[str, Any] = {"key": self._keys[job.name], "status": ScanStatus.DONE}
            if isinstance(found, JobError):
                record |= {"status": ScanStatus.FAILED, "message": " ".join(str(found).split())}
            else:
                record |= found
            self._note(job.name, record)
            try:
                write_json(job.folder / _RECORD, record)
                self._write_table()
            except ResourceError as error:  # the next scans may fit
                _log.warning("%s: its result could not be recorded. %s", job.name, error)

    def _job(self, scan: PlannedScan, key: str, before: PlannedScan | None = None) -> Job | None:
        """The job of a scan; None if it is done."""
        home, run = self._folder / _JOBS / scan.name, self._folder / _SCANS / scan.name
        record = _read_record(home / _RECORD)
        self._keys[scan.name], same = key, record.get("key") == key
        if same and record["status"] == ScanStatus.DONE and _is_whole(run, record.get("files")):
            self._note(scan.name, record)
            return None
        for old in () if same else (home, run):
            if old.is_dir():
                shutil.rmtree(old)
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / _RECORD, {"key": key, "status": ScanStatus.OPEN})
        if before is not None:
            previous = self._folder / _SCANS / before.name
            if scan.workflow is Workflow.TRAIN:
                scan = replace(scan, start=str(previous))
            else:
                reading = scan.settings.reading.model_copy(update={"probe": str(previous / PRODUCT)})
                scan = replace(scan, settings=scan.settings.model_copy(update={"reading": reading}))
        arguments = {"scan": scan.values(), "folder": str(run), "home": str(home)}
        return Job(scan.name, Task("ptychopinn.batch.worker:run_scan", arguments), home)

    def _note(self, name: str, record: Mapping[str, Any]) -> None:
        thumbnail = self._folder / _JOBS / name / THUMBNAIL
        self._outcomes[name] = replace(
            self._outcomes[name],
            status=ScanStatus(record["status"]),
            score=record.get("score"),
            figures=record.get("figures", {}),
            warnings=tuple(record.get("warnings", ())),
            message=record.get("message", ""),
            thumbnail=thumbnail if thumbnail.is_file() and record["status"] == ScanStatus.DONE else None,
        )
        self._report()

    def _report(self) -> None:
        ended = [one for one in self.outcomes if one.status is not ScanStatus.OPEN]
        failed = sum(one.status is ScanStatus.FAILED for one in ended)
        self._monitor.report("scans", len(ended), len(self._scans), {"failed": failed} if failed else {})


def _read_record(path: Path) -> dict[str, Any]:
    """The record of a scan; empty if there is none that can be read."""
    found = read_record(path)
    return found if found.get("key") and found.get("status") in list(ScanStatus) else {}


def _is_whole(folder: Path, files: Mapping[str, int] | None) -> bool:
    """Whether all files of a result are there, with their sizes."""
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in (files or {}).items()
    )
