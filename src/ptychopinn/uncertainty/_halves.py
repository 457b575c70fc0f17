"""Reconstruct an object from two halves of its patterns."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from ptychopinn.config.infer import Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.metrics.alignment import linear_phase
from ptychopinn.metrics.baselines import is_noisy
from ptychopinn.monitor import Monitor
from ptychopinn.refinement import refinement_schedule
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.options import PassOptions
from ptychopinn.tiles import where_object_fits
from ptychopinn.typing import ComplexArray

PASSES_FEW, PASSES_MANY = 8, 20
"""Passes over each half where photons are few (noise ends the convergence early), and where they are many."""
_BLUR = 0.18  # standard deviation of the blur, in widths of the probe
_MAX_RAMP_PX = 512  # a product of more pixels is averaged before its ramp is measured


def reconstruct_halves(
    patterns: Patterns, obj: ComplexArray, frame: Frame, model: ScanModel, monitor: Monitor
) -> tuple[ComplexArray, ComplexArray]:
    """Reconstruct the object from the even and from the odd patterns, with probe, positions, flux and background fixed.

    Both start from the object blurred by 0.18 of the probe's width. So all detail comes from the patterns of a half
    alone, and what the passes would take long to find, the slow phase, is there from the beginning. Halves that start
    from the object itself agree wherever the passes change nothing: where there is no signal, they would agree best.

    Parameters
    ----------
    patterns:
        All patterns of the scan; their library computes.
    obj:
        (H, W) complex64 on the host; no window leaves it.
    model:
        Model of the scan, of the patterns' library.

    Returns
    -------
    Two (H, W) complex64 on the host.

    Raises
    ------
    Cancelled
        If the monitor is cancelled.
    """
    library = patterns.library
    width = _BLUR * probe_width_px(library.to_host(model.probe))
    start = (gaussian_filter(obj.real, width) + 1j * gaussian_filter(obj.imag, width)).astype(np.complex64)
    few = is_noisy(patterns)
    passes = PASSES_FEW if few else PASSES_MANY
    options = PassOptions(
        refinement_schedule(passes, noisy=few), likelihood=Likelihood.POISSON if few else Likelihood.AMPLITUDE
    )
    halves = []
    with patterns.session() as patterns:
        place = where_object_fits(frame, patterns.data.N, patterns.library) or patterns.library
        for first in (0, 1):
            canvas = Canvas(place.from_host(start.copy()), frame, place)
            engine = PassEngine(patterns, np.arange(first, len(patterns), 2), model, canvas, options)
            for done in range(passes):
                if engine.run(done, passes, monitor) is None:
                    raise Cancelled("The estimate of the errors was cancelled.")
                monitor.report("uncertainty", first * passes + done + 1, 2 * passes)
            found, _ = engine.result()
            halves.append(place.to_host(found.array))
    return halves[0], halves[1]


def remove_gauge(obj: ComplexArray, reference: ComplexArray, box: tuple[slice, slice]) -> ComplexArray:
    """The object times the factor and the phase ramp that fit it to a reference inside a box."""
    product: ComplexArray = reference[box].conj() * obj[box]
    step = max(-(-max(product.shape) // _MAX_RAMP_PX), 1)
    height, width = (n // step for n in product.shape)
    means = product[: step * height, : step * width].reshape(height, step, width, step).mean(axis=(1, 3))
    ramp = linear_phase(means) / step
    down, across = (np.exp(-1j * k * np.arange(n)).astype(np.complex64) for k, n in zip(ramp, obj.shape, strict=True))
    level: ComplexArray = obj * down[:, None] * across
    inside = level[box]
    energy = float((np.abs(inside) ** 2).sum(dtype=np.float64))
    factor = complex(np.vdot(inside, reference[box])) / energy if energy > 0 else 1.0
    level *= np.complex64(factor)
    return level
