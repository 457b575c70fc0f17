"""Pictures of one stage of a parity check: two sides and their difference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptychopinn.report._figure import (
    AMPLITUDE_COLOURS,
    DIFFERENCE_COLOURS,
    colour_range,
    new_figure,
    phase_scale,
    png_of,
    printable,
    with_own_settings,
)
from ptychopinn.typing import AnyArray

_PARTS = (("amplitude", np.abs), ("phase", np.angle))


@with_own_settings
def stage_picture(sides: Mapping[str, AnyArray], *, title: str = "") -> bytes:
    """PNG with a row per side, a row for the difference, and a column per image; amplitudes and phases share scales.

    Parameters
    ----------
    sides:
        Two names to (k, h, w) real or complex; shapes may differ, then there is no difference.
    """
    (name_a, a), (name_b, b) = sides.items()
    a, b = (np.where(np.isfinite(v), v, 0) for v in (a, b))
    rows: list[tuple[str, AnyArray, tuple[str, float, float]]] = []
    for word, part in _PARTS if np.iscomplexobj(a) else _PARTS[:1]:
        both = [part(v) for v in (a, b)]
        values = np.concatenate([v.ravel() for v in both])
        (low, high), colours = colour_range(values), AMPLITUDE_COLOURS
        if word == "phase":
            (low, high), colours = phase_scale(values).limits, phase_scale(values).colours
        scale = f"{word}\n{low:.3g} to {high:.3g}"
        rows += [(f"{name}\n{scale}", v, (colours, low, high)) for name, v in zip((name_a, name_b), both, strict=True)]
    if a.shape == b.shape:
        gap = np.abs(b) - np.abs(a)
        most = float(np.abs(gap).max(initial=0)) or 1.0
        rows.append((f"difference of\namplitude / {most:.2e}", gap / most, (DIFFERENCE_COLOURS, -1.0, 1.0)))
    columns = max(len(a), len(b))
    each_in = 1.6 if columns > 1 else 3.2
    figure = new_figure(each_in * columns + 1.4, each_in * len(rows) + 0.5, 110)
    figure.suptitle(printable(title), parse_math=False, fontsize=11)
    for axes_row, (name, pictures, (colours, low, high)) in zip(
        figure.subplots(len(rows), columns, squeeze=False), rows, strict=True
    ):
        for number, axes in enumerate(axes_row):
            axes.set_xticks([])
            axes.set_yticks([])
            if number < len(pictures):
                axes.imshow(pictures[number], cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            else:
                axes.set_axis_off()
        axes_row[0].set_ylabel(name, fontsize=8, parse_math=False)
    return png_of(figure)
