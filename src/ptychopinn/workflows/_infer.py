"""Reconstruct a scan with a trained network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ptychopinn.bundle import Manifest, read_bundle
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
from ptychopinn.workflows._outputs import RunResult, write_outputs
from ptychopinn.workflows._probe_source import choose_probe_source
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
        Formats in which the product is written too: "cxi", "nexus".

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    settings = settings or RunSettings()
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
        reconstruction = infer(reconstructor, data, config, training_of(manifest), monitor=monitor)
        return write_outputs(
            folder,
            data,
            reconstruction,
            title=f"Reconstruction of {data.name}",
            tables={"Model": {"archive": archive.name, **manifest.model.model_dump(mode="json", exclude_none=True)}},
            comments=f"ptychopinn, backend {name}, model {manifest.model.model_type}",
            formats=others,
        )


def infer(
    reconstructor: Reconstructor,
    data: ScanDataset,
    config: InferConfig,
    training: Mapping[str, object],
    *,
    monitor: Monitor = NULL_MONITOR,
) -> Reconstruction:
    """Reconstruct a scan with a trained network, and with the probe that suits it.

    Parameters
    ----------
    training:
        The settings that the network was trained with, as far as they are known.

    Raises
    ------
    PtychoPinnError
        As `ptychopinn.reconstruction.reconstruct`.
    """
    config, said = choose_probe_source(reconstructor, data, config, training)
    found = reconstruct(reconstructor, data, config, monitor=monitor)
    return found if said is None else replace(found, warnings=(said, *found.warnings))


def training_of(manifest: Manifest) -> Mapping[str, object]:
    """The settings that the network of an archive was trained with; empty if they are not known."""
    return {} if manifest.training is None else manifest.training.config
