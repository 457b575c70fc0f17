"""What the patterns' numbers are: counts or amplitudes, and how many photons one unit is."""

from __future__ import annotations

import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.statistics import PatternStatistics
from ptychopinn.typing import BoolArray

ASSUMED_PHOTONS = 1e6  # photons a pattern of normalised amplitudes that nobody gave a dose
_AMPLITUDE_PEAK = 4096  # 17 million counts in one pixel: no amplitude of a single exposure
_FLOAT32_PEAK = 1e15  # sums of squares of larger values leave float32
_DOSE_TOLERANCE = 1e-4  # a dose this close to the one seen is that one
_FLAG = "Say what they are: --measurement counts or --measurement amplitude (measurement= in Python)."
_DOSE = "Give the mean photons of a pattern: nphotons (--nphotons), or nphotons in _metadata."


def resolve_measurement(
    key: str,
    dtype: np.dtype[np.generic],
    seen: PatternStatistics,
    probe_energy: float | None,
    metadata: ScanMetadata,
    measurement: Measurement | None,
    findings: Findings,
) -> Measurement | None:
    """Decide the domain of the patterns: the caller's word, then the file's, then what leaves no doubt.

    Parameters
    ----------
    key, dtype:
        Where the patterns stand, and as what.
    seen:
        Their values.
    probe_energy:
        ``sum |P|^2`` of the file's probe, if it has one.
    metadata, measurement:
        The file's word and the caller's; the caller's wins.

    Returns
    -------
    The domain, or None when it is ambiguous (an error is then in ``findings``).
    """
    if measurement is not None:
        if metadata.measurement not in (None, measurement):
            findings.warning(key, f"_metadata says {metadata.measurement}; read as {measurement}, as asked.")
        return measurement
    integer = dtype.kind in "ui"
    if metadata.measurement is not None:
        if metadata.measurement is Measurement.AMPLITUDE and key == "diff3d" and integer:
            findings.error(key, f"An integer diff3d ({dtype}) is counts, but _metadata says amplitude.", _FLAG)
            return None
        return metadata.measurement
    if key == "diff3d" and integer:
        return Measurement.COUNTS
    mean_sum, mean_square = float(seen.sums.mean()), float(seen.square_sums.mean())
    numbers = "whole numbers" if seen.whole else "not whole numbers"
    what = (
        f"{dtype} values up to {seen.peak:.6g}, {numbers}, with a mean sum of {mean_sum:.4g} "
        f"and a mean sum of squares of {mean_square:.4g} a pattern"
    )
    if key == "diff3d":
        findings.error(key, f"Counts and amplitudes are both possible: {what}, and no _metadata says which.", _FLAG)
        return None
    reasons = []
    if integer or (seen.whole and seen.peak > 1):
        reasons.append("they are whole numbers")
    if seen.peak > _AMPLITUDE_PEAK:
        reasons.append(f"an amplitude of {seen.peak:.4g} would be {seen.peak**2:.3g} photons in a pixel")
    if probe_energy and 0.5 < mean_sum / probe_energy < 2 and not 0.1 < mean_square / probe_energy < 10:
        reasons.append(f"their sum, not their sum of squares, is the probe's energy ({probe_energy:.4g})")
    if reasons:
        findings.error(
            key, f"These should be amplitudes but look like counts, because {' and '.join(reasons)}: {what}.", _FLAG
        )
        return None
    return Measurement.AMPLITUDE


def resolve_dose(
    key: str,
    seen: PatternStatistics,
    bad_pixels: BoolArray,
    metadata: ScanMetadata,
    measurement: Measurement,
    nphotons: float | None,
    findings: Findings,
) -> tuple[float, bool] | None:
    """Counts per unit, so that ``nphotons`` is the mean count of a pattern, bad pixels left out.

    The caller's ``nphotons`` scales either domain (detector units have a gain). The file's own scales normalised
    amplitudes only: counts, and amplitudes whose squares are whole numbers, carry their dose. Amplitudes without any
    are taken as they are when their squares hold a photon a pixel on average; else `ASSUMED_PHOTONS` is taken and told.

    Returns
    -------
    Counts per unit, and whether the dose is assumed; None if there is no dose to be had (an error is in ``findings``).
    """
    amplitude = measurement is Measurement.AMPLITUDE
    mean = float((seen.square_sums if amplitude else seen.sums).mean())
    if seen.peak > _FLOAT32_PEAK:
        findings.error(
            key, f"Values reach {seen.peak:.3g}; above {_FLOAT32_PEAK:g} they leave float32.", "Rescale them."
        )
        return None
    if mean <= 0:
        findings.error(
            key, "Every pattern is empty: no photon outside the bad pixels.", "Check the patterns and the mask."
        )
        return None
    if nphotons is not None:
        return _per_unit(nphotons, mean), False
    known = metadata.nphotons
    if not amplitude or seen.whole_squares:
        if known is not None and not 0.9 < known / mean < 1.1:
            findings.warning(
                key,
                f"_metadata says {known:.4g} photons a pattern, the counts say {mean:.4g}; the counts are believed.",
                "Give nphotons (--nphotons) if these are detector units and not photons.",
            )
        return 1.0, False
    if known is not None:
        if metadata.nphotons_assumed:
            findings.warning(
                key, f"The dose of {known:.4g} photons a pattern was assumed when the file was made.", _DOSE
            )
        return _per_unit(known, mean), metadata.nphotons_assumed
    pixels = int((~bad_pixels).sum())
    if mean >= pixels:
        findings.note(
            key,
            f"Squares taken as photons: {mean:.4g} a pattern, {mean / pixels:.3g} a pixel; no nphotons says otherwise.",
        )
        return 1.0, False
    findings.warning(
        key,
        f"Normalised amplitudes (mean sum of squares {mean:.4g}, under a photon a pixel) without a dose: "
        f"{ASSUMED_PHOTONS:g} photons a pattern are assumed. It sets how noise is weighed, not the object's scale.",
        _DOSE,
    )
    return _per_unit(ASSUMED_PHOTONS, mean), True


def _per_unit(nphotons: float, mean: float) -> float:
    ratio = nphotons / mean
    return 1.0 if abs(ratio - 1) < _DOSE_TOLERANCE else ratio
