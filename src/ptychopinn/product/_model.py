"""A product in pixels; only the files use metres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

OWN_DATASETS = {
    "coverage": 2,
    "flux": 1,
    "background": 2,
    "motion_px": 1,
    "phase_error": 2,
    "amplitude_error": 2,
    "frc": 2,
}
"""Arrays of a product that Ptychodus does not have, and their ranks."""
_MAX_MOVED_PX = 4.0  # maximum median shift of refined positions


@dataclass(frozen=True, eq=False, repr=False)
class Product(ShortRepr):
    """A reconstruction with everything needed to show it or to continue from it.

    Raises
    ------
    DataError
        If shapes do not fit together, positions are not finite, or a size, energy, distance, count or time is not
        positive.
    """

    name: str
    positions: FloatArray  # (n, 2) float64 (y, x) of probe centres, object pixels, in the frame of ``origin``
    probe: ComplexArray  # (modes, N, N) complex64, square root of counts
    object: ComplexArray  # (H, W) complex64
    # (y, x): pixel (0, 0) of ``object`` in the frame of ``positions``; (0, 0) after reading a file.
    origin: tuple[int, int] = (0, 0)
    # (n,) int64, the number of each position's pattern in the diffraction data; None counts from 0.
    indexes: IntArray | None = None
    comments: str = ""
    pixel_size_m: tuple[float, float] | None = None  # (y, x) of object and probe pixels, metres; None if not known
    # Photon energy and distance from sample to detector; None if not known.
    energy_eV: float | None = None  # noqa: N815 - the unit's own spelling
    detector_distance_m: float | None = None
    photon_count: float | None = None  # photons per pattern; None if not known
    exposure_time_s: float | None = None
    losses: tuple[tuple[int, float], ...] = ()  # (epoch, loss) pairs
    coverage: FloatArray | None = None  # (H, W) float32, how far each object pixel is covered, or None
    # (n,) float32, the light of each pattern, their mean 1; None if all have the probe's.
    flux: FloatArray | None = None
    # (N, N) float32, counts a pixel that every pattern has beside its light, DC at [N//2, N//2]; None for none.
    background: FloatArray | None = None
    variation: ProbeVariation | None = None  # of the probe over the n positions, on the host; None if it is constant
    # (2,) float32 (y, x), how far the stage moves in an exposure, object pixels; None if it stands still.
    motion_px: FloatArray | None = None
    # (H, W) float32, standard errors of the object: rad, and the unit of its amplitude. NaN where not known.
    phase_error: FloatArray | None = None
    amplitude_error: FloatArray | None = None
    # (k, 2) float32: frequency in cycles per pixel, and correlation of two halves of the patterns.
    frc: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.positions)
        indexes = np.arange(n) if self.indexes is None else self.indexes
        fitting = {
            "positions": self.positions.shape == (n, 2),
            "indexes": np.shape(indexes) == (n,),
            "probe": self.probe.ndim == 3 and 0 not in self.probe.shape,
            "variation": _fits(self.variation, n, self.probe.shape[1:]),
            "object": self.object.ndim == 2 and 0 not in self.object.shape,
            "coverage": self.coverage is None or self.coverage.shape == self.object.shape,
            "flux": self.flux is None or self.flux.shape == (n,),
            "background": self.background is None or self.background.shape == self.probe.shape[1:],
            "motion_px": self.motion_px is None or self.motion_px.shape == (2,),
            "phase_error": self.phase_error is None or self.phase_error.shape == self.object.shape,
            "amplitude_error": self.amplitude_error is None or self.amplitude_error.shape == self.object.shape,
            "frc": self.frc is None or (self.frc.ndim == 2 and self.frc.shape[1] == 2),
        }
        for name, fits in fitting.items():
            if not fits:
                raise DataError(
                    f"The product's {name} has the shape {_shape(getattr(self, name))}, with {n} positions and "
                    f"an object of {self.object.shape}.",
                    "Positions are (n, 2), indexes and flux (n,), the probe (modes, N, N), its variation (K, N, N) and "
                    "(n, K), the background (N, N), the motion (2,), object, coverage and errors (H, W), frc (k, 2).",
                )
        if not np.isfinite(self.positions).all():
            raise DataError("The product has positions that are not finite.", "Remove those positions.")
        for name in ("pixel_size_m", "energy_eV", "detector_distance_m", "photon_count", "exposure_time_s"):
            value = getattr(self, name)
            if value is not None and not all(math.isfinite(v) and v > 0 for v in np.atleast_1d(value)):
                raise DataError(f"The product's {name} is {value}.", "Give a positive value, or None.")
        object.__setattr__(self, "positions", np.asarray(self.positions, np.float64))
        object.__setattr__(self, "indexes", np.asarray(indexes, np.int64))
        for name in ("probe", "object"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.complex64))
        for name in OWN_DATASETS:
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(values, np.float32))

    @property
    def local_positions(self) -> FloatArray:
        """(n, 2) float64 (y, x): positions as pixel indices of the object array itself."""
        local: FloatArray = self.positions - np.asarray(self.origin, np.float64)
        return local


def _fits(variation: ProbeVariation | None, count: int, size: tuple[int, ...]) -> bool:
    if variation is None:
        return True
    modes, weights = variation.modes, variation.weights
    return modes.ndim == 3 and modes.shape[1:] == size and weights.shape == (count, len(modes))


def _shape(values: Any) -> Any:
    if isinstance(values, ProbeVariation):
        return values.modes.shape, values.weights.shape
    return np.shape(values)


def product_of(
    data: ScanDataset,
    obj: ComplexArray,
    probe: ComplexArray,
    *,
    origin: tuple[int, int] = (0, 0),
    coverage: FloatArray | None = None,
) -> Product:
    """The product of a scan: positions, name and what its metadata know; `dataclasses.replace` adds the rest.

    Parameters
    ----------
    obj, origin, coverage:
        (H, W) reconstruction, its origin in the frame of the scan's positions, and its coverage.
    probe:
        (modes, N, N) complex, scaled to counts.
    """
    meta = data.metadata
    return Product(
        name=data.name,
        positions=data.positions,
        indexes=data.numbers,
        probe=probe,
        object=obj,
        origin=origin,
        pixel_size_m=None if meta.pixel_size_m is None else (meta.pixel_size_m, meta.pixel_size_m),
        energy_eV=meta.probe_energy_eV,
        detector_distance_m=meta.detector_distance_m,
        photon_count=meta.nphotons,
        coverage=coverage,
    )


def origin_of(product: Product, positions: FloatArray) -> tuple[int, int]:
    """Pixel (0, 0) of a product's object in the frame of the scan's (n, 2) float64 positions (y, x).

    The product is of the scan or of some of its patterns; its positions may be refined.

    Raises
    ------
    DataError
        If the product's positions are not those of the scan.
    """
    remedy = "Give the scan that the product was made of."
    indexes, local = product.indexes, product.local_positions
    assert indexes is not None  # set when it is made
    if len(local) == 0 or indexes.min() < 0 or indexes.max() >= len(positions):
        raise DataError(
            f"The product has {len(local)} positions that are not all among the {len(positions)} of the scan.", remedy
        )
    gaps = positions[indexes] - local
    gaps = gaps[np.isfinite(gaps).all(axis=1)]  # others were left out of the scan
    if len(gaps) == 0:
        raise DataError("None of the product's patterns is in the scan.", remedy)
    middle = np.median(gaps, axis=0)
    if (spread := float(np.median(np.abs(gaps - middle)))) > _MAX_MOVED_PX:
        raise DataError(f"The product's positions are {spread:.3g} pixels from those of the scan.", remedy)
    y, x = np.rint(middle).astype(int).tolist()
    return y, x
