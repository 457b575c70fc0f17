"""Helpers for pictures: figures without pyplot, colour scales, axes with units, atomic files."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import numpy as np

from ptychopinn.metrics import ScanBox
from ptychopinn.typing import AnyArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
_DRAWING = threading.RLock()  # the settings of Matplotlib are those of the process, for all threads
AMPLITUDE_COLOURS, PHASE_COLOURS, CYCLIC_COLOURS, DIFFERENCE_COLOURS = "gray", "viridis", "twilight", "RdBu_r"
ERROR_COLOURS = "magma"
WRAPPING_RAD = 0.9 * 2 * np.pi  # phases with a larger span wrap, and need a cyclic colour map
_PERCENTILES = (0.5, 99.5)
_MIN_SPAN = 1e-2  # minimum contrast, so that rounding errors of a flat picture stay invisible
_MAX_TITLE = 60


def with_own_settings(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """Let a function draw with Matplotlib's defaults, whatever the user has set for other pictures."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> bytes:
        mpl = load_matplotlib()
        with _DRAWING, mpl.rc_context():
            mpl.rcdefaults()
            return draw(*args, **kwargs)

    return drawn


def load_matplotlib() -> Any:
    """Import Matplotlib, also where MPLBACKEND names a missing backend, as in programs that a notebook starts.

    For our pictures, which are files, the backend does not matter; for those of the caller it is what Matplotlib takes.
    """
    if "matplotlib" not in sys.modules:  # an import that fails cannot be repeated
        with _DRAWING:
            _load_without_backend()
    return importlib.import_module("matplotlib")


def _load_without_backend() -> None:
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        mpl = importlib.import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = backend


def new_figure(width_in: float, height_in: float, dpi: float = 120) -> Figure:
    """Create a figure without pyplot and without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained", facecolor="white")


def png_of(figure: Figure) -> bytes:
    """Render a figure as PNG; the same figure gives the same bytes.

    The figure is drawn once: `Figure.savefig` draws it twice, which takes a third longer.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return png.getvalue()


def plain_png(phase: FloatArray, limits: tuple[float, float]) -> bytes:
    """PNG of an (h, w) phase in the colours of phases, a pixel for each value."""
    from matplotlib.image import imsave

    png = io.BytesIO()
    imsave(png, phase, vmin=limits[0], vmax=limits[1], cmap=PHASE_COLOURS, format="png")
    return png.getvalue()


def downsample(obj: AnyArray, step: int, of: Callable[[AnyArray], AnyArray]) -> AnyArray:
    """Means of a quantity over squares of ``step`` pixels, row by row to save memory, without a rest at the edges."""
    if step == 1:
        return of(obj)
    height, width = (n // step for n in obj.shape)
    rows = (of(obj[step * y : step * (y + 1), : step * width]) for y in range(height))
    return np.stack([row.reshape(step, width, step).mean(axis=(0, 2)) for row in rows])


def colour_range(values: FloatArray) -> tuple[float, float]:
    """Limits of a colour scale without outliers: the 0.5 and 99.5 percentiles."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, _PERCENTILES))
    if high - low < _MIN_SPAN:
        middle = (low + high) / 2
        return middle - _MIN_SPAN / 2, middle + _MIN_SPAN / 2
    return low, high


def box_or_full(obj: AnyArray, box: ScanBox | None) -> ScanBox:
    """The box to show: the scan box, or the whole array if there is none or it is empty."""
    return ScanBox(0, obj.shape[0], 0, obj.shape[1]) if box is None or box.is_empty else box


def dpi_for(shape: tuple[int, int], width_in: float) -> float:
    """A resolution at which a picture of this shape keeps its pixels, within limits."""
    return float(np.clip(max(shape) / width_in, 120, 400))


def printable(text: str) -> str:
    """Make untrusted text safe to draw: one printable line of limited length."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= _MAX_TITLE else line[: _MAX_TITLE - 1] + "\N{HORIZONTAL ELLIPSIS}"


def set_title(axes: Axes, text: str, **style: Any) -> None:
    """Set a title without interpreting dollar signs as mathematics."""
    axes.set_title(text, parse_math=False, **style)


def set_frc_axes(axes: Axes, lowest: float, label: str, threshold: float = 0.5) -> None:
    """Axes of a Fourier ring correlation, down to the lowest value, with a line at a threshold."""
    axes.axhline(threshold, color="0.5", linestyle="--", linewidth=1)
    axes.set_xlim(0, 0.5)
    axes.set_ylim(min(-0.1, lowest), 1.05)
    axes.set_xlabel("spatial frequency (cycles/px)")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)


@dataclass(frozen=True)
class ColourScale:
    """Colours of a picture: values at their ends, the name of a Matplotlib colour map, a label with the unit."""

    limits: tuple[float, float]
    colours: str
    label: str


def phase_scale(phase: FloatArray) -> ColourScale:
    """Colours of a phase in rad: cyclic from -pi to pi where it wraps, else those of `colour_range`."""
    low, high = colour_range(phase)
    wraps = high - low > WRAPPING_RAD
    limits, colours = ((-math.pi, math.pi), CYCLIC_COLOURS) if wraps else ((low, high), PHASE_COLOURS)
    return ColourScale(limits, colours, "phase (rad)")


@dataclass(frozen=True)
class Place:
    """Where a picture lies: (y, x) of its first pixel and pixels along the side of one, in the frame of the axes.

    With a ``pixel_size_m``, axes are in micrometres instead of pixels.
    """

    first_px: tuple[float, float] = (0, 0)
    step_px: int = 1
    pixel_size_m: float | None = None
    scale_bar: bool = False  # whether a bar of a round length is drawn

    @property
    def unit(self) -> tuple[float, str]:
        """Length of a pixel on the axes, and the unit."""
        return (1.0, "px") if self.pixel_size_m is None else (self.pixel_size_m * 1e6, "µm")

    def extent(self, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge of a picture of (h, w) pixels, on the axes."""
        side, _ = self.unit
        (y, x), height, width = self.first_px, shape[0] * self.step_px, shape[1] * self.step_px
        return (x - 0.5) * side, (x + width - 0.5) * side, (y + height - 0.5) * side, (y - 0.5) * side


PIXELS = Place()
"""Axes that count the pixels of the picture."""


def show(axes: Axes, values: FloatArray, scale: ColourScale, place: Place = PIXELS) -> None:
    """Draw a picture with its colour bar; values that are not finite are grey."""
    import matplotlib as mpl

    height, width = values.shape
    limits = scale.limits
    image = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=mpl.colormaps[scale.colours].with_extremes(bad="0.6"),
        vmin=limits[0],
        vmax=limits[1],
        extent=place.extent(values.shape),
        origin="upper",
        interpolation="nearest" if max(values.shape) <= 512 else "auto",
    )
    place_axes(axes, values.shape, place)
    figure = axes.get_figure()
    assert figure is not None
    # an extended end shows that values exceed the scale
    finite = values[np.isfinite(values)]
    below, above = bool((finite < limits[0]).any()), bool((finite > limits[1]).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    bar = figure.colorbar(image, cax=colorbar_axes(axes, values.shape), label=scale.label, extend=extend, format="%.4g")
    bar.ax.locator_params(nbins=8 if height > width / 4 else 3)


def place_axes(axes: Axes, shape: tuple[int, ...], place: Place) -> None:
    """Label the axes of a picture of (h, w) pixels, and draw its scale bar if it has one."""
    side, unit = place.unit
    axes.set_xlabel(f"x ({unit})")
    axes.set_ylabel(f"y ({unit})")
    sides: tuple[tuple[Literal["y", "x"], int], ...] = (("y", shape[0]), ("x", shape[1]))
    for axis, size in sides:
        axes.locator_params(axis=axis, nbins=2 + round(4 * size / max(shape)))
    if place.scale_bar:
        _draw_scale_bar(axes, shape[1] * place.step_px * side, unit)


def _draw_scale_bar(axes: Axes, width: float, unit: str) -> None:
    """A white bar with a black rim at the lower left of a picture that is so wide, in its unit."""
    from matplotlib.patheffects import withStroke

    length = round_length(width / 4)
    share = length / width
    rim = [withStroke(linewidth=6, foreground="black")]
    axes.plot(
        [0.05, 0.05 + share],
        [0.05, 0.05],
        color="white",
        linewidth=4,
        solid_capstyle="butt",
        transform=axes.transAxes,
        path_effects=rim,
        scalex=False,
        scaley=False,
    )
    axes.text(
        0.05 + share / 2,
        0.075,
        f"{length:g} {unit}" if unit != "µm" or length >= 0.1 else f"{length * 1e3:g} nm",
        color="white",
        fontsize=min(max(2 * axes.bbox.width / axes.figure.dpi, 7), 14),
        ha="center",
        va="bottom",
        transform=axes.transAxes,
        path_effects=[withStroke(linewidth=2, foreground="black")],
    )


def round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a positive length."""
    power = 10.0 ** math.floor(math.log10(most))
    return float(f"{max(step for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)) * power:.6g}")


def colorbar_axes(axes: Axes, shape: tuple[int, ...]) -> Axes:
    """Axes for a colour bar as tall as a picture of this shape."""
    part = max(shape[0] / shape[1], 1.0)  # a fraction of the width of a narrow picture is nothing
    return axes.inset_axes((1 + 0.03 * part, 0, 0.045 * part, 1))
