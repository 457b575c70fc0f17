"""Plots of scores over an axis of a study, and montages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptychopinn.report._candidates import COLOURS, NAMES, Quantity, part_of
from ptychopinn.report._figure import (
    colorbar_axes,
    colour_range,
    new_figure,
    png_of,
    printable,
    set_title,
    with_own_settings,
)
from ptychopinn.typing import ComplexArray


@dataclass(frozen=True)
class Curve:
    """Medians and percentiles over an axis, sequences of equal length."""

    x: Sequence[float]
    median: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One plot: its quantity, its subtitle, and a curve per candidate."""

    label: str
    title: str
    curves: Mapping[str, Curve]


@with_own_settings
def curves_picture(panels: Sequence[Sequence[Panel]], x_label: str, *, log: bool = False, title: str = "") -> bytes:
    """PNG of rows of plots, as many in each.

    Plots of a row share their scale; a candidate has the same colour in all plots.
    """
    columns = len(panels[0])
    figure = new_figure(max(4.6 * columns, 6.5), 2.9 * len(panels) + 0.7)
    figure.suptitle(printable(title), parse_math=False, fontsize=11)
    drawn = figure.subplots(len(panels), columns, squeeze=False, sharey="row", sharex=True)
    for axes_row, row in zip(drawn, panels, strict=True):
        for axes, panel in zip(axes_row, row, strict=True):
            if log:  # before anything is drawn: with figures that are all unknown there would be no limits
                axes.set_xscale("log")
            for number, (candidate, curve) in enumerate(panel.curves.items()):
                colour = f"C{number % 10}"
                axes.plot(curve.x, curve.median, color=colour, marker="o", markersize=4, label=printable(candidate))
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
            axes.grid(alpha=0.3)
            set_title(axes, panel.title, fontsize=10)
        axes_row[0].set_ylabel(row[0].label)
    for axes in drawn[-1]:
        axes.set_xlabel(x_label)
    drawn[0, -1].legend(fontsize=8)
    return png_of(figure)


@with_own_settings
def montage_picture(quantity: Quantity, columns: Mapping[str, Mapping[str, ComplexArray]], *, title: str = "") -> bytes:
    """PNG of one quantity of many reconstructions. Each column has the colour scale of its first picture.

    ``columns`` are columns to rows to (h, w) complex, the reference first.
    """
    names = list(dict.fromkeys(name for shown in columns.values() for name in shown))
    height, width = next(iter(next(iter(columns.values())).values())).shape
    each_in = 2.4
    figure = new_figure(
        each_in * len(columns) + 1.6, float(np.clip(each_in * height / width * len(names) + 1, 3, 60)), 110
    )
    figure.suptitle(printable(title), parse_math=False, fontsize=11)
    drawn = figure.subplots(len(names), len(columns), squeeze=False)
    for axes in drawn.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    for number, (column, shown) in enumerate(columns.items()):
        limits = colour_range(part_of(quantity, next(iter(shown.values()))))
        set_title(drawn[0, number], printable(column), fontsize=9)
        for line, name in enumerate(names):
            axes = drawn[line, number]
            if number == 0:
                axes.set_ylabel(printable(name), fontsize=9)
            if name not in shown:
                axes.text(0.5, 0.5, "failed", ha="center", va="center", transform=axes.transAxes)
                continue
            picture = part_of(quantity, shown[name])
            image = axes.imshow(
                picture, cmap=COLOURS[quantity], vmin=limits[0], vmax=limits[1], interpolation="nearest"
            )
            if line == 0 and number == len(columns) - 1:
                figure.colorbar(image, cax=colorbar_axes(axes, picture.shape), label=NAMES[quantity], format="%.2g")
    return png_of(figure)
