"""Picture of a scan as it is: mean pattern, positions, probe, and what agrees best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptychopinn.report._axes import draw_pattern, draw_positions, draw_probe_amplitude
from ptychopinn.report._figure import new_figure, png_of, printable, set_title
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_BARS = 14
_GIVEN = "as given"


@dataclass(frozen=True, eq=False)
class ScanView:
    """A scan before anything is reconstructed."""

    mean_counts: FloatArray  # (N, N) mean counts of a pattern
    bad_pixels: BoolArray  # (N, N); drawn grey
    positions: FloatArray  # (n, 2) float64 (y, x), object pixels
    probe: ComplexArray  # (modes, N, N)
    probe_width_px: float  # full width at half maximum; drawn as a circle at one position
    title: str = ""  # name of the scan


def inspection_picture(scan: ScanView, trials: Sequence[tuple[str, float]]) -> bytes:
    """PNG of a scan before anything is reconstructed.

    Parameters
    ----------
    trials:
        Name and residual of what was tried, the conclusion first; the first few are drawn.
    """
    mean_counts, bad_pixels, probe = scan.mean_counts, scan.bad_pixels, scan.probe
    figure = new_figure(10.0, 8.4)
    figure.suptitle(printable(scan.title), parse_math=False, fontsize=11)
    pattern, places, light, bars = figure.subplots(2, 2).ravel()
    draw_pattern(pattern, mean_counts, bad_pixels)
    draw_positions(places, scan.positions, scan.probe_width_px)
    amplitude = np.sqrt((np.abs(probe) ** 2).sum(axis=0))
    draw_probe_amplitude(light, amplitude, "amplitude of the probe")
    set_title(light, f"probe, {scan.probe_width_px:.1f} px wide", fontsize=9)
    _draw_trials(bars, trials)
    return png_of(figure)


def _draw_trials(axes: Axes, trials: Sequence[tuple[str, float]]) -> None:
    if not trials:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "too few patterns to compare", ha="center", va="center")
        return
    first = [*trials[:_MAX_BARS], *[one for one in trials[_MAX_BARS:] if one[0] == _GIVEN]]
    names, residuals = zip(*first, strict=True)
    colours = ["tab:orange" if name == _GIVEN else "lightsteelblue" for name in names]
    axes.barh(range(len(names)), residuals, color=colours)
    for row, name in enumerate(names):
        axes.text(0.01 * max(residuals), row, printable(name), va="center", fontsize=7, parse_math=False)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlabel("R of patterns not used by passes")
    set_title(axes, "what was tried, the conclusion first", fontsize=9)
