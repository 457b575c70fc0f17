"""Reconstruct a scan while it is measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptychopinn.bundle import Manifest, read_bundle
from ptychopinn.config.build import expect
from ptychopinn.config.run import RunSettings
from ptychopinn.data.dataset import Measurement
from ptychopinn.errors import DataError, ResourceError, UsageError
from ptychopinn.failures import memory_explained
from ptychopinn.live import Arrival, LiveScan, StreamStatus, Update, follow_hdf5, listen, stream
from ptychopinn.live.scan import live_config
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows._backends import load_reconstructor
from ptychopinn.workflows._model_and_scan import compare_conditions
from ptychopinn.workflows._outputs import Description, RunResult, write_object, write_outputs

_log = logging.getLogger(__name__)


@memory_explained()
def stream_run(  # noqa: PLR0913
    model: StrPath,
    source: str,
    output: StrPath,
    settings: RunSettings[Any] | None = None,
    *,
    bind: bool = False,
    interval_s: float = 10.0,
    timeout_s: float = 60.0,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Follow a scan, and write its object into a directory at intervals and at the end.

    Parameters
    ----------
    model:
        A run directory of `ptychopinn.workflows.train_run`, or a model archive.
    source:
        A growing HDF5 file, or the address of a socket (``tcp://host:port``).
    output:
        The directory to create; not that of the model.
    settings, overwrite:
        As in `ptychopinn.workflows.infer_run`. Of ``reading`` only ``measurement`` is used, if the file lacks it.
    bind:
        Bind the address of the socket instead of connecting to it.
    interval_s:
        Seconds from the end of one write to the next.
    timeout_s:
        Seconds without usable data after which the stream ends.
    monitor:
        Gets progress. If it is cancelled, the stream ends with the data so far.

    Raises
    ------
    PtychoPinnError
        If something is refused; `ptychopinn.errors.DataError` if no pattern arrived.
    """
    if not (timeout_s > 0 and interval_s >= 0):
        raise UsageError(
            f"An interval of {interval_s:g} s and a timeout of {timeout_s:g} s were given.",
            "Give 0 or more, and more than 0.",
        )
    archive = folders.model_path(model)
    folders.refuse_model_folder(archive, output)
    manifest = read_bundle(archive).manifest
    settings = RunSettings() if settings is None else expect(RunSettings, settings)
    config = live_config(settings.infer)
    name = settings.backend or manifest.writer.backend
    reconstructor = load_reconstructor(archive, backend=name, options=settings.execution)
    arrivals = _arrivals(source, settings.reading.measurement, bind)
    with folders.run_folder(output, overwrite=overwrite, keep=(folders.PRODUCT,)) as folder:
        due = time.monotonic() + interval_s
        title = Path(source).stem if "://" not in source else "stream"
        for update in stream(
            reconstructor, arrivals, config, timeout_s=timeout_s, update_s=1.0, name=title, monitor=monitor
        ):
            if update.result is not None:
                return _write_result(folder, update, update.result, manifest, name)
            if time.monotonic() >= due:
                _write_preview(folder, update.scan)
                due = time.monotonic() + interval_s
    raise AssertionError("a stream ends with a result or an error")


def _arrivals(source: str, measurement: Measurement | None, bind: bool) -> Iterator[Arrival]:
    if "://" not in source:
        if bind:
            raise UsageError(f"'{source}' is a file; only a socket can wait at its address.", "Leave --bind out.")
        if not Path(source).resolve().parent.is_dir():
            raise UsageError(f"The folder of {source} does not exist.", "Check the name of the file to follow.")
        return follow_hdf5(source, measurement=measurement)
    return listen(source, bind=bind)


def _write_preview(folder: Path, scan: LiveScan) -> None:
    """Write product and pictures of the object so far; if the disk is full, the next write may succeed."""
    try:
        found = scan.stitched()
    except DataError as error:
        _log.info("The object so far was not written: %s", error)
        return
    if found is None or scan.probe is None:
        return
    stitched, residual = found
    data = scan.data()
    _log.info("%d patterns: forward residual %.4f.", len(scan), residual)
    try:
        write_object(
            folder,
            data,
            stitched,
            scan.probe,
            Description(f"{data.name}, {len(scan)} patterns", f"ptychopinn, {len(scan)} patterns so far"),
        )
    except ResourceError as error:
        _log.warning("The object so far was not written: %s", error)


def _write_result(folder: Path, update: Update, result: Reconstruction, manifest: Manifest, backend: str) -> RunResult:
    counts: dict[str, float | int | str] = {
        "stream": str(update.ending),
        "patterns": update.patterns,
        "repeated": update.repeated,
        "refused": update.refused,
        "missing": update.missing,
    }
    data = update.scan.data()
    of_conditions = compare_conditions(manifest.training, data)
    warnings = (*(() if of_conditions is None else (of_conditions,)), *result.warnings, *_warnings_of(update))
    written = write_outputs(
        folder,
        data,
        replace(result, warnings=warnings),
        Description(f"Reconstruction of {data.name}", f"ptychopinn, backend {backend}, streamed"),
        tables={"Stream": counts, "Model": manifest.model.model_dump(mode="json", exclude_none=True)},
    )
    return replace(written, figures={**counts, **written.figures})


def _warnings_of(update: Update) -> tuple[str, ...]:
    said = []
    if update.ending is StreamStatus.TIMED_OUT:
        said.append("No more data arrived; the object is made from the patterns received.")
    if update.ending is StreamStatus.OUT_OF_SPACE:
        said.append("Memory or disk ran out; the object is made from the patterns received before.")
    if update.refused:
        said.append(f"{update.refused} patterns were refused; see the log for the reasons.")
    if update.missing:
        said.append(f"{update.missing} patterns with numbers below the highest one did not arrive.")
    return tuple(said)
