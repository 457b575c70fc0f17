"""The model of a scan without its object: probe, positions, flux, background and motion in exposures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.exposure import Exposure
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False, repr=False)
class ScanModel(ShortRepr):
    """A pattern's expected counts are ``flux_j sum_m |FFT(P_m O_j)|^2 + background``, P of `exposed_probe`."""

    probe: Array  # (modes, N, N) complex64 of a library, in counts
    positions: FloatArray  # (n, 2) float64 (y, x), object pixels, on the host
    # (n,) float32 on the host: dose of each pattern relative to the energy of the probe; None if all are 1. Its mean is
    # 1, because the probe carries a common factor.
    flux: FloatArray | None = None
    # (N, N) float32 of the library, additional counts per pixel in every pattern, DC at [0, 0]; None for none.
    background: Array | None = None

    # (y, x): how far the stage moves in an exposure, pixels; None if it stands still.
    motion_px: tuple[float, float] | None = None

    def exposed_probe(self, library: ArrayLibrary) -> Array:
        """The probe at the places of an exposure, as modes: (places * modes, N, N) complex64 of the library."""
        probe = library.cast(self.probe, "complex64")
        return Exposure(self.motion_px, probe.shape[-1], library).spread(probe)

    def root_flux(self, indices: IntArray) -> FloatArray | None:
        """(k,) float32: the factors of the amplitudes of some patterns; None if all are 1."""
        return None if self.flux is None else np.sqrt(self.flux[indices]).astype(np.float32)
