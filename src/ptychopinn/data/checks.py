"""Check a scan file: list all violations of the contract and all suspicious values."""

from __future__ import annotations

import numpy as np

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.contract import ReadResult, interpret
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.diagnostics import Findings, Problem, Severity
from ptychopinn.data.open_scan import open_scan
from ptychopinn.data.pattern_checks import preview
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.data.scan_file import ScanFile
from ptychopinn.data.statistics import PatternStatistics
from ptychopinn.data.subsampling import neighbour_distances
from ptychopinn.errors import DataError
from ptychopinn.typing import FloatArray, StrPath

_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
_FEW_PHOTONS = 100.0
_PROBE_RATIO = 10.0
_OFFSET_PX = 2.0


def check_scan(path: StrPath, reading: ReadOptions | None = None) -> list[Problem]:
    """List all problems of a file, errors first.

    `ptychopinn.data.io.read_scan` with the same options refuses the file if and only if there is an error here,
    except for checksums: only this function verifies those of mapped arrays.

    Raises
    ------
    ConfigError
        If there is no such reader.
    ResourceError
        If a compressed array does not fit into memory.
    """
    options = reading or ReadOptions()
    findings = Findings()
    try:
        file = open_scan(path, options)
    except DataError as error:
        findings.refused("", error)
        return findings.problems
    found = interpret(file, options, findings)
    _check_bytes(file, findings)
    if found is not None:
        _check_patterns(found, findings)
        _check_positions(found.data, findings)
        _check_probe(found.data, findings)
        _check_extras(found.data, findings)
    return sorted(findings.problems, key=lambda p: _ORDER[p.severity])


def _check_bytes(file: ScanFile, findings: Findings) -> None:
    for key, member in file.members.items():
        if member.mapped:
            try:
                member.verify()
            except DataError as error:
                findings.refused(key, error)


def _energies(seen: PatternStatistics, measurement: Measurement | None) -> FloatArray:
    return seen.square_sums if measurement is Measurement.AMPLITUDE else seen.sums


def _check_patterns(found: ReadResult, findings: Findings) -> None:
    data, seen = found.data, found.seen
    key = "patterns"
    counts = _energies(seen, data.measurement) * data.counts_per_unit
    if 0 < counts.mean() < _FEW_PHOTONS:
        findings.warning(
            key, f"There are {counts.mean():.3g} photons in a pattern.", "Check the units; nphotons gives another dose."
        )


def _check_positions(data: ScanDataset, findings: Findings) -> None:
    key = "xcoords, ycoords"
    positions, n = data.positions, len(data)
    places = np.column_stack([data.scan_index, positions])
    repeated = n - len(np.unique(places, axis=0))
    if repeated:
        findings.warning(
            key, f"{repeated} of {n} positions are repeated within a scan.", "Check that each pattern has its own."
        )
    if n > 1:
        distance = float(np.median(neighbour_distances(positions)))
        if distance > data.N / 2:
            findings.warning(
                key,
                f"The nearest neighbour of a position is {distance:.3g} pixels away (median), beyond the reconstructed "
                f"N/2 = {data.N // 2} pixels: patterns do not overlap.",
                "Check that the positions are in object pixels.",
            )
    if data.object_guess is not None:
        outside = _outside(positions, data.object_guess.shape)
        if outside:
            swapped = _outside(positions[:, ::-1], data.object_guess.shape)
            findings.warning(
                key,
                f"{outside} of {n} positions lie outside objectGuess (shape {data.object_guess.shape}).",
                "With x and y exchanged they would fit." if swapped < outside / 2 else "Check the frame of both.",
            )


def _outside(positions: FloatArray, shape: tuple[int, ...]) -> int:
    return int(((positions < -0.5) | (positions > np.array(shape) - 0.5)).any(axis=1).sum())


def _check_probe(data: ScanDataset, findings: Findings) -> None:
    try:
        scaling = fit_scaling(data)
    except DataError as error:
        findings.warning("probeGuess", error.problem, error.remedy)
        return
    ratio = scaling.probe_scale**2
    if not 1 / _PROBE_RATIO < ratio < _PROBE_RATIO:
        findings.note(
            "probeGuess",
            f"Its energy is {scaling.mean_counts / ratio:.4g}, the patterns hold {scaling.mean_counts:.4g} photons; "
            "it is rescaled to them.",
        )
    offset = scaling.detector_offset_px
    if np.abs(offset).max() > _OFFSET_PX:
        remedy = "Trainings and passes allow for this offset."
        where = f"({offset[0]:+.1f}, {offset[1]:+.1f}) pixels (y, x)"
        message = f"The patterns lie {where} from where the probe's far field lies."
        if np.abs(offset).max() > data.N / 8:
            findings.warning("probeGuess", message, remedy + " So much of it is more likely a wrong centre or probe.")
        else:
            findings.note("probeGuess", message, remedy)


def _check_extras(data: ScanDataset, findings: Findings) -> None:
    obj = data.object_guess
    if obj is not None and (obj == obj.flat[0]).all():
        findings.note("objectGuess", f"It is {obj.flat[0]:g} everywhere: no truth to train on or to score against.")
    if data.metadata.pixel_size_m is None:
        findings.note(
            "_metadata",
            "pixel_size_m is not given: products get a placeholder.",
            "ptychopinn convert SCAN -o NEW.npz --pixel-size METRES gives it.",
        )
    scans = np.unique(data.scan_index, return_counts=True)
    single = scans[0][scans[1] == 1]
    if len(scans[0]) > 1 and len(single):
        findings.warning(
            "scan_index", f"{len(single)} scans have one pattern: {preview(single)}.", "Groups never cross scans."
        )
