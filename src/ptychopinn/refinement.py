"""Refinement: from a predicted object, a few passes of the solver through the same forward model.

A network sees at once what an iteration needs many passes for; the passes bring what a network cannot, the agreement
with every count. Before a pass the object's slow phases are solved (`ptychopinn.solvers.phases`); the pass itself
updates as `ptychopinn.solvers.epie` does, on a course for a start that is good. The forward residual decides what is
kept: the result never explains the patterns worse than the prediction, nor than a flat object.

Where photons are few, passes follow the likelihood of Poisson counts, and its residual decides: square roots of few
counts have a mean below the root of their mean, so fitted amplitudes are wrong. Small steps then average the noise, and
patterns that no pass uses judge, for a pass may fit the noise instead of the object.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.forward import expected_counts
from ptychopinn.interpolation import split_positions
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parallel import Crew
from ptychopinn.solvers.epie import paste_object, shuffled_batches
from ptychopinn.solvers.phases import slow_phase, turn
from ptychopinn.solvers.updates import MOMENTA_A_PASS, Amplitudes, Solution, usual_batch_size
from ptychopinn.stitching import Frame
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
RESIDUAL_PATTERNS = 256
"""Evenly spread patterns by which a result is judged."""
_NOISY = 0.15  # residual by Poisson noise alone from which photons are few,
_HELD_OUT, _FEWEST_HELD_OUT = 8, 4  # and then every so many patterns judge without being used, if they are so many
_SURE = 1.5  # standard deviations of chance by which a pass must then have lowered the residual
_GAUGE_PATTERNS = 64  # that a scale is fitted to
_READ = 32  # patterns looked at a time
_SETTLED_RAD = 0.005  # a slow phase of a smaller deviation over the positions is the last one that is solved,
_SETTLED_GAIN = 1e-4  # and one that lowers the residual by a smaller share


@dataclass(frozen=True)
class Course:
    """How the steps change over the passes; ``late`` below is the cube of the share of the passes that is done.

    Attributes
    ----------
    alpha:
        Regularisation of the object's step at the start (`ptychopinn.solvers.epie.epie`); it rises to 1.
    momentum:
        Of the object, 8 times a pass; it falls to 0.
    first_step, last_step:
        Of the object.
    probe_step, probe_momentum:
        Of the probe, where it is free; its step falls as the object's does.
    position_step:
        Of the positions, where they are free: share of a Gauss-Newton step.
    """

    alpha: float = 0.1
    momentum: float = 0.5
    first_step: float = 1.0
    last_step: float = 0.3
    probe_step: float = 0.1
    probe_momentum: float = 0.7
    position_step: float = 4.0  # the projection sees half of what a position is off, the object follows the rest

    @classmethod
    def of(cls, passes: int, *, noisy: bool = False) -> Course:
        """The course that a number of passes from a good start does best with; many small steps average noise."""
        probe_step = max(0.3 / max(passes, 1), 0.1)
        if noisy:
            step = max(max(passes, 1) ** -0.5, 0.5)
            return cls(alpha=1.0, momentum=0.0, first_step=step, last_step=step, probe_step=probe_step)
        return cls(momentum=min(0.4 + 0.1 * passes, 0.6), probe_step=probe_step)


@dataclass(frozen=True)
class Refined:
    """What came of a refinement.

    Attributes
    ----------
    likelihood, judged_by:
        What the passes followed, and whose residual decided.
    residual_before, residual_after:
        Forward residuals (`ptychopinn.metrics.quality.ForwardResidual`) of the prediction and of what was kept, over
        the same evenly spread patterns.
    passes_asked, passes_done, passes_kept:
        Passes asked for; made, fewer when cancelled; and in what was kept, 0 when none was better.
    probe:
        Whether the probe was set free.
    moved_px:
        Root mean square way of the positions in what was kept, pixels; None where they were not set free.
    """

    likelihood: Likelihood
    judged_by: Likelihood
    residual_before: float
    residual_after: float
    passes_asked: int
    passes_done: int
    passes_kept: int
    probe: bool
    moved_px: float | None


@dataclass(frozen=True, eq=False)
class Refinement:
    """What refinement made of a prediction.

    Attributes
    ----------
    object:
        (H, W) complex64 in the frame of the start; what was not covered is as it was.
    probe:
        (modes, N, N) complex64, in counts; the given one unless it was set free.
    positions:
        (n, 2) float64 (y, x), pixels; those of the scan unless they were set free.
    facts:
        How it went.
    """

    object: ComplexArray
    probe: ComplexArray
    positions: FloatArray
    facts: Refined


def refine(
    data: ScanDataset,
    probe: ComplexArray,
    start: ComplexArray,
    frame: Frame,
    *,
    passes: int,
    covered: BoolArray | None = None,
    slow_phase_solved: bool = False,
    update_probe: bool = False,
    update_positions: bool = False,
    likelihood: Likelihood | None = None,
    memory_budget_mb: int = 1024,
    course: Course | None = None,
    seed: int = 0,
    monitor: Monitor = NULL_MONITOR,
) -> Refinement:
    """Refine a predicted object.

    Parameters
    ----------
    data:
        The scan. Bad pixels say nothing.
    probe:
        (modes, N, N) complex in counts, the one the object was predicted with.
    start:
        (H, W) complex, the prediction.
    frame:
        Where it lies. Windows may reach beyond it: there the object is taken as 1 in the result, as everywhere.
    passes:
        Times every pattern is used.
    covered:
        (H, W) bool, pixels that may change; None for all.
    slow_phase_solved:
        Whether somebody has solved the slow phase of ``start``; then the first pass begins without that.
    update_probe:
        Refine the probe too. It keeps its energy.
    update_positions:
        Refine the positions too, by 3 px at most. They keep their mean.
    likelihood:
        What the passes make large. None is that of Poisson counts where photons are few, which is where Poisson noise
        alone leaves a forward residual of 0.15 or more (`noise_residual`), else that of amplitudes.
    memory_budget_mb:
        MiB for amplitudes that are kept between passes; beyond it they are made anew.
    course:
        How the steps change; None is `Course.of` the passes and the noise.
    seed:
        Order of the patterns.
    monitor:
        Told each pass as "refine" with its residual, asked at every batch. Cancelled, the best so far is returned.

    Raises
    ------
    DataError
        If the scan is empty or has no photons, or shapes do not agree.
    ConfigError
        If ``passes`` is negative.
    """
    _check(data, probe, start, covered, frame, passes)
    probe, start = probe.astype(np.complex64), start.astype(np.complex64)
    covered = np.ones(frame.shape, bool) if covered is None else covered

    noisy = noise_residual(data) >= _NOISY
    used, judges = _parted(data, noisy=noisy)
    unbiased = Likelihood.POISSON if noisy else Likelihood.AMPLITUDE
    way = _Way(
        course or Course.of(passes, noisy=noisy),
        update_probe,
        update_positions,
        likelihood or unbiased,
        judged_by=unbiased,
        sure=_SURE if noisy else 0.0,
    )

    def judge(lit_by: ComplexArray, positions: FloatArray) -> Callable[[ComplexArray], _Found]:
        scan = replace(data, positions=positions).select(judges)
        residual_of = ForwardResidual(lit_by, scan, max_patterns=RESIDUAL_PATTERNS, likelihood=way.judged_by)

        def judged(obj: ComplexArray) -> _Found:
            return _Found(residual_of.shares(obj, frame.origin), obj, lit_by, positions)

        return judged

    judged = judge(probe, data.positions)
    before = best = judged(start)
    kept = done = 0
    with Crew() as crew:
        if passes > 0:
            flat = np.where(covered, np.complex64(1), start)
            others = [judged(obj) for obj in (_scaled(data, probe, start, frame, covered), flat)]
            best = min(before, *others, key=_residual)
            slow_phase_solved &= best is not others[1]
            if best is others[1]:
                _log.warning("Refinement starts from a flat object, which explains the patterns better.")
            del judged, others, flat  # objects may be large, and the shifted probes that judged them
            keep_mb = memory_budget_mb if passes > 1 else 0  # what is used once need not be kept
            parts = data.select(used), data.select(judges)
            solver = _Solver(*parts, probe, best.object, frame, covered, keep_mb, seed, crew)
            monitor.report("refine", 0, passes, {"residual": best.residual})
        begun = best
        settled = False
        for _ in range(passes):
            if not settled and (done > 0 or not slow_phase_solved):
                lacked_none = solver.solve_slow_phase(way, monitor)
                settled = lacked_none and done > 0  # what the first pass brings makes it worth another look
            if not solver.run(done, passes, way, monitor):
                break
            done += 1
            obj, lit_by, moves = solver.result()
            positions = data.positions.copy()
            positions[used] += moves
            now = judge(lit_by, positions)(obj)
            monitor.report("refine", done, passes, {"residual": now.residual})
            if now.residual < best.residual and _surely_below(now.shares, begun.shares, way.sure):
                best, kept = now, done
    _log.info(
        "Refinement: forward residual %.4f before, %.4f after %d of %d passes.",
        before.residual,
        best.residual,
        kept,
        passes,
    )
    moved = best.positions - data.positions
    moved_px = float(np.sqrt((moved**2).sum(axis=1).mean())) if update_positions else None
    facts = Refined(
        way.likelihood, way.judged_by, before.residual, best.residual, passes, done, kept, update_probe, moved_px
    )
    return Refinement(best.object, best.probe, best.positions, facts)


@dataclass(frozen=True, eq=False)
class _Found:
    """A state and how well it explains the patterns."""

    shares: FloatArray  # of the judging patterns, of the square of the residual
    object: ComplexArray
    probe: ComplexArray
    positions: FloatArray

    @property
    def residual(self) -> float:
        """Infinite where it is not finite."""
        square = float(self.shares.sum())
        return math.sqrt(square) if math.isfinite(square) else math.inf


@dataclass(frozen=True)
class _Way:
    """What the passes may change, and how."""

    course: Course
    probe: bool
    positions: bool
    likelihood: Likelihood
    judged_by: Likelihood
    sure: float  # standard deviations by which the residual of what is kept must be lower


def _surely_below(shares: FloatArray, others: FloatArray, sure: float) -> bool:
    """Whether a residual is below another by more than so many deviations of what other patterns would tell."""
    gain = others - shares
    return float(gain.sum()) > sure * math.sqrt(len(gain)) * float(gain.std())


def _residual(found: _Found) -> float:
    return found.residual


def _check(
    data: ScanDataset,
    probe: ComplexArray,
    start: ComplexArray,
    covered: BoolArray | None,
    frame: Frame,
    passes: int,
) -> None:
    if passes < 0:
        raise ConfigError(f"{passes} passes were asked for.", "Give 0 or more.")
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    if probe.ndim != 3 or probe.shape[1:] != (data.N, data.N):
        raise DataError(
            f"The probe has the shape {probe.shape}; (modes, {data.N}, {data.N}) is needed.", "Crop or pad the probe."
        )
    for name, array in (("object to refine", start), ("map of covered pixels", covered)):
        if array is not None and array.shape != frame.shape:
            raise DataError(f"The {name} has the shape {array.shape}, its frame {frame.shape}.", "Give both alike.")


def _parted(data: ScanDataset, *, noisy: bool) -> tuple[IntArray, IntArray]:
    """Patterns that the passes use, and those that judge: all and all, unless the scan is noisy and has enough."""
    every = np.arange(len(data))
    if not noisy or len(data) < _HELD_OUT * _FEWEST_HELD_OUT:
        return every, every
    judges = every % _HELD_OUT == _HELD_OUT // 2
    held = every[judges]
    if not any(data.counts(held[low : low + _READ]).any() for low in range(0, len(held), _READ)):
        return every, every  # without a photon nobody can judge
    _log.info("Few photons: %d patterns judge the refinement without being used by it.", judges.sum())
    return every[~judges], held


def noise_residual(data: ScanDataset) -> float:
    """Forward residual that Poisson noise alone leaves, estimated from the mean pattern.

    The square root of a Poisson count of mean I deviates from sqrt(I) by 1/4 in the mean square where I is large, and
    by I where it is small; (1 - exp(-4 I)) / 4 lies between.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), RESIDUAL_PATTERNS)).astype(np.int64))
    mean = np.zeros((data.N, data.N))
    for low in range(0, len(chosen), _READ):
        mean += data.counts(chosen[low : low + _READ]).sum(axis=0, dtype=np.float64)
    mean = mean[~data.bad_pixels] / len(chosen)
    return math.sqrt(float((1 - np.exp(-4 * mean)).sum() / 4 / max(mean.sum(), 1e-12)))


def _scaled(
    data: ScanDataset, probe: ComplexArray, start: ComplexArray, frame: Frame, covered: BoolArray
) -> ComplexArray:
    """The start times the factor that fits its amplitudes to the patterns and its mean phase to what is not covered."""
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), _GAUGE_PATTERNS)).astype(np.int64))
    local = data.positions - np.asarray(frame.origin)
    product = power = 0.0
    good = ~data.bad_pixels
    for low in range(0, len(chosen), _READ):
        batch = chosen[low : low + _READ]
        measured = np.sqrt(data.counts(batch)[:, good])
        modelled = np.sqrt(expected_counts(start, probe, local[batch])[:, good])
        product += float(np.vdot(measured, modelled))
        power += float(np.vdot(modelled, modelled))
    mean = complex(np.where(covered, start, 0).sum(dtype=np.complex128))
    if not (product > 0 and power > 0 and abs(mean) > 0):
        return start
    factor = product / power * mean.conjugate() / abs(mean)
    scaled = start.copy()
    np.multiply(scaled, np.complex64(factor), out=scaled, where=covered)
    return scaled


def _level(phase: FloatArray, at: IntArray) -> None:
    """Take the plane off a phase, in place, that fits it best at some pixels."""
    centre = at.mean(axis=0)  # from which slopes are told apart from the mean, also on a line of positions
    values = phase[at[:, 0], at[:, 1]]
    slope_y, slope_x = np.linalg.lstsq(at - centre, values - values.mean(), rcond=None)[0]
    height, width = phase.shape
    phase -= (slope_y * (np.arange(height) - centre[0])).astype(phase.dtype)[:, None]
    phase -= (slope_x * (np.arange(width) - centre[1]) + values.mean()).astype(phase.dtype)


class _Solver:
    """Passes over a scan, on the box of all windows, seen in the frame of the start."""

    def __init__(
        self,
        data: ScanDataset,
        judging: ScanDataset,
        probe: ComplexArray,
        start: ComplexArray,
        frame: Frame,
        covered: BoolArray,
        memory_budget_mb: int,
        seed: int,
        crew: Crew,
    ) -> None:
        self._data, self._judging = data, judging
        self._start, self._frame, self._covered = start, frame, covered
        self._box = Frame.around(data.positions, data.N)  # no window leaves it
        corners, fractions = split_positions(data.positions, data.N)
        inside = np.ones(self._box.shape, np.complex64)
        paste_object(inside, self._box, start, frame)
        self._solution = Solution(inside, probe, corners - np.array(self._box.origin), fractions, crew)
        self._amplitudes = Amplitudes(data, memory_budget_mb * 2**20)
        self._good = None if not data.bad_pixels.any() else np.fft.ifftshift(~data.bad_pixels).astype(np.float32)
        self._rng = np.random.default_rng(seed)

    def solve_slow_phase(self, way: _Way, monitor: Monitor) -> bool:
        """Give the object the slow phase that it lacks, if that lowers the residual; returns whether it lacked none.

        No linear part where the probe is free: it takes that on, where no pattern tells it from the object's; what is
        not covered would stand against it.
        """
        solution, box = self._solution, self._box
        phase = slow_phase(self._data, solution.object, box.origin, solution.probe, monitor=monitor)
        if phase is None:
            return False
        at = np.round(self._data.positions - box.origin).astype(np.int64)
        if way.probe:
            _level(phase, at)
        turned = solution.object.copy()
        turn(turned, phase)
        # Of the whole box: what is not covered turns too here. It is 1 in the result, and would count against a ramp.
        residual_of = ForwardResidual(
            solution.probe, self._judging, max_patterns=RESIDUAL_PATTERNS, likelihood=way.judged_by
        )
        before, after = (residual_of.shares(obj, box.origin) for obj in (solution.object, turned))
        if _surely_below(after, before, way.sure):
            solution.turn(phase)
        small = phase[at[:, 0], at[:, 1]].std() < _SETTLED_RAD
        return small or not after.sum() < (1 - _SETTLED_GAIN) ** 2 * before.sum()

    def run(self, done: int, passes: int, way: _Way, monitor: Monitor) -> bool:
        """One pass; False if cancelled in it."""
        course, count = way.course, len(self._data)
        batch_size = usual_batch_size(count, self._data.N)
        batches = -(-count // batch_size)
        every = max(1, batches // MOMENTA_A_PASS)
        for number, chosen in enumerate(shuffled_batches(self._rng.permutation(count), batch_size)):
            if monitor.cancelled:
                return False
            late = ((done + number / batches) / passes) ** 3
            share = course.first_step + (course.last_step - course.first_step) * late
            self._solution.update(
                chosen,
                self._amplitudes,
                self._good,
                object_step=share,
                alpha=course.alpha ** (1 - late),
                probe_step=course.probe_step * share if way.probe else 0.0,
                probe_momentum=course.probe_momentum,
                position_step=course.position_step * share if way.positions else 0.0,
                likelihood=way.likelihood,
            )
            if course.momentum > 0 and (number + 1) % every == 0:
                self._solution.coast(course.momentum * (1 - late))
        return True

    def result(self) -> tuple[ComplexArray, ComplexArray, FloatArray]:
        """Object, in the frame, probe, and how far positions moved."""
        obj, probe = self._solution.result()
        return self._in_frame(obj), probe, self._solution.moved_px

    def _in_frame(self, obj: ComplexArray) -> ComplexArray:
        found = self._start.copy()
        paste_object(found, self._frame, obj, self._box)
        np.copyto(found, self._start, where=~self._covered)
        return found
