"""Reconstruct a scan with a trained network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptychopinn.bundle import read_bundle
from ptychopinn.config.build import build
from ptychopinn.config.infer import InferConfig
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.npz import read_scan
from ptychopinn.failures import memory_explained
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import reconstruct
from ptychopinn.typing import StrPath
from ptychopinn.workflows import _folder
from ptychopinn.workflows._backends import load_reconstructor
from ptychopinn.workflows._outputs import RunResult, reconstruction_figures, write_outputs


@memory_explained()
def infer_run(
    model: StrPath,
    data_path: StrPath,
    output: StrPath,
    *,
    infer: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    backend: str | None = None,
    measurement: Measurement | None = None,
    nphotons: float | None = None,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Reconstruct a scan file into a directory.

    Parameters
    ----------
    model:
        A run directory of `train_run`, or a model archive.
    data_path:
        The scan, NPZ.
    output:
        The directory to make; not that of the model.
    infer, options:
        Fields of the configurations.
    backend:
        Computes with this backend; None takes the one that wrote the model.
    measurement, nphotons:
        As in `ptychopinn.data.npz.read_scan`.
    overwrite:
        Replace what an earlier run left there.
    monitor:
        Progress and cancellation.

    Raises
    ------
    PtychoPinnError
        Whatever is refused, before any long work.
    """
    archive = _folder.model_path(model)
    _folder.check_apart(archive, output)
    manifest = read_bundle(archive).manifest
    config = build(InferConfig, infer or {})
    data = read_scan(data_path, measurement=measurement, nphotons=nphotons)
    name = backend or manifest.writer.backend
    reconstructor = load_reconstructor(archive, backend=name, options=options)
    # Patterns of another size are refused by the backend before the directory is made.
    reconstructor.infer(data.select(np.arange(0)), config, monitor=NULL_MONITOR)
    with _folder.run_folder(output, overwrite=overwrite) as folder:
        reconstruction = reconstruct(reconstructor, data, config, monitor=monitor)
        files = write_outputs(
            folder,
            data,
            reconstruction,
            title=f"Reconstruction of {data.name}",
            tables={"Model": {"archive": archive.name, **manifest.model.model_dump(mode="json", exclude_none=True)}},
            warnings=reconstruction.warnings,
            comments=f"ptychopinn, backend {name}, model {manifest.model.model_type}",
        )
    return RunResult(folder, files, reconstruction_figures(reconstruction, len(data)), reconstruction.warnings)
