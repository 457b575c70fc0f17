"""The pictures of one stage of a batch, two sides and their difference, each normalised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptychopinn.report._canvas import (
    AMPLITUDE_COLOURS,
    CYCLIC_COLOURS,
    DIFFERENCE_COLOURS,
    new_figure,
    plain,
    png_of,
)
from ptychopinn.typing import AnyArray


def stage_picture(sides: Mapping[str, AnyArray], *, title: str = "") -> bytes:
    """PNG of a grid: a row for each side, amplitude from 0 to the largest of both and phase on a circle, and one for
    the difference, from the largest negative to the largest positive; a column for each picture.

    Parameters
    ----------
    sides:
        Two names to (k, h, w) real or complex; shapes may differ, then there is no difference.
    title:
        Headline.
    """
    (name_a, a), (name_b, b) = sides.items()
    a, b = (np.where(np.isfinite(v), v, 0) for v in (a, b))
    top = max(float(np.abs(v).max(initial=0)) for v in (a, b)) or 1.0
    amplitude = (AMPLITUDE_COLOURS, 0.0, 1.0)
    rows: list[tuple[str, AnyArray, tuple[str, float, float]]] = [
        (f"{name_a}\namplitude", np.abs(a) / top, amplitude),
        (f"{name_b}\namplitude", np.abs(b) / top, amplitude),
    ]
    if np.iscomplexobj(a):
        circle = (CYCLIC_COLOURS, -np.pi, np.pi)
        rows += [(f"{name_a}\nphase", np.angle(a), circle), (f"{name_b}\nphase", np.angle(b), circle)]
    if a.shape == b.shape:
        gap = np.abs(b) - np.abs(a)
        most = float(np.abs(gap).max(initial=0)) or 1.0
        rows.append((f"difference of\namplitude / {most:.2e}", gap / most, (DIFFERENCE_COLOURS, -1.0, 1.0)))
    columns = max(len(a), len(b))
    each_in = 1.6 if columns > 1 else 3.2
    figure = new_figure(each_in * columns + 1.4, each_in * len(rows) + 0.5, 110)
    figure.suptitle(plain(title), parse_math=False, fontsize=11)
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
