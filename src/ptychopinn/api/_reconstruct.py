"""Reconstruct without decisions, in Python."""

from __future__ import annotations

from collections.abc import Callable

from ptychopinn.api._model import Model
from ptychopinn.api._result import Result, result_of
from ptychopinn.api._scan import scan_of
from ptychopinn.api._settings import settings_for
from ptychopinn.api._watch import watched
from ptychopinn.automatic import reconstruct_automatically
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.failures import memory_explained
from ptychopinn.monitor import Monitor
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.typing import StrPath
from ptychopinn.workflows import load_start, warn_of_geometry


@memory_explained()
def reconstruct(
    scan: ScanDataset | StrPath,
    *,
    model: Model | StrPath = "pretrained",
    backend: str | None = None,
    update: Callable[[Result], object] | None = None,
    monitor: Monitor | None = None,
    **settings: object,
) -> Result:
    """Reconstruct a scan without decisions, as ``ptychopinn reconstruct`` does.

    Parameters
    ----------
    scan:
        A scan, a dataset or a file.
    model:
        What gives the start: "pretrained" (the installed model that fits the scan, if there is one), a model, a run
        directory, an archive, the name of an installed model, or "none".
    backend:
        Backend to compute with; None: the one that wrote the model.
    update:
        Is called with the result so far after every round of passes.
    monitor:
        Progress and cancellation; None shows progress, and an interrupt returns the result so far.
    settings:
        Flags of ``reconstruct``, with underscores: ``max_time``, ``uncertainty``, ``accelerator`` and others.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    chosen = settings_for("reconstruct", settings, backend=backend)
    data = scan_of(scan)
    warn_of_geometry(data)
    if isinstance(model, Model):
        reconstructor: Reconstructor | None = model.reconstructor
    else:
        _, reconstructor = load_start(model, data, backend, chosen.execution)

    def tell(so_far: Callable[[], Reconstruction]) -> None:
        assert update is not None
        update(result_of(so_far(), data))

    with watched(monitor) as watching:
        found = reconstruct_automatically(
            data, reconstructor, chosen.automatic, update=None if update is None else tell, monitor=watching
        )
    return result_of(found.reconstruction, data, found.story)
