"""ePIE and rPIE: the classical iterative solvers, from an unknown object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import DataError
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.options import PassOptions, StepSchedule, check_passes
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.tiles import where_object_fits
from ptychopinn.typing import ComplexArray, FloatArray

CACHE_BYTES = 1 << 31
"""Size of the cache of amplitudes on the host; the others are computed again in every pass."""


@dataclass(frozen=True, eq=False)
class EPIEResult:
    """Result of `epie`."""

    object: ComplexArray  # (H, W) complex64; pixels that no window reaches are those of the start, or 1
    frame: Frame  # of the array
    probe: ComplexArray  # (modes, N, N) complex64 with its initial energy
    positions: FloatArray  # (n, 2) float64 (y, x), pixels; those of the scan unless they were refined
    # ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` of each finished pass over the good pixels, evaluated for each pattern
    # just before it updates the object.
    residuals: tuple[float, ...]


def frame_of(data: ScanDataset) -> Frame:
    """Frame of the object of a scan: that of ``object_guess`` if there is one, else the box of all windows."""
    if data.object_guess is not None:
        height, width = data.object_guess.shape
        return Frame((height, width))
    return Frame.around(data.positions, data.N)


def rpie_schedule(passes: int) -> StepSchedule:
    """The best steps for a number of passes from a flat object. Short runs need less momentum."""
    return StepSchedule(momentum=min(0.2 + 0.1 * passes, 0.6), probe_step=0.5)


EPIE_SCHEDULE = StepSchedule(alpha=1.0, momentum=0.0, probe_step=0.5, probe_momentum=0.0, settles=False)
"""ePIE as published: the brightest point of the probe limits the steps, no momentum, constant steps."""


def epie(
    patterns: Patterns,
    probe: ComplexArray,
    *,
    passes: int = 10,
    options: PassOptions | None = None,
    start: Canvas | None = None,
    monitor: Monitor = NULL_MONITOR,
) -> EPIEResult:
    """Reconstruct the object of a scan, and on request probe and positions.

    Parameters
    ----------
    patterns:
        Patterns of the scan; their library computes. Bad pixels keep the modelled modulus.
    probe:
        (modes, N, N) complex on the host, scaled to counts and including the detector's offset, as from
        `ptychopinn.data.scaling.probe_in_counts`.
    passes:
        Number of passes; 0 returns the start.
    options:
        What is updated, and how; None updates the object only, with `rpie_schedule`. The counts do not determine a
        common shift, nor opposite ramps, of a free probe and the object.
    start:
        The object to start from, on the host; None starts from 1 in `frame_of` the scan.
    monitor:
        Gets each pass as "epie" with its residual, and is asked at every batch. If it is cancelled, the object so far
        is returned.

    Raises
    ------
    DataError
        If the scan is empty, or ``start`` or the probe do not have the shapes of frame and patterns.
    ConfigError
        If ``passes`` is negative.
    """
    data = patterns.data
    check_passes(data, probe, passes)
    if not (np.abs(probe).max() > 0):
        raise DataError("The probe carries no energy.", "Give a probe that is not zero.")
    frame = frame_of(data) if start is None else start.frame
    if start is not None and start.array.shape != frame.shape:
        raise DataError(
            f"The object to start from has the shape {start.array.shape}, its frame {frame.shape}.", "Give both alike."
        )
    options = PassOptions(rpie_schedule(passes)) if options is None else options
    box = Frame.around(data.positions, data.N, MAX_MOVE_PX if options.update_positions else 0)
    obj = flat_object(frame) if start is None else start.array.astype(np.complex64)
    inside = flat_object(box)
    box.paste(inside, obj, frame)
    residuals: list[float] = []
    with patterns.session() as patterns:
        library = patterns.library
        place = where_object_fits(box, data.N, library) or library
        canvas = Canvas(place.from_host(inside), box, place)
        model = ScanModel(library.from_host(probe.astype(np.complex64)), data.positions)
        engine = PassEngine(patterns, np.arange(len(data)), model, canvas, options)
        for done in range(passes):
            residual = engine.run(done, passes, monitor)
            if residual is None:
                break
            residuals.append(residual)
            monitor.report("epie", done + 1, passes, {"residual": residual})
        canvas, final = engine.result()
        frame.paste(obj, canvas.library.to_host(canvas.array), box)
        return EPIEResult(obj, frame, library.to_host(final.probe), engine.positions, tuple(residuals))


def refine_probe(
    data: ScanDataset, probe: ComplexArray, passes: int = 10, *, seed: int = 0, monitor: Monitor = NULL_MONITOR
) -> ComplexArray:
    """Refine a probe: `epie` from an empty object, with the probe free from the first batch.

    Returns
    -------
    (modes, N, N) complex64 with the energy of ``probe``.
    """
    options = PassOptions(rpie_schedule(passes), update_probe=True, seed=seed)
    patterns = Patterns(data, host_budget_bytes=CACHE_BYTES)
    return epie(patterns, probe, passes=passes, options=options, monitor=monitor).probe
