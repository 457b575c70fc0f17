"""The ptychographic iterative engine: passes over a scan that update the object, and on request probe and positions.

The far field of each pattern keeps its modelled phase and gets the measured modulus. The resulting change ``d_j`` of
the exit wave updates the object and the probe:

    O += s sum_j conj(P_j) d_j / ((1 - a) sum_j |P_j|^2 + a max sum_j |P_j|^2)
    P += b sum_j conj(O_j) d_j / ((1 - a') sum_j |O_j|^2 + a' max sum_j |O_j|^2)

ePIE, rPIE and refinement all use this engine. They differ by their `StepSchedule`.

Sources: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009); for the denominators and the momentum, Maiden, Johnson &
Li, Optica 4, 736 (2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary, slices_of
from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Fetch, Patterns
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.forward import COUNT_FLOOR, power, sum_modes
from ptychopinn.geometry import Canvas, Windows
from ptychopinn.interpolation import ShiftedProbe, shift_probe, shift_ramps
from ptychopinn.monitor import Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.position_steps import PositionSteps
from ptychopinn.solvers.slow_phase import multiply_by_phase
from ptychopinn.tiles import Tile, Tiling
from ptychopinn.typing import AnyArray, FloatArray, IntArray

_MIN_ALPHA = 1e-3
_PROBE_ALPHA = 0.1  # regularisation of the probe, as alpha for the object
_POSITION_DAMPING = 0.05  # damping of the position equations, relative to their mean over the scan
MAX_MOVE_PX = 16
"""Maximum total displacement of a position. The object needs a margin of this many pixels."""
_FLUX_RANGE = 4.0  # the flux of a pattern is between 1/4 and 4
_BACKGROUND_WIDTH = 1 / 20  # standard deviation of the Gaussian of a smooth background, in units of N
_DARK_COUNTS = 0.5  # added to the modelled counts in the weights of the background
_MOMENTUM_STEPS_PER_PASS = 8
_BATCH_VALUES = 1 << 19  # exit-wave values in a batch of a long scan: 4 MiB per array
_MAX_DEVICE_BATCH = 256
_THREAD_VALUES = 1 << 17  # exit-wave values that a thread processes at a time; fewer are slower
_TINY = float(np.finfo(np.float32).tiny)


def default_batch_size(count: int, size: int, *, on_host: bool = True) -> int:
    """Default number of patterns in a batch, for ``count`` patterns of ``size`` x ``size`` pixels.

    It is 1/32 of the scan, at least 8 and at most 32, or 1/64 of a long scan if that is more. The patterns of a batch
    seldom overlap in a long scan, and larger batches use the cores better while an exit wave takes at most 4 MiB per
    mode. On a device the maximum is 256; after a pass over 10,000 patterns the error is 2% larger than with 32.
    """
    most = _BATCH_VALUES // size**2 if on_host else _MAX_DEVICE_BATCH
    return max(min(max(count // 32, 8), 32), min(count // 64, most))


class Steps(NamedTuple):
    """Steps of one batch; see `StepSchedule`."""

    alpha: float
    momentum: float
    object_step: float
    probe_step: float


@dataclass(frozen=True)
class StepSchedule:
    """How the steps change over the passes.

    With a small ``alpha`` and momentum, slow phases converge several times faster. With ``alpha`` 1 and small steps,
    noise averages out. The steps change from the first to the second kind with the cube of the fraction of passes done.

    Attributes
    ----------
    alpha:
        ``a`` of the formula at the start; it rises to 1. With 1 the brightest point of the probe limits the step of
        every pixel, with 0 the illumination of the pixel itself.
    momentum:
        Fraction of the object's last change that is repeated, 8 times per pass; it falls to 0.
    object_step, last_object_step:
        Step of the object in the first and in the last pass.
    probe_step, probe_momentum:
        Step of a free probe, as a fraction of the object's step, and its momentum, which acts at every batch.
    position_step:
        Step of free positions in the first pass, in Gauss-Newton steps. Later steps follow from the effect of the
        earlier ones (`SecantStep`).
    settles:
        False keeps the first steps for all passes.
    """

    alpha: float = 0.1
    momentum: float = 0.5
    object_step: float = 1.0
    last_object_step: float = 0.3  # small steps at the end average the noise of the counts
    probe_step: float = 0.1
    probe_momentum: float = 0.7
    position_step: float = 4.0  # the object hides most of a position error, so the first step is enlarged
    settles: bool = True

    def __post_init__(self) -> None:
        momenta = (self.momentum, self.probe_momentum)
        if not 0 <= self.alpha <= 1 or not all(0 <= momentum < 1 for momentum in momenta) or not self.probe_step >= 0:
            raise ConfigError(
                f"alpha {self.alpha}, momenta of {momenta[0]} and {momenta[1]} and probe_step {self.probe_step} were "
                "given.",
                "alpha is between 0 and 1, momenta are 0 or more and less than 1, probe_step is 0 or more.",
            )

    def at(self, share: float) -> Steps:
        """Steps after a fraction of the passes."""
        late = share**3 if self.settles else 0.0
        step = self.object_step + (self.last_object_step - self.object_step) * late
        return Steps(
            alpha=max(self.alpha, _MIN_ALPHA) ** (1 - late),
            momentum=self.momentum * (1 - late),
            object_step=step,
            probe_step=self.probe_step * step,
        )


@dataclass(frozen=True)
class PassOptions:
    """Which quantities the passes update, and how.

    Attributes
    ----------
    schedule:
        Steps.
    update_probe, update_positions, update_flux:
        Whether to update these.
    update_background:
        Kind of background to fit; None keeps that of the model.
    likelihood:
        Likelihood that the far fields follow.
    batch_size:
        Patterns that update the object together; None chooses `default_batch_size`.
    seed:
        Random seed of the order of the patterns.
    """

    schedule: StepSchedule
    update_probe: bool = False
    update_positions: bool = False
    update_flux: bool = False
    update_background: Background | None = None
    likelihood: Likelihood = Likelihood.AMPLITUDE
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size} was given.", "Give 1 or more.")


@dataclass(frozen=True, eq=False)
class _Gradients:
    """Gradients of b patterns of a batch.

    Attributes
    ----------
    windows:
        Windows of the patterns.
    error, energy:
        Sum of squared amplitude errors, and sum of squared amplitudes.
    gradient, light:
        (b, N, N) complex64 gradients of the object, and (b, N, N) float32 intensities of the probe.
    probe:
        Result of `_probe_gradient`, if the probe is free.
    figures:
        (b, k) float64: the equations of `_position_equations` where positions move, 6 columns, and the sums of
        `_light_sums` where the flux is free, 2 columns; None where neither is.
    background:
        (2, N, N) of `_background_sums`, if the background is free.
    """

    windows: Windows
    error: Array
    energy: Array
    gradient: Array
    light: Array
    probe: tuple[Array, Array] | None
    figures: Array | None
    background: Array | None


class _ObjectState:
    """An object, or a tile of it, with its momentum.

    Attributes
    ----------
    object, velocity, last:
        (H, W) complex64 each; ``last`` is the object when momentum was applied last.
    library:
        Library of the arrays.
    """

    def __init__(self, obj: Array, velocity: Array, last: Array, library: ArrayLibrary) -> None:
        self.object, self.velocity, self.last, self.library = obj, velocity, last, library

    def apply_momentum(self, momentum: float) -> None:
        """Repeat a fraction of the object's change since the last call."""

        def move(obj: Array, velocity: Array, last: Array) -> tuple[Array, Array, Array]:
            velocity *= momentum
            velocity += obj
            velocity -= last
            obj += momentum * velocity
            return obj, velocity, obj

        self.object, self.velocity, self.last = self.library.by_rows(move, self.object, self.velocity, self.last)

    def multiply_by_phase(self, phase: Array) -> None:
        """Multiply object and momentum by ``exp(i phase)``, (H, W) float32."""
        self.object, self.velocity, self.last = (
            multiply_by_phase(array, phase, self.library) for array in (self.object, self.velocity, self.last)
        )


@dataclass(frozen=True, eq=False)
class _TileTask:
    """A tile, the windows of its members (indices into the used patterns), and the size of its batches."""

    tile: Tile
    windows: Windows
    batch_size: int


class PassEngine:
    """Makes passes over a scan; holds the current object, probe, positions, flux and background.

    If the object is on the host and another library computes, a pass processes one tile after the other. Object and
    momentum of a tile are copied to the device, and written back before the next tile is read. So neighbours see each
    other's changes. Probe, positions and steps continue from tile to tile.

    Parameters
    ----------
    patterns:
        Patterns of the scan; their library computes.
    used:
        (k,) int64: indices of the patterns that the passes use.
    model:
        Model of the scan; its arrays are of the patterns' library.
    start:
        The object, which is changed in place. No window leaves it. Free positions are limited to it, so it needs a
        margin of `MAX_MOVE_PX`.
    library:
        Library of the patterns, from `ArrayLibrary.session`.

    Attributes
    ----------
    probe, background:
        Current values.
    positions, flux:
        (k, 2) float64, and (k,) float32 or None, on the host: current values of the used patterns.
    """

    def __init__(
        self,
        patterns: Patterns,
        used: IntArray,
        model: ScanModel,
        start: Canvas,
        options: PassOptions,
        library: ArrayLibrary | None = None,
    ) -> None:
        self._patterns, self._used, self._options = patterns, used, options
        self._library = patterns.library if library is None else library
        self._rng = np.random.default_rng(options.seed)
        self.frame = start.frame
        self.positions = self._given = model.positions[used]
        size = patterns.data.N
        margin = MAX_MOVE_PX if options.update_positions else 0
        self._tiling = Tiling(start.frame, start.library, self.positions, size, self._library, margin)
        self._tasks = [
            _TileTask(
                tile,
                self._tiling.windows(tile, self.positions, size),
                options.batch_size or default_batch_size(len(tile.members), size, on_host=self._library.on_host),
            )
            for tile in self._tiling.tiles
        ]
        xp = self._library.xp
        self.probe = self._library.cast(model.probe, "complex64")
        self._energy = xp.sum(xp.abs(self.probe) ** 2)
        self._probe_velocity = xp.zeros_like(self.probe)
        self._shifted: ShiftedProbe | None = None  # cached while the probe is fixed
        self.flux: FloatArray | None = None if model.flux is None else model.flux[used]
        if options.update_flux and self.flux is None:
            self.flux = np.ones(len(used), np.float32)
        self.background = model.background
        if options.update_background is not None and self.background is None:
            self.background = xp.zeros((size, size), dtype=xp.float32, device=self._library.device)
        self._ran_away = np.zeros(len(used), bool)
        self._position_steps = PositionSteps(self.positions, options.schedule.position_step)
        there = self._library if self._tiling.is_whole else start.library
        copy = there.xp.asarray(start.array, copy=True)
        self._state = _ObjectState(start.array, there.xp.zeros_like(start.array), copy, there)

    @property
    def canvas(self) -> Canvas:
        """The current object."""
        return Canvas(self._state.object, self.frame, self._state.library)

    @property
    def runaways(self) -> int:
        """Number of positions that moved by `MAX_MOVE_PX` and were set back to their given values."""
        return int(self._ran_away.sum())

    def run(self, done: int, passes: int, monitor: Monitor) -> float | None:
        """Make one pass.

        Parameters
        ----------
        done, passes:
            Number of passes before this one, and in total.
        monitor:
            Asked at every batch.

        Returns
        -------
        ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` over the good pixels, evaluated for each pattern just before it
        updates the object; None if cancelled.
        """
        schedule = self._options.schedule
        plan = [
            (task, list(shuffled_batches(self._rng.permutation(len(task.windows)), task.batch_size)))
            for task in self._tasks
        ]
        members = [task.tile.members[chosen] for task, batches in plan for chosen in batches]
        reading = iter(self._patterns.batches([self._used[some] for some in members]))  # reads ahead into the next tile
        tally = _Tally(members)
        for task, batches in plan:
            state = self._load(task.tile)
            every = max(1, len(batches) // _MOMENTUM_STEPS_PER_PASS)
            for number, chosen in enumerate(batches, 1):
                if monitor.cancelled:
                    self._store(task.tile, state)
                    return None
                steps = schedule.at((done + (number - 1) / len(batches)) / passes)  # as in one whole object
                _, fetch = next(reading)
                tally.add(self._update(task, state, chosen, fetch, steps))
                if schedule.momentum > 0 and number % every == 0:
                    state.apply_momentum(steps.momentum)
            self._store(task.tile, state)
        rows = tally.figures_in_order(self._library)
        if self._options.update_positions:
            self._move_positions(rows[:, :4].reshape(-1, 2, 2), rows[:, 4:6])
        if self._options.update_flux:
            self._fit_flux(rows[:, -2], rows[:, -1])
        self._fit_background(tally)
        error, total = self._library.to_host(self._library.xp.stack([tally.error, tally.energy])).tolist()
        return math.sqrt(error / total) if total > 0 else 0.0

    def _load(self, tile: Tile) -> _ObjectState:
        if self._tiling.is_whole:
            return self._state
        whole = self._state
        obj, velocity, last = (self._tiling.load(tile, one) for one in (whole.object, whole.velocity, whole.last))
        return _ObjectState(obj, velocity, last, self._library)

    def _store(self, tile: Tile, state: _ObjectState) -> None:
        if state is not self._state:
            for name in ("object", "velocity", "last"):
                stored = self._tiling.store(tile, getattr(self._state, name), getattr(state, name))
                setattr(self._state, name, stored)

    def _update(
        self, task: _TileTask, state: _ObjectState, chosen: IntArray, fetch: Fetch, steps: Steps
    ) -> Sequence[_Gradients]:
        """Update the object, and a free probe, with a batch of patterns."""
        library, options = self._library, self._options
        if not options.update_probe and self._shifted is None:
            self._shifted = ShiftedProbe(self.probe, library)
        windows = task.windows.take(library.from_host(chosen))
        flux = None if self.flux is None else self.flux[task.tile.members[chosen]]
        roots = None if flux is None else library.from_host(np.sqrt(flux)[:, None, None, None])
        # Depends only on the shape, so that the number of cores does not change the result.
        step = library.batch_length(math.prod(self.probe.shape), _THREAD_VALUES)

        def compute(part: slice) -> _Gradients:
            return self._gradients(
                state.object, windows[part], None if roots is None else roots[part, ...], fetch(part)
            )

        parts = library.spread(compute, slices_of(len(chosen), step))
        state.object = library.add_quotient(
            state.object,
            [part.gradient for part in parts],
            [part.light for part in parts],
            [part.windows.corners for part in parts],
            step=steps.object_step,
            regularisation=steps.alpha,
        )
        if options.update_probe:
            self._step_probe(parts, steps.probe_step)
        return parts

    def _gradients(self, obj: Array, windows: Windows, roots: Array | None, measured: Array) -> _Gradients:
        """Gradients of some patterns of a batch; changes no state."""
        library, xp, options = self._library, self._library.xp, self._options
        shifted = self._shifted
        probes = shift_probe(self.probe, windows.fractions, library) if shifted is None else shifted(windows.fractions)
        if roots is not None:
            probes *= roots
        patches = windows.cut(obj)
        field = library.fft2(probes * patches[:, None, ...], norm="ortho")
        intensity = power(field, library)
        figures = self._light_sums(measured, intensity) if options.update_flux else []
        if self.background is not None:
            intensity += self.background
        modelled = xp.sqrt(intensity)
        difference = measured - modelled
        if self._patterns.good is not None:
            difference *= self._patterns.good  # bad pixels keep the modelled modulus
        error, energy = (library.squared_sum(values) for values in (difference, measured))
        background = None
        if options.update_background is not None:
            background = self._background_sums(difference, measured + modelled, modelled)
        modelled += 1e-6 * xp.max(modelled) + _TINY
        if options.likelihood is Likelihood.POISSON:
            ratio = _poisson_ratio(difference, measured, modelled, library)
        else:
            ratio = difference / modelled
        field *= ratio[:, None, ...]
        change = library.ifft2(field, norm="ortho")
        if options.update_positions:
            figures = [*_position_equations(change, probes, patches, library), *figures]
        probe = None
        if options.update_probe:
            object_waves = patches if roots is None else patches * roots[:, 0, ...]
            probe = _probe_gradient(change, object_waves, windows.fractions, library)
        light = power(probes, library)
        gradient = sum_modes(library.conj_times(probes, change), library)
        rows = xp.concat(figures, axis=1) if figures else None
        return _Gradients(windows, error, energy, gradient, light, probe, rows, background)

    def _step_probe(self, parts: Sequence[_Gradients], step: float) -> None:
        library, xp = self._library, self._library.xp
        probe_gradients = [part.probe for part in parts if part.probe is not None]
        spectrum, light = (sum(one[k] for one in probe_gradients) for k in (0, 1))
        scale = (1 - _PROBE_ALPHA) * light + _PROBE_ALPHA * xp.max(light)
        moved = step * library.ifft2(spectrum) / scale
        momentum = self._options.schedule.probe_momentum
        self._probe_velocity = momentum * self._probe_velocity + moved
        self.probe = self.probe + moved + momentum * self._probe_velocity

    def _light_sums(self, measured: Array, intensity: Array) -> list[Array]:
        """(b, 1) and (b, 1) float64: measured counts less the background, and what flux and object make of them."""
        xp, good = self._library.xp, self._patterns.good
        counts = measured**2 if self.background is None else measured**2 - self.background
        pair = (counts, intensity) if good is None else (counts * good, intensity * good)
        return [xp.sum(values, axis=(1, 2), dtype=xp.float64)[:, None] for values in pair]

    def _background_sums(self, difference: Array, total: Array, modelled: Array) -> Array:
        """(2, N, N): sums over patterns of the weights ``1 / I``, and of ``n - I`` times these; 0 at bad pixels.

        ``n - I`` is the difference of the amplitudes times their sum.
        """
        xp, good = self._library.xp, self._patterns.good
        weight = 1 / (modelled**2 + _DARK_COUNTS)
        if good is not None:
            weight *= good
        return xp.stack([xp.sum(weight, axis=0), xp.sum(weight * difference * total, axis=0)])

    def _move_positions(self, normal: FloatArray, right: FloatArray) -> None:
        moved: FloatArray = self.positions + self._position_steps.moves(_solve_moves(normal, right))
        away = (np.abs(moved - self._given) >= MAX_MOVE_PX).any(axis=1)
        self._ran_away |= away
        moved[away] = self._given[away]
        half = (self._patterns.data.N - 1) / 2
        tasks, size = [], self._patterns.data.N
        for task in self._tasks:
            low = np.asarray(task.tile.frame.origin) + half
            high = np.maximum(low + np.asarray(task.tile.frame.shape) - size, low)
            members = task.tile.members
            moved[members] = np.clip(moved[members], low, high)
            tasks.append(replace(task, windows=self._tiling.windows(task.tile, moved, size)))
        self.positions, self._tasks = moved, tasks

    def _fit_flux(self, measured: FloatArray, modelled: FloatArray) -> None:
        """Set the flux of every pattern to fit its counts. The mean stays 1."""
        assert self.flux is not None  # it is there where it is free
        factor = np.where((measured > 0) & (modelled > 0), measured / np.maximum(modelled, _TINY), 1.0)
        flux = np.clip(self.flux * factor, 1 / _FLUX_RANGE, _FLUX_RANGE)
        self.flux = (flux / flux.mean()).astype(np.float32)

    def _fit_background(self, tally: _Tally) -> None:
        """Set the background to the mean excess of the counts over the model, minus its standard error.

        A mean of ``n - I`` with the weights ``1 / I`` of Poisson counts: dark patterns tell most. A deviation is taken
        off, for an object can give some of its light to a background that is not there. Where amplitudes are fitted,
        their variance is taken off too: the square of the mean of ``sqrt(n)`` is that much below the mean of ``n``
        (`ptychopinn.refinement.noise_residual` has the formula), and objects would become too dark.
        """
        rule = self._options.update_background
        if rule is None:
            return
        library, xp = self._library, self._library.xp
        weight = tally.background[0, ...]
        excess = tally.background[1, ...] + weight * self.background
        if rule is Background.SMOOTH:
            weight, excess = (_blurred(values, library) for values in (weight, excess))
        floor = 1e-6 * xp.max(weight) + _TINY
        weight = xp.where(weight > floor, weight, floor)
        background = xp.clip(excess / weight - 1 / xp.sqrt(weight), 0.0, None)
        if self._options.likelihood is Likelihood.AMPLITUDE:
            background = background - (1 - xp.exp(-4 * background)) / 4
        self.background = background

    def multiply_by_phase(self, phase: Array) -> None:
        """Multiply object and momentum by ``exp(i phase)``, (H, W) float32 of the object's library."""
        self._state.multiply_by_phase(phase)

    def result(self) -> tuple[Canvas, Array]:
        """Object and probe: the probe keeps its energy, the object takes the scale; free modes are made orthogonal."""
        xp, canvas = self._library.xp, self.canvas
        share = xp.sqrt(self._energy / xp.sum(xp.abs(self.probe) ** 2))
        of_object = share if self._tiling.is_whole else self._library.to_host(share)
        probe = self.probe * share
        if self._options.update_probe and probe.shape[0] > 1:
            probe = _orthogonal_modes(probe, self._library)
        return replace(canvas, array=canvas.array / of_object), probe


class _Tally:
    """Sums over the batches of a pass.

    Attributes
    ----------
    error, energy:
        Sum of squared amplitude errors, evaluated just before each update, and sum of squared amplitudes.
    background:
        (2, N, N), sum of `_background_sums`.
    """

    def __init__(self, members: Sequence[IntArray]) -> None:
        self._members = members
        self._figures: list[Array] = []
        self.error: Array = 0.0
        self.energy: Array = 0.0
        self.background: Array = 0.0

    def add(self, parts: Sequence[_Gradients]) -> None:
        """Add a batch."""
        for part in parts:
            self.error, self.energy = self.error + part.error, self.energy + part.energy
            if part.figures is not None:
                self._figures.append(part.figures)
            if part.background is not None:
                self.background = self.background + part.background

    def figures_in_order(self, library: ArrayLibrary) -> FloatArray:
        """(n, k) figures of all batches, read from the device once, in the order of the used patterns."""
        if not self._figures:
            return np.zeros((0, 0))
        joined = library.to_host(library.xp.concat(self._figures))
        ordered = np.empty_like(joined)
        ordered[np.concatenate(self._members)] = joined
        return ordered


def check_passes(data: ScanDataset, probe: AnyArray, passes: int) -> None:
    """Check the arguments of passes.

    Raises
    ------
    DataError
        If the scan is empty, or the probe does not have the shape of its patterns.
    ConfigError
        If ``passes`` is negative.
    """
    if passes < 0:
        raise ConfigError(f"{passes} passes were asked for.", "Give 0 or more.")
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    if probe.ndim != 3 or probe.shape[1:] != (data.N, data.N):
        raise DataError(
            f"The probe has the shape {tuple(probe.shape)}; (modes, {data.N}, {data.N}) is needed.",
            "Crop or pad the probe.",
        )


def shuffled_batches(order: IntArray, size: int) -> Iterator[IntArray]:
    """Indices of each batch, sorted, so that a memory-mapped scan is read forwards."""
    for low in range(0, len(order), size):
        yield np.sort(order[low : low + size])


def _poisson_ratio(difference: Array, measured: Array, modelled: Array, library: ArrayLibrary) -> Array:
    """(n - I) / (2 (I + c)): gradient of the Poisson likelihood of counts with a floor c, divided by the field.

    For large counts it is the ratio of amplitudes, ``(sqrt n - sqrt I) / sqrt I``. Dark pixels have a smaller weight.
    The step of a pattern is at most as long as with amplitudes, because the curvature at dark pixels limits it.
    """
    xp = library.xp
    intensity = modelled**2
    ratio = difference * (measured + modelled) / (2 * (intensity + COUNT_FLOOR))
    length = xp.sqrt(xp.sum(ratio**2 * intensity, axis=(1, 2), keepdims=True))
    longest = xp.sqrt(xp.sum(difference**2, axis=(1, 2), keepdims=True))
    return ratio * xp.clip(longest / xp.clip(length, _TINY, None), None, 1.0)


def _orthogonal_modes(probe: Array, library: ArrayLibrary) -> Array:
    """The modes, (m, N, N), mixed so that they are orthogonal, the strongest first; no pattern changes by that.

    Source: Thibault & Menzel, Nature 494, 68 (2013).
    """
    xp, size = library.xp, probe.shape[-1]
    modes = xp.reshape(probe, (probe.shape[0], -1))
    overlaps = library.to_host(library.matmul(modes, xp.conj(xp.matrix_transpose(modes)))).astype(np.complex128)
    _, axes = np.linalg.eigh(overlaps)
    mixing = axes[:, ::-1].conj().T
    largest = np.abs(mixing).argmax(axis=1)
    turn = mixing[np.arange(len(mixing)), largest]
    mixing = mixing * (np.abs(turn) / turn)[:, None]  # an axis has any phase: that of the mode it is most of
    mixed = library.matmul(library.from_host(mixing.astype(np.complex64)), modes)
    return xp.reshape(mixed, (-1, size, size))


def _solve_moves(normal: FloatArray, right: FloatArray) -> FloatArray:
    """(n, 2) Gauss-Newton steps of the patterns, damped by the mean of all equations."""
    damping = _POSITION_DAMPING * np.trace(normal.mean(axis=0)) / 2 + _TINY
    moves: FloatArray = np.linalg.solve(normal + damping * np.eye(2), right[..., None])[..., 0]
    return moves


def _blurred(values: Array, library: ArrayLibrary) -> Array:
    """Blur (N, N) float32 with the Gaussian of a smooth background."""
    size = values.shape[-1]
    k = np.fft.fftfreq(size)
    gain = np.exp(-2 * (np.pi * _BACKGROUND_WIDTH * size) ** 2 * (k[:, None] ** 2 + k**2)).astype(np.float32)
    spectrum = library.fft2(library.cast(values, "complex64")[None, ...]) * library.from_host(gain)
    return library.xp.real(library.ifft2(spectrum))[0, ...]


def _probe_gradient(change: Array, patches: Array, fractions: Array, library: ArrayLibrary) -> tuple[Array, Array]:
    """Spectrum of the probe gradient, (modes, N, N), and power of the object, (N, N), summed over patterns."""
    xp = library.xp
    gradient = library.fft2(xp.conj(patches)[:, None, ...] * change)
    # Back to the unshifted probe: the adjoint of shift_probe.
    back = library.cast(xp.conj(shift_ramps(fractions, patches.shape[-1], library)), "complex64")
    gradient *= (back[:, 0, :, None] * back[:, 1, None, :])[:, None, ...]
    return xp.sum(gradient, axis=0), xp.sum(power(patches[:, None, ...], library), axis=0)


def _position_equations(change: Array, probes: Array, patches: Array, library: ArrayLibrary) -> list[Array]:
    """(b, 4) and (b, 2) float64: normal equations of the moves that fit the changes of the exit waves best."""
    xp, size = library.xp, probes.shape[-1]
    k = 2j * np.pi * np.fft.fftfreq(size)
    k[size // 2] = 0  # the Nyquist row has no direction
    factor = library.from_host(k.astype(np.complex64))
    spectrum = library.fft2(xp.asarray(probes, copy=True))
    slopes = []
    for along in (factor[:, None], factor[None, :]):
        slope = library.ifft2(spectrum * along) * patches[:, None, ...]  # minus the derivative by the position
        slopes.append(xp.reshape(slope, (slope.shape[0], -1)))
    slope = xp.stack(slopes, axis=1)  # (b, 2, modes N N)
    flat = xp.reshape(change, (change.shape[0], -1, 1))
    normal = xp.real(library.matmul(slope, xp.conj(xp.matrix_transpose(slope))))
    right = -xp.real(library.matmul(xp.conj(slope), flat))[..., 0]
    return [library.cast(xp.reshape(normal, (-1, 4)), "float64"), library.cast(right, "float64")]
