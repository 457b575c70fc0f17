"""The work on one scan of a batch, in a process of its own."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychopinn.atomic import nan_to_none, write_bytes
from ptychopinn.batch.plan import PlannedScan
from ptychopinn.config.batch import Workflow
from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.metrics import scan_box
from ptychopinn.monitor import Monitor
from ptychopinn.plugins import discover
from ptychopinn.product import read_product
from ptychopinn.reconstructor import Capability
from ptychopinn.report import attempt, thumbnail_picture
from ptychopinn.workflows import RunResult, evaluate_run, infer_run, reconstruct_run, train_run
from ptychopinn.workflows.folders import CONFIG, PRODUCT
from ptychopinn.workflows.lock import locked
from ptychopinn.workflows.pretrained import PRETRAINED

THUMBNAIL = "thumbnail.png"
_log = logging.getLogger(__name__)
_LOCKED_S = 20.0  # the process of a worker that was lost ends in this time


@dataclass(frozen=True)
class _Work:
    """A scan, and the run directory of its result."""

    scan: PlannedScan
    folder: Path
    monitor: Monitor

    def reconstruct(self) -> RunResult:
        return reconstruct_run(
            self.scan.path,
            self.folder,
            model=self.scan.start or PRETRAINED,
            settings=self.scan.settings,
            overwrite=True,
            monitor=self.monitor,
        )

    def train(self) -> RunResult:
        registry, settings = discover(), self.scan.settings.run_settings()
        spec = registry.default() if settings.backend is None else registry.get(settings.backend)
        resumes = (self.folder / CONFIG).is_file() and Capability.RESUME in spec.capabilities
        return train_run(
            self.scan.path,
            self.folder,
            settings,
            start=self.scan.start,
            resume=resumes,
            overwrite=not resumes,
            monitor=self.monitor,
        )

    def infer(self) -> RunResult:
        scan = self.scan
        assert scan.start is not None  # else the plan was refused
        settings = scan.settings.run_settings()
        return infer_run(scan.start, scan.path, self.folder, settings, overwrite=True, monitor=self.monitor)

    def evaluate(self) -> RunResult:
        scan = self.scan
        assert scan.reference is not None  # else the plan was refused
        scores = evaluate_run(
            scan.path,
            scan.reference,
            scan_path=scan.scan,
            reading=scan.settings.reading,
            output=self.folder,
            overwrite=True,
        )
        return RunResult(self.folder, {path.stem: path for path in self.folder.iterdir()}, scores)


def run_scan(scan: Mapping[str, Any], folder: str, home: str, monitor: Monitor) -> dict[str, Any]:
    """Work on a scan of a batch, and draw its thumbnail.

    Parameters
    ----------
    scan:
        `PlannedScan.values`.
    folder:
        The run directory. A training that was begun there goes on; everything else there is replaced.
    home:
        Folder of the job, for the thumbnail.

    Returns
    -------
    ``score`` (None if there is none), ``figures``, ``warnings`` and ``files`` (path in the folder to bytes).
    """
    _wait_until_free(Path(folder))
    planned = PlannedScan.from_values(scan)
    result: RunResult = getattr(_Work(planned, Path(folder), monitor), planned.workflow)()
    product = planned.path if planned.workflow is Workflow.EVALUATE else Path(folder) / PRODUCT
    attempt("The thumbnail", lambda: write_bytes(Path(home) / THUMBNAIL, _thumbnail(product)))
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    found = {
        "score": _score(result),
        "figures": dict(result.figures),
        "warnings": list(result.warnings),
        "files": {str(file.relative_to(folder)): file.stat().st_size for file in files},
    }
    return dict(nan_to_none(found))


def _wait_until_free(folder: Path) -> None:
    """Wait for the process of a worker that was lost, or cut off, and ends by itself.

    Raises ResourceError if it does not, so that the scan is tried again after all others.
    """
    began, waits = time.monotonic(), False
    while folder.is_dir():
        try:
            with locked(folder):
                return
        except UsageError as error:
            if time.monotonic() > began + _LOCKED_S:
                raise ResourceError(
                    f"{error.problem} It has not ended in {_LOCKED_S:g} s, though its worker is lost or cut off.",
                    "End that process, or wait until it is done. Then continue with --resume.",
                ) from error
            if not waits:
                _log.warning("%s It is waited for, at most %g s.", error.problem, _LOCKED_S)
            waits = True
        time.sleep(0.2)


def _thumbnail(path: Path) -> bytes:
    product = read_product(path)
    return thumbnail_picture(product.object, scan_box(product.local_positions, product.object.shape))


def _score(result: RunResult) -> float | None:
    """How good a result is, higher is better; None if it is not known.

    It is the similarity of the phases with the reference, or the share that is explained of what noise allows to
    explain.
    """
    score = result.figures.get("phase_ssim", math.nan) if result.verdict is None else result.verdict.explained
    return float(score) if math.isfinite(float(score)) else None
