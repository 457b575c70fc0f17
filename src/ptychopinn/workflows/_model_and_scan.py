"""A model on another scan: which probe to use, and what differs between the scan and that of the training."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ptychopinn.bundle import TrainingSummary
from ptychopinn.config.infer import InferConfig, ProbeSource
from ptychopinn.config.train import SimulateObjects, SimulateProbes
from ptychopinn.data.conditions import conditions_of, describe_differences
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.inspection import Change, TrialPatch
from ptychopinn.inspection.geometry import MIN_PATTERNS
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.typing import ComplexArray

_log = logging.getLogger(__name__)
_ALIKE = 0.98  # correlation of probes that are the same but for a factor
_BETTER = 0.5  # of what one leaves beyond noise: what the other must leave at most
_SURE = 3.0  # standard errors over the patterns


def choose_probe_source(
    reconstructor: Reconstructor, data: ScanDataset, config: InferConfig, training: TrainingSummary | None
) -> tuple[InferConfig, str | None]:
    """Decide between the probe of the model and that of the scan, where the settings leave it open.

    Passes on a part of the scan (`ptychopinn.inspection`) are made with both. The scan's probe is used if it explains
    patterns that the passes did not use far better; else the model's. A network that was trained under simulated probes
    alone has no probe of a scan.

    Parameters
    ----------
    training:
        How the network was trained, if it is known.

    Returns
    -------
    The settings with the probe that is used, and a sentence if it is that of the scan; None if not.
    """
    if config.probe_source is not ProbeSource.AUTO:
        return config, None
    own = config.model_copy(update={"probe_source": ProbeSource.SCAN})
    if _knows_no_probe(training):
        _log.info("The model was trained under simulated probes: the probe of the scan is used.")
        return own, None
    chosen = config.model_copy(update={"probe_source": ProbeSource.MODEL})
    if len(data) < MIN_PATTERNS:
        return chosen, None
    first = replace(data.select(np.arange(1)), scaling=fit_scaling(data))
    predictions = [reconstructor.infer(first, one) for one in (chosen, own)]
    of_model, of_scan = (np.asarray(one.library.to_host(one.probe)) for one in predictions)
    if _correlation(of_model, of_scan) > _ALIKE:
        return chosen, None
    patch = TrialPatch(data, of_scan)
    if not patch.is_lit:
        return chosen, None
    with_scan, with_model = patch.trial(Change()), patch.trial(Change(), other_probe=of_model)
    noise = patch.noise_residual**2
    left, left_by_scan = with_model.residual**2 - noise, with_scan.residual**2 - noise
    _log.info("Probe of the model: R %.4f on a part; of the scan: R %.4f.", with_model.residual, with_scan.residual)
    if left_by_scan > _BETTER * left or with_model.deviations_above(with_scan) < _SURE:
        return chosen, None
    said = (
        f"The probe of the scan is used, not that of the model: passes with it explain the patterns far better (R "
        f"{with_scan.residual:.3f}, not {with_model.residual:.3f}). The model was trained under another probe."
    )
    _log.warning("%s", said)
    return own, said


def compare_conditions(training: TrainingSummary | None, data: ScanDataset) -> str | None:
    """Log and return in words what differs between a scan and that of the training (`describe_differences`).

    None if nothing does, if the training is too old to tell, or if its network is for any scan.
    """
    if training is None or training.scan is None or _knows_no_probe(training):
        return None
    said = describe_differences(training.scan, conditions_of(data, fit_scaling(data)))
    if said is not None:
        _log.warning("%s", said)
    return said


def _correlation(one: ComplexArray, other: ComplexArray) -> float:
    """Correlation of two probes (modes, N, N), mode by mode; 0 if their numbers of modes differ."""
    if one.shape != other.shape:
        return 0.0
    products = np.abs((one.conj() * other).sum(axis=(1, 2)))
    norms = np.linalg.norm(one.astype(np.complex128)) * np.linalg.norm(other.astype(np.complex128))
    return float(products.sum() / max(norms, 1e-300))


def _knows_no_probe(training: TrainingSummary | None) -> bool:
    """Whether a network was trained under simulated probes alone, so that its own probe is none of a scan."""
    settings = {} if training is None else training.config
    return (
        settings.get("simulate_objects") == SimulateObjects.ONLY
        and settings.get("simulate_probes") == SimulateProbes.FAMILY
    )
