"""The forward residual of a product, computed from nothing but the product and the patterns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.exposure import exposure_places
from ptychopinn.forward import expected_counts
from ptychopinn.product import Product


def residual_of(product: Product, scan: ScanDataset) -> float:
    """R of a product's own probe, positions and so on: ``sqrt(sum (sqrt I - sqrt n)^2 / sum n)``."""
    assert product.indexes is not None
    patterns = np.asarray(scan.patterns)[product.indexes].astype(np.float64)
    counts = patterns**2 if scan.measurement is Measurement.AMPLITUDE else patterns
    places, weights = exposure_places((0.0, 0.0) if product.motion_px is None else tuple(product.motion_px))
    probe = product.probe
    if (variation := product.variation) is not None:
        probe = np.repeat(probe[None], len(patterns), axis=0)
        probe[:, 0] += np.tensordot(variation.weights, variation.modes, axes=1)
    expected: Any = sum(
        weight * expected_counts(product.object, probe, product.local_positions + place)
        for place, weight in zip(places, weights, strict=True)
    )
    if product.flux is not None:
        expected = expected * product.flux[:, None, None]
    if product.background is not None:
        expected = expected + product.background
    good = ~scan.bad_pixels
    missed = (np.sqrt(expected) - np.sqrt(counts))[:, good]
    return float(np.sqrt((missed**2).sum() / counts[:, good].sum()))
