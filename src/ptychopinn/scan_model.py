"""The model of a scan without its object: probe, positions, flux, background, and how probe and stage change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.exposure import Exposure
from ptychopinn.interpolation import shift_probe
from ptychopinn.probe_variation import ProbeVariation, VaryingProbe
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import FloatArray, IntArray

ProbeAt: TypeAlias = Callable[[Array, IntArray], Array]
"""Probes of patterns, (b, places * modes, N, N) complex64, of (b, 2) float64 fractions (y, x) of a pixel and the
patterns' numbers, (b,) int64 on the host."""


@dataclass(frozen=True, eq=False, repr=False)
class ScanModel(ShortRepr):
    """A pattern's expected counts are ``flux_j sum_m |FFT(P_jm O_j)|^2 + background``, P of `probe_at`."""

    probe: Array  # (modes, N, N) complex64 of a library, in counts
    positions: FloatArray  # (n, 2) float64 (y, x), object pixels, on the host
    # (n,) float32 on the host: dose of each pattern relative to the energy of the probe; None if all are 1. Its mean is
    # 1, because the probe carries a common factor.
    flux: FloatArray | None = None
    # (N, N) float32 of the library, additional counts per pixel in every pattern, DC at [0, 0]; None for none.
    background: Array | None = None
    # (y, x): how far the stage moves in an exposure, pixels; None if it stands still.
    motion_px: tuple[float, float] | None = None
    variation: ProbeVariation | None = None  # of the probe, over the n patterns; None if it does not vary

    def on(self, library: ArrayLibrary) -> ScanModel:
        """With probe and variation, both on the host, brought to a library."""
        variation = self.variation
        return replace(
            self,
            probe=library.from_host(np.asarray(self.probe, np.complex64)),
            variation=None if variation is None else variation.map_modes(library.from_host),
        )

    def exposed_probe(self, library: ArrayLibrary) -> Array:
        """The probe at the places of an exposure, as modes: (places * modes, N, N) complex64 of the library."""
        probe = library.cast(self.probe, "complex64")
        return Exposure(self.motion_px, probe.shape[-1], library).spread(probe)

    def probe_at(self, library: ArrayLibrary) -> ProbeAt:
        """A function of (b, 2) fractions of a pixel and (b,) numbers of patterns, both (`ProbeAt`)."""
        probe = library.cast(self.probe, "complex64")
        if (variation := self.variation) is None:
            spread = self.exposed_probe(library)
            return lambda fractions, indices: shift_probe(spread, fractions, library)
        modes, exposure = library.cast(variation.modes, "complex64"), Exposure(self.motion_px, probe.shape[-1], library)
        varying = VaryingProbe(probe, modes, exposure, library)
        return lambda fractions, indices: varying(fractions, library.from_host(variation.weights[indices]))

    def variation_share(self, library: ArrayLibrary) -> float:
        """Fraction of the probe's energy that varies over the scan."""
        if (variation := self.variation) is None:
            return 0.0
        xp = library.xp
        varies = float(library.to_host(xp.sum(xp.abs(variation.modes) ** 2, axis=(1, 2))) @ variation.mean_squares)
        return varies / (varies + float(xp.sum(xp.abs(self.probe) ** 2)))

    def root_flux(self, indices: IntArray) -> FloatArray | None:
        """(k,) float32: the factors of the amplitudes of some patterns; None if all are 1."""
        return None if self.flux is None else np.sqrt(self.flux[indices]).astype(np.float32)
