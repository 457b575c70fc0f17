"""The scan so far: its patterns, their patches, and their object."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Self

import numpy as np

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.assembly import PhaseRule, Stages, Synchronisation, synchronise
from ptychopinn.config.infer import InferConfig, ProbeSource, StreamConfig, Synchronise
from ptychopinn.data.bad_value_checks import find_marks
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.diagnostics import Findings, Problem, Severity
from ptychopinn.data.from_arrays import mend_measured
from ptychopinn.data.lazy_rows import LazyRows
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import Scaling, fit_scaling, scaling_of
from ptychopinn.data.statistics import PatternStatistics, pattern_statistics
from ptychopinn.data.units import StoredPatterns, resolve_dose
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.geometry import Frame, Windows, split_positions
from ptychopinn.interpolation import place_on_pixels
from ptychopinn.live.arrivals import Chunk, Rejection, Setup, check_chunk
from ptychopinn.live.marks import StreamMarks
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS, forward_residual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.patch_store import HostPatches
from ptychopinn.reconstruction import Reconstruction, patterns_to_refine, refine_and_assess
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.spill import SpillableRows
from ptychopinn.stitching import StitchedObject, Stitcher, patch_weights
from ptychopinn.synchronise import join_phases
from ptychopinn.tiles import Tiling, where_object_fits
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
_MAX_PIXELS = 1 << 27  # of the object (1 GiB of complex64), so that a wrong position does not use up the memory
_GROWTH = 0.25  # spare room of the object, as a fraction of its width
_RESYNCHRONISE_GROWTH = 1.5  # all phases are solved again when the number of patterns has grown by this factor
_BUDGET_UNIT = 1 << 19  # half of each MiB of the budget is for patterns, half for patches
_TABLE_BYTES = 1 << 26  # room for 8 million numbers; unused pages take no memory
_FIRST = 32  # number of patterns at which the phases are solved first
_SCALE_SHIFT = 0.01  # relative; patches are predicted again if the mean counts changed by more


def live_config(config: InferConfig | None) -> StreamConfig:
    """The settings of a stream; those that are not given have the defaults of streams.

    Raises
    ------
    ConfigError
        If ``predict_overlap`` or ``uncertainty`` is given, which need the whole scan, or a field that needs passes
        without ``refine``.
    """
    if config is not None and config.predict_overlap is not None:
        raise ConfigError(
            "predict_overlap needs the whole scan, but the patterns of a stream are predicted as they arrive.",
            "Leave it out.",
        )
    if config is not None and config.uncertainty:
        raise ConfigError(
            "Standard errors are of whole scans, and a stream may end after any pattern.",
            "Leave uncertainty out, and use 'infer' after the scan.",
        )
    return StreamConfig.of(config)


class LiveScan:
    """A scan that is being measured. Use it as a context manager, or `close` it.

    It needs memory for the object, for a batch, and for patterns and patches up to ``memory_budget_mb``; more of them
    are kept in temporary files.

    Raises
    ------
    ConfigError
        As in `live_config`.
    """

    def __init__(self, reconstructor: Reconstructor, config: InferConfig | None = None, name: str = "stream") -> None:
        self._reconstructor, self._config, self._name = reconstructor, live_config(config), name
        self._batch_size = self._config.batch_size(reconstructor.model.N**2)
        self._size = reconstructor.model.N
        self._setup = Setup()
        self._marks = StreamMarks((self._size, self._size))
        self._measurement: Measurement | None = None
        self._findings: list[Problem] = []
        self._patterns: SpillableRows | None = None
        self._placed: SpillableRows | None = None
        self._indices = SpillableRows((), np.int64, budget_bytes=_TABLE_BYTES)
        self._positions = SpillableRows((2,), np.float64, budget_bytes=2 * _TABLE_BYTES)
        self._scales = SpillableRows(
            (), np.float64, budget_bytes=_TABLE_BYTES
        )  # mean light of a pattern, in units, at each prediction
        self._corners: tuple[FloatArray, FloatArray] | None = None  # lowest and highest position
        self._known: set[int] = set()
        self._sum = np.zeros((self._size, self._size))  # sum of the measured values, as if a unit were one count
        self._statistics: PatternStatistics | None = None
        self._per_unit, self._assumed = 1.0, False  # the dose
        self._predicted = 0
        self._left_out = np.zeros(0, np.int64)  # slots of patterns that are no measurement, known at the end
        self._synchronised = 0
        self._how = Synchronisation(PhaseRule.ON)
        self.probe: ComplexArray | None = None  # (modes, N, N) complex64 in counts; None without an object
        self._stitcher: Stitcher | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release memory and temporary files."""
        for rows in (self._patterns, self._placed, self._indices, self._positions, self._scales):
            if rows is not None:
                rows.close()

    def __len__(self) -> int:
        """Number of patterns."""
        return len(self._known)

    @property
    def has_object(self) -> bool:
        """Whether anything has been predicted."""
        return self._predicted > 0

    @property
    def missing(self) -> int:
        """How many of the patterns up to the highest number have not arrived."""
        return max(self._known) + 1 - len(self._known) if self._known else 0

    def set_up(self, setup: Setup) -> Rejection | None:
        """Use what the producer says of the scan, unless patterns came before it or it does not fit the model."""
        shape = (self._size, self._size)
        if self._known:
            return Rejection("A setup arrived after patterns; it is ignored.", 0)
        if setup.probe is not None and setup.probe.shape[1:] != shape:
            return Rejection(f"A probe of shape {setup.probe.shape} arrived; the model has N = {self._size}.", 0)
        if setup.bad_pixels is not None and setup.bad_pixels.shape != shape:
            return Rejection(
                f"Bad pixels of shape {setup.bad_pixels.shape} arrived; the model has N = {self._size}.", 0
            )
        bad = np.zeros(shape, bool) if setup.bad_pixels is None else setup.bad_pixels
        if setup.probe is not None:
            try:
                scaling_of(np.where(bad, 0.0, 1.0), setup.probe, bad)
            except DataError as error:
                return Rejection(f"The probe cannot be used: {error.problem}", 0)
        self._setup, self._marks = setup, StreamMarks(shape, bad)
        return None

    def add(self, chunk: Chunk) -> tuple[int, int, list[Rejection]]:
        """Add patterns to the object.

        Returns
        -------
        Number of new patterns, number of repeated ones, which are ignored, and what was refused.

        Raises
        ------
        ConfigError
            If the scan's probe is needed but has not arrived.
        """
        if self._config.probe_source is ProbeSource.SCAN and self._setup.probe is None:
            raise ConfigError(
                "probe_source is scan, but no probe arrived with the stream.", "Send one first, or use the model's."
            )
        count = len(chunk)
        chunk = self._with_marks(chunk)
        chunk, refused = check_chunk(chunk, self._size, self._marks.given)
        problems = [refused] if refused is not None else []
        if len(chunk) and (problem := self._check_kind(chunk)) is not None:
            return 0, 0, [*problems, problem]
        new = self._new(chunk.indices)
        repeated = len(chunk) - int(new.sum())
        chunk = chunk.select(new)
        if (stray := self._too_far_away(chunk.positions)).any():
            where = chunk.positions[stray][0]
            problems.append(
                Rejection(
                    f"{int(stray.sum())} positions lie too far from the others (the first at y {where[0]:.6g}, x "
                    f"{where[1]:.6g} px); are they in object pixels?",
                    int(stray.sum()),
                )
            )
            chunk = chunk.select(~stray)
        if len(chunk):
            self._store(chunk)
            self._predict()
        _log.debug("%d patterns arrived, %d are new.", count, len(chunk))
        return len(chunk), repeated, problems

    def _with_marks(self, chunk: Chunk) -> Chunk:
        """Find marks of gaps, by the rule for files."""
        patterns = chunk.patterns
        if len(chunk) == 0 or patterns.shape[1:] != (self._size, self._size) or patterns.dtype.kind not in "iuf":
            return chunk  # refused, or nothing to look at
        return replace(chunk, bad_values=find_marks(patterns, self._marks.given, self._mean_before()))

    def _mean_before(self) -> FloatArray:
        """(N, N) mean of the values of each pixel, in the unit of the patterns; NaN if it has measured nothing."""
        mean = np.where(self._marks.times < len(self._indices), self._mean(), np.nan)
        return np.sqrt(mean) if self._measurement is Measurement.AMPLITUDE else mean

    def _mean(self) -> FloatArray:
        """(N, N) mean of the values of each pixel, as if a unit were one count; 0 at bad pixels."""
        count = len(self._indices)
        mean = self._sum / np.maximum(count - len(self._left_out) - self._marks.times, 1)
        return np.where(self._marks.bad_pixels(count), 0.0, mean)

    def stitched(self) -> tuple[StitchedObject, float] | None:
        """The object so far and its forward residual, or None.

        Raises DataError if the patterns for the residual have no photon.
        """
        if self._stitcher is None or self.probe is None:
            return None
        stitched = self._stitcher.result()
        data = self.data(np.arange(self._predicted))
        return stitched, forward_residual(
            stitched.object, stitched.frame.origin, self.probe, data, max_patterns=RESIDUAL_PATTERNS
        )

    def data(self, order: IntArray | None = None) -> ScanDataset:
        """The scan so far, in the order of the patterns' numbers, or the patterns in the slots ``order``.

        Raises DataError if no pattern has arrived.
        """
        if self._patterns is None or self._measurement is None:
            raise DataError("No pattern has arrived.", "Check that the producer runs and sends to this address.")
        if order is None:
            order = self._in_order()
        mean_units = self._mean()
        mean = float(mean_units.sum()) * self._per_unit
        dose = {"nphotons": mean, "nphotons_assumed": self._assumed} if mean > 0 else {}
        return ScanDataset(
            patterns=LazyRows(self._patterns, order),
            measurement=self._measurement,
            positions=self._positions[order],
            probe=self._scan_probe(),
            bad_pixels=self._marks.bad_pixels(len(self._indices)),
            bad_values=self._marks.bad_values(
                order, np.sqrt(mean_units) if self._measurement is Measurement.AMPLITUDE else mean_units
            ),
            metadata=self._setup.metadata.model_copy(update={"measurement": self._measurement, **dose}),
            counts_per_unit=self._per_unit,
            name=self._name,
            findings=tuple(self._findings),
        )

    @property
    def indices(self) -> IntArray:
        """(n,) int64, ascending: the numbers of the patterns, in the order of `data`."""
        return self._indices[self._in_order()]

    def finish(self, monitor: Monitor = NULL_MONITOR) -> Reconstruction:
        """Reconstruct the complete scan, as `ptychopinn.reconstruction.reconstruct` does.

        If the monitor is cancelled, refinement ends early.

        Raises
        ------
        DataError
            If there is no pattern, or no photon.
        """
        spoiled = self._mend()
        self._find_dose().log(_log, self._name)
        data, order = self.data(), self._in_order()
        stages = Stages(self._config, monitor)
        scaling = fit_scaling(data)
        self._predict_again(scaling, monitor, every=spoiled)
        assert self._placed is not None
        probe, library, _ = self._infer(order[:1], scaling)
        placed = HostPatches(LazyRows(self._placed, order), library)
        frame = Frame.around(data.positions, self._placed.shape[-1])
        self._stitcher = None  # its memory is needed
        patterns = patterns_to_refine(data, library, self._config)
        probe = library.from_host(probe)
        with library.session():
            place = where_object_fits(frame, data.N, library) or library
            tiling = Tiling(frame, place, data.positions, placed.shape[-1], library)
            stitched, how = synchronise(probe, patterns, placed, tiling, stages)
            return refine_and_assess(stitched, how, probe, patterns, stages)

    def _mend(self) -> bool:
        """Mend the complete scan by the rules for files; return whether patches were predicted with bad pixels.

        What a file is refused for is a warning here, because the patterns may be nowhere else.
        """
        data, order, findings = self.data(), self._in_order(), Findings()
        known = self._setup.metadata.nphotons is not None or self._per_unit != 1
        mended = mend_measured(data, findings, dose_is_known=known)
        findings.problems = [
            replace(one, severity=Severity.WARNING) if one.severity is Severity.ERROR else one
            for one in findings.problems
        ]
        findings.log(_log, self._name)
        self._findings.extend(findings.mended)
        new = mended.bad_pixels & ~data.bad_pixels
        self._marks.given = self._marks.given | new
        saturation = {"saturation_counts": mended.metadata.saturation_counts}
        self._setup = replace(self._setup, metadata=self._setup.metadata.model_copy(update=saturation))
        if mended.numbers is not None and len(mended):
            out = np.setdiff1d(np.arange(len(data)), mended.numbers)
            self._left_out = order[out]
            self._sum -= replace(data, counts_per_unit=1.0).counts(out).sum(axis=0, dtype=np.float64)
        return bool(new.any())

    def _in_order(self) -> IntArray:
        """Slots by ascending number of the patterns: of the predicted ones, or of all if none is predicted."""
        indices = self._indices[:]
        order = np.argsort(indices[: self._predicted] if self._predicted else indices).astype(np.int64)
        return order[~np.isin(order, self._left_out)]

    def _scan_probe(self) -> ComplexArray:
        """The scan's probe. Without one, any probe with energy, because the model has its own."""
        if self._setup.probe is not None:
            return self._setup.probe
        return np.ones((1, self._size, self._size), np.complex64) if self.probe is None else self.probe

    def _check_kind(self, chunk: Chunk) -> Rejection | None:
        if self._patterns is None:
            return None
        if chunk.measurement is not self._measurement:
            return Rejection(f"{chunk.measurement} arrived in a stream of {self._measurement}.", len(chunk))
        if not np.can_cast(chunk.patterns.dtype, self._patterns.dtype):
            return Rejection(
                f"{chunk.patterns.dtype} patterns arrived in a stream of {self._patterns.dtype}.", len(chunk)
            )
        return None

    def _new(self, indices: IntArray) -> BoolArray:
        """(b,) bool: which patterns are new. If a chunk has a new one twice, the first counts."""
        new = np.zeros(len(indices), bool)
        _, first = np.unique(indices, return_index=True)
        new[first] = True
        new &= np.array([int(number) not in self._known for number in indices], bool)
        return new

    def _too_far_away(self, positions: FloatArray) -> BoolArray:
        """(b,) bool: positions that would make the object too large."""
        stray = np.zeros(len(positions), bool)
        for number, at in enumerate(positions):
            low, high = (at, at) if self._corners is None else self._corners
            low, high = np.minimum(low, at), np.maximum(high, at)
            height, width = (high - low + self._size) * (1 + 2 * _GROWTH)
            stray[number] = height * width > _MAX_PIXELS
            if not stray[number]:
                self._corners = low, high
        return stray

    def _store(self, chunk: Chunk) -> None:
        if self._patterns is None:
            self._measurement = chunk.measurement
            budget = self._config.memory_budget_mb * _BUDGET_UNIT
            self._patterns = SpillableRows((self._size, self._size), chunk.patterns.dtype, budget_bytes=budget)
        self._patterns.append(chunk.patterns.astype(self._patterns.dtype, copy=False))
        self._indices.append(chunk.indices)
        self._positions.append(chunk.positions)
        self._known.update(chunk.indices.tolist())
        findings = self._marks.add(len(chunk), chunk.bad_values)
        findings.log(_log, self._name)
        self._findings.extend(findings.mended)
        start = len(self._patterns) - len(chunk)
        data = self.data(np.arange(start, len(self._patterns)))
        counts = replace(data, counts_per_unit=1.0, bad_pixels=self._marks.given).counts(slice(None))
        if chunk.bad_values is not None:
            chunk.bad_values.put(counts, slice(None), 0)
        self._sum += counts.sum(axis=0, dtype=np.float64)
        statistics = pattern_statistics(chunk.patterns, self._marks.given, chunk.bad_values)
        if self._statistics is not None:
            statistics = replace(
                statistics,
                peak=max(statistics.peak, self._statistics.peak),
                whole_squares=statistics.whole_squares and self._statistics.whole_squares,
            )
        self._statistics = statistics
        self._find_dose()

    def _find_dose(self) -> Findings:
        """Set the dose by the rule for files, and return its warnings, which are logged at the end."""
        findings = Findings()
        if self._statistics is not None and self._measurement is not None and self._patterns is not None:
            units = np.array([self._mean().sum()])  # a pattern, squared where that makes counts
            bad = self._marks.bad_pixels(len(self._indices))
            statistics = replace(self._statistics, sums=units, square_sums=units)
            stored = StoredPatterns("patterns", self._patterns.dtype, statistics, bad)
            dose = resolve_dose(stored, self._setup.metadata, self._measurement, None, findings)
            self._per_unit, self._assumed = (1.0, False) if dose is None else dose
        return findings

    def _infer(self, slots: IntArray, scaling: Scaling) -> tuple[ComplexArray, ArrayLibrary, ComplexArray]:
        """The probe in counts, the library of the prediction, and (b, n, n) patches on whole pixels, on the host."""
        data = replace(self.data(slots), scaling=scaling).as_checked()  # as they arrived
        prediction = self._reconstructor.infer(data, self._config)
        library = prediction.library
        _, fractions = split_positions(data.positions, prediction.patch_size)
        placed = np.empty((len(slots), prediction.patch_size, prediction.patch_size), np.complex64)
        for batch in prediction.batches:
            placed[batch.indices] = place_on_pixels(library.to_host(batch.patches), fractions[batch.indices])
        return library.to_host(prediction.probe), library, placed

    def _predict(self) -> None:
        """Predict the patterns that wait, and add them to the object. Before the first photon, do nothing."""
        assert self._patterns is not None
        if not self._mean().sum() > 0:
            return
        slots = np.arange(self._predicted, len(self._patterns))
        bad = self._marks.bad_pixels(len(self._indices))
        scaling = scaling_of(self._per_unit * self._mean(), self._scan_probe(), bad)
        self.probe, _, placed = self._infer(slots, scaling)
        if self._placed is None:
            budget = self._config.memory_budget_mb * _BUDGET_UNIT
            self._placed = SpillableRows(placed.shape[1:], np.complex64, budget_bytes=budget)
        self._placed.append(placed)
        self._scales.append(np.full(len(slots), scaling.mean_counts / self._per_unit))
        self._predicted = len(self._patterns)
        due = self._predicted >= max(_RESYNCHRONISE_GROWTH * self._synchronised, _FIRST)
        if due and self._config.synchronise is not Synchronise.OFF:
            self._synchronise()
        else:
            self._join(placed, self.data(slots).positions)

    def _room(self, positions: FloatArray, size: int) -> Frame:
        """A frame for the object and these patches, with some spare room."""
        needed = Frame.around(positions, size)
        there = self._stitcher.frame if self._stitcher is not None else needed
        low = np.minimum(needed.origin, there.origin)
        high = np.maximum(np.add(needed.origin, needed.shape), np.add(there.origin, there.shape))
        room = (_GROWTH * (high - low)).astype(np.int64)
        grown_low = np.where(low < there.origin, low - room, low)
        grown_high = np.where(high > np.add(there.origin, there.shape), high + room, high)
        if self._stitcher is None:
            grown_low, grown_high = low, high
        height, width = (int(v) for v in grown_high - grown_low)
        return Frame((height, width), (int(grown_low[0]), int(grown_low[1])))

    def _join(self, placed: ComplexArray, positions: FloatArray) -> None:
        """Add new patches, with their phases aligned to the object."""
        assert self.probe is not None
        size = placed.shape[-1]
        weights = patch_weights(self.probe, size)
        frame = self._room(positions, size)
        if self._stitcher is None:
            self._stitcher = Stitcher(weights, frame)
        else:
            self._stitcher.grow(frame)
        windows = Windows.at(positions, size, frame)
        phases = None
        if self._config.synchronise is not Synchronise.OFF and self._how.rule is not PhaseRule.OFF:
            corners, _ = split_positions(positions, size)
            phases = join_phases(placed, corners, weights, *self._stitcher.cut(windows))
        self._stitcher.add_placed(placed, windows, phases)

    def _synchronise(self) -> None:
        """Solve the phases of all patches again."""
        assert self._placed is not None
        assert self.probe is not None
        slots = np.arange(self._predicted)
        data = self.data(slots)
        size = self._placed.shape[-1]
        frame = self._room(data.positions, size)
        self._synchronised = self._predicted
        self._stitcher = None  # its memory is needed
        try:
            placed = LazyRows(self._placed, slots)
            patterns, tiling = Patterns(data), Tiling(frame, NUMPY, data.positions, size, NUMPY)
            stitched, self._how = synchronise(self.probe, patterns, placed, tiling, Stages(self._config))
        except DataError as error:  # too dark for a residual: the patches are joined like new ones
            _log.info("Not synchronised again: %s", error)
            for part in np.array_split(slots, -(-len(slots) // self._batch_size)):
                self._join(self._placed[part], data.positions[part])
        else:
            self._stitcher = Stitcher.from_stitched(stitched, patch_weights(self.probe, size))

    def _predict_again(self, scaling: Scaling, monitor: Monitor, *, every: bool) -> None:
        """Predict patches again whose mean counts were not accurate enough, or every one."""
        off = every | (np.abs(self._scales[:] * self._per_unit / scaling.mean_counts - 1) > _SCALE_SHIFT)
        slots = np.flatnonzero(off)
        step = self._batch_size
        for start in range(0, len(slots), step):
            monitor.report("predict again", start, len(slots))
            part = slots[start : start + step]
            assert self._placed is not None
            _, _, self._placed[part] = self._infer(part, scaling)
        monitor.report("predict again", len(slots), len(slots))
