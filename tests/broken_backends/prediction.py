"""Reconstructors wrong in their predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy_backend import NumpyReconstructor
from ptychopinn_numpy.training import Model

from broken_backends.registry import broken
from ptychopinn.config import InferConfig
from ptychopinn.config.infer import ProbeSource
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import (
    PatchBatch,
    Prediction,
)
from ptychopinn.training import IlluminationArrays


class Deaf(Monitor):
    """Passes reports on and never hears that it was cancelled."""

    def __init__(self, other: Monitor) -> None:
        super().__init__(lambda p: other.report(p.stage, p.done, p.total, p.figures))


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
