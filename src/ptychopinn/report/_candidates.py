"""Pictures of several reconstructions side by side, and of their Fourier ring correlations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from ptychopinn.metrics import FrcCurve
from ptychopinn.report._figure import (
    AMPLITUDE_COLOURS,
    DIFFERENCE_COLOURS,
    PHASE_COLOURS,
    colorbar_axes,
    colour_range,
    downsample,
    new_figure,
    plain_png,
    png_of,
    printable,
    set_frc_axes,
    set_title,
    with_own_settings,
)
from ptychopinn.typing import ComplexArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4  # pictures per row
_WIDE_IN = 13.0
_MAX_PIXELS = 512  # per side of a small picture
Quantity = Literal["amp", "phase"]
NAMES = {"amp": "amplitude", "phase": "phase (rad)"}
COLOURS = {"amp": AMPLITUDE_COLOURS, "phase": PHASE_COLOURS}


@with_own_settings
def candidates_picture(
    quantity: Quantity,
    reference: ComplexArray | None,
    candidates: Mapping[str, ComplexArray],
    *,
    notes: Mapping[str, str] | None = None,
    title: str = "",
) -> bytes:
    """PNG of one quantity of all candidates on one colour scale, and of the differences from the reference on another.

    Parameters
    ----------
    quantity:
        "amp" or "phase".
    reference:
        (h, w) complex, or None.
    legs:
        Name to (h, w) complex, aligned with the reference.
    notes:
        Name to a line below the name, such as a score.
    """
    shown = {"reference": reference, **candidates} if reference is not None else dict(candidates)
    parts = {name: part_of(quantity, obj) for name, obj in shown.items() if obj is not None}
    limits = colour_range(parts["reference"] if reference is not None else np.stack([p for p in parts.values()]))
    differences = {n: parts[n] - parts["reference"] for n in candidates} if reference is not None else {}
    # one scale for all: that of the worst candidate, without its outliers
    most = max((max(map(abs, colour_range(d))) for d in differences.values()), default=1.0)
    names = list(parts)
    blocks = [names[k : k + _COLUMNS] for k in range(0, len(names), _COLUMNS)]
    height, width = next(iter(parts.values())).shape
    columns = min(len(names), _COLUMNS)
    lines = len(blocks) * (2 if differences else 1)
    each_in = _WIDE_IN / _COLUMNS
    tall = lines * (each_in * 0.86 * height / width + 0.55) + 0.5
    figure = new_figure(each_in * columns + 0.6, float(np.clip(tall, 3, 60)), 110)
    figure.suptitle(printable(title), parse_math=False, fontsize=12)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for number, block in enumerate(blocks):
        line = number * (2 if differences else 1)
        for column, name in enumerate(block):
            last = column == len(block) - 1
            note = (notes or {}).get(name, "")
            _draw(panels[line, column], parts[name], limits, COLOURS[quantity], NAMES[quantity] if last else None)
            set_title(panels[line, column], f"{printable(name)}\n{note}" if note else printable(name), fontsize=10)
            if name in differences:
                axes = panels[line + 1, column]
                label = f"difference of {NAMES[quantity]}" if last else None
                _draw(axes, differences[name], (-most, most), DIFFERENCE_COLOURS, label)
                set_title(axes, f"{printable(name)} - reference", fontsize=9)
    return png_of(figure)


@with_own_settings
def bare_phase(obj: ComplexArray, scale_of: ComplexArray) -> bytes:
    """PNG of the phase of an (h, w) object without axes, on the colour scale of another, aligned one."""
    return plain_png(part_of("phase", obj), colour_range(part_of("phase", scale_of)))


@with_own_settings
def frc_picture(
    curves: Mapping[str, Mapping[str, FrcCurve]], *, title: str = "", against: str = "the reference"
) -> bytes:
    """PNG of the Fourier ring correlations of all candidates, amplitude next to phase.

    ``curves`` are those of the candidates by quantity ("amp", "phase"); ``against`` is what each candidate was
    correlated with.
    """
    figure = new_figure(11.0, 4.2)
    figure.suptitle(printable(title), parse_math=False, fontsize=12)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (quantity, candidates) in zip(panels, curves.items(), strict=True):
        for number, (name, curve) in enumerate(candidates.items()):
            style = ("-", "--", "-.", ":")[number // 10 % 4]
            axes.plot(curve.frequency, curve.correlation, style, color=f"C{number % 10}", label=printable(name), lw=1.4)
        lowest = min((float(c.correlation.min()) for c in candidates.values()), default=0.0)
        set_frc_axes(axes, lowest, f"correlation with {against}")
        set_title(axes, {"amp": "amplitude"}.get(quantity, quantity), fontsize=10)
        if candidates:
            axes.legend(fontsize=8)
    return png_of(figure)


def part_of(quantity: Quantity, obj: ComplexArray) -> FloatArray:
    """Amplitude, or phase relative to that of the mean, of an (h, w) object, reduced for a small picture."""
    turn = np.exp(-1j * np.angle(obj.mean()))
    values = downsample(
        obj,
        math.ceil(max(obj.shape) / _MAX_PIXELS),
        np.abs if quantity == "amp" else lambda rows: np.angle(rows * turn),
    )
    return values.astype(np.float64)


def _draw(axes: Axes, values: FloatArray, limits: tuple[float, float], colours: str, label: str | None) -> None:
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    figure = axes.get_figure()
    if label is not None and figure is not None:
        figure.colorbar(image, cax=colorbar_axes(axes, values.shape), label=label, extend="both", format="%.3g")
