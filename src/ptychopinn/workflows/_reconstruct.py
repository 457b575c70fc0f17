"""Reconstruct a scan without decisions by the user."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptychopinn.automatic import Update, reconstruct_automatically
from ptychopinn.config.run import AllSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.failures import memory_explained
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows._backends import load_reconstructor
from ptychopinn.workflows._inspect import warn_of_geometry
from ptychopinn.workflows._outputs import RunResult, write_object, write_outputs
from ptychopinn.workflows.pretrained import PRETRAINED, find_pretrained, model_archive

NO_MODEL = "none"
_UPDATE_S = 5.0  # seconds between two pictures of the object so far


@memory_explained()
def reconstruct_run(
    data_path: StrPath,
    output: StrPath,
    *,
    model: StrPath = PRETRAINED,
    settings: AllSettings[Any, Any] | None = None,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Reconstruct a scan file into a directory, as well as its time allows.

    Parameters
    ----------
    model:
        "pretrained", a run directory, a model archive, the name of an installed model, or "none". Without a pretrained
        model for the scan, passes start from a flat object.
    settings:
        ``automatic``, ``execution``, ``reading`` and ``backend`` are used. The default backend is the one that wrote
        the model.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    settings = settings or AllSettings()
    data = read_scan(data_path, **dict(settings.reading))
    warn_of_geometry(data)
    archive = archive_for(model, data)
    reconstructor: Reconstructor | None = None
    if archive is not None:
        folders.refuse_model_folder(archive, output)
        reconstructor = load_reconstructor(archive, backend=settings.backend, options=settings.execution)
    with folders.run_folder(output, overwrite=overwrite) as folder:
        found = reconstruct_automatically(
            data, reconstructor, settings.automatic, update=_writer(folder, data), monitor=monitor
        )
        story = " ".join(found.story)
        (folder / folders.STORY).write_text(story + "\n", "utf-8")
        result = write_outputs(
            folder,
            data,
            found.reconstruction,
            title=f"Reconstruction of {data.name}",
            tables={"How": {"what was done": story, "model": "none" if archive is None else archive.name}},
            comments=f"ptychopinn reconstruct. {story}",
        )
    files = {**result.files, "story": folder / folders.STORY}
    return replace(result, files=files, figures={**result.figures, "what was done": story})


def archive_for(model: StrPath, data: ScanDataset) -> Path | None:
    """The archive of a model, as `reconstruct_run` takes it; None for none, or if no installed model fits the scan.

    Raises
    ------
    UsageError
        If there is no such model.
    """
    if str(model) == NO_MODEL:
        return None
    return find_pretrained(data) if str(model) == PRETRAINED else model_archive(model, data)


def _writer(folder: Path, data: ScanDataset) -> Update:
    """Writes product and pictures of the object so far, not more often than every few seconds."""
    last = time.monotonic()

    def write(found: Reconstruction) -> None:
        nonlocal last
        if time.monotonic() - last >= _UPDATE_S:
            write_object(folder, data, found, found.probe, title=data.name, comments="ptychopinn reconstruct, so far")
            last = time.monotonic()

    return write
