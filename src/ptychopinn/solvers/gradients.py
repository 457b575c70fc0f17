"""Gradients of patterns by object, probe, positions, flux and background, from one modelled far field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.forward import COUNT_FLOOR, power, sum_modes
from ptychopinn.geometry import Windows
from ptychopinn.solvers.background import background_sums
from ptychopinn.solvers.flux import counts_and_model
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.positions import position_equations
from ptychopinn.solvers.probe_state import probe_gradients
from ptychopinn.solvers.variation import VariationBatch, variation_gradients

_TINY = float(np.finfo(np.float32).tiny)
_MIN_SHARE, _MIN_AMPLITUDE = 0.1, 0.3
"""What a modelled amplitude counts as if it is smaller: a share of the measured one, and a root of counts.

The phase of a weak far field is not determined, but a full step would give it the measured amplitude. So rounding would
decide what single counts in the dark do to the object.
"""


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of b patterns of a batch."""

    windows: Windows  # of the patterns
    # Sum of squared amplitude errors, and sum of squared amplitudes.
    error: Array
    energy: Array
    # (b, N, N) complex64 gradients of the object, and (b, N, N) float32 intensities of the probe.
    gradient: Array
    light: Array
    # Sums of the spectra of `probe_gradients`, (modes, N, N), and of the object's power, (N, N); None if the probe is
    # not free.
    probe: tuple[Array, Array] | None
    variation: Array | None  # spectrum of the gradient of the modes of a varying probe, (K, N, N), if they are free
    # (b, k) float64: the `position_equations` where positions move, 6 columns, the equations of the K weights of a
    # varying probe where they are free, K K + K columns, and `counts_and_model` where the flux is free, 2 columns; None
    # where none is.
    figures: Array | None
    background: Array | None  # (2, N, N) of `background_sums`, if the background is free


@dataclass(frozen=True, eq=False)
class GradientModel:
    """Computes `Gradients` with the state of one batch; changes no state, so threads can share it."""

    patterns: Patterns  # say which pixels are good or saturated
    background: Array | None  # (N, N) float32 of the library, counts; None for none
    options: PassOptions  # which gradients to compute
    alpha: float | Array  # regularisation of the steps (`ptychopinn.solvers.options.StepSchedule`)
    library: ArrayLibrary  # computes

    def __call__(
        self,
        obj: Array,
        windows: Windows,
        probes: Array,
        roots: Array | None,
        measured: Array,
        variation: VariationBatch | None = None,
    ) -> Gradients:
        """Gradients of some patterns.

        Parameters
        ----------
        obj:
            (H, W) complex64.
        probes:
            (b, modes, N, N) complex64, the probe in each window; is changed.
        roots:
            (b, 1, 1, 1) float32 square roots of the flux; None if all are 1.
        measured:
            (b, N, N) float32 amplitudes, DC at [0, 0], 0 at bad pixels, negative where a value is bad.
        variation:
            How the probe varies over these patterns, if that is free.
        """
        library, xp, options = self.library, self.library.xp, self.options
        measured, good = self.patterns.measured(measured)
        if roots is not None:
            probes *= roots
        patches = windows.cut(obj)
        field = library.fft2(probes * patches[:, None, ...], norm="ortho")
        intensity = power(field, library)
        of_positions: list[Array] = []
        of_flux: list[Array] = []
        if options.update_flux:
            of_flux = counts_and_model(measured, good, intensity, self.background, self.patterns)
        of_object = intensity
        if self.background is not None:
            intensity = of_object + self.background
        modelled = xp.sqrt(self.patterns.recorded(intensity, measured))
        difference = measured - modelled
        if good is not None:
            difference *= good  # bad pixels keep the modelled modulus
        error, energy = (library.squared_sum(values) for values in (difference, measured))
        background = None
        if options.update_background is not None:
            background = background_sums(difference, measured, good, modelled, self.patterns)
        if options.likelihood is Likelihood.POISSON:
            ratio = _poisson_ratio(difference, measured, modelled, library)
        else:
            ratio = difference / xp.clip(xp.maximum(modelled, _MIN_SHARE * measured), _MIN_AMPLITUDE, None)
        if self.background is not None:
            ratio /= self._slope(of_object, modelled)
        field *= ratio[:, None, ...]
        change = library.ifft2(field, norm="ortho")
        if options.update_positions:
            of_positions = position_equations(change, probes, patches, library)
        probe, varying, of_weights = self._of_probe(change, patches, roots, windows.fractions, variation)
        light = power(probes, library)
        gradient = sum_modes(library.conj_times(probes, change), library)
        figures = [*of_positions, *of_weights, *of_flux]
        rows = xp.concat(figures, axis=1) if figures else None
        return Gradients(windows, error, energy, gradient, light, probe, varying, rows, background)

    def _of_probe(
        self, change: Array, patches: Array, roots: Array | None, fractions: Array, variation: VariationBatch | None
    ) -> tuple[tuple[Array, Array] | None, Array | None, list[Array]]:
        """`Gradients.probe` and `Gradients.variation`, and the equations of the weights."""
        if not self.options.update_probe and variation is None:
            return None, None, []
        library, xp = self.library, self.library.xp
        object_waves = patches if roots is None else patches * roots[:, 0, ...]
        spectra = probe_gradients(change, object_waves, fractions, library)
        light = power(object_waves[:, None, ...], library)
        probe = xp.sum(spectra, axis=0), xp.sum(light, axis=0)
        if variation is None:
            return probe, None, []
        return probe, *variation_gradients(spectra, light, variation, library)

    def _slope(self, of_object: Array, modelled: Array) -> Array:
        """Squared slope ``|F|^2 / I`` of the amplitude by the modulus of the far field, regularised.

        Beside a background a far field changes the amplitude little, so a gradient step is too short: it takes a dark
        field many passes to find the light that the background hides. A Gauss-Newton step divides by the slope.
        """
        return (1 - self.alpha) * of_object / (modelled**2 + _TINY) + self.alpha


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
