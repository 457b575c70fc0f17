"""The PyTorch reconstructor: train, infer, save, load."""

from __future__ import annotations

import logging
import math
from importlib import metadata
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ptychopinn.bundle import ArchiveKind, Manifest, TrainingSummary, Writer, read_bundle, write_bundle
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.infer import InferConfig, ProbeSource
from ptychopinn.config.model import ModelConfig, ModelType
from ptychopinn.config.train import DetectorOffset, SimulateObjects, TrainConfig
from ptychopinn.data.batches import GroupBatches, training_subset
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import Scaling, circle, fit_scaling, probe_in_counts
from ptychopinn.data.splits import split_by_space
from ptychopinn.data.truth import TruthPatches
from ptychopinn.errors import ArchiveError, ConfigError, DataError, ResourceError, UsageError
from ptychopinn.forward import detector_ramp
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import Prediction, TrainResult, TrainStatus
from ptychopinn.schedule import TrainingClock
from ptychopinn.simulate.stream import ObjectStream
from ptychopinn.solvers import choose_probe
from ptychopinn.streaming import stream_patches
from ptychopinn.typing import ComplexArray, FloatArray, StrPath
from ptychopinn_torch.batches import EpochDataset, to_tensor
from ptychopinn_torch.model import Illumination, Model, model_arrays, model_from_arrays
from ptychopinn_torch.objective import Objective
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.training import (
    EpochKeeper,
    StepControl,
    TrainingModule,
    make_logger,
    quiet_lightning,
    run_lightning,
)

_log = logging.getLogger("ptychopinn.torch")
# Of allocators and libraries that raise a plain RuntimeError.
_MEMORY_SIGNS = ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED")


def choose_device(accelerator: Accelerator) -> torch.device:
    """The device for an option.

    Raises
    ------
    ResourceError
        If CUDA was asked for and is not there.
    """
    if accelerator is Accelerator.CPU or (accelerator is Accelerator.AUTO and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ResourceError(
            "CUDA was asked for, but this PyTorch sees no CUDA device.",
            "Use --accelerator cpu, or install a CUDA build of torch.",
        )
    return torch.device("cuda", torch.cuda.current_device())


class TorchReconstructor:
    """A network in PyTorch; see `ptychopinn.reconstructor.Reconstructor` for the contract.

    Parameters
    ----------
    model:
        Configuration of the network.
    options:
        Where and how to compute.
    """

    def __init__(self, model: ModelConfig, options: TorchOptions | None = None) -> None:
        self._config = model
        self._options = options or TorchOptions()
        self._device = choose_device(self._options.accelerator)
        self._model: Model | None = None
        self._summary: TrainingSummary | None = None
        _log.info("Computing on %s.", self._device)

    @property
    def model(self) -> ModelConfig:
        """The configuration of the network."""
        return self._config

    @property
    def device(self) -> torch.device:
        """The device in use."""
        return self._device

    def train(
        self,
        data: ScanDataset,
        config: TrainConfig,
        *,
        validation: ScanDataset | None = None,
        checkpoint_dir: StrPath | None = None,
        monitor: Monitor = NULL_MONITOR,
    ) -> TrainResult:
        """Fit to a scan; an instance that has weights goes on from them.

        Parameters
        ----------
        data:
            The scan.
        config:
            How.
        validation:
            Another scan to validate on; without one, ``validation_fraction`` holds back a region of ``data``.
        checkpoint_dir:
            Where checkpoints are left; a training resumes from the newest there.
        monitor:
            Told of every step, and asked whether to stop.

        Raises
        ------
        ConfigError, DataError
            Before any work, if data and configuration contradict each other.
        TrainingError
            If the loss stops being finite; the instance then has its last good weights.
        """
        quiet_lightning()
        self._check(data)
        supervised = self._config.model_type is ModelType.SUPERVISED
        try:
            weights = config.loss_weights(self._config)
            config.refuse_idle(self._config, validates=validation is not None or config.validation_fraction > 0)
        except ValueError as error:
            raise ConfigError(f"The training cannot be set up: {error}.", "Change or leave out one of them.") from error
        if validation is None and config.validation_fraction > 0:
            inner, outer = split_by_space(data, config.validation_fraction)
            data, validation = data.select(inner), data.select(outer)
        data = training_subset(data, config)
        scaling = fit_scaling(data)
        model = self._model or self._new_model(data, scaling, config, monitor)
        model.to(self._device)

        def groups_of(scan: ScanDataset, scale: Scaling) -> tuple[GroupBatches, Objective]:
            probe = _probe(model, scale)
            truth = None
            if supervised or weights.realspace_mae:
                truth = TruthPatches(scan, probe, scale.mean_counts, self._config.patch_size)
            groups = GroupBatches(scan, self._config, config, truth)
            objective = Objective(self._config, weights, scale.mean_counts, _good(scan).to(self._device), groups.reach)
            return groups, objective

        simulated_only = config.simulate_objects is SimulateObjects.ONLY
        groups, objective = (
            groups_of(data, scaling) if not simulated_only else self._unsupervised(data, scaling, config)
        )
        stream = None
        if config.simulate_objects is not SimulateObjects.OFF:
            stream = ObjectStream(
                _probe(model, scaling), scaling.mean_counts, data.bad_pixels, config.seed, self._config.patch_size
            )
        training = EpochDataset(
            None if simulated_only else groups,
            stream,
            groups.batches_per_epoch,
            config.batch_size * groups.group_size,
        )
        validation_set, validation_objective = None, None
        if validation is not None:
            self._check(validation)
            held, validation_objective = groups_of(validation, fit_scaling(validation))
            validation_set = EpochDataset(held, None, held.batches_per_epoch, 0)
        clock = TrainingClock(config, -(-groups.batches_per_epoch // config.accumulate_grad_batches))
        follow = config.detector_offset is DetectorOffset.TRAIN and not supervised and not simulated_only
        module = TrainingModule(model, objective, validation_objective, config, follow_offset=follow, clock=clock).to(
            self._device
        )
        store = None
        if checkpoint_dir is not None:
            store = CheckpointStore(checkpoint_dir, top_k=config.checkpoint_top_k, mode=config.checkpoint_mode)
        figures = ["loss", *([] if simulated_only else objective.names)]
        figures += ["simulated"] * (stream is not None) + ["validation_loss"] * (validation is not None)
        keeper = EpochKeeper(module, training, config, store, self._manifest(), figures)
        logger = make_logger(self._options.logger, None if checkpoint_dir is None else Path(checkpoint_dir).parent)
        keeper.resume()
        limit = config.epoch_limit
        total = 0 if limit is None else limit * groups.batches_per_epoch
        control = StepControl(clock, monitor, keeper, total, done=clock.epoch * groups.batches_per_epoch)
        try:
            if monitor.cancelled:
                keeper.status = TrainStatus.CANCELLED
            elif clock.out_of_time and clock.epoch > 0:  # a fresh training does at least one step
                keeper.status = TrainStatus.TIMED_OUT
            elif not clock.out_of_epochs:
                run_lightning(
                    module,
                    training,
                    validation_set,
                    config=config,
                    options=self._options,
                    device=self._device,
                    callbacks=[keeper, control],
                    logger=logger,
                )
        except Exception as error:
            if _out_of_memory(error):
                raise ResourceError(
                    f"Memory ran out on {self._device} with {config.batch_size} groups a batch.",
                    "Lower --batch-size (and raise --accumulate-grad-batches as much), or use --precision bf16.",
                ) from error
            raise
        finally:
            self._model = keeper.best_model().eval()
        result = TrainResult(
            status=keeper.status,
            history=keeper.history,
            seconds=clock.seconds,
            patterns_seen=module.patterns_seen,
        )
        self._summary = TrainingSummary(
            status=result.status.value,
            epochs=clock.epoch,
            seconds=result.seconds,
            patterns_seen=result.patterns_seen,
            figures={k: v[-1] for k, v in result.history.items() if v and math.isfinite(v[-1])},
            config=config.model_dump(mode="json"),
        )
        return result

    def _unsupervised(self, data: ScanDataset, scaling: Scaling, config: TrainConfig) -> tuple[GroupBatches, Objective]:
        """Groups that only say how long an epoch is, when every training pattern is simulated."""
        groups = GroupBatches(data, self._config, config)
        weights = config.loss_weights(self._config)
        return groups, Objective(self._config, weights, scaling.mean_counts, _good(data).to(self._device), groups.reach)

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        """Predict every pattern's patch; an empty scan gives no batch.

        Raises
        ------
        UsageError
            If this instance is not trained.
        DataError
            If the patterns are of another size.
        """
        model = self._trained()
        self._check(data)
        model.to(self._device).eval()
        if len(data) == 0:
            return Prediction(data.probe, self._config.patch_size, iter(()))
        offset = model.illumination.offset_px.cpu().numpy()
        scaling = fit_scaling(data)
        light = model.illumination
        if config.probe_source is ProbeSource.SCAN:
            unit = _unit_probe(data, scaling, circular_mask=self._config.probe_mask)
            light = Illumination(unit, offset).to(self._device)
        with torch.inference_mode():
            probe = light()
        good = _good(data).to(self._device)

        def predict(counts: FloatArray) -> ComplexArray:
            with torch.inference_mode():
                patches: ComplexArray = (
                    model(to_tensor(counts, self._device), scaling.mean_counts, probe, good).cpu().numpy()
                )
                return patches

        batches = stream_patches(
            data,
            config.inference_batch_size,
            predict,
            out_of_memory=_out_of_memory,
            monitor=monitor,
        )
        in_counts = probe.cpu().numpy() * np.float32(math.sqrt(scaling.mean_counts))
        return Prediction(in_counts, self._config.patch_size, batches)

    def save(self, path: StrPath) -> None:
        """Write this instance as a model archive, which is read back before it gets its name.

        Raises
        ------
        UsageError
            If this instance is not trained.
        """
        manifest = self._manifest().model_copy(update={"training": self._summary})
        write_bundle(path, manifest, model_arrays(self._trained()))

    @classmethod
    def load(cls, path: StrPath, options: TorchOptions | None = None) -> Self:
        """Read a model archive.

        Raises
        ------
        ArchiveError
            If it is damaged, a checkpoint, or does not fit.
        """
        bundle = read_bundle(path)
        if bundle.manifest.kind is not ArchiveKind.MODEL:
            raise ArchiveError(
                f"{path} is a {bundle.manifest.kind} of a training, not a model.",
                "Give the model archive of the run; --resume goes on with the training.",
            )
        instance = cls(bundle.manifest.model, options)
        instance._model = model_from_arrays(bundle.manifest.model, dict(bundle.weights), instance._options.precision)
        instance._summary = bundle.manifest.training
        return instance

    def _check(self, data: ScanDataset) -> None:
        if data.N != self._config.N:
            raise DataError(
                f"The patterns of '{data.name}' are {data.N} x {data.N}; this model has N = {self._config.N}.",
                f"Train a model with N = {data.N}, or crop or pad the patterns.",
            )

    def _trained(self) -> Model:
        if self._model is None:
            raise UsageError("This reconstructor is not trained.", "Call train(), or load() a model.")
        return self._model

    def _manifest(self) -> Manifest:
        writer = Writer(
            ptychopinn=metadata.version("ptychopinn"),
            backend="torch",
            backend_version=f"{metadata.version('ptychopinn-torch')} (torch {torch.__version__})",
        )
        return Manifest(writer=writer, model=self._config)

    def _new_model(self, data: ScanDataset, scaling: Scaling, config: TrainConfig, monitor: Monitor) -> Model:
        """Fresh weights, and the scan's probe, refined first if asked."""
        follow = config.detector_offset is not DetectorOffset.NONE
        offset = scaling.detector_offset_px if follow else np.zeros(2)
        unit = _unit_probe(data, scaling, circular_mask=self._config.probe_mask)
        if config.probe_refinement:
            guess = unit * np.float32(math.sqrt(scaling.mean_counts))
            ramp = detector_ramp(offset, data.N)
            choice = choose_probe(data, guess, ramp, config.probe_refinement, seed=config.seed, monitor=monitor)
            if choice.refined:
                unit, offset = choice.probe / np.float32(math.sqrt(scaling.mean_counts)), np.zeros(2)
                if self._config.probe_mask:
                    unit = unit * circle(data.N)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
            torch.default_generator.manual_seed(config.seed)
            return Model(self._config, Illumination(unit, offset), self._options.precision)


def _unit_probe(data: ScanDataset, scaling: Scaling, *, circular_mask: bool) -> ComplexArray:
    """The scan's probe over the root of its mean counts, without the detector's offset."""
    probe = probe_in_counts(data, scaling, follow_offset=False, circular_mask=circular_mask)
    return probe / np.float32(math.sqrt(scaling.mean_counts))


def _probe(model: Model, scaling: Scaling) -> ComplexArray:
    """The model's probe in counts of a scan."""
    with torch.no_grad():
        probe: ComplexArray = model.illumination().cpu().numpy()
    return probe * np.float32(math.sqrt(scaling.mean_counts))


def _good(data: ScanDataset) -> torch.Tensor:
    """(N, N) float32, DC at [0, 0]: 1 where the detector measured."""
    return to_tensor(np.fft.ifftshift(~data.bad_pixels).astype(np.float32))


def _out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch says that memory ran out, on the GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)
