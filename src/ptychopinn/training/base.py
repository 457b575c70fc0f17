"""A reconstructor around a network, whatever framework computes it."""

from __future__ import annotations

import contextlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.batched_inference import stream_patches
from ptychopinn.bundle import ArchiveKind, Manifest, TrainingSummary, Writer, read_bundle, write_bundle, writer_named
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.infer import InferConfig, ProbeSource
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import ResolvedTrainConfig, StartProbe, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.errors import ArchiveError, ConfigError, DataError, ResourceError, UsageError
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import Prediction, TrainResult
from ptychopinn.training.illumination import (
    IlluminationArrays,
    estimate_illumination,
    illumination_tensors,
    initial_illumination,
    initial_tensors,
    scan_probe,
)
from ptychopinn.training.loggers import RunLogger, open_logger
from ptychopinn.training.plan import TrainingPlan, check_settings, good_pixels, make_plan, training_scans
from ptychopinn.training.state import Trainable, TrainingState
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, StrPath

_log = logging.getLogger(__name__)
ModelT = TypeVar("ModelT")
ModelT_co = TypeVar("ModelT_co", covariant=True)
Predict = Callable[[Array], Array]


class Fit(Trainable, Protocol[ModelT_co]):
    """A training under way in one framework: the model, its optimizer, and the loop around them."""

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """Train until `state` says stop or the epochs are done."""
        ...

    def model(self, averaged: Mapping[str, AnyArray]) -> ModelT_co:
        """A model of its own with these weights, ready to predict."""
        ...


class NetworkReconstructor(ABC, Generic[ModelT]):
    """What every backend does around its network; see `ptychopinn.reconstructor.Reconstructor` for the contract.

    A subclass names itself and supplies the methods that need a framework.

    Parameters
    ----------
    model:
        Configuration of the network.
    options:
        Where and how to compute, an instance of `options_model`; None takes the defaults.
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

    @property
    def model(self) -> ModelConfig:
        """The configuration of the network."""
        return self._config

    @property
    @abstractmethod
    def device(self) -> object:
        """The device in use; its text is shown to the user."""

    @property
    def library(self) -> ArrayLibrary:
        """Whose arrays predictions are: what follows a prediction is computed with it, where they are."""
        return NUMPY

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes: what it does best is what trainings do unless they are told otherwise."""
        return False

    @abstractmethod
    def _build(self, illumination: IlluminationArrays, seed: int) -> ModelT:
        """A model with fresh weights."""

    @abstractmethod
    def _to_arrays(self, model: ModelT) -> dict[str, AnyArray]:
        """A model's tensors under framework-neutral names, in the archive's layout."""

    @abstractmethod
    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> ModelT:
        """The inverse; raises ArchiveError if they do not fit."""

    @abstractmethod
    def _unit_probe(self, model: ModelT) -> ComplexArray:
        """(modes, N, N) complex64: the model's probe in root mean counts, the detector's offset in it."""

    def _prepare_training(self) -> None:
        """Import what only trainings need, before any work."""
        return

    @abstractmethod
    def _make_fit(self, model: ModelT, plan: TrainingPlan) -> Fit[ModelT]:
        """Make ready to train a model in place."""

    @abstractmethod
    def _predictor(
        self, model: ModelT, scan_probe: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[Array, Predict]:
        """Make ready to predict.

        Parameters
        ----------
        model:
            The model.
        scan_probe:
            (modes, N, N) complex64, a scan's probe in root mean counts, the detector's offset in it, to use instead of
            the model's.
        mean_counts:
            Mean photons a pattern.
        good:
            (N, N) float32, DC at [0, 0]: 1 where the detector measured.

        Returns
        -------
        The probe in root mean counts, the offset in it; and (b, C, N, N) float32 counts, C that of
        `ModelConfig.patterns_per_patch`, to (b, n, n) complex64 patches, those of the first patterns. All of them are
        arrays of `library`.
        """

    @abstractmethod
    def _out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception says that memory ran out."""

    def train(
        self,
        data: ScanDataset,
        config: TrainConfig,
        *,
        validation: ScanDataset | None = None,
        checkpoint_dir: StrPath | None = None,
        monitor: Monitor = NULL_MONITOR,
    ) -> TrainResult:
        """Fit to a scan; an instance that has weights goes on from them, and from its probe or the scan's.

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
        ResourceError
            If memory runs out.
        """
        config = self.resolve(config)
        self._prepare_training()
        for scan in (data, validation):
            if scan is not None:
                self._check(scan)
        validates = validation is not None or config.validation_fraction > 0
        check_settings(self._config, config, validates=validates)  # before the probe is refined
        if self._model is None and config.start_probe is not None:
            raise ConfigError(
                f"start_probe is {config.start_probe}, but this training goes on from no model.",
                "Leave it out, or start from a model.",
            )
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        logger = open_logger(self._options.logger, None if folder is None else folder.parent, self.distribution)
        with contextlib.closing(logger):
            data, validation = training_scans(data, validation, config, self._config)
            store, illumination = None, None
            if folder is not None:
                store = CheckpointStore(folder, top_k=config.checkpoint_top_k, mode=config.checkpoint_mode)
                illumination = initial_illumination(self._config, store.newest())
            model = self._model
            if model is None or config.start_probe is StartProbe.SCAN:
                if illumination is None:
                    illumination = estimate_illumination(
                        data, fit_scaling(data), self._config, config, monitor, self.library
                    )
                model = (
                    self._build(illumination, config.seed)
                    if model is None
                    else self._with_illumination(model, illumination)
                )
            plan = make_plan(self._config, config, data, validation, self._unit_probe(model))
            _log.info(
                "Training in batches of %d groups at a learning rate of %g.",
                plan.training.groups.largest_batch,
                config.learning_rate,
            )
            fit = self._make_fit(model, plan)
            start = initial_tensors(self._to_arrays(model))
            state = TrainingState(plan, fit, store, self._manifest(), monitor, start)
            state.resume()
            try:
                if not state.is_over():
                    with self._translate_memory_errors():
                        fit.run(state, logger)
            finally:
                self._model = fit.model(state.final_weights())
        self._summary = TrainingSummary(
            status=state.status.value,
            epochs=plan.clock.epoch,
            seconds=plan.clock.seconds,
            patterns_seen=state.patterns_seen,
            figures={k: v[-1] for k, v in state.history.items() if v and math.isfinite(v[-1])},
            config=config.model_dump(mode="json"),
        )
        return TrainResult(
            status=state.status,
            history=state.history,
            seconds=self._summary.seconds,
            patterns_seen=state.patterns_seen,
        )

    def resolve(self, config: TrainConfig) -> ResolvedTrainConfig:
        """A training with what depends on the device filled in (`ptychopinn.reconstructor.ResolvesTraining`)."""
        return config.resolved(on_gpu=self.on_gpu)

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        """Predict every pattern's patch; an empty scan gives no batch.

        Raises
        ------
        UsageError
            If this instance is not trained.
        DataError
            If the patterns are of another size.
        ResourceError
            If memory does not suffice, not even for one pattern.
        """
        model = self._trained()
        self._check(data)
        library = self.library
        if len(data) == 0:
            return Prediction(library.from_host(data.probe), self._config.patch_size, iter(()), library)
        scaling = fit_scaling(data)
        probe_of_scan = (
            scan_probe(data, scaling, self._config, follow_offset=True)
            if config.probe_source is ProbeSource.SCAN
            else None
        )
        with self._translate_memory_errors():
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
        kept = None if library.on_host else patterns  # a device keeps them for what follows
        return Prediction(probe, self._config.patch_size, batches, library, kept)

    def save(self, path: StrPath) -> None:
        """Write this instance as a model archive, which is read back before it gets its name.

        Raises
        ------
        UsageError
            If this instance is not trained.
        """
        manifest = self._manifest().model_copy(update={"training": self._summary})
        write_bundle(path, manifest, self._to_arrays(self._trained()))

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        """Read a model archive, of this backend or another.

        Raises
        ------
        ArchiveError
            If it is damaged, a checkpoint, or does not fit.
        ResourceError
            If memory does not suffice.
        """
        bundle = read_bundle(path)
        if bundle.manifest.kind is not ArchiveKind.MODEL:
            raise ArchiveError(
                f"{path} is a {bundle.manifest.kind} of a training, not a model.",
                "Give the model archive of the run; --resume goes on with the training.",
            )
        instance = cls(bundle.manifest.model, options)
        with writer_named(bundle.manifest), instance._translate_memory_errors():
            instance._model = instance._from_arrays(bundle.weights)
        instance._summary = bundle.manifest.training
        return instance

    def _check(self, data: ScanDataset) -> None:
        if data.N != self._config.N:
            raise DataError(
                f"The patterns of '{data.name}' are {data.N} x {data.N}; this model has N = {self._config.N}.",
                f"Train a model with N = {data.N}, or crop or pad the patterns.",
            )

    @contextlib.contextmanager
    def _translate_memory_errors(self) -> Iterator[None]:
        """Raise a `ResourceError` where the framework says that memory ran out."""
        try:
            yield
        except Exception as error:
            if isinstance(error, MemoryError) or self._out_of_memory(error):
                raise ResourceError(
                    f"Memory ran out on {self.device}, not in a batch.",
                    "Free memory, train with a lower --n-filters-scale, or use another device.",
                ) from error
            raise

    def _with_illumination(self, model: ModelT, illumination: IlluminationArrays) -> ModelT:
        """A model with the same network and other illumination."""
        return self._from_arrays(self._to_arrays(model) | illumination_tensors(illumination))

    def _trained(self) -> ModelT:
        if self._model is None:
            raise UsageError("This reconstructor is not trained.", "Call train(), or load() a model.")
        return self._model

    def _manifest(self) -> Manifest:
        writer = Writer(
            ptychopinn=metadata.version("ptychopinn"),
            backend=self.backend,
            backend_version=f"{metadata.version(self.distribution)} ({self.framework})",
        )
        return Manifest(writer=writer, model=self._config)
