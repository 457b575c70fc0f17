"""What `ptychopinn.solvers.epie` changes from batch to batch: object, probe, and the amplitudes it compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.fft

from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.forward import COUNT_FLOOR, add_windows, over_modes, power
from ptychopinn.interpolation import ShiftedProbe, shift_probe, shift_ramps
from ptychopinn.parallel import Crew
from ptychopinn.solvers.phases import turn
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_PROBE_ALPHA = 0.1  # as alpha, for the probe
_POSITION_DAMPING = 0.05  # of a position's equations, in terms of their mean over the batch
_MOST_PX = 0.3  # that a position moves in one step,
_FARTHEST_PX = 3.0  # and in all
MOMENTA_A_PASS = 8
_BATCH_VALUES = 1 << 19  # complex values of exit waves in a batch of a long scan: 4 MiB an array
_BLOCK = 256  # patterns prepared at a time
_ROWS = 64  # of the object, changed at a time
_SMALL = 96  # pixels along a window below which threads would wait for Python instead of adding windows
_PART_VALUES = 1 << 17  # complex values of exit waves that a thread takes at a time: fewer do not pay
_BLOCK_PIXELS = 1 << 18  # of the object, stepped at a time: shorter operations wait for Python
CACHE_BYTES = 1 << 31
"""Of amplitudes; beyond it they are made anew in every pass."""


def usual_batch_size(count: int, size: int) -> int:
    """Patterns that act at once when nobody says.

    Parameters
    ----------
    count:
        Patterns of the scan.
    size:
        N.

    Returns
    -------
    1/32 of the scan, at least 8 and at most 32. In longer scans, whose patterns seldom meet in a batch, 1/64 where that
    is more and exit waves take no more than 4 MiB a mode: larger batches spread better over the cores.
    """
    shared = min(count // 64, _BATCH_VALUES // size**2)
    return max(min(max(count // 32, 8), 32), shared)


def _poisson_ratio(difference: FloatArray, measured: FloatArray, modelled: FloatArray) -> FloatArray:
    """(n - I) / (2 (I + c)), the gradient of the Poisson likelihood of counts with a floor c, over the field.

    Where the counts are many it is the amplitudes' ratio ``(sqrt n - sqrt I) / sqrt I``; dark pixels weigh less. Every
    pattern's step is made no longer than that of the amplitudes: the curvature at dark pixels bounds it.
    """
    intensity = modelled**2
    ratio = difference * (measured + modelled) / (2 * (intensity + np.float32(COUNT_FLOOR)))
    length = np.sqrt((ratio**2 * intensity).sum(axis=(1, 2), keepdims=True))
    longest = np.sqrt((difference**2).sum(axis=(1, 2), keepdims=True))
    bounded: FloatArray = ratio * np.minimum(1, longest / np.maximum(length, np.finfo(np.float32).tiny))
    return bounded


class Amplitudes:
    """Square roots of counts with DC in the corner; kept in memory while they fit ``cache_bytes``."""

    def __init__(self, data: ScanDataset, cache_bytes: int = CACHE_BYTES) -> None:
        self._data = data
        self._kept: AnyArray | None = None
        if 4 * len(data) * data.N**2 <= cache_bytes:
            self._kept = np.empty((len(data), data.N, data.N), np.float32)
            for low in range(0, len(data), _BLOCK):
                block = np.arange(low, min(low + _BLOCK, len(data)))
                self._kept[block] = self._load(block)

    def _load(self, indices: IntArray) -> FloatArray:
        counts = self._data.counts(indices)
        return np.fft.ifftshift(np.sqrt(counts, out=counts), axes=(1, 2))

    def __getitem__(self, indices: IntArray) -> FloatArray:
        return self._load(indices) if self._kept is None else self._kept[indices]


@dataclass(frozen=True, eq=False)
class _Looked:
    """What b patterns of a batch say.

    Attributes
    ----------
    corners:
        (b, 2), where their windows begin.
    error, total:
        Squared error of their amplitudes, and their square.
    gradient, light:
        (b, N, N) complex64 and float32: what each adds to the object's change, and the probe's power.
    moves:
        (b, 2, 2) and (b, 2) of `Solution._position_equations`, where positions move.
    probe:
        Of `Solution._probe_gradient`, where the probe changes.
    """

    corners: IntArray
    error: float
    total: float
    gradient: ComplexArray
    light: FloatArray
    moves: tuple[FloatArray, FloatArray] | None
    probe: tuple[ComplexArray, FloatArray] | None


class Solution:
    """Object and probe while they change.

    Parameters
    ----------
    obj:
        (H, W) complex64, changed; it covers the box of all windows, so none leaves it.
    probe:
        (modes, N, N) complex.
    corners, fractions:
        (n, 2) each: where every pattern's window begins in ``obj``, and what remains of a pixel.
    crew:
        Threads for a batch's patterns.
    """

    def __init__(
        self,
        obj: ComplexArray,
        probe: ComplexArray,
        corners: IntArray,
        fractions: FloatArray,
        crew: Crew,
    ) -> None:
        self._object, self._crew = obj, crew
        self._probe = probe.astype(np.complex64)
        self._norm = float(np.linalg.norm(self._probe))
        self._corners = corners
        self._fractions = np.array(fractions, np.float64)
        self._given_fractions = self._fractions.copy()
        self._last = obj.copy()  # where the momentum was taken last
        self._velocity = np.zeros(obj.shape, np.complex64)
        self._probe_velocity = np.zeros_like(self._probe)
        self._sum = np.zeros(obj.shape, np.complex64)  # zero between updates
        self._light = np.zeros(obj.shape, np.float32)  # zero between updates
        self._shifts: ShiftedProbe | None = None  # while the probe does not change

    def update(
        self,
        chosen: IntArray,
        amplitudes: Amplitudes,
        good: FloatArray | None,
        *,
        object_step: float,
        alpha: float,
        probe_step: float,
        probe_momentum: float,
        position_step: float = 0.0,
        likelihood: Likelihood = Likelihood.AMPLITUDE,
    ) -> tuple[float, float]:
        """One batch.

        Parameters
        ----------
        chosen:
            (b,) indices of its patterns.
        amplitudes:
            Of all patterns.
        good:
            (N, N) float32, 1 where the detector measures and 0 elsewhere, DC in the corner; None if it does everywhere.
        object_step, alpha, probe_step, probe_momentum:
            As in `ptychopinn.solvers.epie.epie`; a ``probe_step`` of 0 leaves the probe alone.
        position_step:
            Share of the Gauss-Newton step that positions take; 0 leaves them alone.
        likelihood:
            Whose gradient the field follows.

        Returns
        -------
        Squared error of the amplitudes before the update, and their square.
        """
        if probe_step > 0:
            self._shifts = None
        elif self._shifts is None:
            self._shifts = ShiftedProbe(self._probe)
        step = max(_PART_VALUES // self._probe.size, 1)  # of the shape alone: the cores there are change no result

        def look(low: int) -> _Looked:
            return self._look(
                chosen[low : low + step],
                amplitudes,
                good,
                likelihood,
                moves_probe=probe_step > 0,
                moves_positions=position_step > 0,
            )

        parts = self._crew.spread(look, range(0, len(chosen), step))
        self._step_object(parts, object_step, alpha)
        if probe_step > 0:
            self._step_probe(parts, probe_step, probe_momentum)
        if position_step > 0:
            moves = self._position_moves(parts, position_step)
            moved = self._fractions[chosen] + moves - self._given_fractions[chosen]
            self._fractions[chosen] = self._given_fractions[chosen] + np.clip(moved, -_FARTHEST_PX, _FARTHEST_PX)
        return sum(part.error for part in parts), sum(part.total for part in parts)

    def _look(
        self,
        chosen: IntArray,
        amplitudes: Amplitudes,
        good: FloatArray | None,
        likelihood: Likelihood,
        *,
        moves_probe: bool,
        moves_positions: bool,
    ) -> _Looked:
        """What some patterns of a batch say; nothing is changed."""
        size = self._probe.shape[-1]
        corners = self._corners[chosen]
        measured, probes = amplitudes[chosen], self._probes(chosen)
        total = float(np.vdot(measured, measured))
        view = np.lib.stride_tricks.sliding_window_view(self._object, (size, size))
        windows = view[corners[:, 0], corners[:, 1]]  # a copy
        field = scipy.fft.fft2(probes * windows[:, None], norm="ortho", overwrite_x=True)
        modelled = np.sqrt(power(field))
        difference = measured - modelled
        if good is not None:
            difference *= good  # bad pixels keep the modelled modulus
        error = float(np.vdot(difference, difference))
        modelled += np.float32(1e-6) * modelled.max() + np.finfo(np.float32).tiny
        if likelihood is Likelihood.POISSON:
            field *= _poisson_ratio(difference, measured, modelled)[:, None]
        else:
            field *= (difference / modelled)[:, None]
        change = scipy.fft.ifft2(field, norm="ortho", overwrite_x=True)
        moves = self._position_equations(change, probes, windows) if moves_positions else None
        light = power(probes)
        gradient = np.conjugate(probes, out=probes)
        gradient *= change
        return _Looked(
            corners=corners,
            error=error,
            total=total,
            gradient=over_modes(gradient),
            light=light,
            moves=moves,
            probe=self._probe_gradient(change, windows, self._fractions[chosen]) if moves_probe else None,
        )

    def _probes(self, chosen: IntArray) -> ComplexArray:
        """(b, modes, N, N) complex64: the probe at the fractions of some patterns."""
        fractions = self._fractions[chosen]
        return shift_probe(self._probe, fractions) if self._shifts is None else self._shifts(fractions)

    def _step_object(self, parts: Sequence[_Looked], step: float, alpha: float) -> None:
        size = self._probe.shape[-1]
        corners = np.concatenate([part.corners for part in parts])
        bands = self._bands(corners)

        def places(low: int, high: int) -> list[tuple[slice, slice]]:
            """Window by window, or the box of all where that is less: the cost is bounded by that of the batch."""
            begin, end = np.maximum(corners[:, 0], low), np.minimum(corners[:, 0] + size, high)
            met = begin < end
            begin, end, left = begin[met], end[met], corners[met, 1]
            if not met.any():
                return []
            top, bottom, across = int(begin.min()), int(end.max()), slice(int(left.min()), int(left.max()) + size)
            width = across.stop - across.start
            if (bottom - top) * width <= size * (end - begin).sum():
                step = max(_BLOCK_PIXELS // width, 1)
                return [(slice(y, min(y + step, bottom)), across) for y in range(top, bottom, step)]
            found = zip(begin.tolist(), end.tolist(), left.tolist(), strict=True)
            return [(slice(y, stop), slice(x, x + size)) for y, stop, x in found]

        def add(band: tuple[int, int]) -> float:
            low, high = band
            for part in parts:
                add_windows(self._sum[low:high], part.gradient, part.corners - np.array([low, 0]))
                add_windows(self._light[low:high], part.light, part.corners - np.array([low, 0]))
            return max((float(self._light[place].max()) for place in places(low, high)), default=0.0)

        # Of the summed light: where patterns of a batch overlap, their changes add up.
        brightest = np.float32(alpha * max(self._crew.spread(add, bands)))

        def take(band: tuple[int, int]) -> None:
            seen = places(*band)
            for place in seen:
                share = np.float32(1 - alpha) * self._light[place]
                share += brightest
                np.divide(np.float32(step), share, out=share)  # a complex quotient takes three times as long
                total = self._sum[place]
                total *= share
                self._object[place] += total
                total[:] = 0
            for place in seen:
                self._light[place] = 0

        self._crew.spread(take, bands)

    def _bands(self, corners: IntArray) -> list[tuple[int, int]]:
        """Rows of the object, first and last but one, that threads change side by side: about as much of each batch."""
        count, height, size = self._crew.count, len(self._object), self._probe.shape[-1]
        if size < _SMALL:
            return [(0, height)]
        middles = np.quantile(corners[:, 0] + size // 2, np.arange(1, count) / count).astype(int).tolist()
        return list(pairwise(sorted({0, *middles, height})))

    @staticmethod
    def _probe_gradient(
        change: ComplexArray, windows: ComplexArray, fractions: FloatArray
    ) -> tuple[ComplexArray, FloatArray]:
        """The gradient's spectrum, (modes, N, N), and (N, N) of the object's power, summed over some patterns."""
        gradient = scipy.fft.fft2(windows.conj()[:, None] * change, overwrite_x=True)
        # Back to the unshifted probe: the adjoint of shift_probe, summed over the patterns on the way.
        back = shift_ramps(fractions, windows.shape[-1]).conj().astype(np.complex64)
        gradient *= (back[:, 0, :, None] * back[:, 1, None, :])[:, None]
        return gradient.sum(axis=0), (windows.real**2 + windows.imag**2).sum(axis=0)

    def _step_probe(self, parts: Sequence[_Looked], step: float, momentum: float) -> None:
        found = [part.probe for part in parts if part.probe is not None]
        summed, light = (np.sum([one[k] for one in found], axis=0) for k in (0, 1))
        scale = np.float32(1 - _PROBE_ALPHA) * light + np.float32(_PROBE_ALPHA) * light.max()
        moved = np.float32(step) * scipy.fft.ifft2(summed) / scale
        self._probe_velocity = np.float32(momentum) * self._probe_velocity + moved
        self._probe = self._probe + moved + np.float32(momentum) * self._probe_velocity

    @staticmethod
    def _position_equations(
        change: ComplexArray, probes: ComplexArray, windows: ComplexArray
    ) -> tuple[FloatArray, FloatArray]:
        """(b, 2, 2) and (b, 2): the equations of the moves that make exit waves change most nearly as they should."""
        k = 2j * np.pi * scipy.fft.fftfreq(probes.shape[-1])
        k[len(k) // 2] = 0  # the Nyquist row has no direction
        spectrum = scipy.fft.fft2(probes)
        slopes = np.stack(
            [
                -scipy.fft.ifft2(spectrum * factor.astype(np.complex64), overwrite_x=True) * windows[:, None]
                for factor in (k[:, None], k[None, :])
            ]
        )  # of the exit wave with the position: (2, b, modes, N, N)
        normal = np.einsum("ibmyx,jbmyx->bij", slopes.conj(), slopes, optimize=True).real.astype(np.float64)
        right = np.einsum("ibmyx,bmyx->bi", slopes.conj(), change, optimize=True).real.astype(np.float64)
        return normal, right

    @staticmethod
    def _position_moves(parts: Sequence[_Looked], step: float) -> FloatArray:
        """(b, 2) (y, x) pixels: a share of the moves; where a pattern says little, the mean of the batch damps them."""
        normal, right = (np.concatenate([part.moves[k] for part in parts if part.moves is not None]) for k in (0, 1))
        level = float(np.trace(normal, axis1=1, axis2=2).mean()) / 2
        normal += (_POSITION_DAMPING * level + np.finfo(np.float32).tiny) * np.eye(2)
        moves: FloatArray = step * np.linalg.solve(normal, right[..., None])[..., 0]
        return np.clip(moves, -_MOST_PX, _MOST_PX)

    @property
    def moved_px(self) -> FloatArray:
        """(n, 2) (y, x): how far every position has moved, less what all moved together.

        Object and positions may move together without any pattern changing.
        """
        moved = self._fractions - self._given_fractions
        together: FloatArray = moved.mean(axis=0) if len(moved) else np.zeros(2)
        return moved - together

    def coast(self, momentum: float) -> None:
        """Take a share of the object's way since the last time once more."""
        share = np.float32(momentum)

        def move(low: int) -> None:
            block = slice(low, low + _ROWS)
            velocity, obj, last = (array[block] for array in (self._velocity, self._object, self._last))
            velocity *= share
            velocity += obj
            velocity -= last
            obj += share * velocity
            np.copyto(last, obj)

        self._crew.spread(move, range(0, len(self._object), _ROWS))

    @property
    def object(self) -> ComplexArray:
        """(H, W), as it stands, not to be changed."""
        return self._object

    @property
    def probe(self) -> ComplexArray:
        """(modes, N, N), as it stands."""
        return self._probe

    def turn(self, phase: FloatArray) -> None:
        """Multiply the object, and the way it is on, by ``exp(i phase)``, (H, W) float32."""
        for array in (self._object, self._last, self._velocity):
            turn(array, phase)

    def result(self) -> tuple[ComplexArray, ComplexArray]:
        """Object and probe; they share out their scale so that the probe has the energy it started with."""
        share = np.float32(self._norm / float(np.linalg.norm(self._probe)))
        return self._object / share, self._probe * share
