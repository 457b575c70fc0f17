"""Train a network on a scan, and reconstruct the scan with it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptychopinn.atomic import write_csv, write_json
from ptychopinn.bundle import read_manifest
from ptychopinn.config.build import build, expect
from ptychopinn.config.execution import Accelerator, asks_for_cuda
from ptychopinn.config.files import read_config_file, write_config_file
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig, ModelType
from ptychopinn.config.presets import add_useful
from ptychopinn.config.run import RunSettings, options_for
from ptychopinn.config.settings import settings_of
from ptychopinn.config.train import SimulateObjects, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.fingerprint import fingerprint
from ptychopinn.data.io import read_scan
from ptychopinn.errors import ArchiveError, ConfigError, DataError, TrainingError
from ptychopinn.failures import memory_explained
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import check_infer, reconstruct
from ptychopinn.reconstructor import (
    Capability,
    Reconstructor,
    ReconstructorSpec,
    ResolvesTraining,
    TakesWeights,
    TrainingInterrupted,
    TrainResult,
    TrainStatus,
    TrainsTogether,
)
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows._inspect import warn_of_geometry
from ptychopinn.workflows._outputs import Description, RunResult, write_outputs
from ptychopinn.workflows.pretrained import model_archive

_log = logging.getLogger(__name__)
_REASONS = {
    TrainStatus.FINISHED: "all epochs are done",
    TrainStatus.TIMED_OUT: "max_time is reached",
    TrainStatus.STOPPED_EARLY: "the monitored figure did not improve",
    TrainStatus.CANCELLED: "it was cancelled",
}


@memory_explained()
def train_run(  # noqa: PLR0913
    data_path: StrPath,
    output: StrPath,
    settings: RunSettings[Any] | None = None,
    *,
    validation: StrPath | None = None,
    start: StrPath | None = None,
    weights_of: StrPath | None = None,
    resume: bool = False,
    overwrite: bool = False,
    only_model: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Train on a scan file and fill a run directory.

    Parameters
    ----------
    settings:
        Settings of the run. The default backend is the first installed, the default N that of the scan.
    start:
        A run directory, a model archive of any backend, "pretrained" or the name of an installed model. The training
        continues from its network and configuration.
    weights_of:
        Likewise, but the network has the configuration of the settings, and starts from those weights that fit it.
    monitor:
        Progress and cancellation. A cancelled training saves its model, without a reconstruction.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    settings = RunSettings() if settings is None else expect(RunSettings, settings)
    data = read_scan(data_path, **dict(settings.reading))
    warn_of_geometry(data)
    held = None if validation is None else read_scan(validation, **dict(settings.reading))
    reconstructor, settings = prepare_training(data, settings, start=start, weights_of=weights_of, resume=resume)
    keep = (folders.MODEL, folders.CHECKPOINTS)
    with folders.run_folder(output, overwrite=overwrite, resume=resume, keep=keep) as folder:
        scans = _scans(data, held)
        if resume and (folder / folders.CONFIG).exists():
            settings = settings.model_copy(update={"infer": _resumed(folder, settings)})
            check_infer(settings.model, settings.infer)
            _check_scans(folder / folders.SCAN, scans)
        write_json(folder / folders.SCAN, scans)
        write_config_file(folder / folders.CONFIG, settings)
        try:
            result = reconstructor.train(
                data, settings.train, validation=held, checkpoint_dir=folder / folders.CHECKPOINTS, monitor=monitor
            )
        except TrainingError:
            reconstructor.save(folder / folders.MODEL)  # its last good weights
            raise
        except TrainingInterrupted as interrupted:
            _save(reconstructor, interrupted.result, folder)
            _log.warning("The training was interrupted; its model is saved.")
            raise
        _log.info("Training finished after %.1f s: %s.", result.seconds, _REASONS[result.status])
        try:
            _save(reconstructor, result, folder)
        except KeyboardInterrupt:
            _save(reconstructor, result, folder)
            raise
        files = {"model": folder / folders.MODEL, "history table": folder / folders.HISTORY}
        figures: dict[str, float | int | str] = {
            "training": result.status.value,
            "training seconds": result.seconds,
            "patterns trained a second": result.patterns_seen / max(result.seconds, 1e-9),
            **{name: values[-1] for name, values in result.history.items() if name.endswith("loss") and values},
        }
        if result.status is TrainStatus.CANCELLED:
            return RunResult(folder, files, figures, (*result.warnings, "Training was cancelled; its model is saved."))
        if only_model:
            return RunResult(folder, files, figures, result.warnings)
        reconstruction = reconstruct(reconstructor, data, settings.infer, monitor=monitor)
        written = write_outputs(
            folder,
            data,
            replace(reconstruction, warnings=(*result.warnings, *reconstruction.warnings)),
            Description(
                f"Training on {data.name}",
                f"ptychopinn, backend {settings.backend}, model {settings.model.model_type}",
                dict(result.history) if result.history["epoch"] else None,
            ),
            tables={"Training": figures, "Configuration": _settings_table(settings)},
        )
    return replace(written, files={**files, **written.files}, figures={**figures, **written.figures})


@memory_explained()
def follow_training(settings: RunSettings[Any], monitor: Monitor) -> bool:
    """Take part in a training that another process leads, if a launcher started this one for that.

    Parameters
    ----------
    settings:
        With the backend's own options in `execution`.

    Returns
    -------
    Whether this process took part; then there is nothing more for it to do.

    Raises
    ------
    PtychoPinnError
        If the training fails.
    """
    if getattr(settings.execution, "process_count", 1) == 1:
        return False
    spec = discover().default() if settings.backend is None else discover().get(settings.backend)
    cls = spec.load_class()
    return isinstance(cls, TrainsTogether) and cls.follow_launched(settings.execution, monitor)


def prepare_training(
    data: ScanDataset,
    settings: RunSettings[Any],
    *,
    start: StrPath | None = None,
    weights_of: StrPath | None = None,
    resume: bool = False,
) -> tuple[Reconstructor, RunSettings[Any]]:
    """The reconstructor to train on a scan, and the settings with the defaults that depend on scan and device.

    Raises
    ------
    PtychoPinnError
        If settings, backend and the model to start from do not fit together.
    """
    spec = discover().default() if settings.backend is None else discover().get(settings.backend)
    archive = None if start is None else model_archive(start, data)
    settings = settings.model_copy(
        update={
            "backend": spec.name,
            "model": _model_config(archive, {"N": data.N, **settings.model.model_dump(exclude_unset=True)}),
            "execution": options_for(spec.options, settings.execution),
        }
    )
    check_infer(settings.model, settings.infer)
    _check_capabilities(spec, settings, resume=resume)
    cls = spec.load_class()
    if archive is None:
        reconstructor = cls(settings.model, settings.execution)
        if weights_of is not None:
            _take_weights(reconstructor, weights_of, data)
    else:
        reconstructor = cls.load(archive, settings.execution)
    return reconstructor, settings.model_copy(update={"train": _resolved(reconstructor, settings.train)})


def _save(reconstructor: Reconstructor, result: TrainResult, folder: Path) -> None:
    """Save the model and the history of a training."""
    reconstructor.save(folder / folders.MODEL)
    write_csv(folder / folders.HISTORY, result.history, zip(*result.history.values(), strict=True))


def _take_weights(reconstructor: Reconstructor, archive: StrPath, data: ScanDataset) -> None:
    """Let a training start from weights of another network."""
    if not isinstance(reconstructor, TakesWeights):
        raise ConfigError("This backend cannot start from the weights of another network.", "Use another --backend.")
    reconstructor.start_from(model_archive(archive, data))


def _resolved(reconstructor: Reconstructor, config: TrainConfig) -> TrainConfig:
    """Fill in the training defaults that depend on the device."""
    if isinstance(reconstructor, ResolvesTraining):
        return reconstructor.resolve(config)
    return config.resolved(on_gpu=False)


def _model_config(archive: Path | None, given: Mapping[str, object]) -> ModelConfig:
    """The configuration of the network: that of the archive, which must agree with what is given, if there is one."""
    if archive is None:
        return build(ModelConfig, given)
    found = read_manifest(archive).model
    wanted = build(ModelConfig, found.model_dump() | dict(given))
    if changed := [name for name in ModelConfig.model_fields if getattr(found, name) != getattr(wanted, name)]:
        differences = ", ".join(f"{name} = {getattr(found, name)} (not {getattr(wanted, name)})" for name in changed)
        raise ConfigError(
            f"The model to continue from has {differences}.", "Leave these settings out, or start a new training."
        )
    return found


def _settings_table(settings: RunSettings[Any]) -> dict[str, object]:
    """All settings as one table."""
    table: dict[str, object] = {}
    for section, value in settings.model_dump(mode="json", exclude_none=True).items():
        table |= value if isinstance(value, dict) else {section: value}
    return table


def _check_capabilities(spec: ReconstructorSpec, settings: RunSettings[Any], *, resume: bool) -> None:
    """Refuse settings beyond the capabilities of the backend."""
    accelerator = getattr(settings.execution, "accelerator", Accelerator.AUTO)
    needed = {
        Capability.PINN: settings.model.model_type is ModelType.PINN,
        Capability.SUPERVISED: settings.model.model_type is ModelType.SUPERVISED,
        Capability.SIMULATED_OBJECTS: settings.train.simulate_objects is not SimulateObjects.OFF,
        Capability.RESUME: resume,
        Capability.CPU: accelerator == Accelerator.CPU,
        Capability.CUDA: asks_for_cuda(accelerator),
    }
    if missing := [name for name, wanted in needed.items() if wanted and name not in spec.capabilities]:
        raise ConfigError(
            f"The backend '{spec.name}' cannot do this: {', '.join(missing)}.",
            f"It can: {', '.join(sorted(spec.capabilities)) or 'nothing'}; 'ptychopinn plugins' shows what others can.",
        )


def _resumed(folder: Path, settings: RunSettings[Any]) -> InferConfig:
    """Refuse to resume a training with other settings. Only its duration and its device may change.

    A setting that did not exist when the run began has its default.

    Returns
    -------
    The settings of the reconstruction: the given ones, else those of the run. A run that does not say how many passes
    it makes is older than the setting, and makes none.
    """
    values = read_config_file(folder / folders.CONFIG)
    try:
        before = build(RunSettings, {name: values.get(name) for name in ("model", "train", "infer")})
    except ConfigError as error:
        raise ConfigError(
            f"This version cannot read the settings of the run: {error.problem}",
            f"Resume it with the version that started it ({_writer_of(folder)}), or start again with --overwrite.",
        ) from error
    changed = [] if values.get("backend") == settings.backend else ["backend"]
    for now, then in ((settings.model, before.model), (settings.train, before.train)):
        fixed = [one.name for one in settings_of("", type(then)) if not one.marks.get("may_change")]
        changed += sorted(name for name in fixed if getattr(now, name) != getattr(then, name))
    if changed:
        raise ConfigError(
            f"The run was started with another {', '.join(changed)}.",
            "Resume with the settings of its config.yaml (--config RUN/config.yaml), or start again with --overwrite.",
        )
    of_run = {"refine": 0, **before.infer.model_dump(exclude_unset=True)}
    return build(InferConfig, add_useful("infer", of_run, settings.infer.model_dump(exclude_unset=True)))


def _writer_of(folder: Path) -> str:
    """The software that wrote the newest readable archive of a run."""
    checkpoints = sorted((folder / folders.CHECKPOINTS).glob("*.zip"), reverse=True)
    for path in (*checkpoints, folder / folders.MODEL):
        with contextlib.suppress(ArchiveError):
            return str(read_manifest(path).writer)
    return "it left no archive that says which"


def _scans(data: ScanDataset, validation: ScanDataset | None) -> dict[str, dict[str, object]]:
    """The identity of the scans of a run, for resuming."""
    scans = {"training": data} | ({} if validation is None else {"validation": validation})
    return {
        use: {"name": scan.name, "patterns": len(scan), "N": scan.N, "fingerprint": fingerprint(scan)}
        for use, scan in scans.items()
    }


def _check_scans(path: Path, scans: Mapping[str, Mapping[str, object]]) -> None:
    """Refuse to resume a run with other scans."""
    if not path.is_file():  # of an older version
        return
    try:
        before = json.loads(path.read_text("utf-8"))
        known = {use: scan["fingerprint"] for use, scan in before.items()}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error!r:.200}.", "Start again with --overwrite.") from error
    if known != {use: scan["fingerprint"] for use, scan in scans.items()}:
        raise DataError(
            f"The run was started with other data: {_describe_scans(before)}; now it is {_describe_scans(scans)}.",
            "Resume with the same files, --measurement and --nphotons, or start again with --overwrite.",
        )


def _describe_scans(scans: Mapping[str, Mapping[str, object]]) -> str:
    return " and ".join(
        f"'{str(scan.get('name'))[:80]}' for {use[:20]} ({scan.get('patterns')} patterns, "
        f"{str(scan.get('fingerprint'))[:8]})"
        for use, scan in scans.items()
    )
