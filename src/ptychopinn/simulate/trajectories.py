"""Simulate scan positions."""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.config.simulation import ScanKind
from ptychopinn.errors import ConfigError
from ptychopinn.typing import FloatArray

_GOLDEN_ANGLE_RAD = math.pi * (3 - math.sqrt(5))


def scan_positions(
    kind: ScanKind | str,
    rows: int,
    cols: int,
    step_px: float,
    *,
    jitter_px: float = 0.0,
    rng: np.random.Generator | None = None,
) -> FloatArray:
    """Positions around (0, 0), in scan order.

    Parameters
    ----------
    kind:
        raster (x fastest), jittered (a raster with random shifts), or spiral (a Fermat spiral of rows * cols positions
        from the centre, as dense as the raster: Vogel, Math. Biosci. 44, 179, 1979).
    rows, cols:
        Rows and columns.
    step_px:
        Distance of neighbours in pixels; for a spiral, the square root of the area per position.
    jitter_px:
        Maximum of the uniform random shift of a jittered position in y and in x.
    rng:
        Source of the jitter; only needed for it.

    Returns
    -------
    (rows * cols, 2) float64 (y, x), pixels, relative to the centre.

    Raises
    ------
    ConfigError
        If counts or step are not positive, or a jittered scan has no rng.
    """
    if rows < 1 or cols < 1 or not step_px > 0:
        raise ConfigError(
            f"A scan of {rows} x {cols} positions with a step of {step_px} px was asked for.",
            "Give at least one row and column and a positive step.",
        )
    kind = ScanKind(kind)
    if kind is ScanKind.SPIRAL:
        k = np.arange(rows * cols) + 0.5
        radius = step_px * np.sqrt(k / math.pi)
        angle = k * _GOLDEN_ANGLE_RAD
        return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    y = (np.arange(rows) - (rows - 1) / 2) * step_px
    x = (np.arange(cols) - (cols - 1) / 2) * step_px
    grid = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
    if kind is ScanKind.JITTERED:
        if rng is None:
            raise ConfigError("A jittered scan was asked for without a random generator.", "Pass rng.")
        grid = grid + rng.uniform(-jitter_px, jitter_px, grid.shape)
    return grid
