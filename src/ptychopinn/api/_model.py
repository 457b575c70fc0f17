"""A trained network in Python."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychopinn.api._result import Result, result_of
from ptychopinn.api._scan import scan_of
from ptychopinn.api._settings import settings_for
from ptychopinn.api._watch import watched
from ptychopinn.bundle import TrainingSummary, read_bundle
from ptychopinn.data.conditions import ScanConditions, conditions_of
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.failures import memory_explained
from ptychopinn.monitor import Monitor
from ptychopinn.plugins import discover
from ptychopinn.reconstructor import Reconstructor, TrainStatus
from ptychopinn.report import card_html, card_picture, draw_history, new_axes
from ptychopinn.typing import StrPath
from ptychopinn.workflows import infer, load_reconstructor, prepare_training, warn_of_geometry
from ptychopinn.workflows.pretrained import PRETRAINED, named_archive

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FOR_CHECKPOINTS = ("checkpoint_every", "checkpoint_top_k")


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained network, and how it was trained."""

    reconstructor: Reconstructor  # of the backend
    backend: str
    status: str  # how the training ended: finished, stopped_early, timed_out or cancelled
    # Column to values, one an epoch: ``epoch``, ``seconds``, ``loss`` and its terms. Empty if it was loaded.
    history: Mapping[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    settings: Mapping[str, object] = field(default_factory=dict)  # of the training
    warnings: tuple[str, ...] = ()
    conditions: ScanConditions | None = None  # energy, pixel size and dose of the scan that it was trained on

    def __repr__(self) -> str:
        return f"Model({', '.join(f'{name} {value}' for name, value in self._facts().items())})"

    def _facts(self) -> dict[str, object]:
        model, losses = self.reconstructor.model, self.history.get("loss", [])
        return {
            "backend": self.backend,
            "architecture": str(model.architecture),
            "N": model.N,
            "training": self.status,
            "seconds": f"{self.seconds:.3g}",
            **({"epochs": len(losses), "loss": f"{losses[-1]:.4g}"} if losses else {}),
        }

    def _repr_html_(self) -> str:
        png = card_picture(self.plot) if self.history.get("loss") else None
        return card_html("Model", png, self._facts(), self.warnings)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses over the epochs; on new axes if none are given. Returns the axes."""
        ax = new_axes() if ax is None else ax
        draw_history(ax, self.history)
        return ax

    @memory_explained()
    def infer(
        self,
        scan: ScanDataset | StrPath,
        *,
        preset: str | None = None,
        monitor: Monitor | None = None,
        **settings: object,
    ) -> Result:
        """Reconstruct a scan with this network, as ``ptychopinn infer`` does.

        Parameters
        ----------
        preset:
            "quick-look", "best-picture", "sparse", "dim" or "many-scans".
        monitor:
            Progress and cancellation; None shows progress, and an interrupt returns what there is.
        settings:
            Flags of ``infer``, with underscores: ``refine``, ``refine_probe``, ``uncertainty`` and others.

        Raises
        ------
        PtychoPinnError
            If something is refused; raised before any long work.
        """
        config = settings_for("infer", settings, preset=preset).infer
        data = scan_of(scan)
        training = TrainingSummary.model_validate(
            {"status": self.status, "config": dict(self.settings), "scan": self.conditions}
        )
        with watched(monitor) as watching:
            found = infer(self.reconstructor, data, config, training, monitor=watching)
        return result_of(found, data)

    def save(self, path: StrPath) -> None:
        """Write the model archive, which every backend opens; an existing file is replaced.

        Raises
        ------
        UsageError, ResourceError
            If the folder does not exist, or the file cannot be written.
        """
        self.reconstructor.save(path)


@memory_explained()
def train(  # noqa: PLR0913
    scan: ScanDataset | StrPath,
    *,
    validation: ScanDataset | StrPath | None = None,
    start: Model | StrPath | None = None,
    backend: str | None = None,
    preset: str | None = None,
    checkpoints: StrPath | None = None,
    monitor: Monitor | None = None,
    **settings: object,
) -> Model:
    """Train a network on a scan, as ``ptychopinn train`` does, and keep it in memory.

    Parameters
    ----------
    scan:
        A scan, a dataset or a file.
    validation:
        Another scan, to judge the training by.
    start:
        A model, a run directory, a model archive, "pretrained" or the name of an installed model: the training
        continues from its network.
    backend:
        "torch" or "tf"; the default is the first installed.
    preset:
        As in `Model.infer`.
    checkpoints:
        A directory for checkpoints; a training goes on from the newest one there.
    monitor:
        Progress and cancellation. None shows progress. An interrupt ends the training; the model so far is returned,
        with the status "cancelled".
    settings:
        Flags of ``train``, with underscores: ``max_time``, ``nepochs``, ``learning_rate``, ``accelerator`` and others.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    if checkpoints is None and (idle := [name for name in _FOR_CHECKPOINTS if name in settings]):
        raise ConfigError(f"{' and '.join(idle)} has no effect without checkpoints.", "Give checkpoints a directory.")
    chosen = settings_for("train", settings, backend=backend, preset=preset).run_settings()
    data = scan_of(scan)
    held = None if validation is None else scan_of(validation)
    warn_of_geometry(data)
    with ExitStack() as stack:
        if isinstance(start, Model):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ptychopinn-"))
            start.save(model := Path(folder) / "model.zip")
            start = model
        reconstructor, chosen = prepare_training(data, chosen, start=start)
        watching = stack.enter_context(watched(monitor))
        result = reconstructor.train(data, chosen.train, validation=held, checkpoint_dir=checkpoints, monitor=watching)
    cancelled = ("The training was cancelled.",) if result.status is TrainStatus.CANCELLED else ()
    return Model(
        reconstructor=reconstructor,
        backend=str(chosen.backend),
        status=result.status.value,
        history=result.history,
        seconds=result.seconds,
        settings=chosen.train.model_dump(mode="json"),
        warnings=(*result.warnings, *cancelled),
        conditions=conditions_of(data, fit_scaling(data)),
    )


def load(path: StrPath, *, backend: str | None = None, **settings: object) -> Model:
    """Load a model: a run directory, an archive of any backend, or the name of an installed model.

    Parameters
    ----------
    backend:
        Backend to compute with; None: the one that wrote it.
    settings:
        Flags of execution, with underscores: ``accelerator``, ``threads`` and others.

    Raises
    ------
    ArchiveError, UsageError
        If it is refused, or not there.
    PluginError, ConfigError
        If the backend is not installed, or does not have a setting.
    """
    if str(path) == PRETRAINED:
        there = ", ".join(discover().models) or "none"
        raise UsageError("Which pretrained model fits depends on the scan.", f"Name one; installed: {there}.")
    archive = named_archive(path)
    manifest = read_bundle(archive).manifest
    name = backend or manifest.writer.backend
    options: Any = settings_for("load", settings, backend=name).execution
    trained = manifest.training
    return Model(
        reconstructor=load_reconstructor(archive, backend=name, options=options),
        backend=name,
        status="unknown" if trained is None else trained.status,
        seconds=0.0 if trained is None else trained.seconds,
        settings={} if trained is None else trained.config,
        warnings=() if trained is None else trained.warnings,
        conditions=None if trained is None else trained.scan,
    )
