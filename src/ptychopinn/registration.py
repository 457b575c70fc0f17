"""Scan positions from the network's own patches.

A network that sees one pattern at a time knows nothing of positions: its patches show the object wherever the stage
really was. Patches of neighbours are registered on each other by masked normalised cross-correlation; all their shifts
together give the positions, by robust least squares with the stage as a prior. Passes of the solver then bring them to
a fraction of a pixel, and a pattern that was placed wrongly is registered on the object of all the others.

Sources: Padfield, IEEE Trans. Image Process. 21, 2706 (2012), for the correlation; Geman & McClure, Bull. Int. Stat.
Inst. 52, 5 (1987), for the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.fft
from scipy import sparse
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from ptychopinn.arrays import NUMPY, slices_of
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas, Frame, Windows, flat_object
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import Prediction
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.engine import MAX_MOVE_PX, PassOptions
from ptychopinn.solvers.epie import EPIEResult, epie, rpie_schedule
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
MIN_PATTERNS = 24
"""Fewer overlaps than so many patterns have do not outvote a wrong one."""
_REACHES_PX = (20, 8)  # of the search around where the positions put a neighbour, round by round
_ROBUST_PX = (8.0, 3.0)  # of a misfit that still counts in full at the start of a round; 1.5 px at its end
_NEIGHBOURS = 12  # pairs a pattern
_FAINT = 0.08  # of the probe's brightest intensity: patches are not looked at where it is less
_MIN_OVERLAP = 0.12  # of a patch's bright part
_FULL_OVERLAP = 0.5  # a smaller overlap lowers the score, for chance is larger
_MIN_SCORE = 0.3  # of a correlation that says anything
_HELD_OUT = 5  # every so many pairs judge the first solution without being used by it
_AGREEING_SCORE, _AGREEING_PX = 0.4, 2.0  # of a held-out pair that should agree, and how nearly
_MIN_AGREEMENT = 0.3  # of them; where patches show nothing in common it is 0.1
_STAGE_PX = 8.0  # deviation of the stage as a prior
_CORRELATED_PIXELS = 30.0  # of a patch, that are one independent measurement
_MIN_DEVIATION_PX = 0.3  # of the best pair
_ITERATIONS = 20  # of a robust solution
_WORK_BYTES = 1 << 28  # of transforms held at a time
_JUDGING_PATTERNS = 1024  # of the scan's middle, by which positions are compared
_JUDGING_PASSES = 4
_WORTHWHILE = 0.97  # of the residual with the positions as given, below which others are taken
_PASSES, _MAX_ROUNDS = 8, 4  # of the solver with positions free, before each round of registering on the object
_RELOCATED_PX = 1.0  # that a pattern must be off for it to be placed anew
_CANCELLED = "Cancelled while positions were located."
_CACHE_BYTES = 1 << 30  # of amplitudes, between passes


@dataclass(frozen=True, eq=False)
class LocatedScan:
    """Positions that the network's patches and a few passes gave.

    Attributes
    ----------
    positions:
        (n, 2) float64 (y, x), object pixels; those of the scan where no others explained the patterns better.
    agreement:
        Of the patches' overlaps; see `RegisteredPatches`.
    moved_px:
        Root mean square way from those of the scan; 0 where these are kept.
    residuals:
        Forward residuals after the same passes from a flat object, with the scan's positions and with the best others;
        None where patches agreed on none.
    """

    positions: FloatArray
    agreement: float
    moved_px: float
    residuals: tuple[float, float] | None


class _Shifts(NamedTuple):
    """What registering pairs said: (k, 2) shifts in pixels, (k,) scores, (k, 2, 2) inverse variances in 1/px^2."""

    shifts: FloatArray
    scores: FloatArray
    information: FloatArray


def locate(prediction: Prediction, data: ScanDataset, *, seed: int = 0, monitor: Monitor = NULL_MONITOR) -> LocatedScan:
    """Positions of a scan whose stage may have been anywhere within some 15 px of where it said.

    Parameters
    ----------
    prediction:
        Of every pattern of the scan, each from itself alone; its batches are used up.
    data:
        The scan.
    seed:
        Order of the patterns in passes, and choice of pairs.
    monitor:
        Told "locate"; asked between its steps.

    Returns
    -------
    Never worse than given: positions are taken only if the same passes explain the patterns better with them.

    Raises
    ------
    Cancelled
        If the monitor was cancelled.
    """
    given, patches = data.positions, collect_patches(prediction, len(data))
    probe = prediction.library.to_host(prediction.probe)
    steps, solver = _Steps(monitor), _Solver(data, probe, seed, monitor)
    registered = register_patches(patches, given, probe, seed=seed)
    steps.done()
    if registered.agreement < _MIN_AGREEMENT:
        _log.info("Positions: kept, for only %.0f%% of the patches' overlaps agree.", 100 * registered.agreement)
        return LocatedScan(given, registered.agreement, 0.0, None)
    moves = registered.positions - given
    candidates = [given, registered.positions, given + _without_affine(moves, given)]
    judged = []
    for positions in candidates:
        judged.append(solver.judge(positions))
        steps.done()
    best = int(np.argmin(judged))
    if best == 0 or judged[best] > _WORTHWHILE * judged[0]:
        _log.info("Positions: forward residual %.4f as given, %.4f registered; kept.", judged[0], min(judged[1:]))
        return LocatedScan(given, registered.agreement, 0.0, (judged[0], min(judged[1:])))
    positions = candidates[best]
    for _ in range(_MAX_ROUNDS):
        found = solver.solve(positions)
        positions = _relocate(data, found, patches)
        steps.done()
        if positions is found.positions:
            break
    positions = positions - (positions - given).mean(axis=0)  # no pattern tells where all lie together
    after = solver.judge(positions)
    if after > judged[best]:
        positions, after = candidates[best], judged[best]
    off = float(np.sqrt(((positions - given) ** 2).sum(axis=1).mean()))
    _log.info("Positions: forward residual %.4f as given, %.4f located, %.2f px away (rms).", judged[0], after, off)
    return LocatedScan(positions, registered.agreement, off, (judged[0], after))


@dataclass(frozen=True, eq=False)
class RegisteredPatches:
    """Positions that patches of neighbours agree on.

    Attributes
    ----------
    positions:
        (n, 2) float64 (y, x), object pixels, with the mean of the given ones.
    agreement:
        Share of the pairs that were not used, and correlate well, whose shift is that of the positions within 2 px.
    """

    positions: FloatArray
    agreement: float


def measure_stage_error(prediction: Prediction, data: ScanDataset, *, seed: int = 0) -> float:
    """How far a stage was off, by the patches of some patterns: root mean square, pixels.

    0 where the patches do not agree with each other, or passes do not explain the patterns better with their positions.

    Parameters
    ----------
    prediction:
        Of every pattern, each from itself alone; its batches are used up.
    data:
        Patterns that overlap.
    seed:
        As in `locate`.
    """
    patches, probe = collect_patches(prediction, len(data)), prediction.library.to_host(prediction.probe)
    found = register_patches(patches, data.positions, probe, seed=seed)
    if found.agreement < _MIN_AGREEMENT:
        return 0.0
    solver = _Solver(data, probe, seed, NULL_MONITOR)
    if solver.judge(found.positions) > _WORTHWHILE * solver.judge(data.positions):
        return 0.0
    return float(np.sqrt(((found.positions - data.positions) ** 2).sum(axis=1).mean()))


class _Steps:
    """Progress of `locate`."""

    _COUNT = 4 + _MAX_ROUNDS

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self._done = monitor, 0
        monitor.report("locate", 0, self._COUNT)

    def done(self) -> None:
        """One more."""
        if self._monitor.cancelled:
            raise Cancelled(_CANCELLED)
        self._done += 1
        self._monitor.report("locate", self._done, self._COUNT)


def collect_patches(prediction: Prediction, count: int) -> ComplexArray:
    """(count, s, s) complex64 on the host: all patches of a prediction, whose batches are used up."""
    patches = np.empty((count, prediction.patch_size, prediction.patch_size), np.complex64)
    for batch in prediction.batches:
        patches[batch.indices] = prediction.library.to_host(batch.patches)
    return patches


def register_patches(
    patches: ComplexArray, positions: FloatArray, probe: ComplexArray, *, seed: int = 0
) -> RegisteredPatches:
    """Register patches of neighbours on each other, and solve for all positions.

    Parameters
    ----------
    patches:
        (n, s, s) complex64, one a pattern, centred on its probe.
    positions:
        (n, 2) float64 (y, x), object pixels, as the stage says.
    probe:
        (modes, N, N) complex64.
    seed:
        Choice of the pairs, where there are more than are needed.
    """
    size = patches.shape[-1]
    registration = _Registration(patches, probe)
    near = min(max(20.0, 0.7 * probe_width_px(probe)), 0.7 * size)
    found, agreement = positions, 0.0
    for round_, (reach, robust) in enumerate(zip(_REACHES_PX, _ROBUST_PX, strict=True)):
        pairs = _neighbours(found, near, seed)
        if len(pairs) == 0:
            break
        measured = registration.measure(found, pairs, min(reach, size // 2))
        used = np.ones(len(pairs), bool)
        used[::_HELD_OUT] = round_ > 0
        chosen = _Shifts(*(values[used] for values in measured))
        found = _least_squares(positions, found if round_ else None, pairs[used], chosen, robust)
        if round_ == 0:
            sure = ~used & (measured.scores > _AGREEING_SCORE)
            missed = np.hypot(*(found[pairs[:, 1]] - found[pairs[:, 0]] - measured.shifts).T)
            agreement = float((missed[sure] < _AGREEING_PX).mean()) if sure.any() else 0.0
    return RegisteredPatches(found - (found - positions).mean(axis=0), agreement)


def _neighbours(positions: FloatArray, near: float, seed: int) -> IntArray:
    """(k, 2) pairs of patterns that lie near each other, some `_NEIGHBOURS` for each, in the order of the first."""
    tree = cKDTree(positions)
    wanted = min(4 * _NEIGHBOURS + 1, len(positions))
    distances, others = tree.query(positions, k=wanted, distance_upper_bound=near)
    rng = np.random.default_rng(seed)
    lottery = np.where(np.isfinite(distances), rng.random(distances.shape), 2.0)
    lottery[:, 0] = 2.0  # itself
    drawn = np.argsort(lottery, axis=1)[:, :_NEIGHBOURS]
    second = np.take_along_axis(others, drawn, axis=1)
    kept = np.take_along_axis(lottery, drawn, axis=1) < 1
    pairs = np.stack([np.repeat(np.arange(len(positions)), drawn.shape[1]), second.ravel()], axis=1)[kept.ravel()]
    return np.unique(np.sort(pairs, axis=1), axis=0)


class _Registration:
    """Patches made ready to be registered on each other; the mask is where the probe is bright."""

    def __init__(self, patches: ComplexArray, probe: ComplexArray) -> None:
        size = patches.shape[-1]
        self.mask = mask = _bright_part(probe, size)
        # Phases of patches mean nothing, and what all patches share is the network's, not the object's.
        means = (patches * mask).sum(axis=(1, 2), keepdims=True)
        contrast = patches * np.exp(-1j * np.angle(means))
        contrast -= contrast.mean(axis=0)
        contrast -= (contrast * mask).sum(axis=(1, 2), keepdims=True) / mask.sum()
        self._contrast = (contrast * mask).astype(np.complex64)
        self.width = scipy.fft.next_fast_len(2 * size)
        spectrum = self.transform(mask[None])[0]
        self.mask_spectrum = spectrum
        self.overlap = np.maximum(scipy.fft.ifft2(spectrum * spectrum.conj()).real, 0.0)
        self.variance = float(np.median((np.abs(self._contrast) ** 2).sum(axis=(1, 2))) / mask.sum())

    def transform(self, values: AnyArray) -> ComplexArray:
        """Spectra of (k, s, s), padded so that no shift wraps around."""
        shape = (self.width, self.width)
        spectrum: ComplexArray = scipy.fft.fft2(values.astype(np.complex64), shape, workers=-1)
        return spectrum

    def measure(self, positions: FloatArray, pairs: IntArray, reach: int) -> _Shifts:
        """How far the second of each pair lies from the first, near where the positions put it."""
        block = max(_WORK_BYTES // (self.width**2 * 8 * 6), 16)
        parts = []
        for chosen in _blocks_of(pairs, block):
            numbers, places = np.unique(pairs[chosen].ravel(), return_inverse=True)
            correlation = _Correlation(self, self._contrast[numbers])
            ends = places.reshape(-1, 2)
            for part in slices_of(len(chosen), block):
                expected = positions[pairs[chosen[part], 1]] - positions[pairs[chosen[part], 0]]
                parts.append(correlation.peaks(ends[part], np.round(expected).astype(np.int64), reach))
        return _Shifts(*(np.concatenate(values) for values in zip(*parts, strict=True)))


class _Correlation:
    """Masked normalised cross-correlation of some patches; see Padfield."""

    def __init__(self, of: _Registration, contrast: ComplexArray) -> None:
        self._of = of
        mask = of.mask_spectrum
        self._spectra = of.transform(contrast)
        power = of.transform(np.abs(contrast) ** 2)
        overlap = np.maximum(of.overlap, 1.0)

        def along(spectra: ComplexArray) -> ComplexArray:
            product: ComplexArray = scipy.fft.ifft2(spectra, workers=-1)
            return product

        # Over the overlap of each shift: sums of the first patch, conjugate sums of the second, and their deviations.
        self._first = along(self._spectra * mask.conj())
        self._second = along(mask * self._spectra.conj())
        first = along(power * mask.conj()).real - np.abs(self._first) ** 2 / overlap
        second = along(mask * power.conj()).real - np.abs(self._second) ** 2 / overlap
        self._first_deviation, self._second_deviation = (np.maximum(one, 1e-9) for one in (first, second))

    def peaks(self, ends: IntArray, expected: IntArray, reach: int) -> _Shifts:
        """The best shift within ``reach`` of the expected one."""
        of, width = self._of, self._of.width
        first, second = ends.T
        rows = np.arange(len(ends))
        overlap = np.maximum(of.overlap, 1.0)
        product = scipy.fft.ifft2(self._spectra[first] * self._spectra[second].conj(), workers=-1)
        covariance = np.abs(product - self._first[first] * self._second[second] / overlap)
        deviation = np.sqrt(self._first_deviation[first] * self._second_deviation[second])
        # Where a patch has no contrast chance correlates: a tenth of the usual one is added.
        score = covariance / (deviation + 0.1 * of.variance * of.overlap + 1e-12)
        share = of.overlap / of.mask.sum()
        score *= (share > _MIN_OVERLAP) * np.minimum(1.0, np.sqrt(share / _FULL_OVERLAP))
        window = np.arange(-reach, reach + 1)
        rows_at, columns_at = ((expected[:, axis, None] + window) % width for axis in (0, 1))
        near = score[rows[:, None, None], rows_at[:, :, None], columns_at[:, None, :]]
        inside = window[:, None] ** 2 + window**2 <= reach**2
        best = np.where(inside, near, -1.0).reshape(len(ends), -1)
        at = best.argmax(axis=1)
        best_score = np.minimum(best[rows, at], 1.0)
        y, x = rows_at[rows, at // len(window)], columns_at[rows, at % len(window)]
        step, _ = _parabola(score, rows, y, x)
        whole = expected + np.stack([at // len(window), at % len(window)], axis=1) - reach
        _, curvature = _parabola(covariance, rows, y, x)
        misfit = (self._first_deviation[first, y, x] + self._second_deviation[second, y, x]) / 2
        noise = misfit * (1 - np.minimum(best_score, 0.97) ** 2) / overlap[y, x] + 0.02 * of.variance
        values, axes = np.linalg.eigh(curvature / noise[:, None, None])
        information = np.einsum("bik,bk,bjk->bij", axes, np.maximum(values, 0.0), axes) / _CORRELATED_PIXELS
        return _Shifts(whole + step, best_score, information)


def _parabola(values: FloatArray, rows: IntArray, y: IntArray, x: IntArray) -> tuple[FloatArray, FloatArray]:
    """(b, 2) steps to the tops of parabolas through the pixels about (y, x), and (b, 2, 2) their curvatures."""
    height, width = values.shape[1:]

    def at(dy: int, dx: int) -> FloatArray:
        found: FloatArray = values[rows, (y + dy) % height, (x + dx) % width]
        return found

    middle = at(0, 0)
    slope = np.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], axis=1) / 2
    down, across = 2 * middle - at(1, 0) - at(-1, 0), 2 * middle - at(0, 1) - at(0, -1)
    mixed = -(at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = down * across - mixed**2
    is_top = (down > 0) & (across > 0) & (determinant > 1e-3 * down * across)
    safe = np.where(is_top, determinant, 1.0)
    step = np.stack(
        [(across * slope[:, 0] - mixed * slope[:, 1]) / safe, (down * slope[:, 1] - mixed * slope[:, 0]) / safe], axis=1
    )
    curvature = np.stack([np.stack([down, mixed], axis=1), np.stack([mixed, across], axis=1)], axis=1)
    return np.where(is_top[:, None], step, 0.0).clip(-0.7, 0.7), curvature


def _blocks_of(pairs: IntArray, most: int) -> Iterator[IntArray]:
    """Numbers of the pairs in blocks whose patches are no more than so many, or two."""
    start, seen = 0, set[int]()
    for number, (first, second) in enumerate(pairs.tolist()):
        seen |= {first, second}
        if len(seen) > max(most, 2):
            yield np.arange(start, number)
            start, seen = number, {first, second}
    yield np.arange(start, len(pairs))


def _bright_part(probe: ComplexArray, size: int) -> FloatArray:
    """(size, size) float32: 1 where the probe is bright in its middle, else 0."""
    intensity = (np.abs(probe) ** 2).sum(axis=0)
    low = (intensity.shape[0] - size) // 2
    smooth = gaussian_filter(intensity[low : low + size, low : low + size].astype(np.float64), size / 32)
    bright: FloatArray = (smooth > _FAINT * smooth.max()).astype(np.float32)
    return bright


def _least_squares(
    stage: FloatArray, start: FloatArray | None, pairs: IntArray, measured: _Shifts, robust: float
) -> FloatArray:
    """Positions whose differences are the shifts, as far as these are sure and agree, near the stage's."""
    count, (first, second) = len(stage), pairs.T
    trace = np.trace(measured.information, axis1=1, axis2=2) / 2
    trust = np.clip((measured.scores - _MIN_SCORE) / (1 - _MIN_SCORE), 0, 1) ** 2
    base = measured.information * (trust / np.maximum(1, trace * _MIN_DEVIATION_PX**2))[:, None, None]
    found = stage if start is None else start
    prior = sparse.identity(2 * count, format="csc") / _STAGE_PX**2
    for done in range(_ITERATIONS):
        weights = base
        if done > 0 or start is not None:
            missed = np.hypot(*(found[second] - found[first] - measured.shifts).T)
            scale = robust * (1.5 / robust) ** min(1.0, 2 * done / _ITERATIONS)
            weights = base / ((1 + (missed / scale) ** 2) ** 2)[:, None, None]
        rows, columns, values = [], [], []
        for a in (0, 1):
            for b in (0, 1):
                for one, other, sign in (
                    (first, first, 1),
                    (second, second, 1),
                    (first, second, -1),
                    (second, first, -1),
                ):
                    rows.append(2 * one + a)
                    columns.append(2 * other + b)
                    values.append(sign * weights[:, a, b])
        matrix = sparse.coo_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(2 * count, 2 * count)
        )
        right = stage / _STAGE_PX**2
        pull = np.einsum("bij,bj->bi", weights, measured.shifts)
        np.add.at(right, second, pull)
        np.add.at(right, first, -pull)
        found = splu(matrix.tocsc() + prior).solve(right.ravel()).reshape(count, 2)
    return found


def _without_affine(moves: FloatArray, positions: FloatArray) -> FloatArray:
    """Moves less what a linear map of the positions does."""
    columns = np.column_stack([np.ones(len(positions)), positions])
    rest: FloatArray = moves - columns @ np.linalg.lstsq(columns, moves, rcond=None)[0]
    return rest


class _Solver:
    """Passes over a scan with a probe, from a flat object."""

    def __init__(self, data: ScanDataset, probe: ComplexArray, seed: int, monitor: Monitor) -> None:
        self._data, self._probe, self._seed = replace(data, object_guess=None), probe, seed
        self._monitor = _Quiet(monitor)
        middle = np.median(data.positions, axis=0)
        order = np.argsort(((data.positions - middle) ** 2).sum(axis=1), kind="stable")
        self._judges = np.sort(order[:_JUDGING_PATTERNS])

    def judge(self, positions: FloatArray) -> float:
        """Forward residual after some passes over the scan's middle."""
        part = replace(self._data, positions=positions).select(self._judges)
        return self._run(part, _JUDGING_PASSES, free=False).residuals[-1]

    def solve(self, positions: FloatArray) -> EPIEResult:
        """Object and positions after some passes with positions free."""
        return self._run(replace(self._data, positions=positions), _PASSES, free=True)

    def _run(self, data: ScanDataset, passes: int, *, free: bool) -> EPIEResult:
        options = PassOptions(rpie_schedule(passes), update_positions=free, seed=self._seed)
        box = Frame.around(data.positions, data.N, 2 * MAX_MOVE_PX)
        start, patterns = Canvas(flat_object(box), box), Patterns(data, NUMPY, _CACHE_BYTES)
        found = epie(patterns, self._probe, passes=passes, options=options, start=start, monitor=self._monitor)
        if len(found.residuals) < passes:
            raise Cancelled(_CANCELLED)
        return found


class _Quiet(Monitor):
    """A monitor that can be cancelled, and is told nothing."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self._monitor = monitor

    @property
    def cancelled(self) -> bool:
        return self._monitor.cancelled


def _relocate(data: ScanDataset, found: EPIEResult, patches: ComplexArray) -> FloatArray:
    """Positions of a solution; a pattern whose patch fits elsewhere, and which that explains better, goes there."""
    canvas, size = Canvas(found.object, found.frame), patches.shape[-1]
    reach = min(_REACHES_PX[0], size // 2)
    proposed = found.positions + _register_on_object(canvas, found.positions, patches, found.probe, reach)
    far = np.hypot(*(proposed - found.positions).T) > _RELOCATED_PX
    if not far.any():
        return found.positions
    moved = replace(data, positions=found.positions, object_guess=None)
    patterns = Patterns(moved)

    def shares(positions: FloatArray) -> FloatArray:
        indices = np.flatnonzero(far)
        residual = ForwardResidual(
            ScanModel(found.probe, positions), patterns, indices=indices, max_patterns=len(indices)
        )
        return residual.shares(canvas)

    better = np.zeros(len(far), bool)
    better[far] = shares(proposed) < shares(found.positions)
    if not better.any():
        return found.positions
    _log.info("Positions: %d patterns were placed anew on the object of the others.", better.sum())
    return np.where(better[:, None], proposed, found.positions)


def _register_on_object(
    canvas: Canvas, positions: FloatArray, patches: ComplexArray, probe: ComplexArray, reach: int
) -> FloatArray:
    """(n, 2): the shift of each position where its patch fits the object best."""
    size = patches.shape[-1]
    wide = size + 2 * reach
    mask = _bright_part(probe, size)
    shifts = np.zeros((len(positions), 2))
    frame = scipy.fft.next_fast_len(wide)

    def transform(values: AnyArray) -> ComplexArray:
        spectrum: ComplexArray = scipy.fft.fft2(values.astype(np.complex64), (frame, frame), workers=-1)
        return spectrum

    def inside(spectra: ComplexArray) -> ComplexArray:
        product: ComplexArray = scipy.fft.ifft2(spectra, workers=-1)[:, : 2 * reach + 1, : 2 * reach + 1]
        return product

    mask_spectrum = transform(mask[None]).conj()
    means = (patches * mask).sum(axis=(1, 2), keepdims=True) / mask.sum()
    contrast = (patches - means) * mask
    step = np.arange(-reach, reach + 1)
    disc = step[:, None] ** 2 + step**2 <= reach**2
    for block in slices_of(len(positions), max(_WORK_BYTES // (frame**2 * 8 * 6), 1)):
        windows = Windows.on(canvas, positions[block], wide, NUMPY)
        seen = transform(windows.cut(canvas.array))
        power = transform(np.abs(windows.cut(canvas.array)) ** 2)
        covariance = np.abs(inside(seen * transform(contrast[block]).conj()))
        deviation = inside(power * mask_spectrum).real - np.abs(inside(seen * mask_spectrum)) ** 2 / mask.sum()
        floor = 0.1 * np.median(deviation) + 1e-9
        score = np.where(disc, covariance / np.sqrt(np.maximum(deviation, 0.0) + floor), -1.0)
        rows = np.arange(len(score))
        at = score[:, 1:-1, 1:-1].reshape(len(score), -1).argmax(axis=1)
        y, x = at // (2 * reach - 1) + 1, at % (2 * reach - 1) + 1
        top, _ = _parabola(score, rows, y, x)
        # A window is cut at whole pixels: what is left of the position stays.
        shifts[block] = np.stack([y, x], axis=1) - reach + top - windows.fractions
    return shifts
