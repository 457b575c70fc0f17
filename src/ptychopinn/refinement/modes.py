"""Add incoherent modes to a probe while patterns that no pass uses are explained better.

A mode that is not in the probe has no gradient, so a new one starts from the strongest mode, multiplied by a low
polynomial of the place, without its overlap with the other modes. Passes then make of it what the patterns say.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ptychopinn.config.infer import Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import nearest_to_middle, split_every
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas
from ptychopinn.metrics.baselines import is_noisy
from ptychopinn.metrics.quality import deviations_above
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.refinement.options import RefineOptions
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.pass_trial import PassTrial
from ptychopinn.typing import ComplexArray

_log = logging.getLogger(__name__)
_PATTERNS = 512  # in the middle of the scan; they decide
_HELD_OUT, _MIN_HELD_OUT = 8, 4  # every 8th of them judges, if that gives at least 4
_PASSES = 4  # with each number of modes
_SHARE = 0.05  # of the energy, for a new mode
_WORTHWHILE = 0.97  # ratio of residuals below which a mode is added
_SURE_DEVIATIONS = 2.0  # and by how many standard errors
# Powers of y and x, in the order in which modes are added.
_POWERS = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2))


def choose_probe_modes(
    patterns: Patterns,
    model: ScanModel,
    start: Canvas,
    options: RefineOptions,
    *,
    monitor: Monitor = NULL_MONITOR,
) -> ComplexArray | None:
    """The probe with the modes that held-out patterns ask for.

    Parameters
    ----------
    model, start:
        As in `ptychopinn.refinement.refine`.
    options:
        The most modes, and what is fitted beside the probe: a background could else be taken for a mode.

    Returns
    -------
    (modes, N, N) complex64 on the host, with the energy of the given probe; None if no mode is added, or if cancelled.
    """
    library, most = patterns.library, options.modes or 0
    probe = library.to_host(model.probe)
    used, judges = split_every(nearest_to_middle(model.positions, _PATTERNS), _HELD_OUT)
    if len(probe) >= most or len(judges) < _MIN_HELD_OUT:
        return None
    likelihood = Likelihood.POISSON if is_noisy(patterns) else Likelihood.AMPLITUDE
    trial = PassTrial(patterns, used, judges, start, _PASSES, likelihood, monitor)
    free = PassOptions(
        rpie_schedule(_PASSES),
        update_probe=True,
        update_flux=options.update_flux,
        update_background=options.update_background,
        likelihood=options.likelihood or likelihood,
        seed=options.seed,
    )
    try:
        best, shares = probe, trial.shares(replace(model, probe=library.from_host(probe)), free)
        while len(best) < most:
            grown = add_mode(best)
            now = trial.shares(replace(model, probe=library.from_host(grown)), free)
            ratio = float(np.sqrt(now.sum() / shares.sum()))
            better = ratio < _WORTHWHILE and deviations_above(shares, now) > _SURE_DEVIATIONS
            _log.info(
                "Probe: %d modes leave %.3f of the residual of %d on patterns held out: %s.",
                len(grown),
                ratio,
                len(best),
                "one more is used" if better else f"{len(best)} are used",
            )
            if not better:
                break
            best, shares = grown, now
    except Cancelled:
        return None
    return None if len(best) == len(probe) else best


def add_mode(probe: ComplexArray) -> ComplexArray:
    """(modes, N, N) to (modes + 1, N, N) complex64 of the same energy; the new mode is orthogonal to the others."""
    size = probe.shape[-1]
    place = (np.arange(size) - (size - 1) / 2) / size
    y, x = _POWERS[(len(probe) - 1) % len(_POWERS)]
    power = (np.abs(probe) ** 2).sum(axis=(1, 2))
    mode = probe[int(power.argmax())] * place[:, None] ** y * place[None, :] ** x
    basis = np.linalg.qr(probe.reshape(len(probe), -1).T)[0]
    mode = (mode.ravel() - basis @ (basis.conj().T @ mode.ravel())).reshape(size, size)
    mode *= np.sqrt(_SHARE * power.sum()) / np.linalg.norm(mode)
    grown: ComplexArray = np.concatenate([probe * np.sqrt(1 - _SHARE), mode[None]]).astype(np.complex64)
    return grown
