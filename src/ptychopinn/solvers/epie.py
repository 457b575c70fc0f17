"""ePIE and rPIE: the classical iterative solvers, from an object of which nothing is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import DataError
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.engine import MAX_MOVE_PX, PassEngine, PassOptions, StepSchedule, check_passes
from ptychopinn.tiles import where_object_fits
from ptychopinn.typing import ComplexArray, FloatArray

CACHE_BYTES = 1 << 31
"""Of amplitudes on the host; beyond it they are made anew in every pass."""


@dataclass(frozen=True, eq=False)
class EPIEResult:
    """What a run of `epie` found.

    Attributes
    ----------
    object:
        (H, W) complex64; where no window reached, the start, or 1.
    frame:
        Where the array lies.
    probe:
        (modes, N, N) complex64 with the energy it started with.
    positions:
        (n, 2) float64 (y, x), pixels; those of the scan unless they were free.
    residuals:
        One figure a finished pass: ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` over the good pixels, each pattern
        looked at just before it changes the object.
    """

    object: ComplexArray
    frame: Frame
    probe: ComplexArray
    positions: FloatArray
    residuals: tuple[float, ...]


def frame_of(data: ScanDataset) -> Frame:
    """Where an object of this scan lies: as its ``object_guess`` does, else the box of all windows."""
    if data.object_guess is not None:
        height, width = data.object_guess.shape
        return Frame((height, width))
    return Frame.around(data.positions, data.N)


def rpie_schedule(passes: int) -> StepSchedule:
    """Steps that a number of passes from a flat object does best with: a short run has no time to swing back."""
    return StepSchedule(momentum=min(0.2 + 0.1 * passes, 0.6), probe_step=0.5)


EPIE_SCHEDULE = StepSchedule(alpha=1.0, momentum=0.0, probe_step=0.5, probe_momentum=0.0, settles=False)
"""ePIE as published: steps as the brightest point of the probe allows, no momentum, the same to the end."""


def epie(
    patterns: Patterns,
    probe: ComplexArray,
    *,
    passes: int = 10,
    options: PassOptions | None = None,
    start: Canvas | None = None,
    monitor: Monitor = NULL_MONITOR,
) -> EPIEResult:
    """Reconstruct an object, and if asked the probe, from a scan.

    Parameters
    ----------
    patterns:
        Of the scan; their library computes. Bad pixels keep the modelled modulus.
    probe:
        (modes, N, N) complex on the host, scaled to counts and with the detector's offset in it, as
        `ptychopinn.data.scaling.probe_in_counts` returns it.
    passes:
        Times every pattern is used; 0 returns the start.
    options:
        What changes, and how; None is the object alone by `rpie_schedule`. Where the probe is free, a shared shift of
        probe and object, and a shared ramp, cannot be told from the counts.
    start:
        The object to start from, on the host; None is 1 everywhere in `frame_of` the scan.
    monitor:
        Told each pass as "epie" with its residual; asked at every batch. Cancelled, the object so far is returned.

    Raises
    ------
    DataError
        If the scan is empty, or ``start`` or the probe do not have the shapes of frame and patterns.
    ConfigError
        If ``passes`` is negative.
    """
    data, library = patterns.data, patterns.library
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
    found = flat_object(frame) if start is None else start.array.astype(np.complex64)
    inside = flat_object(box)
    box.paste(inside, found, frame)
    residuals: list[float] = []
    with library.session() as computing:
        place = where_object_fits(box, data.N, computing) or computing
        canvas = Canvas(place.from_host(inside), box, place)
        given = computing.from_host(probe.astype(np.complex64))
        model = ScanModel(given, data.positions)
        engine = PassEngine(patterns, np.arange(len(data)), model, canvas, options, computing)
        for done in range(passes):
            residual = engine.run(done, passes, monitor)
            if residual is None:
                break
            residuals.append(residual)
            monitor.report("epie", done + 1, passes, {"residual": residual})
        canvas, found_probe = engine.result()
        frame.paste(found, canvas.library.to_host(canvas.array), box)
        return EPIEResult(found, frame, library.to_host(found_probe), engine.positions, tuple(residuals))


def refine_probe(
    data: ScanDataset, probe: ComplexArray, passes: int = 10, *, seed: int = 0, monitor: Monitor = NULL_MONITOR
) -> ComplexArray:
    """The probe that explains a scan better: `epie` from an empty object, the probe free from the first batch.

    Returns
    -------
    (modes, N, N) complex64 with the energy of ``probe``.
    """
    options = PassOptions(rpie_schedule(passes), update_probe=True, seed=seed)
    patterns = Patterns(data, host_budget_bytes=CACHE_BYTES)
    return epie(patterns, probe, passes=passes, options=options, monitor=monitor).probe
