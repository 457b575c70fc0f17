"""Decide whether the guess of the probe is good enough for training; if not, refine it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptychopinn.data.patterns import Patterns
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.solvers.epie import epie, rpie_schedule
from ptychopinn.solvers.gauge import register_probe
from ptychopinn.solvers.options import PassOptions
from ptychopinn.typing import ComplexArray

_log = logging.getLogger(__name__)
# Refining a correct probe lowers the residual by a few per cent (it fits noise), refining a wrong one severalfold.
_WORTHWHILE = 0.9


@dataclass(frozen=True, eq=False)
class ProbeChoice:
    """Result of `choose_probe`."""

    probe: ComplexArray  # (modes, N, N) complex64, scaled to counts: the guess or the refined probe
    refined: bool  # whether it is the refined probe
    # Forward residuals after the same passes with the probe fixed to the guess, and with the probe free.
    residual_guess: float
    residual_refined: float


def choose_probe(
    patterns: Patterns,
    guess: ComplexArray,
    offset: ComplexArray,
    passes: int,
    *,
    seed: int = 0,
    monitor: Monitor = NULL_MONITOR,
) -> ProbeChoice:
    """Refine a probe with a few passes, and return the refined probe if it explains the patterns clearly better.

    Parameters
    ----------
    patterns:
        All of them are used; their library computes.
    guess:
        (modes, N, N) complex64, the scan's own probe scaled to counts.
    offset:
        (N, N) complex, the phase ramp of the detector's offset, estimated from the centre of mass. It is applied to the
        fixed probe only, because a free probe finds its ramp more accurately.
    passes:
        Number of passes with the probe fixed, and again with the probe free.
    seed:
        Random seed of the order of the patterns.
    monitor:
        Gets progress. If it is cancelled, the guess is returned with its ramp.
    """
    probe = (guess * offset).astype(np.complex64)
    solve = partial(epie, patterns, passes=passes, monitor=monitor)
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
