"""The probe of the passes: its steps where it is free, and the gauge of its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.exposure import Exposure
from ptychopinn.interpolation import ShiftedProbe, shift_probe, shift_ramps
from ptychopinn.scan_model import ScanModel
from ptychopinn.typing import ComplexArray, IntArray

_ALPHA = 0.1  # regularisation of the probe, as alpha for the object
_VALUE_BYTES = 8  # of complex64


class FreeModes:
    """Modes of a probe with their momentum.

    Attributes
    ----------
    modes:
        (k, N, N) complex64 of the library, current value.
    """

    def __init__(self, modes: Array, momentum: float, library: ArrayLibrary) -> None:
        self.modes, self._momentum, self._library = modes, momentum, library
        self._velocity = library.xp.zeros_like(modes)

    @property
    def arrays(self) -> list[Array]:
        """The arrays that steps read and change."""
        return [self.modes, self._velocity]

    def step(self, spectrum: Array, light: Array, step: float | Array) -> None:
        """Take a step along a gradient, (k, N, N) spectrum, with the (N, N) power of the object of its patterns."""
        library = self._library
        moved = step * library.ifft2(spectrum) / ((1 - _ALPHA) * light + _ALPHA * library.xp.max(light))
        velocity = self._momentum * self._velocity + moved
        self._set(self.modes + moved + self._momentum * velocity, velocity)

    def map(self, change: Callable[[Array], Array]) -> None:
        """Apply a linear function to modes and momentum."""
        self._set(change(self.modes), change(self._velocity))

    def _set(self, modes: Array, velocity: Array) -> None:
        # In place, because a recorded step has these arrays.
        self.modes, self._velocity = (
            self._library.put(old, (...,), new) for old, new in ((self.modes, modes), (self._velocity, velocity))
        )


class ProbeState:
    """A probe, with its momentum if it is free.

    A probe that stays, at positions that stay, is shifted to the positions once, where memory allows it. Shifts are up
    to a quarter of the work of a pass on the host.

    Parameters
    ----------
    model:
        Has the probe, (modes, N, N) complex64 of the library, and how far the stage moves in an exposure.
    free:
        Whether `step` will change it.
    momentum:
        Fraction of the last step that is repeated.
    count:
        Number of patterns whose positions stay; 0 if positions move.
    budget_bytes:
        Memory on the host for what is kept from pass to pass.

    Attributes
    ----------
    exposure:
        Its places in an exposure.
    """

    def __init__(
        self,
        model: ScanModel,
        library: ArrayLibrary,
        *,
        free: bool,
        momentum: float,
        count: int,
        budget_bytes: int,
    ) -> None:
        self._state = FreeModes(
            library.xp.asarray(library.cast(model.probe, "complex64"), copy=free), momentum, library
        )
        self._library, self._free = library, free
        self._energy = library.xp.sum(library.xp.abs(self.modes) ** 2)
        self._prepared: ShiftedProbe | None = None
        self.exposure = Exposure(model.motion_px, self.modes.shape[-1], library)
        shape = (count, *self.wave_shape)
        small = library.on_host and not free and 0 < _VALUE_BYTES * math.prod(shape) <= budget_bytes
        self._kept_shape = shape if small else None
        self._kept: ComplexArray | None = None
        self._kept_all = False

    @property
    def modes(self) -> Array:
        """(modes, N, N) complex64, current value."""
        return self._state.modes

    @property
    def wave_shape(self) -> tuple[int, ...]:
        """(places * modes, N, N): shape of what `at` gives of a pattern."""
        return (self.exposure.places * self.modes.shape[0], *self.modes.shape[1:])

    @property
    def arrays(self) -> list[Array]:
        """The arrays that steps read and change."""
        return self._state.arrays

    def begin_pass(self, passes: int) -> None:
        """Prepare for a pass; ``passes`` of them are left."""
        if self._free:
            return
        if self._prepared is None:
            self._prepared = ShiftedProbe(self.exposure.spread(self.modes), self._library)
        if self._kept is None and self._kept_shape is not None and passes > 1:
            self._kept = np.empty(self._kept_shape, np.complex64)

    def end_pass(self) -> None:
        """Say that the pass was at every position."""
        self._kept_all = self._kept is not None

    def at(self, fractions: Array, members: IntArray | None = None) -> Array:
        """(b, places * modes, N, N), which may be changed: the probe shifted by (b, 2) fractions of a pixel.

        ``members`` are the numbers of the patterns at these fractions, (b,) int64 on the host; with them shifts are
        kept.
        """
        if self._prepared is None:
            return shift_probe(self.exposure.spread(self.modes), fractions, self._library)
        if self._kept is None or members is None:
            return self._prepared(fractions)
        if not self._kept_all:
            self._kept[members] = self._prepared(fractions)
        return self._library.take(self._kept, members)

    def gradient(self, parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
        """Sums over a batch: spectrum of the gradient, (modes, N, N), and power of the object, (N, N)."""
        spectrum, light = (sum(one[k] for one in parts) for k in (0, 1))
        return self.exposure.gather(spectrum), light

    def step(self, spectrum: Array, light: Array, step: float | Array) -> None:
        """Update the probe with the `gradient` of a batch."""
        self._state.step(spectrum, light, step)

    def conserve_energy(self, variation_energy: Array) -> None:
        """Conserve the energy that probe and variation have together now."""
        self._energy = self._library.xp.sum(self._library.xp.abs(self.modes) ** 2) + variation_energy

    def add_to_first(self, change: Array) -> None:
        """Add (N, N) to the first mode."""
        self._state.modes = self._library.put(self.modes, (0, ...), self.modes[0, ...] + change)

    def result(self, variation_energy: Array | None = None) -> tuple[Array, Array]:
        """The probe with its initial energy, free modes orthogonal, and the factor that it was multiplied by.

        With the energy of a variation of its first mode, that mode is mixed with no other.
        """
        xp, varies = self._library.xp, variation_energy is not None
        energy = xp.sum(xp.abs(self.modes) ** 2)
        share = xp.sqrt(self._energy / (energy + variation_energy if varies else energy))
        probe = self.modes * share
        fixed = 1 if varies else 0
        if self._free and probe.shape[0] > fixed + 1:
            probe = xp.concat([probe[:fixed, ...], orthogonal_modes(probe[fixed:, ...], self._library)])
        return probe, share


def probe_gradients(change: Array, patches: Array, fractions: Array, library: ArrayLibrary) -> Array:
    """Spectra of the probe gradients of patterns, (b, modes, N, N)."""
    xp = library.xp
    gradient = library.fft2(xp.conj(patches)[:, None, ...] * change)
    # Back to the unshifted probe: the adjoint of shift_probe.
    back = library.cast(xp.conj(shift_ramps(fractions, patches.shape[-1], library)), "complex64")
    gradient *= (back[:, 0, :, None] * back[:, 1, None, :])[:, None, ...]
    return gradient


def orthogonal_modes(probe: Array, library: ArrayLibrary) -> Array:
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
