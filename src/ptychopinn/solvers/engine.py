"""The ptychographic iterative engine: passes over a scan that change an object, and if asked probe and positions.

Each pattern's exit wave keeps its modelled phase and is given its measured modulus; what that changes, ``d_j``, is
laid back onto the object and the probe:

    O += s sum_j conj(P_j) d_j / ((1 - a) sum_j |P_j|^2 + a max sum_j |P_j|^2)
    P += b sum_j conj(O_j) d_j / ((1 - a') sum_j |O_j|^2 + a' max sum_j |O_j|^2)

Sources: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009); the denominators and the momentum: Maiden, Johnson &
Li, Optica 4, 736 (2017). It is the engine of ePIE, rPIE and refinement, which differ by their `StepSchedule`.
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
_PROBE_ALPHA = 0.1  # as alpha, for the probe
_POSITION_DAMPING = 0.05  # of a position's equations, in terms of their mean over the scan
MAX_MOVE_PX = 16
"""That a position may move in all: the object needs so many pixels around it."""
_FLUX_RANGE = 4.0  # of a pattern, either way
_BACKGROUND_WIDTH = 1 / 20  # of N: deviation of the Gaussian that a smooth background is blurred with
_DARK_COUNTS = 0.5  # of a pixel, added to what weighs it in the background
_MOMENTUM_STEPS_PER_PASS = 8
_BATCH_VALUES = 1 << 19  # complex values of exit waves in a batch of a long scan: 4 MiB an array
_MAX_DEVICE_BATCH = 256
_THREAD_VALUES = 1 << 17  # complex values of exit waves that a thread takes at a time: fewer do not pay
_TINY = float(np.finfo(np.float32).tiny)


def default_batch_size(count: int, size: int, *, on_host: bool = True) -> int:
    """Patterns that act at once when nobody says.

    Parameters
    ----------
    count:
        Patterns of the scan.
    size:
        N.
    on_host:
        Whether the host computes.

    Returns
    -------
    1/32 of the scan, at least 8 and at most 32. In longer scans, whose patterns seldom meet in a batch, 1/64 where that
    is more: larger batches spread better over the cores, as long as exit waves take no more than 4 MiB a mode. A device
    wants them larger; 256 patterns leave 2% more error after a pass over 10,000 than 32 do.
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

    With ``alpha`` small and momentum, slow phases settle several times sooner; with ``alpha`` 1 and small steps noise
    averages out. So the steps go from the one to the other, with the cube of the share of the passes that is done.

    Attributes
    ----------
    alpha:
        ``a`` above at the start: 1 steps as the brightest point of the probe allows, 0 as every pixel's own light does.
        It rises to 1.
    momentum:
        Share of the object's last step that is taken again, 8 times a pass; it falls to 0.
    object_step, last_object_step:
        Of the object.
    probe_step, probe_momentum:
        Of the probe, where it is free, as a share of the object's step; its momentum acts at every batch.
    position_step:
        Of the positions, where they are free: share of a Gauss-Newton step in the first pass. Later ones follow from
        how the moves answered (`SecantStep`).
    settles:
        False keeps the steps of the start.
    """

    alpha: float = 0.1
    momentum: float = 0.5
    object_step: float = 1.0
    last_object_step: float = 0.3  # small last steps average the noise of the counts
    probe_step: float = 0.1
    probe_momentum: float = 0.7
    position_step: float = 4.0  # the object follows most of what a position is off, and the patterns see the rest
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
        """Steps where a share of the passes is done."""
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
    """What passes change, and how.

    Attributes
    ----------
    schedule:
        Of the steps.
    update_probe, update_positions, update_flux:
        Whether these are free.
    update_background:
        Whether a background is, and of which kind; None leaves that of the model.
    likelihood:
        Whose gradient the far field follows.
    batch_size:
        Patterns that act at once; None is `default_batch_size`.
    seed:
        Order of the patterns.
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
    """What b patterns of a batch say.

    Attributes
    ----------
    windows:
        Where they lie.
    error, energy:
        Squared error of their amplitudes, and their square.
    gradient, light:
        (b, N, N) complex64 and float32: what each adds to the object's change, and the probe's power.
    moves:
        (b, 2, 2) and (b, 2) of `_position_equations`, where positions move.
    probe:
        Of `_probe_gradient`, where the probe changes.
    light_sums:
        (b,) and (b,) of `_light_sums`, where the flux is free.
    background:
        (2, N, N) of `_background_sums`, where it is free.
    """

    windows: Windows
    error: Array
    energy: Array
    gradient: Array
    light: Array
    moves: tuple[Array, Array] | None
    probe: tuple[Array, Array] | None
    light_sums: tuple[Array, Array] | None
    background: Array | None


class _Motion:
    """An object, or a tile of it, and the way it is on.

    Attributes
    ----------
    object, velocity, last:
        (H, W) complex64 each: the last one is where the momentum was taken last.
    library:
        Whose arrays these are.
    """

    def __init__(self, obj: Array, velocity: Array, last: Array, library: ArrayLibrary) -> None:
        self.object, self.velocity, self.last, self.library = obj, velocity, last, library

    def take_again(self, momentum: float) -> None:
        """Take a share of the object's way since the last time once more."""

        def move(obj: Array, velocity: Array, last: Array) -> tuple[Array, Array, Array]:
            velocity *= momentum
            velocity += obj
            velocity -= last
            obj += momentum * velocity
            return obj, velocity, obj

        self.object, self.velocity, self.last = self.library.by_rows(move, self.object, self.velocity, self.last)

    def multiply_by_phase(self, phase: Array) -> None:
        """Multiply all of it by ``exp(i phase)``, (H, W) float32."""
        self.object, self.velocity, self.last = (
            multiply_by_phase(array, phase, self.library) for array in (self.object, self.velocity, self.last)
        )


@dataclass(frozen=True, eq=False)
class _Visit:
    """A tile, the windows of its members, whose numbers are those among the used patterns, and how many act at once."""

    tile: Tile
    windows: Windows
    batch_size: int


class PassEngine:
    """Object, probe and positions while passes change them.

    Where the object is the host's and another library computes, a pass visits one tile after the other: the object and
    the way it is on come to the device, and are written back before the next tile's. So neighbours see each other's
    changes; probe, positions and steps go on from tile to tile.

    Parameters
    ----------
    patterns:
        Of the scan; their library computes.
    used:
        (k,) int64: those that the passes use.
    model:
        Of the scan; its arrays are of the patterns' library.
    start:
        The object, changed; no window leaves it. Positions that are free stay where this is so: give it `MAX_MOVE_PX`
        around them.
    options:
        What changes, and how.
    library:
        That of the patterns, as `ArrayLibrary.session` gives it.

    Attributes
    ----------
    probe, background:
        As they are now.
    positions, flux:
        (k, 2) float64, and (k,) float32 or None, on the host: those of the used patterns as they are now.
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
        self._visits = [
            _Visit(
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
        self._shifted: ShiftedProbe | None = None  # while the probe does not change
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
        self._motion = _Motion(start.array, there.xp.zeros_like(start.array), copy, there)

    @property
    def canvas(self) -> Canvas:
        """The object as it is."""
        return Canvas(self._motion.object, self.frame, self._motion.library)

    @property
    def runaways(self) -> int:
        """Positions that moved by `MAX_MOVE_PX`, and were put back where they were given."""
        return int(self._ran_away.sum())

    def run(self, done: int, passes: int, monitor: Monitor) -> float | None:
        """One pass.

        Parameters
        ----------
        done, passes:
            Passes done before, and in all.
        monitor:
            Asked at every batch.

        Returns
        -------
        ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` over the good pixels, each pattern looked at just before it changes
        the object; None if cancelled.
        """
        schedule = self._options.schedule
        plan = [
            (visit, list(shuffled_batches(self._rng.permutation(len(visit.windows)), visit.batch_size)))
            for visit in self._visits
        ]
        members = [visit.tile.members[chosen] for visit, batches in plan for chosen in batches]
        reading = iter(self._patterns.batches([self._used[some] for some in members]))  # the next tile's too, in time
        tally = _Tally(members)
        for visit, batches in plan:
            motion = self._load(visit.tile)
            every = max(1, len(batches) // _MOMENTUM_STEPS_PER_PASS)
            for number, chosen in enumerate(batches, 1):
                if monitor.cancelled:
                    self._store(visit.tile, motion)
                    return None
                steps = schedule.at((done + (number - 1) / len(batches)) / passes)  # in every tile as in the whole
                _, fetch = next(reading)
                tally.add(self._update(visit, motion, chosen, fetch, steps), self._library)
                if schedule.momentum > 0 and number % every == 0:
                    motion.take_again(steps.momentum)
            self._store(visit.tile, motion)
        self._move_positions(tally)
        self._fit_flux(tally)
        self._fit_background(tally)
        total = float(tally.energy)
        return math.sqrt(float(tally.error) / total) if total > 0 else 0.0

    def _load(self, tile: Tile) -> _Motion:
        if self._tiling.is_whole:
            return self._motion
        whole = self._motion
        obj, velocity, last = (self._tiling.load(tile, one) for one in (whole.object, whole.velocity, whole.last))
        return _Motion(obj, velocity, last, self._library)

    def _store(self, tile: Tile, motion: _Motion) -> None:
        if motion is not self._motion:
            for name in ("object", "velocity", "last"):
                stored = self._tiling.store(tile, getattr(self._motion, name), getattr(motion, name))
                setattr(self._motion, name, stored)

    def _update(
        self, visit: _Visit, motion: _Motion, chosen: IntArray, fetch: Fetch, steps: Steps
    ) -> Sequence[_Gradients]:
        """Change the object, and the probe where it is free, by what the patterns of a batch say."""
        library, options = self._library, self._options
        if not options.update_probe and self._shifted is None:
            self._shifted = ShiftedProbe(self.probe, library)
        windows = visit.windows.take(library.from_host(chosen))
        flux = None if self.flux is None else self.flux[visit.tile.members[chosen]]
        roots = None if flux is None else library.from_host(np.sqrt(flux)[:, None, None, None])
        # Of the shape alone: the cores there are change no result.
        step = library.batch_length(math.prod(self.probe.shape), _THREAD_VALUES)

        def compute(part: slice) -> _Gradients:
            return self._gradients(
                motion.object, windows[part], None if roots is None else roots[part, ...], fetch(part)
            )

        parts = library.spread(compute, slices_of(len(chosen), step))
        motion.object = library.add_quotient(
            motion.object,
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
        """What some patterns of a batch say; nothing is changed."""
        library, xp, options = self._library, self._library.xp, self._options
        shifted = self._shifted
        probes = shift_probe(self.probe, windows.fractions, library) if shifted is None else shifted(windows.fractions)
        if roots is not None:
            probes *= roots
        patches = windows.cut(obj)
        field = library.fft2(probes * patches[:, None, ...], norm="ortho")
        intensity = power(field, library)
        sums = self._light_sums(measured, intensity) if options.update_flux else None
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
        moves = _position_equations(change, probes, patches, library) if options.update_positions else None
        probe = None
        if options.update_probe:
            seen = patches if roots is None else patches * roots[:, 0, ...]
            probe = _probe_gradient(change, seen, windows.fractions, library)
        light = power(probes, library)
        gradient = sum_modes(library.conj_times(probes, change), library)
        return _Gradients(windows, error, energy, gradient, light, moves, probe, sums, background)

    def _step_probe(self, parts: Sequence[_Gradients], step: float) -> None:
        library, xp = self._library, self._library.xp
        found = [part.probe for part in parts if part.probe is not None]
        spectrum, light = (sum(one[k] for one in found) for k in (0, 1))
        scale = (1 - _PROBE_ALPHA) * light + _PROBE_ALPHA * xp.max(light)
        moved = step * library.ifft2(spectrum) / scale
        momentum = self._options.schedule.probe_momentum
        self._probe_velocity = momentum * self._probe_velocity + moved
        self.probe = self.probe + moved + momentum * self._probe_velocity

    def _light_sums(self, measured: Array, intensity: Array) -> tuple[Array, Array]:
        """(b,) and (b,) float64: measured counts less the background, and what flux and object make of them."""
        xp, good = self._library.xp, self._patterns.good
        counts = measured**2 if self.background is None else measured**2 - self.background
        pair = (counts, intensity) if good is None else (counts * good, intensity * good)
        seen, modelled = (xp.sum(values, axis=(1, 2), dtype=xp.float64) for values in pair)
        return seen, modelled

    def _background_sums(self, difference: Array, total: Array, modelled: Array) -> Array:
        """(2, N, N): sums over patterns of the weights ``1 / I``, and of ``n - I`` times these; 0 at bad pixels.

        ``n - I`` is the difference of the amplitudes times their sum.
        """
        xp, good = self._library.xp, self._patterns.good
        weight = 1 / (modelled**2 + _DARK_COUNTS)
        if good is not None:
            weight *= good
        return xp.stack([xp.sum(weight, axis=0), xp.sum(weight * difference * total, axis=0)])

    def _move_positions(self, tally: _Tally) -> None:
        if not self._options.update_positions:
            return
        normal, right = (tally.in_order(of, self._library) for of in (tally.normal, tally.right))
        moved: FloatArray = self.positions + self._position_steps.moves(_solve_moves(normal, right))
        away = (np.abs(moved - self._given) >= MAX_MOVE_PX).any(axis=1)
        self._ran_away |= away
        moved[away] = self._given[away]
        half = (self._patterns.data.N - 1) / 2
        visits, size = [], self._patterns.data.N
        for visit in self._visits:
            low = np.asarray(visit.tile.frame.origin) + half
            high = np.maximum(low + np.asarray(visit.tile.frame.shape) - size, low)
            members = visit.tile.members
            moved[members] = np.clip(moved[members], low, high)
            visits.append(replace(visit, windows=self._tiling.windows(visit.tile, moved, size)))
        self.positions, self._visits = moved, visits

    def _fit_flux(self, tally: _Tally) -> None:
        """Give every pattern the light it was measured with; the mean of all stays 1."""
        if not self._options.update_flux or self.flux is None:
            return
        measured, modelled = (tally.in_order(of, self._library) for of in (tally.measured, tally.modelled))
        factor = np.where((measured > 0) & (modelled > 0), measured / np.maximum(modelled, _TINY), 1.0)
        flux = np.clip(self.flux * factor, 1 / _FLUX_RANGE, _FLUX_RANGE)
        self.flux = (flux / flux.mean()).astype(np.float32)

    def _fit_background(self, tally: _Tally) -> None:
        """The counts that most patterns have more than their light explains, less one deviation of their noise.

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
        """Multiply the object, and the way it is on, by ``exp(i phase)``, (H, W) float32 of the object's library."""
        self._motion.multiply_by_phase(phase)

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
    """What the batches of a pass say together.

    Attributes
    ----------
    error, energy:
        Squared error of all amplitudes, each looked at just before it changed the object, and their square.
    normal, right, measured, modelled:
        Of `_position_equations` and `PassEngine._light_sums`, a part of a batch after the other.
    background:
        (2, N, N), the sum of `_background_sums`.
    """

    def __init__(self, members: Sequence[IntArray]) -> None:
        self._members = members
        self.error: Array = 0.0
        self.energy: Array = 0.0
        self.normal: list[Array] = []
        self.right: list[Array] = []
        self.measured: list[Array] = []
        self.modelled: list[Array] = []
        self.background: Array = 0.0

    def add(self, parts: Sequence[_Gradients], library: ArrayLibrary) -> None:
        """Count a batch."""
        for part in parts:
            self.error, self.energy = self.error + part.error, self.energy + part.energy
            if part.moves is not None:
                self.normal.append(part.moves[0])
                self.right.append(part.moves[1])
            if part.light_sums is not None:
                self.measured.append(part.light_sums[0])
                self.modelled.append(part.light_sums[1])
            if part.background is not None:
                self.background = self.background + part.background

    def in_order(self, values: Sequence[Array], library: ArrayLibrary) -> FloatArray:
        """Values of the batches, on the host, in the order of the used patterns."""
        found = library.to_host(library.xp.concat(list(values)))
        ordered = np.empty_like(found)
        ordered[np.concatenate(self._members)] = found
        return ordered


def check_passes(data: ScanDataset, probe: AnyArray, passes: int) -> None:
    """Refuse what no pass can be made of.

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
    """Indices of each batch, ascending, so that a memory-mapped scan is read forwards."""
    for low in range(0, len(order), size):
        yield np.sort(order[low : low + size])


def _poisson_ratio(difference: Array, measured: Array, modelled: Array, library: ArrayLibrary) -> Array:
    """(n - I) / (2 (I + c)), the gradient of the Poisson likelihood of counts with a floor c, over the field.

    Where the counts are many it is the amplitudes' ratio ``(sqrt n - sqrt I) / sqrt I``; dark pixels weigh less. Every
    pattern's step is made no longer than that of the amplitudes: the curvature at dark pixels bounds it.
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
    """(n, 2) Gauss-Newton steps from the equations of each pattern; where one says little, their mean damps it."""
    damping = _POSITION_DAMPING * np.trace(normal.mean(axis=0)) / 2 + _TINY
    moves: FloatArray = np.linalg.solve(normal + damping * np.eye(2), right[..., None])[..., 0]
    return moves


def _blurred(values: Array, library: ArrayLibrary) -> Array:
    """(N, N) float32 blurred by the Gaussian of a smooth background."""
    size = values.shape[-1]
    k = np.fft.fftfreq(size)
    gain = np.exp(-2 * (np.pi * _BACKGROUND_WIDTH * size) ** 2 * (k[:, None] ** 2 + k**2)).astype(np.float32)
    spectrum = library.fft2(library.cast(values, "complex64")[None, ...]) * library.from_host(gain)
    return library.xp.real(library.ifft2(spectrum))[0, ...]


def _probe_gradient(change: Array, patches: Array, fractions: Array, library: ArrayLibrary) -> tuple[Array, Array]:
    """The gradient's spectrum, (modes, N, N), and (N, N) of the object's power, summed over some patterns."""
    xp = library.xp
    gradient = library.fft2(xp.conj(patches)[:, None, ...] * change)
    # Back to the unshifted probe: the adjoint of shift_probe, summed over the patterns on the way.
    back = library.cast(xp.conj(shift_ramps(fractions, patches.shape[-1], library)), "complex64")
    gradient *= (back[:, 0, :, None] * back[:, 1, None, :])[:, None, ...]
    return xp.sum(gradient, axis=0), xp.sum(power(patches[:, None, ...], library), axis=0)


def _position_equations(change: Array, probes: Array, patches: Array, library: ArrayLibrary) -> tuple[Array, Array]:
    """(b, 2, 2) and (b, 2): the equations of the moves that make exit waves change most nearly as they should."""
    xp, size = library.xp, probes.shape[-1]
    k = 2j * np.pi * np.fft.fftfreq(size)
    k[size // 2] = 0  # the Nyquist row has no direction
    factor = library.from_host(k.astype(np.complex64))
    spectrum = library.fft2(xp.asarray(probes, copy=True))
    slopes = []
    for along in (factor[:, None], factor[None, :]):
        slope = library.ifft2(spectrum * along) * patches[:, None, ...]  # of the exit wave with the position, negative
        slopes.append(xp.reshape(slope, (slope.shape[0], -1)))
    slope = xp.stack(slopes, axis=1)  # (b, 2, modes N N)
    flat = xp.reshape(change, (change.shape[0], -1, 1))
    normal = xp.real(library.matmul(slope, xp.conj(xp.matrix_transpose(slope))))
    right = -xp.real(library.matmul(xp.conj(slope), flat))[..., 0]
    return library.cast(normal, "float64"), library.cast(right, "float64")
