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
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Fetch, Patterns
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.forward import COUNT_FLOOR, power, sum_modes
from ptychopinn.geometry import Canvas, Windows
from ptychopinn.interpolation import ShiftedProbe, shift_probe, shift_ramps
from ptychopinn.monitor import Monitor
from ptychopinn.solvers.slow_phase import multiply_by_phase
from ptychopinn.tiles import Tile, Tiling
from ptychopinn.typing import AnyArray, FloatArray, IntArray

_MIN_ALPHA = 1e-3
_PROBE_ALPHA = 0.1  # as alpha, for the probe
_POSITION_DAMPING = 0.05  # of a position's equations, in terms of their mean over the batch
_MAX_STEP_PX = 0.3  # that a position moves in one batch,
_MAX_MOVE_PX = 3.0  # and in all
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
    position_step: float


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
        Of the positions, where they are free: share of a Gauss-Newton step.
    settles:
        False keeps the steps of the start.
    """

    alpha: float = 0.1
    momentum: float = 0.5
    object_step: float = 1.0
    last_object_step: float = 0.3  # small last steps average the noise of the counts
    probe_step: float = 0.1
    probe_momentum: float = 0.7
    position_step: float = 4.0  # the projection sees half of what a position is off, the object follows the rest
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
            position_step=self.position_step * step,
        )


@dataclass(frozen=True)
class PassOptions:
    """What passes change, and how.

    Attributes
    ----------
    schedule:
        Of the steps.
    update_probe, update_positions:
        Whether these are free.
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
    """

    windows: Windows
    error: Array
    energy: Array
    gradient: Array
    light: Array
    moves: tuple[Array, Array] | None
    probe: tuple[Array, Array] | None


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


class _Visit:
    """A tile and what its patterns keep from pass to pass; the numbers of its members are those among the used ones."""

    def __init__(self, tile: Tile, windows: Windows, batch_size: int) -> None:
        self.tile, self.windows, self.batch_size = tile, windows, batch_size
        self.given_fractions = windows.fractions


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
    probe:
        (modes, N, N) complex64 of the library, in counts.
    start:
        The object, changed; no window leaves it.
    options:
        What changes, and how.
    library:
        That of the patterns, as `ArrayLibrary.session` gives it.
    """

    def __init__(
        self,
        patterns: Patterns,
        used: IntArray,
        probe: Array,
        start: Canvas,
        options: PassOptions,
        library: ArrayLibrary | None = None,
    ) -> None:
        self._patterns, self._used, self._options = patterns, used, options
        self._library = patterns.library if library is None else library
        self._rng = np.random.default_rng(options.seed)
        self.frame = start.frame
        positions, size = patterns.data.positions[used], patterns.data.N
        self._tiling = Tiling(start.frame, start.library, positions, size, self._library)
        self._visits = [
            _Visit(
                tile,
                self._tiling.windows(tile, positions, size),
                options.batch_size or default_batch_size(len(tile.members), size, on_host=self._library.on_host),
            )
            for tile in self._tiling.tiles
        ]
        xp = self._library.xp
        self.probe = self._library.cast(probe, "complex64")
        self._energy = xp.sum(xp.abs(self.probe) ** 2)
        self._probe_velocity = xp.zeros_like(self.probe)
        self._shifted: ShiftedProbe | None = None  # while the probe does not change
        there = self._library if self._tiling.is_whole else start.library
        copy = there.xp.asarray(start.array, copy=True)
        self._motion = _Motion(start.array, there.xp.zeros_like(start.array), copy, there)

    @property
    def canvas(self) -> Canvas:
        """The object as it is."""
        return Canvas(self._motion.object, self.frame, self._motion.library)

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
        numbers = [self._used[visit.tile.members[chosen]] for visit, batches in plan for chosen in batches]
        reading = iter(self._patterns.batches(numbers))  # of all tiles: the next one's first batch is read in time
        error = energy = 0.0
        for visit, batches in plan:
            motion = self._load(visit.tile)
            every = max(1, len(batches) // _MOMENTUM_STEPS_PER_PASS)
            for number, chosen in enumerate(batches, 1):
                if monitor.cancelled:
                    self._store(visit.tile, motion)
                    return None
                steps = schedule.at((done + (number - 1) / len(batches)) / passes)  # in every tile as in the whole
                _, fetch = next(reading)
                missed, measured = self._update(visit, motion, chosen, fetch, steps)
                error, energy = error + missed, energy + measured
                if schedule.momentum > 0 and number % every == 0:
                    motion.take_again(steps.momentum)
            self._store(visit.tile, motion)
        total = float(energy)
        return math.sqrt(float(error) / total) if total > 0 else 0.0

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
    ) -> tuple[Array, Array]:
        """One batch; returns the squared error of the amplitudes before the update, and their square."""
        library, options = self._library, self._options
        if not options.update_probe and self._shifted is None:
            reach = _MAX_MOVE_PX if options.update_positions else 0.5
            self._shifted = ShiftedProbe(self.probe, library, reach)
        here = library.from_host(chosen)
        windows = visit.windows.take(here)
        # Of the shape alone: the cores there are change no result.
        step = library.batch_length(math.prod(self.probe.shape), _THREAD_VALUES)

        def compute(part: slice) -> _Gradients:
            return self._gradients(motion.object, windows[part], fetch(part))

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
        if options.update_positions:
            self._step_positions(visit, parts, here, steps.position_step)
        return sum(part.error for part in parts), sum(part.energy for part in parts)

    def _gradients(self, obj: Array, windows: Windows, measured: Array) -> _Gradients:
        """What some patterns of a batch say; nothing is changed."""
        library, xp = self._library, self._library.xp
        shifted = self._shifted
        probes = shift_probe(self.probe, windows.fractions, library) if shifted is None else shifted(windows.fractions)
        patches = windows.cut(obj)
        field = library.fft2(probes * patches[:, None, ...], norm="ortho")
        modelled = xp.sqrt(power(field, library))
        difference = measured - modelled
        if self._patterns.good is not None:
            difference *= self._patterns.good  # bad pixels keep the modelled modulus
        error, energy = (library.squared_sum(values) for values in (difference, measured))
        modelled += 1e-6 * xp.max(modelled) + _TINY
        if self._options.likelihood is Likelihood.POISSON:
            ratio = _poisson_ratio(difference, measured, modelled, library)
        else:
            ratio = difference / modelled
        field *= ratio[:, None, ...]
        change = library.ifft2(field, norm="ortho")
        options = self._options
        moves = _position_equations(change, probes, patches, library) if options.update_positions else None
        probe = _probe_gradient(change, patches, windows.fractions, library) if options.update_probe else None
        light = power(probes, library)
        gradient = sum_modes(library.conj_times(probes, change), library)
        return _Gradients(windows, error, energy, gradient, light, moves, probe)

    def _step_probe(self, parts: Sequence[_Gradients], step: float) -> None:
        library, xp = self._library, self._library.xp
        found = [part.probe for part in parts if part.probe is not None]
        spectrum, light = (sum(one[k] for one in found) for k in (0, 1))
        scale = (1 - _PROBE_ALPHA) * light + _PROBE_ALPHA * xp.max(light)
        moved = step * library.ifft2(spectrum) / scale
        momentum = self._options.schedule.probe_momentum
        self._probe_velocity = momentum * self._probe_velocity + moved
        self.probe = self.probe + moved + momentum * self._probe_velocity

    def _step_positions(self, visit: _Visit, parts: Sequence[_Gradients], here: Array, step: float) -> None:
        """Move the positions of a batch by a share of a Gauss-Newton step.

        Where a pattern says little, the mean of the batch damps it.
        """
        library, xp = self._library, self._library.xp
        equations = [part.moves for part in parts if part.moves is not None]
        normal, right = (xp.concat([one[k] for one in equations]) for k in (0, 1))
        yy, xx, yx = normal[:, 0, 0], normal[:, 1, 1], normal[:, 0, 1]
        damping = _POSITION_DAMPING * xp.mean(yy + xx) / 2 + _TINY
        yy, xx = yy + damping, xx + damping
        determinant = yy * xx - yx**2
        along_y, along_x = right[:, 0], right[:, 1]
        moves = xp.stack([xx * along_y - yx * along_x, yy * along_x - yx * along_y], axis=1) / determinant[:, None]
        moves = xp.clip(step * moves, -_MAX_STEP_PX, _MAX_STEP_PX)
        given, now = xp.take(visit.given_fractions, here, axis=0), visit.windows.fractions
        moved = xp.clip(xp.take(now, here, axis=0) + moves - given, -_MAX_MOVE_PX, _MAX_MOVE_PX)
        # The fractions as given stay as they are: the first change makes a copy.
        now = xp.asarray(now, copy=True) if now is visit.given_fractions else now
        visit.windows = replace(visit.windows, fractions=library.put(now, here, given + moved))

    def multiply_by_phase(self, phase: Array) -> None:
        """Multiply the object, and the way it is on, by ``exp(i phase)``, (H, W) float32 of the object's library."""
        self._motion.multiply_by_phase(phase)

    @property
    def moves_px(self) -> FloatArray:
        """(k, 2) (y, x): how far every position has moved, less what all moved together.

        Object and positions may move together without any pattern changing.
        """
        moved = np.zeros((len(self._used), 2))
        for visit in self._visits:
            moved[visit.tile.members] = self._library.to_host(visit.windows.fractions - visit.given_fractions)
        together: FloatArray = moved.mean(axis=0) if len(moved) else np.zeros(2)
        return moved - together

    def result(self) -> tuple[Canvas, Array]:
        """Object and probe; they share out their scale so that the probe keeps its energy."""
        xp, canvas = self._library.xp, self.canvas
        share = xp.sqrt(self._energy / xp.sum(xp.abs(self.probe) ** 2))
        of_object = share if self._tiling.is_whole else self._library.to_host(share)
        return replace(canvas, array=canvas.array / of_object), self.probe * share


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
