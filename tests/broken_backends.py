"""Reconstructors that are each wrong in one way, and the tests of the kit that must find it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

import array_api_compat.numpy
import numpy as np
from numpy_backend import NumpyOptions, NumpyReconstructor
from ptychopinn_numpy.training import Model, StepSearch

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.bundle import Manifest
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.infer import ProbeSource
from ptychopinn.config.train import SimulateObjects
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.errors import ArchiveError, Cancelled, ConfigError, UsageError
from ptychopinn.hookspecs import hookimpl
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import (
    Capability,
    PatchBatch,
    Prediction,
    ReconstructorSpec,
    TrainResult,
)
from ptychopinn.simulate import simulate_scan
from ptychopinn.training import IlluminationArrays, TrainingPlan
from ptychopinn.training.base import Predict
from ptychopinn.typing import AnyArray, StrPath

ClassT = TypeVar("ClassT", bound=type[NumpyReconstructor])


@dataclass(frozen=True)
class Broken:
    """A class and the names of the tests that it must fail; no other may fail."""

    cls: type[NumpyReconstructor]
    fails: frozenset[str]
    fresh: bool  # whether it shows in a fresh process alone

    @property
    def spec(self) -> ReconstructorSpec:
        return ReconstructorSpec(
            name=self.cls.backend,
            summary=f"Broken: {self.cls.backend}",
            import_string=f"{__name__}:{self.cls.__name__}",
            options=NumpyOptions,
            capabilities=frozenset({Capability.CPU, Capability.PINN, Capability.SUPERVISED, Capability.RESUME}),
        )


BROKEN: dict[str, Broken] = {}


def broken(*fails: str, fresh: bool = False) -> Callable[[ClassT], ClassT]:
    """Name a class after itself, and enter it."""

    def enter(cls: ClassT) -> ClassT:
        cls.backend = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        BROKEN[cls.backend] = Broken(cls, frozenset(fails), fresh)
        return cls

    return enter


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """All of them."""
    return [one.spec for one in BROKEN.values()]


class Deaf(Monitor):
    """Passes reports on and never hears that it was cancelled."""

    def __init__(self, other: Monitor) -> None:
        super().__init__(lambda p: other.report(p.stage, p.done, p.total, p.figures))


@broken()
class Healthy(NumpyReconstructor):
    """Nothing is wrong with it."""


# Prediction


class Bent(NumpyReconstructor):
    """Its batches of patches are not what they were."""

    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        raise NotImplementedError

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        prediction = super().infer(data, config, monitor=monitor)

        def batches() -> Iterator[PatchBatch]:
            for batch in prediction.batches:
                bent = self.bend(batch, data)
                if len(bent.indices):
                    yield bent

        return replace(prediction, batches=batches())


@broken("test_every_pattern_comes_once", "test_what_follows_is_computed_with_the_library")
class DropsAPattern(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        kept = batch.indices < len(data) - 1
        return PatchBatch(batch.indices[kept], batch.patches[kept])


@broken("test_every_pattern_comes_once")
class DropsRaggedBatches(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        kept = slice(0) if len(batch.indices) < 5 and len(data) < 9 else slice(None)
        return PatchBatch(batch.indices[kept], batch.patches[kept])


@broken("test_every_pattern_comes_once", "test_what_follows_is_computed_with_the_library")
class RepeatsABatch(NumpyReconstructor):
    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        prediction = super().infer(data, config, monitor=monitor)

        def batches() -> Iterator[PatchBatch]:
            batch = None
            for batch in prediction.batches:
                yield batch
            if batch is not None:
                yield batch

        return replace(prediction, batches=batches())


@broken("test_patches_have_their_shape_and_dtype")
class GivesDoublePrecision(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        return PatchBatch(batch.indices, batch.patches.astype(np.complex128))


@broken("test_patches_have_their_shape_and_dtype")
class GivesShortIndices(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        return PatchBatch(batch.indices.astype(np.int32), batch.patches)  # type: ignore[arg-type]


@broken("test_patches_lie_upright")
class TransposesPatches(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        return PatchBatch(batch.indices, batch.patches.swapaxes(1, 2))


@broken("test_patches_lie_upright")
class GivesTheTwin(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        return PatchBatch(batch.indices, batch.patches[:, ::-1, ::-1].conj())


@broken("test_the_batch_size_does_not_matter")
class DependsOnTheBatch(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        return PatchBatch(batch.indices, batch.patches * np.float32(1 + 1e-4 * len(batch.indices)))


@broken("test_the_dose_does_not_matter")
class DependsOnTheDose(Bent):
    def bend(self, batch: PatchBatch, data: ScanDataset) -> PatchBatch:
        counts = np.float32(fit_scaling(data).mean_counts)
        return PatchBatch(batch.indices, batch.patches * (1 + np.float32(1e-2) * np.log(counts)))


class Misled(NumpyReconstructor):
    """Infers from another scan, settings or monitor than were given."""

    def mislead(self, data: ScanDataset, config: InferConfig, monitor: Monitor) -> tuple[Any, Any, Any]:
        raise NotImplementedError

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        data, config, monitor = self.mislead(data, config, monitor)
        return super().infer(data, config, monitor=monitor)


@broken("test_counts_and_amplitudes_are_told_apart")
class TakesAmplitudesForCounts(Misled):
    def mislead(self, data: ScanDataset, config: InferConfig, monitor: Monitor) -> tuple[Any, Any, Any]:
        return replace(data, measurement=Measurement.COUNTS), config, monitor


@broken("test_the_probe_asked_for_is_used")
class HasOneProbe(Misled):
    def mislead(self, data: ScanDataset, config: InferConfig, monitor: Monitor) -> tuple[Any, Any, Any]:
        return data, config.model_copy(update={"probe_source": ProbeSource.MODEL}), monitor


@broken("test_inference_is_cancelled_between_batches")
class InfersToTheEnd(Misled):
    def mislead(self, data: ScanDataset, config: InferConfig, monitor: Monitor) -> tuple[Any, Any, Any]:
        return data, config, Deaf(monitor)


@broken("test_inference_tells_how_far_it_is")
class InfersInSilence(Misled):
    def mislead(self, data: ScanDataset, config: InferConfig, monitor: Monitor) -> tuple[Any, Any, Any]:
        class Quiet(Monitor):
            def report(self, *args: Any, **kwargs: Any) -> None:
                pass

            @property
            def cancelled(self) -> bool:
                return monitor.cancelled

        return data, config, Quiet()


@broken("test_an_empty_scan_gives_no_batch")
class LooksAtTheFirstPattern(Misled):
    def mislead(self, data: ScanDataset, config: InferConfig, monitor: Monitor) -> tuple[Any, Any, Any]:
        np.asarray(data.patterns[0])  # there is none in an empty scan
        return data, config, monitor


@broken("test_the_scan_is_left_as_it_was")
class ChangesTheScanItInfers(Misled):
    def mislead(self, data: ScanDataset, config: InferConfig, monitor: Monitor) -> tuple[Any, Any, Any]:
        data.scan_index[...] += 1
        return data, config, monitor


@broken("test_the_probe_explains_the_counts")
class ScalesTwice(NumpyReconstructor):
    """Counts taken for amplitudes: the probe is in counts, not in their root."""

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        prediction = super().infer(data, config, monitor=monitor)
        factor = np.float32(np.sqrt(fit_scaling(data).mean_counts)) if len(data) else np.float32(1)
        return replace(prediction, probe=prediction.probe * factor)


@broken("test_the_probe_explains_the_counts")
class KeepsOneMode(NumpyReconstructor):
    def _build(self, illumination: IlluminationArrays, seed: int) -> Model:
        return super()._build(replace(illumination, probe=illumination.probe[:1]), seed)


@broken("test_another_n_is_refused")
class TakesAnyN(NumpyReconstructor):
    def _check(self, data: ScanDataset) -> None:
        pass


@broken("test_untrained_it_does_nothing")
class GuessesUntrained(NumpyReconstructor):
    def trained_model(self) -> Model:
        size = self._config.N
        return self._model or Model(0.2, IlluminationArrays(np.ones((1, size, size), np.complex64) / size, np.zeros(2)))


# Arrays of its own


class DeviceArray(np.ndarray[Any, Any]):
    """An array that lies on a device."""


class DeviceLibrary(ArrayLibrary):
    """NumPy as on a device: its arrays are of another type than those of the host."""

    def __init__(self, name: str = "a device") -> None:
        super().__init__(array_api_compat.numpy, name=name)

    @property
    def budget_bytes(self) -> int:
        return 1 << 30  # with none the host would do what follows

    def from_host(self, array: AnyArray) -> Array:
        return np.array(array).view(DeviceArray)

    def to_host(self, array: Array) -> AnyArray:
        return np.array(array)


class Doubtful(DeviceLibrary):
    """Adds windows a pixel too far."""

    def add_windows(self, canvas: Array, windows: Array, corners: Array) -> Array:
        return super().add_windows(canvas, windows, corners + 1)


class OnADevice(NumpyReconstructor):
    """Predicts there."""

    device_library = DeviceLibrary()

    @property
    def library(self) -> ArrayLibrary:
        return self.device_library

    def _predictor(self, *args: Any) -> tuple[Array, Predict]:
        library = self.library
        probe, predict = super()._predictor(*args)
        return library.from_host(probe), lambda counts: library.from_host(predict(library.to_host(counts)))


@broken()
class HealthyOnADevice(OnADevice):
    """Nothing is wrong with it either."""


@broken("test_arrays_are_those_of_the_library")
class KeepsPatchesOnTheHost(OnADevice):
    def _predictor(self, *args: Any) -> tuple[Array, Predict]:
        probe, predict = super()._predictor(*args)
        return probe, lambda counts: self.library.to_host(predict(counts))


@broken("test_arrays_are_those_of_the_library")
class KeepsTheProbeOnTheHost(OnADevice):
    def _predictor(self, *args: Any) -> tuple[Array, Predict]:
        probe, predict = super()._predictor(*args)
        return self.library.to_host(probe), predict


@broken("test_arrays_are_those_of_the_library")
class NamesAnotherLibrary(NumpyReconstructor):
    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        return replace(super().infer(data, config, monitor=monitor), library=DeviceLibrary())


@broken("test_arrays_are_those_of_the_library")
class KeepsPatternsOfAnotherLibrary(OnADevice):
    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        prediction = super().infer(data, config, monitor=monitor)
        patterns = None if prediction.patterns is None else Patterns(data, DeviceLibrary("another device"))
        return replace(prediction, patterns=patterns)


@broken("test_what_follows_is_computed_with_the_library")
class HasADoubtfulLibrary(OnADevice):
    device_library = Doubtful()


# Training


class Mistaught(NumpyReconstructor):
    """Trains otherwise than it was asked to, or tells it otherwise."""

    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config

    def after(self, result: TrainResult) -> TrainResult:
        return result

    def train(
        self,
        data: ScanDataset,
        config: TrainConfig,
        *,
        validation: ScanDataset | None = None,
        checkpoint_dir: StrPath | None = None,
        monitor: Monitor = NULL_MONITOR,
    ) -> TrainResult:
        rest: dict[str, Any] = {"validation": validation, "checkpoint_dir": checkpoint_dir, "monitor": monitor}
        data, config = self.before(data, config, rest)
        return self.after(super().train(data, config, **rest))


@broken("test_the_loss_falls")
class NeverLearns(Mistaught):
    def after(self, result: TrainResult) -> TrainResult:
        losses = result.history["loss"]
        return replace(result, history={**result.history, "loss": losses[:1] * len(losses)})


@broken("test_the_history_has_its_columns")
class ForgetsTheTime(Mistaught):
    def after(self, result: TrainResult) -> TrainResult:
        if not result.history["epoch"]:
            return result
        return replace(result, history={k: v for k, v in result.history.items() if k != "seconds"})


@broken("test_the_same_training_gives_the_same_model")
class IsNotSeeded(Mistaught):
    trainings: ClassVar[Iterator[int]] = itertools.count(1)

    def after(self, result: TrainResult) -> TrainResult:
        assert self._model is not None
        self._model = replace(self._model, step=self._model.step * (1 + 1e-6 * next(self.trainings)))
        return result


@broken("test_two_instances_do_not_disturb_each_other")
class SharesItsModel(Mistaught):
    newest: ClassVar[list[Model]] = []

    def after(self, result: TrainResult) -> TrainResult:
        assert self._model is not None
        self.newest[:] = [self._model]
        return result

    def trained_model(self) -> Model:
        own = super().trained_model()
        return next((m for m in self.newest if m.illumination.probe.shape == own.illumination.probe.shape), own)

    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        self.newest[:] = [super()._from_arrays(arrays)]
        return self.newest[0]


@broken("test_a_cancelled_training_can_be_used")
class TrainsToTheEnd(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if not rest["monitor"].cancelled:
            rest["monitor"] = Deaf(rest["monitor"])
        return data, config


@broken("test_cancelled_before_it_begins_it_can_be_used")
class WillNotBeginCancelled(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if rest["monitor"].cancelled:
            raise Cancelled("The training was cancelled.")
        return data, config


@broken("test_training_tells_how_far_it_is")
class CountsDown(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        other: Monitor = rest["monitor"]

        class Down(Monitor):
            def report(self, stage: str, done: int, total: int = 0, figures: Mapping[str, float] | None = None) -> None:
                other.report(stage, total - done, total, figures)

            @property
            def cancelled(self) -> bool:
                return other.cancelled

        rest["monitor"] = Down()
        return data, config


@broken("test_a_killed_training_is_resumed")
class BeginsAnew(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        rest["checkpoint_dir"] = None
        return data, config


@broken("test_a_validation_is_told_of")
class ValidatesNothing(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        rest["validation"] = None
        return data, config


@broken("test_the_scan_is_left_as_it_was")
class ChangesTheScan(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        data.scan_index[...] += 1
        return data, config


@broken("test_what_stands_at_bad_pixels_does_not_matter")
class SeesBadPixels(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return replace(data, bad_pixels=np.zeros_like(data.bad_pixels)), config


@broken("test_what_stands_at_bad_values_does_not_matter")
class SeesBadValues(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return replace(data, bad_values=None), config


@broken("test_a_placeholder_is_no_known_object")
class BelievesPlaceholders(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        guess = data.object_guess
        if guess is None or np.ptp(np.abs(guess)) == 0:
            noise = np.random.default_rng(0).random((200, 200)) + 0.5
            data = replace(data, object_guess=noise.astype(np.complex64))
        return data, config


@broken("test_an_empty_scan_is_refused")
class TrainsOnNothing(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return (data, config) if len(data) else (simulate_scan(SimulationConfig(N=32, rows=3, cols=3)), config)


@broken("test_what_it_cannot_do_is_refused")
class IgnoresSimulatedObjects(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config.model_copy(update={"simulate_objects": SimulateObjects.OFF})


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresASetting(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config.model_copy(update={"weight_averaging": 0.99})


@broken("test_a_model_setting_acts_or_is_refused")
class IgnoresAModelSetting(NumpyReconstructor):
    def __init__(self, model: ModelConfig, options: Any = None) -> None:
        super().__init__(model.model_copy(update={"n_filters_scale": None}), options)
        self._config = model


class ActsOnTheOther(Mistaught):
    """What is changed with a setting acts; the setting itself does not."""

    acts = False

    def after(self, result: TrainResult) -> TrainResult:
        assert self._model is not None
        if self.acts:
            self._model = replace(self._model, step=1.01 * self._model.step)
        return result


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresNllWeight(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config.model_copy(update={"nll_weight": 1.0})


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresGradientClipAlgorithm(ActsOnTheOther):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        self.acts = config.gradient_clip is not None
        default = TrainConfig()
        names = ("gradient_clip", "gradient_clip_algorithm")
        return data, config.model_copy(update={name: getattr(default, name) for name in names})


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresSimulateProbes(ActsOnTheOther):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        self.acts = config.simulate_objects is not SimulateObjects.OFF
        default = TrainConfig()
        names = ("simulate_objects", "simulate_probes")
        return data, config.model_copy(update={name: getattr(default, name) for name in names})


@broken("test_a_model_setting_acts_or_is_refused")
class IgnoresProbeBig(ActsOnTheOther):
    def __init__(self, model: ModelConfig, options: Any = None) -> None:
        default = ModelConfig()
        names = ("architecture", "probe_big")
        super().__init__(model.model_copy(update={name: getattr(default, name) for name in names}), options)
        self.acts = model.architecture is not default.architecture


@broken("test_a_training_setting_acts_or_is_refused")
class RefusesTheSeed(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if config.seed:
            raise ConfigError("There is no chance here.", "Leave the seed out.")
        return data, config


@broken("test_it_trains_each_model_type")
class ClaimsTooMuch(NumpyReconstructor):
    def _make_fit(self, model: Model, plan: TrainingPlan) -> StepSearch:
        if plan.weights.realspace_mae:
            raise UsageError("Known patches are of no use.")
        return super()._make_fit(model, plan)


@broken("test_it_trains_on_every_size")
class IsTooNarrow(NumpyReconstructor):
    def _make_fit(self, model: Model, plan: TrainingPlan) -> StepSearch:
        if self._config.N > 32:
            raise MemoryError
        return super()._make_fit(model, plan)


# Archives


@broken("test_what_is_saved_is_the_model")
class SavesItsFirstModel(Mistaught):
    first: Model | None = None

    def after(self, result: TrainResult) -> TrainResult:
        self.first = self.first or self._model
        return result

    def _to_arrays(self, model: Model) -> dict[str, AnyArray]:
        return super()._to_arrays(self.first or model)


@broken("test_a_fresh_process_predicts_the_same", fresh=True)
class RemembersWhatItSaved(NumpyReconstructor):
    saved: ClassVar[dict[str, Model]] = {}

    def save(self, path: StrPath) -> None:
        super().save(path)
        assert self._model is not None
        self.saved[str(path)] = self._model

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        instance = super().load(path, options)
        instance._model = cls.saved[str(path)]
        return instance


@broken("test_the_archive_says_what_it_is")
class SignsWithAnotherName(NumpyReconstructor):
    def _manifest(self) -> Manifest:
        manifest = super()._manifest()
        return manifest.model_copy(update={"writer": manifest.writer.model_copy(update={"backend": "torch"})})


@broken("test_a_loaded_model_can_be_trained_on")
class CannotGoOn(Mistaught):
    loaded = False

    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if self.loaded:
            raise UsageError("This model is done.")
        return data, config

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        instance = super().load(path, options)
        instance.loaded = True
        return instance


@broken("test_an_archive_that_does_not_fit_is_refused")
class TakesAnyArchive(NumpyReconstructor):
    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        try:
            return super().load(path, options)
        except ArchiveError:
            return cls(ModelConfig(), options)


# Registration


@broken("test_the_signatures_are_those_of_the_protocol")
class HasItsOwnSignature(NumpyReconstructor):
    def infer(self, data: ScanDataset, config: InferConfig, monitor: Monitor = NULL_MONITOR) -> Prediction:
        return super().infer(data, config, monitor=monitor)


@broken("test_it_has_the_model_that_was_asked_for")
class ForgetsItsModel(NumpyReconstructor):
    @property
    def model(self) -> ModelConfig:
        return ModelConfig(N=self._config.N)


# Archives of others


@broken("test_what_is_saved_is_the_model")
class ReadsAnotherLayout(NumpyReconstructor):
    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        model = super()._from_arrays(arrays)
        return replace(model, step=model.step * 1.1)
