"""Train a network on a scan, and reconstruct the scan with it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from ptychopinn.atomic import written_aside
from ptychopinn.bundle import read_manifest
from ptychopinn.config.build import build
from ptychopinn.config.execution import Accelerator, asks_for_cuda
from ptychopinn.config.files import read_config_file, write_config_file
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig, ModelType
from ptychopinn.config.train import SimulateObjects, TrainConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.fingerprint import fingerprint
from ptychopinn.data.npz import read_scan
from ptychopinn.errors import ArchiveError, ConfigError, DataError, TrainingError
from ptychopinn.failures import memory_explained
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import check_infer, reconstruct
from ptychopinn.reconstructor import Capability, Reconstructor, ReconstructorSpec, ResolvesTraining, TrainStatus
from ptychopinn.typing import StrPath
from ptychopinn.workflows import _folder
from ptychopinn.workflows._outputs import RunResult, reconstruction_figures, write_history, write_outputs

_MAY_CHANGE = frozenset({"nepochs", "max_time", "early_stopping_patience", "checkpoint_every", "checkpoint_top_k"})

_log = logging.getLogger(__name__)


@memory_explained()
def train_run(
    data_path: StrPath,
    output: StrPath,
    *,
    backend: str,
    model: Mapping[str, object] | None = None,
    train: Mapping[str, object] | None = None,
    infer: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    validation: StrPath | None = None,
    start: StrPath | None = None,
    measurement: Measurement | None = None,
    nphotons: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    only_model: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Train on a scan file and fill a run directory.

    Parameters
    ----------
    data_path:
        The scan, NPZ.
    output:
        The run directory.
    backend:
        Name of the backend.
    model, train, infer, options:
        Fields of the configurations; what is missing takes its default, N comes from the scan.
    validation:
        Another scan to judge by.
    start:
        A run directory or model archive, of any backend, whose network the training goes on from; it brings its
        configuration with it.
    measurement, nphotons:
        As in `ptychopinn.data.npz.read_scan`, for both scans.
    resume, overwrite:
        What to do with a directory that is there.
    only_model:
        End with the model: the scan is not reconstructed.
    monitor:
        Progress and cancellation; a cancelled training still leaves its model, without a reconstruction.

    Raises
    ------
    PtychoPinnError
        Whatever is refused, before any long work.
    """
    spec = discover().get(backend)
    data = read_scan(data_path, measurement=measurement, nphotons=nphotons)
    held = None if validation is None else read_scan(validation, measurement=measurement, nphotons=nphotons)
    archive = None if start is None else _folder.model_path(start)
    model_config = _model_config(archive, {"N": data.N, **(model or {})})
    train_config = build(TrainConfig, train or {})
    infer_config = build(InferConfig, infer or {})
    check_infer(model_config, infer_config)
    backend_options = build(spec.options, options or {})
    _check_capabilities(spec, model_config, train_config, backend_options, resume=resume)
    cls = spec.load_class()
    reconstructor = cls(model_config, backend_options) if archive is None else cls.load(archive, backend_options)
    train_config = _resolved(reconstructor, train_config)
    sections = {"model": model_config, "train": train_config, "infer": infer_config, "execution": backend_options}
    kept = (_folder.MODEL, _folder.CHECKPOINTS)
    with _folder.run_folder(output, overwrite=overwrite, resume=resume, kept=kept) as folder:
        scans = _scans(data, held)
        if resume:
            _check_resume(folder, sections, spec.name)
            _check_scans(folder / _folder.SCAN, scans)
        with written_aside(folder / _folder.SCAN) as aside:
            aside.write_text(json.dumps(scans, indent=2) + "\n", "utf-8")
        write_config_file(folder / _folder.CONFIG, sections, {"backend": spec.name})
        try:
            result = reconstructor.train(
                data, train_config, validation=held, checkpoint_dir=folder / _folder.CHECKPOINTS, monitor=monitor
            )
        except TrainingError:
            reconstructor.save(folder / _folder.MODEL)  # its last good weights
            raise
        _log.info("Training %s after %.1f s.", result.status, result.seconds)
        reconstructor.save(folder / _folder.MODEL)
        write_history(folder / _folder.HISTORY, result.history)
        files = {"model": folder / _folder.MODEL, "history table": folder / _folder.HISTORY}
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
        reconstruction = reconstruct(reconstructor, data, infer_config, monitor=monitor)
        warnings = (*result.warnings, *reconstruction.warnings)
        files |= write_outputs(
            folder,
            data,
            reconstruction,
            title=f"Training on {data.name}",
            tables={"Training": figures, "Configuration": _flat(sections, spec.name)},
            history=dict(result.history) if result.history["epoch"] else None,
            warnings=warnings,
            comments=f"ptychopinn, backend {spec.name}, model {model_config.model_type}",
        )
    figures |= reconstruction_figures(reconstruction, len(data))
    return RunResult(folder, files, figures, warnings)


def _resolved(reconstructor: Reconstructor, config: TrainConfig) -> TrainConfig:
    """The training as it will be: what its device does best stands where nothing was given."""
    if isinstance(reconstructor, ResolvesTraining):
        return reconstructor.resolve(config)
    return config.resolved(on_gpu=False)


def _model_config(archive: Path | None, given: Mapping[str, object]) -> ModelConfig:
    """The configuration of the network: what is given, or the archive's, which what is given may not contradict."""
    if archive is None:
        return build(ModelConfig, given)
    found = read_manifest(archive).model
    wanted = build(ModelConfig, found.model_dump() | dict(given))
    if changed := [name for name in ModelConfig.model_fields if getattr(found, name) != getattr(wanted, name)]:
        told = ", ".join(f"{name} = {getattr(found, name)} (not {getattr(wanted, name)})" for name in changed)
        raise ConfigError(f"The model to go on from has {told}.", "Leave these settings out, or begin a new training.")
    return found


def _flat(sections: Mapping[str, BaseModel], backend: str) -> dict[str, object]:
    """All settings as one table."""
    table: dict[str, object] = {"backend": backend}
    for section in sections.values():
        table |= section.model_dump(mode="json", exclude_none=True)
    return table


def _check_capabilities(
    spec: ReconstructorSpec, model: ModelConfig, train: TrainConfig, options: BaseModel, *, resume: bool
) -> None:
    """Refuse what the backend says it cannot do."""
    accelerator = getattr(options, "accelerator", Accelerator.AUTO)
    needed = {
        Capability.PINN: model.model_type is ModelType.PINN,
        Capability.SUPERVISED: model.model_type is ModelType.SUPERVISED,
        Capability.SIMULATED_OBJECTS: train.simulate_objects is not SimulateObjects.OFF,
        Capability.RESUME: resume,
        Capability.CPU: accelerator == Accelerator.CPU,
        Capability.CUDA: asks_for_cuda(accelerator),
    }
    if missing := [name for name, wanted in needed.items() if wanted and name not in spec.capabilities]:
        raise ConfigError(
            f"The backend '{spec.name}' cannot do this: {', '.join(missing)}.",
            f"It can: {', '.join(sorted(spec.capabilities)) or 'nothing'}; 'ptychopinn plugins' shows what others can.",
        )


def _check_resume(folder: Path, sections: Mapping[str, BaseModel], backend: str) -> None:
    """Refuse to resume a training as another one; only how long it lasts and where it runs may differ.

    A setting that the version of the run did not have yet has its default.
    """
    before = read_config_file(folder / _folder.CONFIG)
    changed = [] if before.get("backend") == backend else ["backend"]
    for name in ("model", "train"):
        now, old = sections[name].model_dump(mode="json"), before.get(name)
        known = old if isinstance(old, Mapping) else {}
        if gone := sorted(map(str, known.keys() - now.keys())):
            raise ConfigError(
                f"The run has settings that this version does not know: {', '.join(gone)}.",
                f"Resume it with the version that began it ({_writer_of(folder)}), or start anew with --overwrite.",
            )
        defaults = {field: info.get_default() for field, info in type(sections[name]).model_fields.items()}
        changed += sorted(k for k in now if k not in _MAY_CHANGE and known.get(k, defaults[k]) != now[k])
    if changed:
        raise ConfigError(
            f"The run was begun with another {', '.join(changed)}.",
            "Resume with the settings of its config.yaml (--config RUN/config.yaml), or start anew with --overwrite.",
        )


def _writer_of(folder: Path) -> str:
    """Who wrote a run's newest archive that can be read."""
    checkpoints = sorted((folder / _folder.CHECKPOINTS).glob("*.zip"), reverse=True)
    for path in (*checkpoints, folder / _folder.MODEL):
        with contextlib.suppress(ArchiveError):
            return str(read_manifest(path).writer)
    return "it left no archive that says which"


def _scans(data: ScanDataset, validation: ScanDataset | None) -> dict[str, dict[str, object]]:
    """What a resumed training knows its scans by."""
    scans = {"training": data} | ({} if validation is None else {"validation": validation})
    return {
        use: {"name": scan.name, "patterns": len(scan), "N": scan.N, "fingerprint": fingerprint(scan)}
        for use, scan in scans.items()
    }


def _check_scans(path: Path, scans: Mapping[str, Mapping[str, object]]) -> None:
    """Refuse to go on with another scan than the run was begun with."""
    if not path.is_file():  # of an older version
        return
    try:
        before = json.loads(path.read_text("utf-8"))
        known = {use: scan["fingerprint"] for use, scan in before.items()}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error!r:.200}.", "Start anew with --overwrite.") from error
    if known != {use: scan["fingerprint"] for use, scan in scans.items()}:
        raise DataError(
            f"The run was begun with other data: {_named(before)}; now it is {_named(scans)}.",
            "Resume with the same files, --measurement and --nphotons, or start anew with --overwrite.",
        )


def _named(scans: Mapping[str, Mapping[str, object]]) -> str:
    return " and ".join(
        f"'{str(scan.get('name'))[:80]}' for {use[:20]} ({scan.get('patterns')} patterns, "
        f"{str(scan.get('fingerprint'))[:8]})"
        for use, scan in scans.items()
    )
