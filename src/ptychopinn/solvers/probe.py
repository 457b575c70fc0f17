"""Decide whether the guess of the probe is good enough for training; if not, refine it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import nearest_to_middle
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.solvers.epie import CACHE_BYTES, epie, rpie_schedule
from ptychopinn.solvers.gauge import register_probe
from ptychopinn.solvers.options import PassOptions
from ptychopinn.typing import ComplexArray

_log = logging.getLogger(__name__)
_PATTERNS = 1024  # patterns in the middle of the scan; they determine the probe, and the time is limited
# Refining a correct probe lowers the residual by a few per cent (it fits noise), refining a wrong one severalfold.
_WORTHWHILE = 0.9


@dataclass(frozen=True, eq=False)
class ProbeChoice:
    """Result of `choose_probe`.

    Attributes
    ----------
    probe:
        (modes, N, N) complex64, scaled to counts: the guess or the refined probe.
    refined:
        Whether it is the refined probe.
    residual_guess, residual_refined:
        Forward residuals after the same passes with the probe fixed to the guess, and with the probe free.
    """

    probe: ComplexArray
    refined: bool
    residual_guess: float
    residual_refined: float


def choose_probe(  # noqa: PLR0913
    data: ScanDataset,
    guess: ComplexArray,
    offset: ComplexArray,
    passes: int,
    *,
    seed: int = 0,
    library: ArrayLibrary = NUMPY,
    monitor: Monitor = NULL_MONITOR,
) -> ProbeChoice:
    """Refine a probe with a few passes, and return the refined probe if it explains the patterns clearly better.

    Parameters
    ----------
    data:
        The scan, or several scans of one object. Patterns in the middle are used.
    guess:
        (modes, N, N) complex64, the scan's own probe scaled to counts.
    offset:
        (N, N) complex, the phase ramp of the detector's offset, estimated from the centre of mass. It is applied to the
        fixed probe only, because a free probe finds its ramp more accurately.
    passes:
        Number of passes with the probe fixed, and again with the probe free.
    seed:
        Random seed of the order of the patterns.
    library:
        Library that computes.
    monitor:
        Gets progress. If it is cancelled, the guess is returned with its ramp.
    """
    part = data.select(nearest_to_middle(data.positions, _PATTERNS))
    probe = (guess * offset).astype(np.complex64)
    solve = partial(epie, Patterns(part, library, CACHE_BYTES), passes=passes, monitor=monitor)
    options = PassOptions(rpie_schedule(passes), seed=seed)
    held = solve(probe, options=options)
    free = solve(guess, options=replace(options, update_probe=True))
    if monitor.cancelled:
        return ProbeChoice(probe, False, float("nan"), float("nan"))
    before, after = held.residuals[-1], free.residuals[-1]
    better = after < _WORTHWHILE * before
    _log.info(
        "Probe: forward residual %.4f as given, %.4f refined; the %s is used.",
        before,
        after,
        "refined probe" if better else "given probe",
    )
    return ProbeChoice(register_probe(free.probe, guess) if better else probe, better, before, after)
