"""Random scalar fields for objects: many scales, sharp edges, thin lines, slow backgrounds.

Every function takes a shape (H, W) and a generator, and returns (H, W) float32 without a fixed scale. They are fast (a
few milliseconds for 384 x 384), because training on simulated objects needs many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from ptychopinn.config.simulation import ObjectKind
from ptychopinn.typing import FloatArray

Shape = tuple[int, int]
Field = Callable[[Shape, np.random.Generator], FloatArray]
_BASE_AREA_PX = 384 * 384  # numbers of shapes are for this area


def unit(field: FloatArray) -> FloatArray:
    """Scale a field to mean 0 and standard deviation 1 (a constant one to 0)."""
    centred = field - field.mean()
    deviation = float(centred.std())
    scaled: FloatArray = (centred / deviation if deviation > 1e-12 else centred).astype(np.float32)
    return scaled


def blur(field: FloatArray, sigma_px: float) -> FloatArray:
    """Gaussian blur; skipped below 0.3 px."""
    if sigma_px < 0.3:
        return field
    blurred: FloatArray = gaussian_filter(field, sigma_px, mode="nearest", truncate=3.0)
    return blurred


def spectral_noise(shape: Shape, rng: np.random.Generator, gain: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Unit Gaussian noise with ``gain``, a function of cycles per pixel, applied to its spectrum."""
    # The margin is cut off again, because the transform makes the field periodic.
    size = [scipy.fft.next_fast_len(s + s // 8, real=True) for s in shape]
    spectrum = scipy.fft.rfft2(rng.standard_normal(size, dtype=np.float32), workers=1)
    ky, kx = np.fft.fftfreq(size[0]).astype(np.float32), np.fft.rfftfreq(size[1]).astype(np.float32)
    spectrum *= gain(np.sqrt(ky[:, None] ** 2 + kx[None, :] ** 2))
    noise: FloatArray = scipy.fft.irfft2(spectrum, s=size, workers=1)
    return unit(noise[: shape[0], : shape[1]])


def power_law(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Noise with a power-law amplitude spectrum (exponent 1 to 2.2); one in three is folded into ridges."""
    exponent = rng.uniform(1.0, 2.2)
    longest = 1 / rng.uniform(40, 400)
    field = spectral_noise(shape, rng, lambda k: (k * k + longest**2) ** (-exponent / 2))
    if rng.random() < 1 / 3:
        field = np.abs(field - np.float32(rng.normal(0, 0.5)))
    return field


def discs_bars(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Overlapping discs and bars of random values, edges blurred by up to 1.2 px."""
    field = np.zeros(shape, np.float32)
    density = math.exp(rng.uniform(math.log(40), math.log(250)))
    for _ in range(max(4, round(density * shape[0] * shape[1] / _BASE_AREA_PX))):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        value = np.float32(rng.normal())
        if rng.random() < 0.5:
            radius = math.exp(rng.uniform(math.log(1.5), math.log(35)))
            window, dy, dx = _window(shape, y, x, radius)
            inside = dy**2 + dx**2 < radius**2
        else:
            half_length, half_width = rng.uniform(5, 60), math.exp(rng.uniform(math.log(0.6), math.log(10)))
            angle = rng.uniform(0, math.pi)
            window, dy, dx = _window(shape, y, x, half_length + half_width)
            along, across = (
                dx * math.cos(angle) + dy * math.sin(angle),
                dy * math.cos(angle) - dx * math.sin(angle),
            )
            inside = (np.abs(along) < half_length) & (np.abs(across) < half_width)
        if rng.random() < 0.5:
            field[window] += value * inside
        else:
            field[window] = np.where(inside, value, field[window])
    return blur(field, rng.uniform(0, 1.2))


def _window(shape: Shape, y: float, x: float, reach: float) -> tuple[tuple[slice, slice], FloatArray, FloatArray]:
    """Slices around (y, x), and the distances from it in y (column) and x (row)."""
    y0, y1 = max(0, math.floor(y - reach)), min(shape[0], math.ceil(y + reach) + 1)
    x0, x1 = max(0, math.floor(x - reach)), min(shape[1], math.ceil(x + reach) + 1)
    dy = (np.arange(y0, y1) - y).astype(np.float32)[:, None]
    dx = (np.arange(x0, x1) - x).astype(np.float32)[None, :]
    return (slice(y0, y1), slice(x0, x1)), dy, dx


def cells(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Voronoi cells of 8 to 60 px: filled, outlined, or both."""
    spacing = math.exp(rng.uniform(math.log(8), math.log(60)))
    count = max(3, round(shape[0] * shape[1] / spacing**2))
    seeds = rng.uniform(-spacing, np.array(shape) + spacing, (count, 2))
    y, x = np.indices(shape, np.float32)
    distance, owner = cKDTree(seeds).query(np.stack([y.ravel(), x.ravel()], axis=1), k=2)
    filled = rng.standard_normal(count, dtype=np.float32)[owner[:, 0]].reshape(shape)
    width = rng.uniform(0.7, 4)
    walls = np.clip(width - (distance[:, 1] - distance[:, 0]), 0, 1).reshape(shape).astype(np.float32)
    wall_weight = np.float32(rng.choice([0.0, 0.0, 1.0, -1.0]) * rng.uniform(1, 3))
    fill_weight = np.float32(rng.uniform(0.1, 1) if wall_weight else 1.0)
    return blur(filled * fill_weight + walls * wall_weight, rng.uniform(0.3, 1.3))


def star(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Spokes and rings around one to four centres; the spokes get finer than a pixel towards them."""
    field = np.zeros(shape, np.float32)
    y, x = np.indices(shape, np.float32)
    for _ in range(rng.integers(1, 5)):
        dy, dx = y - np.float32(rng.uniform(0, shape[0])), x - np.float32(rng.uniform(0, shape[1]))
        radius = np.hypot(dy, dx)
        spokes = np.sin(np.arctan2(dy, dx) * int(rng.integers(8, 40)) + np.float32(rng.uniform(0, 7))) > 0
        period = rng.uniform(8, 60)
        wave = np.sin(radius * np.float32(2 * math.pi / period) + np.float32(rng.uniform(0, 7)))
        rings = wave > rng.uniform(-0.8, 0.8)
        pattern = spokes if rng.random() < 0.4 else (spokes & rings if rng.random() < 0.7 else rings)
        reach = rng.uniform(0.2, 0.8) * max(shape)
        field += np.float32(rng.choice([-1, 1]) * rng.uniform(0.5, 1)) * (pattern & (radius < reach))
    return blur(field, rng.uniform(0.4, 1.2))


def curves(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Smooth strokes, 1 to 8 px wide, straight to curled, on a slow background."""
    field = np.zeros(shape, np.float32)
    area = shape[0] * shape[1] / _BASE_AREA_PX
    for width in (1.0, *rng.uniform(1.0, 8.0, rng.integers(1, 3))):
        count = max(2, round(rng.uniform(30, 180) * area / width))
        length = int(rng.uniform(40, 240))  # samples, half a pixel each
        bend = rng.uniform(0.0, 0.04) * rng.standard_normal((count, 1))
        wander = rng.uniform(0.0, 0.04) * rng.standard_normal((count, length)).cumsum(axis=1) / math.sqrt(length)
        heading = rng.uniform(0, 2 * math.pi, (count, 1)) + (bend + wander).cumsum(axis=1) * 0.5
        y = rng.uniform(0, shape[0], (count, 1)) + 0.5 * np.sin(heading).cumsum(axis=1)
        x = rng.uniform(0, shape[1], (count, 1)) + 0.5 * np.cos(heading).cumsum(axis=1)
        iy, ix = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
        inside = (iy >= 0) & (iy < shape[0]) & (ix >= 0) & (ix < shape[1])
        value = np.broadcast_to(rng.normal(0.5, 0.7, (count, 1)).astype(np.float32), iy.shape)
        layer = np.zeros(shape, np.float32)
        layer[iy[inside], ix[inside]] = value[inside]
        spread = width / 2
        field += blur(layer, spread) * np.float32(math.sqrt(2 * math.pi) * spread)
    background = spectral_noise(shape, rng, lambda k: np.exp(-((k * np.float32(rng.uniform(15, 60))) ** 2)))
    return unit(field) + np.float32(rng.uniform(0, 1.5)) * background


def gratings(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Rectangles of gratings with periods of 2.5 to 30 px, square or sinusoidal, over one another."""
    field = np.zeros(shape, np.float32)
    for _ in range(max(2, round(rng.uniform(8, 40) * shape[0] * shape[1] / _BASE_AREA_PX))):
        reach = math.exp(rng.uniform(math.log(12), math.log(90)))
        window, dy, dx = _window(shape, rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), reach)
        k = 2 * math.pi / math.exp(rng.uniform(math.log(2.5), math.log(30)))
        angle = rng.uniform(0, math.pi)
        wave = np.sin(dy * np.float32(k * math.sin(angle)) + dx * np.float32(k * math.cos(angle)) + rng.uniform(0, 7))
        if rng.random() < 0.5:
            wave = np.where(wave > rng.uniform(-0.7, 0.7), 1, -1)
        field[window] = np.float32(rng.uniform(0.3, 1)) * wave + np.float32(rng.normal(0, 0.7))
    return blur(field, rng.uniform(0.3, 1.0))


def porous(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Band-passed noise of 8 to 60 px cut at one to three levels."""
    period = math.exp(rng.uniform(math.log(8), math.log(60)))
    bandwidth = rng.uniform(0.2, 1.0)
    noise = spectral_noise(shape, rng, lambda k: np.exp(-(((k * period) - 1) ** 2) / (2 * bandwidth**2)))
    field = np.zeros(shape, np.float32)
    for level in rng.normal(0, 0.8, rng.integers(1, 4)):
        field += np.float32(rng.uniform(0.3, 1)) * (noise > level)
    if rng.random() < 0.5:
        field += np.float32(rng.uniform(0, 0.6)) * noise
    return blur(field, rng.uniform(0.3, 1.5))


def mixture(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Two or three other fields, added with random weights, or one masked by another."""
    kinds = list(SINGLE_FIELDS.values())
    parts = [unit(kinds[i](shape, rng)) for i in rng.permutation(len(kinds))[: rng.integers(2, 4)]]
    if len(parts) == 3:
        return np.where(parts.pop() > rng.normal(0, 0.7), *parts)
    return parts[0] + np.float32(rng.uniform(0.2, 1)) * parts[1]


SINGLE_FIELDS: Mapping[ObjectKind, Field] = MappingProxyType(
    {
        ObjectKind.DISCS_BARS: discs_bars,
        ObjectKind.POWER_LAW: power_law,
        ObjectKind.CELLS: cells,
        ObjectKind.STAR: star,
        ObjectKind.CURVES: curves,
        ObjectKind.GRATINGS: gratings,
        ObjectKind.POROUS: porous,
    }
)
FIELDS: Mapping[ObjectKind, Field] = MappingProxyType({**SINGLE_FIELDS, ObjectKind.MIXTURE: mixture})
