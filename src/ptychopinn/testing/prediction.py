"""Tests of predictions: completeness, independence of batches, orientation, and scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, cast

import numpy as np
import pytest

from ptychopinn.arrays import ArrayLibrary
from ptychopinn.config import InferConfig
from ptychopinn.config.infer import Synchronise
from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.errors import Cancelled, DataError
from ptychopinn.forward import expected_counts
from ptychopinn.monitor import NULL_MONITOR, Monitor, Progress
from ptychopinn.reconstruction import reconstruct
from ptychopinn.reconstructor import Prediction, Reconstructor
from ptychopinn.simulate import true_patches
from ptychopinn.stitching import patch_weights
from ptychopinn.testing.backend import OFFSET_PX, BackendSuite, Trained, difference
from ptychopinn.typing import ComplexArray, FloatArray

_BATCH = 5
_TURNS: dict[str, Callable[[ComplexArray], ComplexArray]] = {
    "upright": lambda p: p,
    "transposed": lambda p: p.swapaxes(1, 2),
    "upside down": lambda p: p[:, ::-1],
    "mirrored": lambda p: p[:, :, ::-1],
    "turned by half": lambda p: p[:, ::-1, ::-1],
    "turned left": lambda p: np.rot90(p, 1, (1, 2)),
    "turned right": lambda p: np.rot90(p, -1, (1, 2)),
    "transposed the other way": lambda p: p[:, ::-1, ::-1].swapaxes(1, 2),
    "conjugated": lambda p: p.conj(),
    "conjugated and turned by half": lambda p: p[:, ::-1, ::-1].conj(),
}


class PredictionConformance(BackendSuite):
    """Tests of `infer`."""

    @pytest.fixture(scope="class")
    @classmethod
    def by_gridsize(cls) -> Callable[[int], Trained]:
        """A training per gridsize."""
        return cache(lambda gridsize: cls.fit(cls.make_scan(), model={"gridsize": gridsize}, train={"nepochs": 1}))

    def test_patches_have_their_shape_and_dtype(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-040] [REC-005] [REC-007]"""
        prediction = trained.reconstructor.infer(scan, InferConfig(inference_batch_size=_BATCH))
        size, to_host = prediction.patch_size, prediction.library.to_host
        assert 0 < size <= scan.N
        assert to_host(prediction.probe).dtype == np.complex64
        assert tuple(prediction.probe.shape) == scan.probe.shape
        for batch in prediction.batches:
            assert batch.indices.dtype == np.int64
            assert batch.indices.ndim == 1
            assert to_host(batch.patches).dtype == np.complex64
            assert tuple(batch.patches.shape) == (len(batch.indices), size, size)
            assert 0 < len(batch.indices) <= _BATCH

    def test_arrays_are_those_of_the_library(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-049] [REC-013] Probe and patches are of the library that the prediction names, and on its device."""
        prediction = trained.reconstructor.infer(scan, InferConfig(inference_batch_size=_BATCH))
        library = prediction.library
        assert isinstance(library, ArrayLibrary)
        for dtype in (np.float32, np.complex64, np.int64):
            values = np.arange(6).astype(dtype).reshape(2, 3)
            back = library.to_host(library.from_host(values))
            assert isinstance(back, np.ndarray)
            assert back.dtype == dtype
            np.testing.assert_array_equal(back, values)
        for array in (prediction.probe, *(batch.patches for batch in prediction.batches)):
            values = library.to_host(array)
            own = library.from_host(values)
            assert type(array) is type(own), f"arrays of {library} are of another type"
            np.testing.assert_array_equal(library.to_host(array * 0.5 + own * 0.5), values)  # refused across devices
        if prediction.patterns is not None:
            assert prediction.patterns.library is library
            assert len(prediction.patterns) == len(scan)

    def test_what_follows_is_computed_with_the_library(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-049] [REC-013] To the object that NumPy makes of the same patches."""
        config = InferConfig(synchronise=Synchronise.OFF, refine=1)  # solving phases would need every pattern
        own = trained.reconstructor
        both = (own, cast(Reconstructor, _OnHost(own)))
        found, expected = (reconstruct(r, scan, config, judged=False) for r in both)
        assert isinstance(found.object, np.ndarray)
        amplitude = float(np.abs(expected.object).mean())
        np.testing.assert_allclose(found.object, expected.object, atol=self.tolerances.devices * amplitude)

    @pytest.mark.parametrize("count", [1, _BATCH - 1, _BATCH, _BATCH + 1, 25])
    def test_every_pattern_comes_once(
        self, scan: ScanDataset, by_gridsize: Callable[[int], Trained], gridsize: int, count: int
    ) -> None:
        """[CONF-041] [REC-005] [REC-006] In whole and in ragged batches, for every gridsize."""
        part, config = scan.select(np.arange(count)), InferConfig(inference_batch_size=_BATCH)
        batches = list(by_gridsize(gridsize).reconstructor.infer(part, config).batches)
        indices = [index for batch in batches for index in batch.indices.tolist()]
        assert sorted(indices) == list(range(count))

    def test_an_empty_scan_gives_no_batch(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-041] [REC-006]"""
        prediction = trained.reconstructor.infer(scan.select(np.zeros(0, np.int64)), InferConfig())
        assert sum(len(batch.indices) for batch in prediction.batches) == 0
        assert prediction.patch_size == trained.reconstructor.infer(scan, InferConfig()).patch_size

    @pytest.mark.parametrize("batch", [1, 7, 24, 26])
    def test_the_batch_size_does_not_matter(self, scan: ScanDataset, trained: Trained, batch: int) -> None:
        """[CONF-042] [REC-006]"""
        found, whole = (trained.patches(scan, inference_batch_size=size) for size in (batch, len(scan)))
        assert difference(found, whole) <= self.tolerances.rounding

    @pytest.mark.parametrize("factor", [0.5, 1000.0])
    def test_the_dose_does_not_matter(self, scan: ScanDataset, trained: Trained, factor: float) -> None:
        """[CONF-043] Counts times a constant give the same patches."""
        other = replace(scan, counts_per_unit=factor).as_checked()  # else pixels without a count would seem dead
        assert difference(trained.patches(other), trained.patches(scan)) <= self.tolerances.dose

    def test_counts_and_amplitudes_are_told_apart(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-043] [DATA-002] The same scan as counts and as amplitudes gives the same patches."""
        roots = np.sqrt(np.asarray(scan.patterns, np.float32))
        other = replace(scan, patterns=roots, measurement=Measurement.AMPLITUDE)
        assert difference(trained.patches(other), trained.patches(scan)) <= self.tolerances.dose

    def test_patches_lie_upright(self, scan: ScanDataset, learned: Trained) -> None:
        """[CONF-044] [PHYS-003] What was learned looks like the object, and less so when it is turned or mirrored."""
        prediction = learned.reconstructor.infer(scan, InferConfig())
        patches, size = learned.patches(scan), prediction.patch_size
        assert scan.object_guess is not None
        truth = true_patches(scan.object_guess, scan.positions, size)
        weights = patch_weights(prediction.library.to_host(prediction.probe), size)
        likeness = {name: _patch_correlation(turn(patches), truth, weights) for name, turn in _TURNS.items()}
        assert max(likeness, key=lambda name: likeness[name]) == "upright", likeness
        assert likeness["upright"] > self.tolerances.likeness, (
            "the network learned too little for this test; set `learn`"
        )

    @pytest.mark.parametrize("modes", [1, 3])
    def test_the_probe_explains_the_counts(self, modes: int) -> None:
        """[CONF-045] [REC-007] In counts of the scan, every mode, with the offset of the detector in it."""
        scan = self.make_scan(detector_offset_px=OFFSET_PX, probe_modes=modes)
        found = self.fit(scan, train={"nepochs": 1, "detector_offset": "estimate"})
        probe = _probe(found, scan)
        mean_counts = float(scan.counts(slice(None)).sum(dtype=np.float64) / len(scan))
        assert float((np.abs(probe) ** 2).sum()) == pytest.approx(mean_counts, rel=0.1)
        assert scan.object_guess is not None
        modelled = np.sqrt(expected_counts(scan.object_guess, probe, scan.positions))
        measured = np.sqrt(scan.counts(slice(None)))
        factor = (measured * modelled).sum() / (modelled**2).sum()
        assert np.linalg.norm(measured - factor * modelled) < self.tolerances.residual * np.linalg.norm(measured)

    def test_the_probe_asked_for_is_used(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-046] The model's, or the scan's own."""
        curved = np.exp(1j * np.linspace(-1.5, 1.5, scan.N) ** 2).astype(np.complex64)
        other = replace(scan, probe=scan.probe * curved)
        mine, own = (_probe(trained, other, probe_source=source) for source in ("model", "scan"))
        assert _overlap(mine, scan.probe) > _overlap(mine, other.probe)
        assert _overlap(own, other.probe) > _overlap(own, scan.probe)

    @pytest.mark.parametrize("act", ["train", "infer"])
    def test_another_n_is_refused(self, trained: Trained, act: str) -> None:
        """[CONF-047] [REC-010] With both numbers."""
        own = self.model_config().N
        wide = self.make_scan(N=2 * own if own < max(SUPPORTED_N) else own // 2, rows=3, cols=3)
        acts: dict[str, Callable[[], object]] = {
            "train": lambda: self.fit(wide),
            "infer": lambda: trained.patches(wide),
        }
        with pytest.raises(DataError) as refused:
            acts[act]()
        assert str(own) in str(refused.value)
        assert str(wide.N) in str(refused.value)

    def test_inference_tells_how_far_it_is(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-048] [REC-009] [MON-001]"""
        seen: list[Progress] = []
        config = InferConfig(inference_batch_size=_BATCH)
        for _ in trained.reconstructor.infer(scan, config, monitor=Monitor(seen.append)).batches:
            pass
        done = [p.done for p in seen if p.stage == "predict"]
        assert done == sorted(done)
        assert len(done) >= len(scan) // _BATCH
        assert {(done[-1], p.total) for p in seen if p.stage == "predict"} == {(len(scan), len(scan))}

    def test_inference_is_cancelled_between_batches(self, scan: ScanDataset, trained: Trained) -> None:
        """[CONF-048] [REC-009]"""
        monitor = Monitor()
        config = InferConfig(inference_batch_size=_BATCH)
        batches = trained.reconstructor.infer(scan, config, monitor=monitor).batches
        next(batches)
        monitor.cancel()
        with pytest.raises(Cancelled):
            next(batches)


class _OnHost:
    """A reconstructor whose predictions are converted to NumPy arrays."""

    def __init__(self, own: Reconstructor) -> None:
        self._own, self.model = own, own.model

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        prediction = self._own.infer(data, config, monitor=monitor)
        to_host = prediction.library.to_host
        batches = (replace(batch, patches=to_host(batch.patches)) for batch in prediction.batches)
        return Prediction(to_host(prediction.probe), prediction.patch_size, batches)


def _probe(trained: Trained, scan: ScanDataset, **config: Any) -> ComplexArray:
    """The probe of a prediction, (modes, N, N) complex64 on the host."""
    prediction = trained.reconstructor.infer(scan, InferConfig(**config))
    probe: ComplexArray = prediction.library.to_host(prediction.probe)
    return probe


def _patch_correlation(patches: ComplexArray, truth: ComplexArray, weights: FloatArray) -> float:
    """Correlation of deviations from the mean, each patch turned to the phase of its truth."""
    phase = np.angle((truth * patches.conj() * weights).sum(axis=(1, 2), keepdims=True))
    found = patches * np.exp(1j * phase)

    def deviation(p: ComplexArray) -> ComplexArray:
        mean: ComplexArray = p - (p * weights).sum(axis=(1, 2), keepdims=True) / weights.sum()
        return mean

    a, b = deviation(found), deviation(truth)
    norm = np.sqrt((np.abs(a) ** 2 * weights).sum() * (np.abs(b) ** 2 * weights).sum())
    return float((a * b.conj() * weights).sum().real / max(norm, 1e-30))


def _overlap(one: ComplexArray, other: ComplexArray) -> float:
    """Of two probes, 1 when they are equal up to a factor."""
    return float(abs(np.vdot(one, other)) / (np.linalg.norm(one) * np.linalg.norm(other)))
