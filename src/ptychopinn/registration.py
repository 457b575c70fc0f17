"""Locate scan positions from the network's patches.

A network that uses one pattern per patch does not use positions, so its patches show the object at the true positions
of the stage. Patches of neighbours are registered by masked normalised cross-correlation. The positions follow from all
shifts by robust least squares, with the stage's positions as a prior. Passes of the solver then refine them to a
fraction of a pixel, and a pattern at a wrong position is registered on the object of the others.

Source of the weights: Geman & McClure, Bull. Int. Stat. Inst. 52, 5 (1987).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from ptychopinn.arrays import NUMPY
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import nearest_to_middle
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, LinkedMonitor, Monitor
from ptychopinn.patch_shifts import PatchCorrelation, Shifts, shifts_on_object
from ptychopinn.reconstructor import Prediction, every_pattern_once
from ptychopinn.scan_model import ScanModel
from ptychopinn.short_repr import ShortRepr
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.epie import EPIEResult, epie, rpie_schedule
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
MIN_PATTERNS = 24
"""Minimum number of patterns; the overlaps of fewer do not outweigh a wrong one."""
_REACHES_PX = (20, 8)  # radius of the search around the expected shift, in each round
_ROBUST_PX = (8.0, 3.0)  # scale of the robust weights at the start of each round; at its end 1.5 px
_NEIGHBOURS = 12  # pairs per pattern
_MIN_SCORE = 0.3  # pairs with a lower correlation are ignored
_HELD_OUT = 5  # every fifth pair is held out to check the first solution
_AGREEING_SCORE, _AGREEING_PX = 0.4, 2.0  # minimum score of a checked pair, and tolerance of the check
_MIN_AGREEMENT = 0.3  # minimum fraction of pairs that agree; by chance it is 0.1
_STAGE_PX = 8.0  # standard deviation of the prior
_MIN_DEVIATION_PX = 0.3  # minimum standard deviation of a measured shift
_ITERATIONS = 20  # iterations of robust least squares
_JUDGING_PATTERNS = 1024  # patterns in the middle of the scan that positions are compared with
_JUDGING_PASSES = 4
_MAX_RESIDUAL_RATIO = 0.97  # other positions are used if they lower the residual to this fraction
_PASSES, _MAX_ROUNDS = 8, 4  # passes with free positions before each registration on the object, and number of rounds
_RELOCATED_PX = 1.0  # minimum error of a pattern that is moved
_CANCELLED = "Cancelled while positions were located."
_CACHE_BYTES = 1 << 30  # cache of amplitudes between passes


@dataclass(frozen=True, eq=False, repr=False)
class LocatedScan(ShortRepr):
    """Result of `locate`."""

    # (n, 2) float64 (y, x), object pixels; those of the scan if no others explain the patterns better.
    positions: FloatArray
    agreement: float  # fraction of overlaps that agree; see `RegisteredPatches`
    moved_px: float  # root mean square distance from the positions of the scan; 0 if these are returned
    # Forward residuals after the same passes from a flat object: with the positions of the scan, and with the best
    # others. None if the patches do not agree.
    residuals: tuple[float, float] | None


def locate(prediction: Prediction, data: ScanDataset, *, seed: int = 0, monitor: Monitor = NULL_MONITOR) -> LocatedScan:
    """Locate the positions of a scan whose given positions are wrong by up to about 15 px.

    Parameters
    ----------
    prediction:
        Patches of all patterns of the scan, each predicted from one pattern; its batches are consumed.
    seed:
        Random seed of the order of the patterns and of the choice of pairs.
    monitor:
        Gets progress as "locate", and is asked between the steps.

    Returns
    -------
    The located positions, if the same passes explain the patterns better with them; else those of the scan.

    Raises
    ------
    Cancelled
        If the monitor was cancelled.
    """
    given, patches = data.positions, _patches_on_host(prediction, len(data))
    probe = prediction.library.to_host(prediction.probe)
    steps, solver = _StepProgress(monitor), _Solver(data, probe, seed, monitor)
    registered = register_patches(patches, given, probe, seed=seed)
    steps.done()
    if registered.agreement < _MIN_AGREEMENT:
        _log.info("Positions: kept, because only %.0f%% of the patches' overlaps agree.", 100 * registered.agreement)
        return LocatedScan(given, registered.agreement, 0.0, None)
    moves = registered.positions - given
    candidates = [given, registered.positions, given + _without_affine(moves, given)]
    judged = []
    for positions in candidates:
        judged.append(solver.judge(positions))
        steps.done()
    best = int(np.argmin(judged))
    if best == 0 or judged[best] > _MAX_RESIDUAL_RATIO * judged[0]:
        _log.info("Positions: forward residual %.4f as given, %.4f registered; kept.", judged[0], min(judged[1:]))
        return LocatedScan(given, registered.agreement, 0.0, (judged[0], min(judged[1:])))
    positions = candidates[best]
    for _ in range(_MAX_ROUNDS):
        solution = solver.solve(positions)
        positions = _relocate(data, solution, patches)
        steps.done()
        if positions is solution.positions:
            break
    positions = positions - (positions - given).mean(axis=0)  # a common shift changes no pattern
    after = solver.judge(positions)
    if after > judged[best]:
        positions, after = candidates[best], judged[best]
    off = float(np.sqrt(((positions - given) ** 2).sum(axis=1).mean()))
    _log.info("Positions: forward residual %.4f as given, %.4f located, %.2f px away (rms).", judged[0], after, off)
    return LocatedScan(positions, registered.agreement, off, (judged[0], after))


@dataclass(frozen=True, eq=False)
class RegisteredPatches:
    """Result of `register_patches`."""

    positions: FloatArray  # (n, 2) float64 (y, x), object pixels; their mean is that of the given positions
    # Fraction of held-out pairs with a good correlation whose shift agrees with the positions within 2 px.
    agreement: float


def measure_stage_error(prediction: Prediction, data: ScanDataset, *, ignored_px: float = 0.0, seed: int = 0) -> float:
    """Measure the error of the stage from the patches of some patterns: root mean square, pixels.

    It is 0 if the patches do not agree, or if their positions do not explain the patterns better after a few passes.

    Parameters
    ----------
    prediction:
        Patches of all patterns, each predicted from one pattern; its batches are consumed.
    ignored_px:
        Smaller errors count as 0, and no passes are made.
    seed:
        As in `locate`.
    """
    patches, probe = _patches_on_host(prediction, len(data)), prediction.library.to_host(prediction.probe)
    found = register_patches(patches, data.positions, probe, seed=seed)
    off = float(np.sqrt(((found.positions - data.positions) ** 2).sum(axis=1).mean()))
    if found.agreement < _MIN_AGREEMENT or off < ignored_px:
        return 0.0
    solver = _Solver(data, probe, seed, NULL_MONITOR)
    is_better = solver.judge(found.positions) <= _MAX_RESIDUAL_RATIO * solver.judge(data.positions)
    return off if is_better else 0.0


class _StepProgress:
    """Progress of `locate`."""

    _COUNT = 4 + _MAX_ROUNDS

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self._done = monitor, 0
        monitor.report("locate", 0, self._COUNT)

    def done(self) -> None:
        """Report a finished step."""
        if self._monitor.cancelled:
            raise Cancelled(_CANCELLED)
        self._done += 1
        self._monitor.report("locate", self._done, self._COUNT)


def _patches_on_host(prediction: Prediction, count: int) -> ComplexArray:
    """(count, s, s) complex64: the patches of all patterns."""
    return replace(prediction, batches=every_pattern_once(prediction.batches, count)).collect(count)


def register_patches(
    patches: ComplexArray, positions: FloatArray, probe: ComplexArray, *, seed: int = 0
) -> RegisteredPatches:
    """Register patches of neighbours on each other, and solve for all positions.

    Parameters
    ----------
    patches:
        (n, s, s) complex64, one per pattern, centred on its probe.
    positions:
        (n, 2) float64 (y, x), object pixels, as given by the stage.
    probe:
        (modes, N, N) complex64.
    seed:
        Random seed of the choice of pairs.
    """
    size = patches.shape[-1]
    correlation = PatchCorrelation(patches, probe)
    near = min(max(20.0, 0.7 * probe_width_px(probe)), 0.7 * size)
    solution, agreement = positions, 0.0
    for round_, (reach, robust) in enumerate(zip(_REACHES_PX, _ROBUST_PX, strict=True)):
        pairs = _neighbours(solution, near, seed)
        if len(pairs) == 0:
            break
        measured = correlation.measure(solution, pairs, min(reach, size // 2))
        used = np.ones(len(pairs), bool)
        used[::_HELD_OUT] = round_ > 0
        chosen = Shifts(*(values[used] for values in measured))
        solution = _least_squares(positions, solution if round_ else None, pairs[used], chosen, robust)
        if round_ == 0:
            sure = ~used & (measured.scores > _AGREEING_SCORE)
            missed = np.hypot(*(solution[pairs[:, 1]] - solution[pairs[:, 0]] - measured.shifts).T)
            agreement = float((missed[sure] < _AGREEING_PX).mean()) if sure.any() else 0.0
    return RegisteredPatches(solution - (solution - positions).mean(axis=0), agreement)


def _neighbours(positions: FloatArray, near: float, seed: int) -> IntArray:
    """(k, 2) pairs of nearby patterns, about `_NEIGHBOURS` for each, sorted by the first."""
    tree = cKDTree(positions)
    wanted = min(4 * _NEIGHBOURS + 1, len(positions))
    distances, others = tree.query(positions, k=wanted, distance_upper_bound=near)
    rng = np.random.default_rng(seed)
    lottery = np.where(np.isfinite(distances), rng.random(distances.shape), 2.0)
    lottery[:, 0] = 2.0  # itself
    drawn = np.argsort(lottery, axis=1)[:, :_NEIGHBOURS]
    second = np.take_along_axis(others, drawn, axis=1)
    selected = np.take_along_axis(lottery, drawn, axis=1) < 1
    pairs = np.stack([np.repeat(np.arange(len(positions)), drawn.shape[1]), second.ravel()], axis=1)[selected.ravel()]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _least_squares(
    stage: FloatArray, start: FloatArray | None, pairs: IntArray, measured: Shifts, robust: float
) -> FloatArray:
    """Positions that fit the measured shifts, by robust least squares with the stage's positions as a prior."""
    count, (first, second) = len(stage), pairs.T
    trace = np.trace(measured.information, axis1=1, axis2=2) / 2
    trust = np.clip((measured.scores - _MIN_SCORE) / (1 - _MIN_SCORE), 0, 1) ** 2
    base = measured.information * (trust / np.maximum(1, trace * _MIN_DEVIATION_PX**2))[:, None, None]
    solution = stage if start is None else start
    prior = sparse.identity(2 * count, format="csc") / _STAGE_PX**2
    for done in range(_ITERATIONS):
        weights = base
        if done > 0 or start is not None:
            missed = np.hypot(*(solution[second] - solution[first] - measured.shifts).T)
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
        solution = splu(matrix.tocsc() + prior).solve(right.ravel()).reshape(count, 2)
    return solution


def _without_affine(moves: FloatArray, positions: FloatArray) -> FloatArray:
    """Moves minus the affine map of the positions that fits them best."""
    columns = np.column_stack([np.ones(len(positions)), positions])
    rest: FloatArray = moves - columns @ np.linalg.lstsq(columns, moves, rcond=None)[0]
    return rest


class _Solver:
    """Runs passes over a scan with a probe, from a flat object."""

    def __init__(self, data: ScanDataset, probe: ComplexArray, seed: int, monitor: Monitor) -> None:
        self._data, self._probe, self._seed = replace(data, object_guess=None), probe, seed
        self._monitor = LinkedMonitor(monitor)  # without progress
        self._judges = nearest_to_middle(data.positions, _JUDGING_PATTERNS)

    def judge(self, positions: FloatArray) -> float:
        """Forward residual after a few passes over the middle of the scan."""
        part = replace(self._data, positions=positions).select(self._judges)
        return self._run(part, _JUDGING_PASSES, free=False).residuals[-1]

    def solve(self, positions: FloatArray) -> EPIEResult:
        """Object and positions after passes with free positions."""
        return self._run(replace(self._data, positions=positions), _PASSES, free=True)

    def _run(self, data: ScanDataset, passes: int, *, free: bool) -> EPIEResult:
        options = PassOptions(rpie_schedule(passes), update_positions=free, seed=self._seed)
        box = Frame.around(data.positions, data.N, 2 * MAX_MOVE_PX)
        start, patterns = Canvas(flat_object(box), box), Patterns(data, NUMPY, _CACHE_BYTES)
        result = epie(patterns, self._probe, passes=passes, options=options, start=start, monitor=self._monitor)
        if len(result.residuals) < passes:
            raise Cancelled(_CANCELLED)
        return result


def _relocate(data: ScanDataset, solution: EPIEResult, patches: ComplexArray) -> FloatArray:
    """Positions of a solution. A pattern moves to where its patch fits the object, if that explains it better."""
    canvas, size = Canvas(solution.object, solution.frame), patches.shape[-1]
    reach = min(_REACHES_PX[0], size // 2)
    proposed = solution.positions + shifts_on_object(canvas, solution.positions, patches, solution.probe, reach)
    far = np.hypot(*(proposed - solution.positions).T) > _RELOCATED_PX
    if not far.any():
        return solution.positions
    moved = replace(data, positions=solution.positions, object_guess=None)
    patterns = Patterns(moved)

    def shares(positions: FloatArray) -> FloatArray:
        indices = np.flatnonzero(far)
        residual = ForwardResidual(
            ScanModel(solution.probe, positions), patterns, indices=indices, max_patterns=len(indices)
        )
        return residual.shares(canvas)

    better = np.zeros(len(far), bool)
    better[far] = shares(proposed) < shares(solution.positions)
    if not better.any():
        return solution.positions
    _log.info("Positions: %d patterns were moved to where they fit the object of the others.", better.sum())
    return np.where(better[:, None], proposed, solution.positions)
