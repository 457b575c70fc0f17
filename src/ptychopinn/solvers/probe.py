"""Is the probe's guess good enough to train with, and if not, a better one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.solvers.engine import PassOptions
from ptychopinn.solvers.epie import CACHE_BYTES, epie, rpie_schedule
from ptychopinn.solvers.gauge import register_probe
from ptychopinn.typing import ComplexArray

_log = logging.getLogger(__name__)
_PATTERNS = 1024  # of the scan's middle: they hold enough of the probe, and a long scan does not wait
# A right probe set free lowers the residual by some per cent, fitting the noise; a wrong one lowers it severalfold.
_WORTHWHILE = 0.9


@dataclass(frozen=True, eq=False)
class ProbeChoice:
    """What `choose_probe` decided.

    Attributes
    ----------
    probe:
        (modes, N, N) complex64, scaled to counts: the guess, or the refined one.
    refined:
        Which of them it is.
    residual_guess, residual_refined:
        Forward residuals after the same passes with the guess held and with the probe free.
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
    """Refine a probe by some passes of ePIE, and keep the refinement where it explains the patterns clearly better.

    Parameters
    ----------
    data:
        The scan, or several of one object; patterns of the middle of all are used.
    guess:
        (modes, N, N) complex64, the scan's own probe scaled to counts.
    offset:
        (N, N) complex, the ramp of the detector's offset as the centre of mass shows it. It helps the probe as given,
        and misleads a probe that is free: that one finds the ramp by itself.
    passes:
        Passes, twice: with the probe held, and with it free.
    seed:
        Order of the patterns.
    library:
        That computes.
    monitor:
        Progress and cancellation; cancelled, the guess is returned with its ramp.
    """
    middle = np.median(data.positions, axis=0)
    nearest = np.argsort(((data.positions - middle) ** 2).sum(axis=1), kind="stable")[:_PATTERNS]
    part = data.select(np.sort(nearest))
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
