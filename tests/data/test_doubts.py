"""Scans of which no picture can be right, though nothing can be mended: specs/01-data.md, specs/21-verdict.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hardening.kit.planted import drawn_scans

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.from_arrays import mend_scan
from ptychopinn.data.io import read_scan
from ptychopinn.simulate import simulate_scan
from ptychopinn.verdict import Explains
from ptychopinn.workflows import create_solver, solve

_DOUBTS = {"DATA-133", "DATA-134", "DATA-135"}


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=32, rows=12, cols=12, seed=3, nphotons=2e5, object_kind="mixture"))


def found_in(scan: ScanDataset, counts: Any, **changes: Any) -> dict[str, str]:
    """What is found in a scan of other counts, whose dose nobody said, by code."""
    metadata = scan.metadata.model_copy(update={"nphotons": None})
    made = replace(scan, patterns=counts, measurement=Measurement.COUNTS, counts_per_unit=1.0, checked=None)
    mended = mend_scan(replace(made, metadata=metadata, **changes))
    return {one.code: one.text for one in mended.findings if one.code in _DOUBTS}


def test_what_varies_less_than_photons_is_no_count(scan: ScanDataset, tmp_path: Path) -> None:
    """[DATA-133] Amplitudes in whole numbers, in arrays and files; not if somebody gave the dose."""
    counts = scan.counts(slice(None))
    roots = np.rint(np.sqrt(counts)).astype(np.uint8)
    assert found_in(scan, counts) == {}
    assert "--measurement amplitude" in found_in(scan, roots)["DATA-133"]
    rest = {"ycoords": scan.positions[:, 0], "xcoords": scan.positions[:, 1], "probeGuess": scan.probe}
    np.savez(path := tmp_path / "scan.npz", diff3d=roots, **rest)
    assert [one.code for one in read_scan(path).findings] == ["DATA-133"]
    assert read_scan(path, nphotons=2e5).findings == ()


def test_an_exposure_that_jumps_is_named_with_its_pattern(scan: ScanDataset) -> None:
    """[DATA-135] It is the light and not the object, for neighbours differ as much."""
    counts = scan.counts(slice(None))
    counts[50:] *= 2
    said = found_in(scan, counts)["DATA-135"]
    assert "From pattern 50 on" in said
    assert "--frames 0-49" in said
    numbers = np.arange(1000, 1000 + len(scan))
    assert "From pattern 1050 on" in found_in(scan, counts, numbers=numbers)["DATA-135"]


def test_an_exposure_that_drifts_is_named(scan: ScanDataset) -> None:
    """[DATA-135] A beam that decays makes a picture of a wedge."""
    fading = np.random.default_rng(0).poisson(scan.counts(slice(None)) * np.exp(-np.arange(144) / 60)[:, None, None])
    assert "The light falls all over the scan" in found_in(scan, fading.astype(np.uint32))["DATA-135"]


def test_an_edge_of_the_object_is_no_jump_of_the_exposure(scan: ScanDataset) -> None:
    """[DATA-135] Where the object changes along a row, neighbours differ by less than the light in all."""
    size = 32 + int(np.ptp(scan.positions, axis=0).max()) + 2
    config = SimulationConfig(N=32, rows=12, cols=12, seed=3, nphotons=2e5)
    for dark in (0.3, 0.1, 0.02):
        edge = np.ones((size, size), np.complex64)
        edge[size // 2 :] = dark
        made = simulate_scan(config, obj=edge)
        assert np.ptp(np.log(made.counts(slice(None)).sum(axis=(1, 2)))) > -1.5 * np.log(dark)
        assert found_in(made, made.counts(slice(None))) == {}


def test_patterns_that_do_not_overlap_prove_nothing(scan: ScanDataset) -> None:
    """[DATA-134] [VER-009] Each is explained by a picture of its own, whatever the positions are."""
    apart = replace(scan, positions=10 * scan.positions, object_guess=None)
    assert "28 pixels apart" in found_in(apart, apart.counts(slice(None)))["DATA-134"]
    found = solve(create_solver("rpie", {"passes": 4}), apart).verdict
    assert found is not None
    assert found.explained > 0.9
    assert found.explains is Explains.UNKNOWN
    assert found.warning is not None
    assert "farther than the probe is wide" in found.warning


def test_good_scans_raise_no_doubt() -> None:
    """[DATA-133] [DATA-134] [DATA-135] Any dose, strength and overlap, and any number of patterns."""
    _, many = next(drawn_scans(406, 1))
    for count in (2, 15, 32, 33, 40, 64):
        few = many.select(np.arange(count))
        assert found_in(few, few.counts(slice(None))) == {}, count
    for name, good in drawn_scans(400, 6):
        assert found_in(good, good.counts(slice(None))) == {}, name
