"""Reconstruct a scan with a trained network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from ptychopinn.bundle import TrainingSummary, read_bundle
from ptychopinn.config.build import expect
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.run import RunSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.failures import memory_explained
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.product import ProductFormat, product_formats
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows._backends import load_reconstructor
from ptychopinn.workflows._model_and_scan import choose_probe_source, compare_conditions
from ptychopinn.workflows._outputs import Description, RunResult, write_outputs
from ptychopinn.workflows.pretrained import model_archive


@memory_explained()
def infer_run(  # noqa: PLR0913
    model: StrPath,
    data_path: StrPath,
    output: StrPath,
    settings: RunSettings[Any] | None = None,
    *,
    overwrite: bool = False,
    formats: Collection[ProductFormat | str] = (),
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Reconstruct a scan file into a directory.

    Parameters
    ----------
    model:
        A run directory of `train_run`, a model archive, "pretrained" or the name of an installed model.
    output:
        The directory to create; not that of the model.
    settings:
        ``infer``, ``execution``, ``reading`` and ``backend`` are used. The default backend is the one that wrote the
        model.
    formats:
        Further formats of the product: "cxi", "nexus".

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    settings = RunSettings() if settings is None else expect(RunSettings, settings)
    config, others = settings.infer, product_formats(formats)
    data = read_scan(data_path, **dict(settings.reading))
    archive = model_archive(model, data)
    folders.refuse_model_folder(archive, output)
    manifest = read_bundle(archive).manifest
    name = settings.backend or manifest.writer.backend
    reconstructor = load_reconstructor(archive, backend=name, options=settings.execution)
    # The backend refuses patterns of another size before the directory is created.
    reconstructor.infer(data.select(np.arange(0)), config, monitor=NULL_MONITOR)
    with folders.run_folder(output, overwrite=overwrite) as folder:
        reconstruction = infer(reconstructor, data, config, manifest.training, monitor=monitor)
        return write_outputs(
            folder,
            data,
            reconstruction,
            Description(
                f"Reconstruction of {data.name}", f"ptychopinn, backend {name}, model {manifest.model.model_type}"
            ),
            tables={"Model": {"archive": archive.name, **manifest.model.model_dump(mode="json", exclude_none=True)}},
            formats=others,
        )


def infer(
    reconstructor: Reconstructor,
    data: ScanDataset,
    config: InferConfig,
    training: TrainingSummary | None,
    *,
    monitor: Monitor = NULL_MONITOR,
) -> Reconstruction:
    """Reconstruct a scan with a trained network, and with the probe that suits it.

    Differences between this scan and that of the training become warnings of the result.

    Parameters
    ----------
    training:
        How the network was trained, if it is known.

    Raises
    ------
    PtychoPinnError
        As `ptychopinn.reconstruction.reconstruct`.
    """
    config, of_probe = choose_probe_source(reconstructor, data, config, training)
    of_conditions = compare_conditions(training, data)
    found = reconstruct(reconstructor, data, config, monitor=monitor)
    differences = [one for one in (of_probe, of_conditions) if one is not None]
    return replace(found, warnings=(*differences, *found.warnings))
