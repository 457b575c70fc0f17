"""Mend a scan that was made of arrays, as scans of files are mended."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ptychopinn.data.bad_value_checks import mark_bad_values, refuse_bad_values
from ptychopinn.data.bad_values import Unmeasured
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.defects import check_unit, leave_out, mark_bad_pixels
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.doubts import check_doubts
from ptychopinn.data.pattern_checks import check_background, plateau_level
from ptychopinn.data.splits import probe_radius_px
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.errors import DataError
from ptychopinn.spill import SpillableRows

_log = logging.getLogger(__name__)
_SAMPLE = 1024  # patterns that show dead and hot pixels


def mend_scan(data: ScanDataset) -> ScanDataset:
    """Mark pixels and leave out patterns that are no measurement (`ptychopinn.data.defects`); all of it is logged.

    A scan that passed is returned as it is: one that `ptychopinn.data.io.read_scan` read, or a simulated one.

    Returns
    -------
    The scan with its findings. Patterns are not copied.

    Raises
    ------
    DataError
        If positions are in a unit of length, or too many pixels hold values that are not finite or negative.
    """
    if data.checked is not None or len(data) == 0:
        return data
    findings = Findings()
    known = data.counts_per_unit != 1 or data.metadata.nphotons is not None
    data = mend_measured(data, findings, dose_is_known=known)
    findings.raise_first(data.name)
    findings.log(_log, data.name)
    return replace(data, findings=(*data.findings, *findings.mended)).as_checked()


def mend_measured(data: ScanDataset, findings: Findings, *, dose_is_known: bool) -> ScanDataset:
    """Mend a scan that was not checked; positions in a unit of length are an error among the findings.

    Parameters
    ----------
    dose_is_known:
        Whether somebody said how many photons there are; else counts are photons.

    Raises
    ------
    DataError
        If too many pixels hold values that are not finite or negative.
    """
    patterns = data.patterns[:] if isinstance(data.patterns, SpillableRows) else data.patterns
    seen, bad = mark_bad_values("patterns", patterns, Unmeasured(data.bad_pixels, data.bad_values), findings)
    refuse_bad_values("patterns", patterns, seen, findings)
    findings.raise_first(data.name)
    amplitude = data.measurement is Measurement.AMPLITUDE
    counts = (seen.square_sums if amplitude else seen.sums) * data.counts_per_unit
    numbers = leave_out(counts, data.positions, data.scan_index, bad, findings)
    data = replace(data, bad_pixels=bad.pixels, bad_values=bad.values)
    if len(numbers) < len(data):
        places = numbers if data.numbers is None else data.numbers[numbers]
        data = replace(data.select(numbers), numbers=places)
    if len(data) > 0:
        chosen = evenly_spread(len(data), _SAMPLE)
        mean = data.counts(chosen).mean(axis=0, dtype=np.float64)
        pixels = mark_bad_pixels(mean, len(chosen), bad.pixels, data.probe, findings)
        values = None if data.bad_values is None else data.bad_values.outside(pixels)
        data = replace(data, bad_pixels=pixels, bad_values=values)
        data = replace(data, metadata=_with_saturation(data, findings))
        check_background(mean, data.bad_pixels, findings)
        check_doubts(data, counts[numbers], dose_is_known=dose_is_known, findings=findings)
        check_unit(data.positions, 2 * probe_radius_px(data.probe), data.metadata, findings)
    return data


def mend_every_pattern(data: ScanDataset) -> ScanDataset:
    """As `mend_scan`, for work whose result has an entry for each pattern.

    Raises
    ------
    DataError
        As `mend_scan`, and if it would leave out patterns.
    """
    mended = mend_scan(data)
    if len(mended) < len(data):
        said = " ".join(finding.text for finding in mended.findings[len(data.findings) :])
        raise DataError(
            f"{len(data) - len(mended)} of {len(data)} patterns of '{data.name}' are no measurement. {said}",
            "Leave them out first: ptychopinn.data.from_arrays.mend_scan(data), or make the scan with ptychopinn.read.",
        )
    return mended


def _with_saturation(data: ScanDataset, findings: Findings) -> ScanMetadata:
    """The metadata of a scan, with the counts at which its patterns are cut off if they say no others."""
    if data.metadata.saturation_counts is not None:
        return data.metadata
    patterns = data.patterns[:] if isinstance(data.patterns, SpillableRows) else data.patterns
    squared = data.measurement is Measurement.AMPLITUDE
    bad = Unmeasured(data.bad_pixels, data.bad_values)
    level = plateau_level(patterns, bad, data.counts_per_unit, findings, squared=squared)
    if level is None:
        return data.metadata
    return data.metadata.model_copy(update={"saturation_counts": level * data.counts_per_unit})
