"""Base class of reconstructors that train a network in any framework."""

from __future__ import annotations

import contextlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import JsonValue

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.batched_inference import stream_patches
from ptychopinn.bundle import (
    ArchiveKind,
    Bundle,
    Manifest,
    TrainingSummary,
    Writer,
    read_bundle,
    write_bundle,
    writer_named,
)
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config.build import expect
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.infer import InferConfig, ProbeSource
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import ResolvedTrainConfig, StartProbe, TrainConfig
from ptychopinn.cores import CoreLoad, StarvationWatch
from ptychopinn.data.conditions import conditions_of
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.from_arrays import mend_every_pattern, mend_scan
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.errors import ArchiveError, ConfigError, DataError, UsageError
from ptychopinn.failures import is_out_of_memory, memory_explained
from ptychopinn.forks import check_not_forked
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import Prediction, TrainingInterrupted, TrainResult, TrainStatus
from ptychopinn.training.illumination import (
    IlluminationArrays,
    estimate_illumination,
    illumination_tensors,
    initial_illumination,
    initial_tensors,
    scan_probe,
)
from ptychopinn.training.loggers import open_logger
from ptychopinn.training.loop import Fit
from ptychopinn.training.plan import TrainingPlan, check_settings, good_pixels, make_plan, training_scans
from ptychopinn.training.ranks import Action, Ranks, TrainingTask
from ptychopinn.training.state import TrainingState
from ptychopinn.training.tensors import NETWORK
from ptychopinn.training.threads import choose_threads, thread_tensors
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, StrPath

_log = logging.getLogger(__name__)
ModelT = TypeVar("ModelT")
Predict = Callable[[Array], Array]
STARTED_FROM = "started_from"
"""Name in a manifest's ``extra``: which archive gave the weights that a training started from."""


class NetworkReconstructor(ABC, Generic[ModelT]):
    """Base class of network reconstructors; see `ptychopinn.reconstructor.Reconstructor` for the contract.

    A subclass sets the class attributes and implements the methods that need a framework. ``options`` is an instance of
    `options_model`; None takes the defaults.
    """

    backend: ClassVar[str]  # as --backend takes it
    distribution: ClassVar[str]
    framework: ClassVar[str]  # name and version
    options_model: ClassVar[type[ExecutionOptions]]

    def __init__(self, model: ModelConfig, options: Any = None) -> None:
        self._config = model
        self._options: Any = self.options_model() if options is None else options
        self._model: ModelT | None = None
        self._summary: TrainingSummary | None = None
        self._start_tensors: dict[str, AnyArray] = {}
        self._started_from: JsonValue = None

    @property
    def model(self) -> ModelConfig:
        """The configuration of the network."""
        return self._config

    @property
    @abstractmethod
    def device(self) -> object:
        """The device in use; ``str`` of it is shown to the user."""

    @property
    def library(self) -> ArrayLibrary:
        """The library of the predicted arrays; stitching and refinement compute with it, on the same device."""
        return NUMPY

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes; the defaults of batch size and learning rate depend on it."""
        return False

    @abstractmethod
    def _build(self, illumination: IlluminationArrays, seed: int) -> ModelT:
        """A model with fresh weights."""

    @abstractmethod
    def _to_arrays(self, model: ModelT) -> dict[str, AnyArray]:
        """The tensors of a model under framework-neutral names, in the layout of the archive."""

    @abstractmethod
    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> ModelT:
        """The inverse of `_to_arrays`; raises ArchiveError if the tensors do not fit."""

    @abstractmethod
    def _unit_probe(self, model: ModelT) -> ComplexArray:
        """The model's probe, (modes, N, N) complex64 in root mean counts, with the detector's offset."""

    def _prepare_training(self) -> None:
        """Import what only trainings need; called before any work."""
        return

    @property
    def _needs_own_threads(self) -> bool:
        """Whether the framework computes with threads that a fork of this process would lack."""
        return False

    def _check_process(self) -> None:
        if self._needs_own_threads:
            check_not_forked(self.framework)

    @property
    def _max_threads(self) -> int:
        """Number of threads that the framework would compute a network with; 1 if the number does not matter."""
        return 1

    def _use_threads(self, count: int) -> AbstractContextManager[None]:
        """Compute networks with so many threads in a block."""
        return contextlib.nullcontext()

    def _open_ranks(self) -> AbstractContextManager[Ranks]:
        """The processes that train together; by default this one alone."""
        return contextlib.nullcontext(Ranks())

    @classmethod
    def follow(cls, options: Any, ranks: Ranks) -> None:
        """Train with other processes, as the first one orders.

        Raises
        ------
        ResourceError
            If the first process, or another one, fails or is lost.
        """
        if ranks.next_order().action is Action.END:
            return
        task: TrainingTask = ranks.share()
        ranks.together(lambda: cls(task.model, options).prepare_to_follow(task, ranks))()

    def prepare_to_follow(self, task: TrainingTask, ranks: Ranks) -> Callable[[], None]:
        """Prepare a training that another process leads; the function that is returned does it."""
        self._prepare_training()
        plan = make_plan(task.model, task.config, task.data, task.validation, task.unit_probe)
        fit = self._make_fit(self._from_arrays(task.model_arrays), replace(plan, ranks=ranks))
        fit.restore(task.state)

        def follow() -> None:
            with self._memory_explained(), self._use_threads(task.threads):
                fit.follow()

        return follow

    @abstractmethod
    def _make_fit(self, model: ModelT, plan: TrainingPlan) -> Fit[ModelT]:
        """Prepare a training that changes the model in place."""

    @abstractmethod
    def _predictor(
        self, model: ModelT, scan_probe: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[Array, Predict]:
        """Prepare a prediction.

        Parameters
        ----------
        scan_probe:
            (modes, N, N) complex64 in root mean counts, with the detector's offset: a probe to use instead of the
            model's.
        mean_counts:
            Mean photons per pattern.
        good:
            (N, N) float32, DC at [0, 0]: 1 where the detector measured.

        Returns
        -------
        The probe in use, like ``scan_probe``; and a function from (b, C, N, N) float32 counts, C =
        `ModelConfig.patterns_per_patch`, to (b, n, n) complex64 patches of the first pattern of each. All are arrays of
        `library`.
        """

    def _out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception says that memory ran out, in the framework's words too."""
        return is_out_of_memory(error)

    def start_from(self, path: StrPath) -> None:
        """Start the next training from the tensors of an archive whose names and shapes this network has.

        A network for wider patterns has all tensors of one for narrower patterns, which reconstruct the coarse object,
        and those of further iterations. The archive that is written after the training says where it started.

        Raises
        ------
        ArchiveError
            If the archive is damaged.
        ConfigError
            If no tensor fits.
        """
        bundle = read_bundle(path)
        self._start_tensors = {name: array for name, array in bundle.weights.items() if name.startswith(NETWORK)}
        self._started_from = {
            "N": bundle.manifest.model.N,
            "writer": str(bundle.manifest.writer),
            "sha256": dict(bundle.manifest.sha256),
        }

    def _start(self, illumination: IlluminationArrays, seed: int) -> ModelT:
        """A model with fresh weights, except those that `start_from` gave."""
        model = self._build(illumination, seed)
        if not self._start_tensors:
            return model
        arrays = self._to_arrays(model)
        there = {k: v for k, v in self._start_tensors.items() if k in arrays and v.shape == arrays[k].shape}
        if not there:
            raise ConfigError(
                "No tensor of the archive to start from fits this network.", "Give one with the same n_filters_scale."
            )
        _log.info("Starting from %d of the %d tensors of another network.", len(there), len(self._start_tensors))
        return self._from_arrays(arrays | there)

    def _open_checkpoints(
        self, folder: Path | None, config: ResolvedTrainConfig
    ) -> tuple[CheckpointStore | None, Bundle | None]:
        """The checkpoints of a training, and the newest one, which says what the training started from."""
        if folder is None:
            return None, None
        store = CheckpointStore(folder, top_k=config.checkpoint_top_k, mode=config.checkpoint_mode)
        checkpoint = store.newest()
        if checkpoint is not None:
            self._started_from = checkpoint.manifest.extra.get(STARTED_FROM)
        return store, checkpoint

    def train(
        self,
        data: ScanDataset,
        config: TrainConfig,
        *,
        validation: ScanDataset | None = None,
        checkpoint_dir: StrPath | None = None,
        monitor: Monitor = NULL_MONITOR,
    ) -> TrainResult:
        """Train on a scan. A trained instance continues from its weights, with its own or the scan's probe.

        Scans that have not been checked yet are checked as files are (`ptychopinn.data.from_arrays.mend_scan`).

        Parameters
        ----------
        config:
            The settings; ``start_probe`` selects the probe of a trained instance.
        validation:
            Another scan for validation. Without it, ``validation_fraction`` holds out a region of ``data``.
        checkpoint_dir:
            Directory of the checkpoints; a training resumes from the newest one there.
        monitor:
            Gets the progress of every step, and can cancel.

        Raises
        ------
        ConfigError, DataError
            If data and configuration contradict each other; raised before any work.
        TrainingError
            If the loss is not finite; the instance then has its last good weights.
        ResourceError
            If memory runs out.
        TrainingInterrupted
            At a KeyboardInterrupt; the instance has the model so far.
        UsageError
            In a fork of a process that has computed.
        """
        self._check_process()
        load = CoreLoad()
        config = self.resolve(expect(TrainConfig, config))
        self._prepare_training()
        for scan in (data, validation):
            if scan is not None:
                self._check(scan)
        data, validation = mend_scan(data), None if validation is None else mend_scan(validation)
        data.log_mean_probe()
        validates = validation is not None or config.validation_fraction > 0
        check_settings(self._config, config, validates=validates)  # before the probe is refined
        if self._model is None and config.start_probe is not None:
            raise ConfigError(
                f"start_probe is {config.start_probe}, but this training does not continue from a model.",
                "Leave it out, or start from a model.",
            )
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        logger = open_logger(self._options.logger, None if folder is None else folder.parent)
        with contextlib.closing(logger), self._open_ranks() as ranks:
            data, validation = training_scans(data, validation, config, self._config)
            store, checkpoint = self._open_checkpoints(folder, config)
            illumination = initial_illumination(self._config, checkpoint)
            model = self._model
            if model is None or config.start_probe is StartProbe.SCAN:
                if illumination is None:
                    illumination = estimate_illumination(
                        data, fit_scaling(data), self._config, config, monitor, self.library
                    )
                model = (
                    self._start(illumination, config.seed)
                    if model is None
                    else self._with_illumination(model, illumination)
                )
            unit_probe = self._unit_probe(model)
            plan = replace(make_plan(self._config, config, data, validation, unit_probe), ranks=ranks)
            _log.info(
                "Training in batches of %d groups at a learning rate of %g on %s.",
                plan.training.groups.largest_batch,
                config.learning_rate,
                self.device,
            )
            fit = self._make_fit(model, plan)
            threads = choose_threads(self._options.threads, self._max_threads, load, checkpoint)
            arrays = self._to_arrays(model)
            start = {**initial_tensors(arrays), **thread_tensors(threads)}
            state = TrainingState(plan, fit, store, self._manifest(), monitor, start)
            state.watch = None if self.on_gpu or ranks.count > 1 else StarvationWatch()
            state.resume()
            interrupt: KeyboardInterrupt | None = None
            try:
                if not state.is_over():
                    if ranks.count > 1:
                        held = data, validation, unit_probe
                        with plan.clock.paused():
                            ranks.start(TrainingTask(self._config, config, *held, arrays, fit.state(), threads))
                    with self._memory_explained(), self._use_threads(threads):
                        fit.run(state, logger)
            except KeyboardInterrupt as signal:
                interrupt, state.status = signal, TrainStatus.CANCELLED
            finally:
                self._model = fit.model(state.final_weights())
        self._summary = TrainingSummary(
            status=state.status.value,
            epochs=plan.clock.epoch,
            seconds=plan.clock.seconds,
            patterns_seen=state.patterns_seen,
            figures={k: v[-1] for k, v in state.history.items() if v and math.isfinite(v[-1])},
            config=config.model_dump(mode="json"),
            scan=conditions_of(data, plan.training.scaling),
        )
        result = TrainResult(
            status=state.status,
            history=state.history,
            seconds=self._summary.seconds,
            patterns_seen=state.patterns_seen,
            warnings=tuple(state.warnings),
        )
        if interrupt is not None:
            raise TrainingInterrupted(result) from interrupt
        return result

    def resolve(self, config: TrainConfig) -> ResolvedTrainConfig:
        """Fill in the defaults of the device (`ptychopinn.reconstructor.ResolvesTraining`)."""
        return config.resolved(on_gpu=self.on_gpu)

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        """Predict the patch of every pattern; an empty scan gives no batch.

        A scan that did not pass the checks of files yet does it now (`ptychopinn.data.from_arrays.mend_every_pattern`).

        Raises
        ------
        UsageError
            If this instance is not trained.
        DataError
            If the patterns are of another size, or the checks refuse the scan.
        ResourceError
            If memory does not suffice for even one pattern.
        """
        self._check_process()
        expect(InferConfig, config)
        model = self.trained_model()
        self._check(data)
        data = mend_every_pattern(data)
        library = self.library
        if len(data) == 0:
            return Prediction(library.from_host(data.probe), self._config.patch_size, iter(()), library)
        scaling = fit_scaling(data)
        probe_of_scan = (
            scan_probe(data, scaling, self._config, follow_offset=True)
            if config.probe_source is ProbeSource.SCAN
            else None
        )
        with self._memory_explained():
            probe, predict = self._predictor(model, probe_of_scan, scaling.mean_counts, good_pixels(data))
            patterns = Patterns(data, library)
        batches = stream_patches(
            patterns,
            config.batch_size(self._config.patterns_per_patch * data.N**2, on_host=library.on_host),
            predict,
            patterns_per_patch=self._config.patterns_per_patch,
            out_of_memory=self._out_of_memory,
            monitor=monitor,
        )
        probe = probe * math.sqrt(scaling.mean_counts)
        kept = None if library.on_host else patterns  # patterns on a device stay there for refinement
        return Prediction(probe, self._config.patch_size, batches, library, kept)

    def save(self, path: StrPath) -> None:
        """Write this instance as a model archive, and read it back to check it.

        Raises UsageError if this instance is not trained.
        """
        manifest = self._manifest().model_copy(update={"training": self._summary})
        write_bundle(path, manifest, self._to_arrays(self.trained_model()))

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        """Read a model archive, of this backend or another.

        Raises
        ------
        ArchiveError
            If it is damaged, does not fit, or is a checkpoint.
        ResourceError
            If memory does not suffice.
        """
        bundle = read_bundle(path)
        if bundle.manifest.kind is not ArchiveKind.MODEL:
            raise ArchiveError(
                f"{path} is a {bundle.manifest.kind} of a training, not a model.",
                "Give the model archive of the run, or continue the training with --resume.",
            )
        instance = cls(bundle.manifest.model, options)
        with writer_named(bundle.manifest), instance._memory_explained():
            instance._model = instance._from_arrays(bundle.weights)
        instance._summary = bundle.manifest.training
        return instance

    def _check(self, data: ScanDataset) -> None:
        if not isinstance(data, ScanDataset):
            raise UsageError(
                f"A scan is needed; this is of the type {type(data).__name__}.", "Give ptychopinn.read(PATH)."
            )
        if data.N != self._config.N:
            raise DataError(
                f"The patterns of '{data.name}' are {data.N} x {data.N}; this model has N = {self._config.N}.",
                f"Train a model with N = {data.N}, or crop or pad the patterns.",
            )

    def _memory_explained(self) -> AbstractContextManager[None]:
        """Raise a `ResourceError` where the framework says that memory ran out, but not in a batch."""
        return memory_explained(self._out_of_memory, str(self.device))

    def _with_illumination(self, model: ModelT, illumination: IlluminationArrays) -> ModelT:
        """A copy of a model with another illumination."""
        return self._from_arrays(self._to_arrays(model) | illumination_tensors(illumination))

    def trained_model(self) -> ModelT:
        """The backend's own model as it was trained or loaded. Raises UsageError if there is none yet."""
        if self._model is None:
            raise UsageError("This reconstructor is not trained.", "Call train(), or load() a model.")
        return self._model

    def _manifest(self) -> Manifest:
        writer = Writer(
            ptychopinn=metadata.version("ptychopinn"),
            backend=self.backend,
            backend_version=f"{metadata.version(self.distribution)} ({self.framework})",
        )
        extra = {} if self._started_from is None else {STARTED_FROM: self._started_from}
        return Manifest(writer=writer, model=self._config, extra=extra)
