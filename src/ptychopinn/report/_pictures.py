"""The pictures of a run directory: amplitude, phase, probe, history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptychopinn.atomic import write_bytes
from ptychopinn.errors import UsageError
from ptychopinn.metrics import ScanBox, ramp_of, remove_linear_phase
from ptychopinn.report._axes import (
    draw_amplitude,
    draw_complex,
    draw_error,
    draw_history,
    draw_phase,
    draw_probe_amplitude,
    history_columns,
)
from ptychopinn.report._figure import (
    ColourScale,
    Place,
    box_or_full,
    colour_range,
    downsample,
    dpi_for,
    new_figure,
    plain_png,
    png_of,
    printable,
    set_frc_axes,
    set_title,
    show,
    with_own_settings,
)
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, StrPath
from ptychopinn.uncertainty import HALVES_AGREE, Uncertainty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN = 7.0
_RAMP_WINDOW_PX = 1024  # only the middle of a large object determines its ramp
_MAX_MODES = 8
_THUMBNAIL_PX = 160
_MAX_SHOWN_PX = 2048  # per side; a picture has fewer dots
_SCALE_NOTE = "colours from the 0.5 to the 99.5 percentile"


@dataclass(frozen=True)
class ObjectView:
    """The part of an object that its pictures show, and its place."""

    # The box of scan positions, in pixels of the object: only this is shown. None or empty shows everything.
    box: ScanBox | None = None
    # (y, x): pixel (0, 0) of the object in the frame of the positions; the axes count in that frame.
    origin: tuple[int, int] = (0, 0)
    pixel_size_m: float | None = None  # object pixel size; axes are then in micrometres
    title: str = ""  # name of the scan

    def width_px(self, values: AnyArray) -> int:
        """Width of what is shown of an array, pixels."""
        return box_or_full(values, self.box).shape[1]


class ObjectPart(StrEnum):
    """What a picture of an object shows."""

    PHASE = "phase"  # without its mean and ramp
    AMPLITUDE = "amplitude"
    COMPLEX = "complex"  # phase as hue, amplitude as brightness
    COVERAGE = "coverage"
    PHASE_ERROR = "phase_error"
    AMPLITUDE_ERROR = "amplitude_error"


def write_pictures(
    folder: StrPath,
    obj: ComplexArray,
    probe: ComplexArray,
    view: ObjectView = ObjectView(),
    *,
    history: Mapping[str, Sequence[float]] | None = None,
    moved: tuple[FloatArray, FloatArray] | None = None,
) -> dict[str, Path]:
    """Write ``amplitude.png``, ``phase.png``, ``probe.png``; and ``history.png`` and ``positions.png`` if given.

    Parameters
    ----------
    obj:
        (H, W) complex.
    probe:
        (modes, N, N) complex.
    view:
        What to show of the object; all pictures have its title.
    history:
        Column name to values, from `ptychopinn.reconstructor.TrainResult`.
    moved:
        (n, 2) float64 (y, x) positions as given and as found, for ``positions.png``.

    Returns
    -------
    dict
        ``amplitude``, ``phase``, ``probe`` and perhaps ``history`` and ``positions`` to the files.

    Raises
    ------
    UsageError, ResourceError
        If the folder does not exist, or a file cannot be written.
    """
    pictures = {
        "amplitude": amplitude_picture(obj, view),
        "phase": phase_picture(obj, view),
        "probe": probe_picture(probe, title=view.title, pixel_size_m=view.pixel_size_m),
    }
    if history is not None and history_columns(history):
        pictures["history"] = history_picture(history, title=view.title)
    if moved is not None:
        pictures["positions"] = positions_picture(*moved, title=view.title)
    return {name: write_bytes(Path(folder) / f"{name}.png", png) for name, png in pictures.items()}


@with_own_settings
def amplitude_picture(obj: ComplexArray, view: ObjectView = ObjectView()) -> bytes:
    """PNG of the object's amplitude; parameters as in `write_pictures`."""
    box = box_or_full(obj, view.box)
    step = _step(box)
    figure, axes = _object_figure((box.shape[0] // step, box.shape[1] // step))
    draw_object(axes, obj, ObjectPart.AMPLITUDE, view)
    _label(axes, f"{box.shape[0]} x {box.shape[1]} px; {_SCALE_NOTE}", f"{_title_prefix(view.title)}amplitude")
    return png_of(figure)


@with_own_settings
def phase_picture(obj: ComplexArray, view: ObjectView = ObjectView()) -> bytes:
    """PNG of the object's phase, parameters as in `write_pictures`.

    Global phase and linear ramp, which the intensities do not determine, are removed; the title states them.
    """
    box = box_or_full(obj, view.box)
    step = _step(box)
    phase, ramp = flat_phase(downsample(obj[box.slices], step, np.asarray))
    ramp = ramp / step
    figure, axes = _object_figure(phase.shape)
    wraps = draw_phase(axes, phase, place_in(box, view, step))
    note = f"{box.shape[0]} x {box.shape[1]} px; {'the phase wraps' if wraps else _SCALE_NOTE}"
    note += f"; ramp ({ramp[0]:+.4f}, {ramp[1]:+.4f}) rad/px (y, x) removed"
    _label(axes, note, f"{_title_prefix(view.title)}phase")
    return png_of(figure)


def draw_object(axes: Axes, values: AnyArray, part: ObjectPart, view: ObjectView) -> None:
    """Draw a part of an object inside the box of scan positions: (H, W) complex values, errors or coverage."""
    box = box_or_full(values, view.box)
    step, inside = _step(box), values[box.slices]
    place = place_in(box, view, step)
    match part:
        case ObjectPart.AMPLITUDE:
            draw_amplitude(axes, downsample(inside, step, np.abs).astype(np.float64), place)
        case ObjectPart.PHASE:
            draw_phase(axes, flat_phase(downsample(inside, step, np.asarray))[0], place)
        case ObjectPart.COMPLEX:
            obj = downsample(inside, step, np.asarray)
            draw_complex(axes, np.abs(obj) * np.exp(1j * flat_phase(obj)[0]), place)
        case ObjectPart.COVERAGE:
            shown = downsample(inside, step, np.asarray).astype(np.float64)
            show(axes, shown, ColourScale(colour_range(shown), "viridis", "coverage"), place)
        case _:
            unit = " (rad)" if part is ObjectPart.PHASE_ERROR else ""
            label = f"standard error of the {part.removesuffix('_error')}{unit}"
            draw_error(axes, downsample(inside, step, np.asarray).astype(np.float64), label, place)


def draw_probe(axes: Axes, probe: ComplexArray, mode: int = 0, pixel_size_m: float | None = None) -> None:
    """Draw a mode of a (modes, N, N) probe, phase as hue and amplitude as brightness.

    Raises
    ------
    UsageError
        If there is no such mode.
    """
    if not 0 <= mode < len(probe):
        raise UsageError(f"There is no mode {mode} of the probe; it has {len(probe)}.", "Count from 0.")
    draw_complex(axes, probe[mode], Place(pixel_size_m=pixel_size_m, scale_bar=True))
    set_title(axes, "probe" if len(probe) == 1 else f"probe, mode {mode + 1} of {len(probe)}", fontsize=9)


@with_own_settings
def bare_picture(values: AnyArray, part: ObjectPart, view: ObjectView = ObjectView()) -> bytes:
    """PNG of a part of an object without axes, with a scale bar: pictures of one box lie exactly on each other."""
    height, width = box_or_full(values, view.box).shape
    figure = new_figure(_WIDTH_IN, float(np.clip(_WIDTH_IN * height / width, 1, 14)))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    draw_object(axes, values, part, view)
    axes.set_axis_off()
    return png_of(figure)


@with_own_settings
def thumbnail_picture(obj: ComplexArray, box: ScanBox | None = None) -> bytes:
    """A PNG of the object's phase alone, with at most 160 pixels a side; arguments as of `ObjectView`."""
    box = box_or_full(obj, box)
    phase, _ = flat_phase(downsample(obj[box.slices], -(-max(box.shape) // _THUMBNAIL_PX), np.asarray))
    return plain_png(phase, colour_range(phase))


def flat_phase(obj: ComplexArray) -> tuple[FloatArray, FloatArray]:
    """Phase of an object relative to its mean, without its ramp.

    Parameters
    ----------
    obj:
        (h, w) complex; may hold values that are not finite.

    Returns
    -------
    (h, w) float64 in rad, NaN where the object is not finite, and (2,) the ramp (y, x) in rad per pixel.
    """
    finite = np.isfinite(obj)
    known: ComplexArray = np.where(finite, obj, 0).astype(np.complex128)
    middle = tuple(slice(max(n - _RAMP_WINDOW_PX, 0) // 2, (n + _RAMP_WINDOW_PX + 1) // 2) for n in obj.shape)
    ramp = ramp_of(known[middle])
    known = remove_linear_phase(known, ramp)
    phase = np.angle(known * np.exp(-1j * np.angle(known.mean())))
    return np.where(finite, phase, np.nan), ramp


@with_own_settings
def uncertainty_picture(uncertainty: Uncertainty, view: ObjectView = ObjectView()) -> bytes:
    """PNG of the standard errors of phase and amplitude, and of the correlation of two halves of the patterns."""
    figure = new_figure(2.2 * _WIDTH_IN, 4.8)
    left, middle, right = figure.subplots(1, 3)
    figure.suptitle(f"{_title_prefix(view.title)}standard errors and resolution", parse_math=False, fontsize=11)
    draw_object(left, uncertainty.phase_error, ObjectPart.PHASE_ERROR, view)
    draw_object(middle, uncertainty.amplitude_error, ObjectPart.AMPLITUDE_ERROR, view)
    right.plot(uncertainty.frc.frequency, uncertainty.frc.correlation)
    right.axvline(1 / (2 * uncertainty.resolution_px), color="0.5", linestyle=":", linewidth=1)
    set_frc_axes(right, float(uncertainty.frc.correlation.min()), "correlation of the halves", HALVES_AGREE)
    found = f"resolution (half period): {uncertainty.resolution_px:.2f} px"
    if uncertainty.resolution_m is not None:
        found += f", {uncertainty.resolution_m * 1e9:.3g} nm"
    set_title(right, found, fontsize=9)
    return png_of(figure)


@with_own_settings
def probe_picture(probe: ComplexArray, *, title: str = "", pixel_size_m: float | None = None) -> bytes:
    """PNG of a (modes, N, N) probe: amplitude, and phase as hue with amplitude as brightness, of up to 8 modes."""
    modes = probe[:_MAX_MODES]
    power = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
    total = float(power.sum())
    figure = new_figure(_WIDTH_IN, 3.2 * len(modes) + 0.5)
    drawn = "" if len(modes) == len(probe) else f", {len(modes)} of {len(probe)} modes"
    figure.suptitle(f"{_title_prefix(title)}probe{drawn}", parse_math=False, fontsize=11)
    place = Place(pixel_size_m=pixel_size_m, scale_bar=True)
    for row, (axes, mode) in enumerate(zip(figure.subplots(len(modes), 2, squeeze=False), modes, strict=True)):
        amplitude = np.abs(mode).astype(np.float64)
        draw_probe_amplitude(axes[0], amplitude, "amplitude (square root of counts)", place)
        share = power[row] / total if total > 0 else 0.0
        set_title(axes[0], f"mode {row + 1}: {share:.1%} of {total:.4g} counts", fontsize=9)
        draw_complex(axes[1], mode, place)
        set_title(axes[1], "hue: phase, brightness: amplitude", fontsize=9)
    return png_of(figure)


@with_own_settings
def history_picture(history: Mapping[str, Sequence[float]], *, title: str = "") -> bytes:
    """PNG of the loss curves: ``loss`` and the columns that end in ``_loss``."""
    figure = new_figure(_WIDTH_IN, 4.0)
    axes = figure.subplots()
    draw_history(axes, history)
    set_title(axes, f"{_title_prefix(title)}training", fontsize=11)
    return png_of(figure)


@with_own_settings
def positions_picture(given: FloatArray, found: FloatArray, *, title: str = "") -> bytes:
    """PNG of moves from (n, 2) positions to others: arrows over the scan, and moves in the order of measurement."""
    moves = found - given
    figure = new_figure(_WIDTH_IN, 3.6)
    over_scan, over_time = figure.subplots(1, 2)
    over_scan.quiver(
        given[:, 1], given[:, 0], moves[:, 1], moves[:, 0], angles="xy", scale_units="xy", scale=1.0, width=0.003
    )
    over_scan.plot(found[:, 1], found[:, 0], ".", markersize=2, color="tab:red")
    over_scan.set_aspect("equal")
    over_scan.invert_yaxis()
    over_scan.set_xlabel("x (px)")
    over_scan.set_ylabel("y (px)")
    set_title(over_scan, f"{_title_prefix(title)}from the positions given to those found", fontsize=9)
    for axis, name in enumerate("yx"):
        over_time.plot(moves[:, axis], ".", markersize=3, label=name)
    over_time.set_xlabel("pattern")
    over_time.set_ylabel("move (px)")
    over_time.grid(alpha=0.3)
    over_time.legend()
    rms = float(np.sqrt((moves**2).sum(axis=1).mean()))
    set_title(over_time, f"{rms:.2f} px (root mean square)", fontsize=9)
    return png_of(figure)


def _title_prefix(title: str) -> str:
    return f"{printable(title)}: " if title else ""


def _step(box: ScanBox) -> int:
    """How many pixels of an object become one pixel of its picture, along each side."""
    return max(-(-max(box.shape) // _MAX_SHOWN_PX), 1)


def place_in(box: ScanBox, view: ObjectView, step: int = 1) -> Place:
    """Where the box of an object lies on the axes."""
    return Place((box.y0 + view.origin[0], box.x0 + view.origin[1]), step, view.pixel_size_m, scale_bar=True)


def _object_figure(shape: tuple[int, ...]) -> tuple[Figure, Axes]:
    height, width = shape
    tall = float(np.clip(_WIDTH_IN * 0.82 * height / width + 0.9, 2.5, 14))
    figure = new_figure(_WIDTH_IN, tall, dpi_for((height, width), _WIDTH_IN * 0.7))
    return figure, figure.subplots()


def _label(axes: Axes, note: str, title: str) -> None:
    set_title(axes, title, fontsize=11, loc="left", pad=18)
    axes.annotate(
        note,
        (0, 1),
        (0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7.5,
        color="0.35",
    )
