"""Decide whether patterns are counts or amplitudes, and how many photons one unit is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.statistics import PatternStatistics
from ptychopinn.typing import BoolArray

ASSUMED_PHOTONS = 1e6  # photons per pattern of normalised amplitudes without a dose
_AMPLITUDE_PEAK = 4096  # 17 million counts in one pixel: too large for an amplitude of one exposure
_FLOAT32_PEAK = 1e15  # sums of squares of larger values overflow float32
_DOSE_TOLERANCE = 1e-4  # relative tolerance of the dose
_SQUARE_TOLERANCE = 1e-6  # relative error of counts that are stored as float32 amplitudes
_FLAG = "Say what they are: --measurement counts or --measurement amplitude (measurement= in Python)."
_DOSE = "Give the mean photons per pattern: nphotons (--nphotons), or nphotons in _metadata."


@dataclass(frozen=True, eq=False)
class StoredPatterns:
    """Patterns as a file or a message has them."""

    # Where they stand, and as what.
    key: str
    dtype: np.dtype[np.generic]
    seen: PatternStatistics  # their values
    bad_pixels: BoolArray  # (N, N) bool; True pixels measure nothing
    bad_values: BadValues | None = None  # other pixels that measure nothing in some patterns


def resolve_measurement(
    stored: StoredPatterns,
    probe_energy: float | None,
    metadata: ScanMetadata,
    measurement: Measurement | None,
    findings: Findings,
) -> Measurement | None:
    """Decide the domain of the patterns: as the caller says, else as the file says, else if it is unambiguous.

    Parameters
    ----------
    probe_energy:
        ``sum |P|^2`` of the file's probe, if it has one.
    metadata, measurement:
        The file's word and the caller's; the caller's wins.
    findings:
        Gets what is wrong or doubtful.

    Returns
    -------
    The domain, or None if it is ambiguous (``findings`` then has an error).
    """
    key, whole_counts = stored.key, stored.key == "diff3d" and stored.dtype.kind in "ui"
    if measurement is not None:
        if metadata.measurement not in (None, measurement):
            findings.warning(key, f"_metadata says {metadata.measurement}; read as {measurement}, as asked.")
        return measurement
    if metadata.measurement is not None:
        if metadata.measurement is Measurement.AMPLITUDE and whole_counts:
            findings.error(key, f"An integer diff3d ({stored.dtype}) is counts, but _metadata says amplitude.", _FLAG)
            return None
        return metadata.measurement
    if whole_counts:
        return Measurement.COUNTS
    what = _description(stored)
    if key == "diff3d":
        findings.error(key, f"Counts and amplitudes are both possible: {what}, and no _metadata says which.", _FLAG)
        return None
    if reasons := _reasons_for_counts(stored, probe_energy):
        findings.error(
            key, f"These should be amplitudes but look like counts, because {' and '.join(reasons)}: {what}.", _FLAG
        )
        return None
    return Measurement.AMPLITUDE


def _description(stored: StoredPatterns) -> str:
    seen = stored.seen
    numbers = "whole numbers" if seen.whole else "not whole numbers"
    return (
        f"{stored.dtype} values up to {seen.peak:.6g}, {numbers}, with a mean sum of {seen.sums.mean():.4g} "
        f"and a mean sum of squares of {seen.square_sums.mean():.4g} a pattern"
    )


def _reasons_for_counts(stored: StoredPatterns, probe_energy: float | None) -> list[str]:
    """Why patterns that should be amplitudes look like counts."""
    seen, reasons = stored.seen, []
    if stored.dtype.kind in "ui" or (seen.whole and seen.peak > 1):
        reasons.append("they are whole numbers")
    if seen.peak > _AMPLITUDE_PEAK:
        reasons.append(f"an amplitude of {seen.peak:.4g} would be {seen.peak**2:.3g} photons in a pixel")
    mean_sum, mean_square = float(seen.sums.mean()), float(seen.square_sums.mean())
    if probe_energy and 0.5 < mean_sum / probe_energy < 2 and not 0.1 < mean_square / probe_energy < 10:
        reasons.append(f"their sum, not their sum of squares, is the probe's energy ({probe_energy:.4g})")
    return reasons


def resolve_dose(
    stored: StoredPatterns,
    metadata: ScanMetadata,
    measurement: Measurement,
    nphotons: float | None,
    findings: Findings,
) -> tuple[float, bool] | None:
    """Counts per unit such that ``nphotons`` is the mean count of a pattern without bad pixels.

    The caller's ``nphotons`` scales either domain (detector units have a gain). The file's ``nphotons`` scales only
    normalised amplitudes; counts, and amplitudes whose squares are whole numbers, have their dose. Amplitudes without a
    dose are used as they are if their squares are at least one photon per pixel on average. Otherwise `ASSUMED_PHOTONS`
    is assumed, with a warning.

    Returns
    -------
    Counts per unit, and whether the dose is assumed; None if it cannot be found (``findings`` then has an error).
    """
    key, seen, amplitude = stored.key, stored.seen, measurement is Measurement.AMPLITUDE
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
    pixels = int((~stored.bad_pixels).sum())
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


def resolve_saturation(
    stored: StoredPatterns, metadata: ScanMetadata, measurement: Measurement, saturation_counts: float | None
) -> float | None:
    """Counts of a saturated pixel in the unit of the file, None if no value reaches them.

    They are what the caller says, else what the file says, else the largest value of an integer dtype.
    """
    seen, amplitude = stored.seen, measurement is Measurement.AMPLITUDE
    peak = seen.peak**2 if amplitude else seen.peak
    level = metadata.saturation_counts if saturation_counts is None else saturation_counts
    if level is None:
        return peak if seen.saturated else None
    return level if peak >= (1 - _SQUARE_TOLERANCE) * level else None


def _per_unit(nphotons: float, mean: float) -> float:
    ratio = nphotons / mean
    return 1.0 if abs(ratio - 1) < _DOSE_TOLERANCE else ratio
