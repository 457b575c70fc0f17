"""Simulate objects from two scalar fields, one for the amplitude and one for the phase."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

from ptychopinn.config.simulation import ObjectKind
from ptychopinn.errors import ConfigError
from ptychopinn.simulate.textures import FIELDS, Shape, unit
from ptychopinn.typing import ComplexArray, FloatArray

TRAINING_KINDS: tuple[ObjectKind, ...] = tuple(FIELDS)
"""All kinds for training: not textured, which is kept for tests."""

_LINE_REACH_PX = 392
_LINE_AREA_PX = _LINE_REACH_PX**2 / 130  # a textured object has one line for each of these
_LINE_HEIGHT = 4.0  # before the blur, which leaves 0.4 of it; deviations of the wide noise
_LOW_PERCENTILE, _HIGH_PERCENTILE = 0.5, 99.5


def simulate_object(
    kind: ObjectKind | str,
    shape: Shape,
    rng: np.random.Generator,
    *,
    amplitude: tuple[float, float] = (0.4, 1.0),
    phase_rad: tuple[float, float] = (-1.0, 1.0),
) -> ComplexArray:
    """A random object.

    Parameters
    ----------
    shape:
        (H, W), pixels.
    amplitude, phase_rad:
        Ranges. The 0.5 and 99.5 percentiles of a field are mapped to them; values outside are clipped.

    Returns
    -------
    (H, W) complex64 transmission.

    Raises
    ------
    ConfigError
        If the shape or a range is not one.
    """
    if min(shape) < 8:
        raise ConfigError(f"An object of {shape[0]} x {shape[1]} pixels was asked for.", "Give at least 8 x 8.")
    if not (0 <= amplitude[0] <= amplitude[1] and phase_rad[0] <= phase_rad[1]):
        raise ConfigError(
            f"Ranges of amplitude {amplitude} and phase {phase_rad} were given.",
            "Give the smaller bound first; amplitudes are not negative.",
        )
    kind = ObjectKind(kind)
    if kind is ObjectKind.LETTER:
        glyph = letter(shape)
        return compose(glyph, glyph, amplitude, phase_rad)
    if kind is ObjectKind.TEXTURED:
        return compose(_textured(shape, rng, 12, 4), _textured(shape, rng, 16, 5), amplitude, phase_rad)
    return compose(*field_pair(kind, shape, rng), amplitude, phase_rad)


def field_pair(kind: ObjectKind, shape: Shape, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Two fields for amplitude and phase: equal, of opposite sign, independent, or in between."""
    make = FIELDS[kind]
    first_sign, second_sign = (np.float32(sign) for sign in rng.choice([-1, 1], 2))
    first = first_sign * unit(make(shape, rng))
    relation = rng.random()
    if relation < 0.3:
        return first, second_sign * first
    second = second_sign * unit(make(shape, rng))
    if relation < 0.7:
        return first, second
    share = np.float32(rng.uniform(-1, 1))
    return first, share * first + np.float32(math.sqrt(1 - share**2)) * second


def compose(
    amplitude_field: FloatArray,
    phase_field: FloatArray,
    amplitude: tuple[float, float],
    phase_rad: tuple[float, float],
) -> ComplexArray:
    """(H, W) complex64 object from two (H, W) fields, each mapped to its range."""
    modulus, phase = _to_range(amplitude_field, *amplitude), _to_range(phase_field, *phase_rad)
    obj = np.empty(modulus.shape, np.complex64)
    obj.real = modulus * np.cos(phase)
    obj.imag = modulus * np.sin(phase)
    return obj


def _to_range(field: FloatArray, low: float, high: float) -> FloatArray:
    """Map the percentiles of a field to ``low`` and ``high``, and clip; float32."""
    bottom, top = np.percentile(_sample(field), (_LOW_PERCENTILE, _HIGH_PERCENTILE))
    if top <= bottom:  # fewer pixels than the percentiles exclude are different: use the full range
        bottom, top = float(field.min()), float(field.max())
    if top <= bottom:
        return np.full(field.shape, (low + high) / 2, np.float32)
    share: FloatArray = np.clip((field - bottom) / (top - bottom), 0, 1)
    ranged: FloatArray = (low + (high - low) * share).astype(np.float32)
    return ranged


def _sample(field: FloatArray) -> FloatArray:
    """About 256 x 256 pixels of a field, enough for percentiles."""
    step = max(1, int(math.sqrt(field.size) / 256))
    return field[::step, ::step]


def _textured(shape: Shape, rng: np.random.Generator, wide_px: float, narrow_px: float) -> FloatArray:
    """Noise smoothed to two widths, weights 1 and 0.6, and thin random lines."""
    wide, narrow = (
        unit(gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")) for sigma in (wide_px, narrow_px)
    )
    lines: FloatArray = gaussian_filter(_lines(shape, rng), 1.0)
    return wide + np.float32(0.6) * narrow + lines


def _lines(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """One-pixel lines of either sign between random points, no longer than in an object of 392 x 392."""
    canvas = np.zeros(shape, np.float32)
    size = np.array(shape)
    reach = np.minimum(size, _LINE_REACH_PX)
    for _ in range(round(shape[0] * shape[1] / _LINE_AREA_PX)):
        start = rng.uniform(0, 1, 2) * size
        corner = np.clip(start - rng.uniform(0, 1, 2) * reach, 0, size - reach)
        stop = corner + rng.uniform(0, 1, 2) * reach
        samples = 2 * math.ceil(float(np.abs(stop - start).max())) + 1
        points = np.floor(start + (stop - start) * np.linspace(0, 1, samples)[:, None]).astype(np.int64)
        canvas[points[:, 0], points[:, 1]] = _LINE_HEIGHT * rng.choice([-1, 1])
    return canvas


def letter(shape: Shape) -> FloatArray:
    """An F on (H, W) float32, 1 on the strokes, else 0; it differs from all its mirror images and rotations."""
    height, width = shape
    glyph = np.zeros(shape, np.float32)
    top, bottom, left, right = height // 5, height - height // 5, width // 3, width - width // 4
    stroke = max(2, min(shape) // 12)
    glyph[top:bottom, left : left + stroke] = 1
    glyph[top : top + stroke, left:right] = 1
    middle = (top + bottom - stroke) // 2
    glyph[middle : middle + stroke, left : left + 2 * (right - left) // 3] = 1
    return glyph
