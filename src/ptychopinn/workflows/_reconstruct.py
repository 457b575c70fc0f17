"""Reconstruct a scan without decisions by the user."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ptychopinn.arrays import NUMPY, ArrayLibrary
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
from ptychopinn.workflows._backends import device_library, load_reconstructor, usable_backend
from ptychopinn.workflows._inspect import warn_of_geometry
from ptychopinn.workflows._outputs import (
    Description,
    RunResult,
    reconstruction_figures,
    write_object,
    write_object_product,
    write_outputs,
)
from ptychopinn.workflows.pretrained import NO_MODEL, PRETRAINED, find_pretrained_start, model_archive

_log = logging.getLogger(__name__)
_UPDATE_S = 5.0  # seconds between two pictures of the object so far


@memory_explained()
def reconstruct_run(  # noqa: PLR0913
    data_path: StrPath,
    output: StrPath,
    *,
    model: StrPath = PRETRAINED,
    settings: AllSettings[Any, Any] | None = None,
    overwrite: bool = False,
    only_product: bool = False,
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
        the model, else one that is installed; a pretrained model is not used if none is.
    only_product:
        Write product and story, without pictures and report.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    settings = settings or AllSettings()
    data = read_scan(data_path, **dict(settings.reading))
    warn_of_geometry(data)
    archive, reconstructor = load_start(model, data, settings.backend, settings.execution)
    if archive is not None:
        folders.refuse_model_folder(archive, output)
    library: ArrayLibrary = NUMPY
    if reconstructor is None:  # else it has its own
        library = device_library(data.N, settings.backend, settings.execution)
    with folders.run_folder(output, overwrite=overwrite) as folder:
        write = write_object_product if only_product else write_object
        so_far = Description(data.name, "ptychopinn reconstruct, so far")
        found = reconstruct_automatically(
            data,
            reconstructor,
            settings.automatic,
            library=library,
            update=_writer(lambda found: write(folder, data, found, found.probe, so_far)),
            monitor=monitor,
        )
        story = " ".join(found.story)
        (folder / folders.STORY).write_text(story + "\n", "utf-8")
        description = Description(f"Reconstruction of {data.name}", f"ptychopinn reconstruct. {story}")
        if only_product:
            files = write(folder, data, found.reconstruction, found.reconstruction.probe, description)
            figures = reconstruction_figures(found.reconstruction, len(data))
            result = RunResult(folder, files, figures, found.reconstruction.warnings, found.reconstruction.verdict)
        else:
            network = "none" if archive is None or found.from_flat else archive.name
            result = write_outputs(
                folder,
                data,
                found.reconstruction,
                description,
                tables={"How": {"what was done": story, "network of the start": network}},
            )
    files = {**result.files, "story": folder / folders.STORY}
    return replace(result, files=files, figures={**result.figures, "what was done": story})


def load_start(
    model: StrPath, data: ScanDataset, backend: str | None = None, options: BaseModel | None = None
) -> tuple[Path | None, Reconstructor | None]:
    """The archive of a model, as `reconstruct_run` takes it, and its reconstructor.

    Both are None for "none", if no installed model fits the scan, and for "pretrained" if no backend is installed.

    Raises
    ------
    UsageError
        If there is no such model.
    """
    archive, backend = find_start(model, data, backend)
    return archive, None if archive is None else load_reconstructor(archive, backend=backend, options=options)


def find_start(model: StrPath, data: ScanDataset, backend: str | None = None) -> tuple[Path | None, str | None]:
    """The archive of a model, as `load_start` takes it, and the backend to load it with; both None if there is none.

    Raises
    ------
    UsageError
        If there is no such model.
    """
    archive = _archive(model, data)
    if archive is None:
        return None, None
    backend = backend or usable_backend(archive)
    if backend is None and str(model) == PRETRAINED:
        _log.warning("No backend is installed, so no network is used; 'ptychopinn plugins' says how to get one.")
        return None, None
    return archive, backend


def _archive(model: StrPath, data: ScanDataset) -> Path | None:
    if str(model) == NO_MODEL:
        return None
    return find_pretrained_start(data) if str(model) == PRETRAINED else model_archive(model, data)


def _writer(write: Callable[[Reconstruction], object]) -> Update:
    """Writes the object so far, not more often than every few seconds."""
    last = time.monotonic()

    def update(so_far: Callable[[], Reconstruction]) -> None:
        nonlocal last
        if time.monotonic() - last >= _UPDATE_S:
            write(so_far())
            last = time.monotonic()

    return update
