"""Picture of a reconstruction and its reference."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ptychopinn.metrics import Aligned, frc
from ptychopinn.report._figure import (
    AMPLITUDE_COLOURS,
    DIFFERENCE_COLOURS,
    ColourScale,
    Place,
    colour_range,
    dpi_for,
    new_figure,
    phase_scale,
    png_of,
    printable,
    set_frc_axes,
    set_title,
    show,
    with_own_settings,
)


@with_own_settings
def comparison_picture(
    aligned: Aligned,
    scores: Mapping[str, float] | None = None,
    *,
    pixel_size_m: float | None = None,
    title: str = "",
) -> bytes:
    """PNG of reference, reconstruction, difference and Fourier ring correlation, for amplitude and phase.

    Reference and reconstruction share the reference's colour scale.

    Parameters
    ----------
    scores:
        From `ptychopinn.metrics.score`; the main ones are shown next to the pictures.
    pixel_size_m:
        Object pixel size; axes are then in micrometres.
    """
    turn = np.exp(-1j * np.angle(aligned.reference.mean()))
    g, r = aligned.reference * turn, aligned.reconstruction * turn
    height, width = g.shape
    each_in = 3.6
    tall = float(np.clip(2 * each_in * 0.8 * height / width + 1.4, 5, 16))
    figure = new_figure(4 * each_in, tall, dpi_for(g.shape, each_in * 0.7))
    dy, dx = aligned.shift_px
    ky, kx = aligned.ramp_rad_per_px
    how = f"shift ({dy:+.2f}, {dx:+.2f}) px and ramp ({ky:+.4f}, {kx:+.4f}) rad/px (y, x) removed"
    if scores is not None:
        how += f"; error |G - R| / |G| {scores['nrmse']:.3f}"
    figure.suptitle(f"{printable(title)}\n{how}" if title else how, parse_math=False, fontsize=11)
    panels = figure.subplots(2, 4)
    for row, (name, key, a, b) in enumerate(
        (("amplitude", "amp", np.abs(g), np.abs(r)), ("phase", "phase", np.angle(g), np.angle(r)))
    ):
        scale = ColourScale(colour_range(a), AMPLITUDE_COLOURS, name) if key == "amp" else phase_scale(a)
        difference = b - a
        most = max(abs(v) for v in colour_range(difference))
        for axes, values, colours, what in (
            (panels[row, 0], a, scale, "reference"),
            (panels[row, 1], b, scale, "reconstruction"),
            (panels[row, 2], difference, ColourScale((-most, most), DIFFERENCE_COLOURS, scale.label), "difference"),
        ):
            show(axes, values, colours, Place(pixel_size_m=pixel_size_m, scale_bar=what == "reference"))
            set_title(axes, f"{name}: {what}", fontsize=10)
        if scores is not None:
            known = {label: scores[f"{key}_{score}"] for label, score in (("SSIM", "ssim"), ("correlation", "corr"))}
            figures = ", ".join(
                f"{label} {'unknown' if math.isnan(value) else f'{value:.3f}'}" for label, value in known.items()
            )
            panels[row, 1].text(
                0.02, 0.02, figures, transform=panels[row, 1].transAxes, fontsize=8,
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2},
            )  # fmt: skip
        curve = frc(a, b, 0.0 if key == "amp" else 1.0)
        axes = panels[row, 3]
        axes.plot(curve.frequency, curve.correlation, color="C0")
        set_frc_axes(axes, float(curve.correlation.min()), "Fourier ring correlation")
        set_title(axes, f"{name}: Fourier ring correlation", fontsize=10)
    return png_of(figure)
