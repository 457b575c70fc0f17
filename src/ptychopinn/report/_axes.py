"""Draw on axes: objects, probes, positions, patterns and histories, for pictures and for Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptychopinn.report._figure import (
    AMPLITUDE_COLOURS,
    CYCLIC_COLOURS,
    ERROR_COLOURS,
    PIXELS,
    ColourScale,
    Place,
    colorbar_axes,
    colour_range,
    phase_scale,
    place_axes,
    set_title,
    show,
)
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A circle of hues in OKLCh: B. Ottosson, "A perceptual color space for image processing" (2020).
_LIGHTNESS, _CHROMA = 0.74, 0.125  # inside sRGB at every hue
_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def complex_colours(values: ComplexArray, brightest: float) -> FloatArray:
    """Colours of complex values: hue for phase, lightness for amplitude.

    All hues of one amplitude look equally bright, unlike those of HSV.

    Parameters
    ----------
    values:
        (h, w) complex.
    brightest:
        Amplitude that is fully bright; larger ones are too.

    Returns
    -------
    (h, w, 3) float64 of sRGB from 0 to 1; what is not finite is grey.
    """
    finite = np.isfinite(values)
    known = np.where(finite, values, 0)
    bright = np.clip(np.abs(known) / (brightest or 1.0), 0, 1)
    angle = np.angle(known)
    lab = np.stack([_LIGHTNESS * bright, _CHROMA * bright * np.cos(angle), _CHROMA * bright * np.sin(angle)], axis=-1)
    linear = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0, 1)
    coloured: FloatArray = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    coloured[~finite] = 0.6
    return coloured


def draw_complex(axes: Axes, values: ComplexArray, place: Place = PIXELS, *, bar: bool = True) -> None:
    """Draw complex values by `complex_colours`, with a bar of the phases and a scale bar."""
    amplitude = np.abs(values)
    finite = amplitude[np.isfinite(amplitude)]
    brightest = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    if brightest == 0 and finite.size:
        brightest = float(finite.max())
    place_axes(axes, values.shape, place)
    axes.imshow(
        complex_colours(values, brightest), extent=place.extent(values.shape), origin="upper", interpolation="nearest"
    )
    if not bar:
        return
    around = np.exp(1j * np.linspace(-np.pi, np.pi, 256))[:, None]
    beside = colorbar_axes(axes, values.shape)
    beside.imshow(complex_colours(around, 1.0), extent=(0, 1, -np.pi, np.pi), origin="lower", aspect="auto")
    beside.set_xticks([])
    beside.set_yticks([-np.pi, 0, np.pi], ["-π", "0", "π"])
    beside.yaxis.tick_right()
    beside.yaxis.set_label_position("right")
    beside.set_ylabel("phase (rad)")


def draw_phase(axes: Axes, phase: FloatArray, place: Place = PIXELS) -> bool:
    """Draw a phase in rad, (h, w); cyclic colours where it wraps. Returns whether it does."""
    scale = phase_scale(phase)
    show(axes, phase, scale, place)
    return scale.colours == CYCLIC_COLOURS


def draw_amplitude(axes: Axes, amplitude: FloatArray, place: Place = PIXELS) -> None:
    """Draw an amplitude, (h, w)."""
    show(axes, amplitude, ColourScale(colour_range(amplitude), AMPLITUDE_COLOURS, "amplitude"), place)


def draw_error(axes: Axes, error: FloatArray, label: str, place: Place = PIXELS) -> None:
    """Draw a standard error, (h, w), from 0; NaN where it is not known."""
    finite = error[np.isfinite(error)]
    largest = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    show(axes, error, ColourScale((0.0, largest or 1.0), ERROR_COLOURS, label), place)


def draw_pattern(axes: Axes, mean_counts: FloatArray, bad_pixels: BoolArray) -> None:
    """Draw the logarithm of mean counts, (N, N); bad pixels are grey."""
    known = np.where(bad_pixels, np.nan, np.log10(np.maximum(mean_counts, 1e-3)))
    top = float(np.nanmax(known, initial=-3.0))
    show(axes, known, ColourScale((max(top - 6, -3.0), max(top, -2.9)), "viridis", "log10 of mean counts"))
    set_title(axes, "mean pattern; bad pixels are grey", fontsize=9)


def draw_probe_amplitude(axes: Axes, amplitude: FloatArray, label: str, place: Place = PIXELS) -> None:
    """Draw the amplitude of a probe, (N, N)."""
    brightest = float(np.nanmax(amplitude, initial=0)) or 1.0
    show(axes, amplitude, ColourScale((0.0, brightest), "magma", label), place)


def draw_positions(
    axes: Axes, positions: FloatArray, width_px: float | None = None, pixel_size_m: float | None = None
) -> None:
    """Draw (n, 2) positions (y, x) in pixels, coloured by their order, and the width of the probe at one of them."""
    from matplotlib.patches import Circle

    side, unit = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e6, "µm")
    places = positions * side
    axes.plot(places[:, 1], places[:, 0], "-", linewidth=0.4, color="0.7")
    axes.scatter(places[:, 1], places[:, 0], s=4, c=np.arange(len(places)), cmap="viridis")
    if width_px is not None and len(places):
        middle = places[int(np.argmin(((places - np.median(places, axis=0)) ** 2).sum(axis=1)))]
        axes.add_patch(Circle((middle[1], middle[0]), side * width_px / 2, fill=False, color="tab:red"))
    axes.set_aspect("equal", adjustable="datalim")
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set_xlabel(f"x ({unit})")
    axes.set_ylabel(f"y ({unit})")
    with_probe = "" if width_px is None else ", and the width of the probe"
    set_title(axes, f"{len(positions)} positions{with_probe}", fontsize=9)


def draw_history(axes: Axes, history: Mapping[str, Sequence[float]]) -> None:
    """Draw the loss curves of a training: ``loss`` and the columns that end in ``_loss``."""
    columns = history_columns(history)
    positive = True
    for name, values in columns.items():
        epochs = np.asarray(history.get("epoch", np.arange(1, len(values) + 1)), np.float64)[: len(values)]
        known = np.isfinite(values)
        positive &= bool((values[known] > 0).all())
        axes.plot(epochs[known], values[known], marker="o", markersize=3, label=name.replace("_", " "))
    if columns and positive:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < 20 * low:  # too small a range for powers of ten
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3, which="both")
    if columns:
        axes.legend()


def history_columns(history: Mapping[str, Sequence[float]]) -> dict[str, FloatArray]:
    """The columns of a history that are drawn, with their values."""
    curves = {k: np.asarray(v, np.float64) for k, v in history.items() if k == "loss" or k.endswith("_loss")}
    return {name: values for name, values in curves.items() if np.isfinite(values).any()}


def new_axes() -> Axes:
    """Axes of a new figure of pyplot, which a notebook shows."""
    from matplotlib import pyplot

    axes: Any = pyplot.subplots(figsize=(5.5, 4.5), layout="constrained")[1]
    return axes  # type: ignore[no-any-return]
