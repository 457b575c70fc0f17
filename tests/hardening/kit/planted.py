"""Scans in which something is wrong that is known, and whether an inspection found it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.inspection import Agreement, Change, GeometryCheck
from ptychopinn.inspection.changes import ORIENTATIONS, Orientation
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import ComplexArray

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
_LIKE = 0.95  # correlation of probes that patterns cannot tell apart
_SCALE_TOLERANCE = 0.1  # of the extent of the positions
_SIMULATED = (
    {"N": 32, "rows": 11, "cols": 11, "object_kind": "cells", "nphotons": 1e5},
    {"N": 64, "rows": 14, "cols": 14, "object_kind": "mixture", "probe_kind": "defocused", "nphotons": 1e6},
    {"N": 64, "rows": 14, "cols": 14, "object_kind": "textured", "probe_kind": "annular", "nphotons": 1e4},
    {"N": 64, "rows": 12, "cols": 12, "object_kind": "curves", "probe_modes": 2, "nphotons": 1e5, "overlap": 0.6},
    {"N": 64, "rows": 12, "cols": 15, "object_kind": "porous", "scan_kind": "spiral", "nphotons": 1e4},
    {"N": 128, "rows": 12, "cols": 12, "object_kind": "power_law", "nphotons": 1e6, "bad_pixel_fraction": 0.02},
    {"N": 64, "rows": 13, "cols": 13, "object_kind": "discs_bars", "flux_deviation": 0.1, "background_share": 0.02},
)
_SPARSE_OBJECTS = ("mixture", "cells", "power_law", "porous", "discs_bars", "textured", "curves", "gratings", "star")


def good_scans() -> Iterator[tuple[str, ScanDataset]]:
    """Scans whose patterns, positions and probe agree: simulated ones, and measured ones if they are there."""
    for seed, settings in enumerate(_SIMULATED, start=20):
        name = f"{settings['object_kind']}, {settings.get('probe_kind', 'disc')} probe, N = {settings['N']}"
        yield name, simulate_scan(SimulationConfig.model_validate({"seed": seed, **settings}))
    if (DATA / "siemens-star.npz").exists():
        yield "measured: Siemens star", read_scan(DATA / "siemens-star.npz")
        with np.load(DATA / "real-probes.npz") as file:
            probes = {key: file[f"{key}_probe"] for key in ("xpp", "dls")}
        for name, probe in probes.items():
            size = min(probe.shape[-1], 128)
            low = (probe.shape[-1] - size) // 2
            middle = np.ascontiguousarray(probe[:, low : low + size, low : low + size])
            config = SimulationConfig(N=size, rows=13, cols=13, overlap=0.75, object_kind="mixture", seed=11)
            yield f"measured probe {name}, N = {size}", simulate_scan(config, probe=middle)


def changes_for(number: int) -> Iterator[Change]:
    """Ten changes for a scan; its number decides which orientations."""
    yield Change()
    for k in range(3):
        yield Change(positions=ORIENTATIONS[1 + (3 * number + k) % 7])
    yield Change(patterns=ORIENTATIONS[1 + (2 * number + 3) % 7])
    yield Change(scale=(0.7, 1.4)[number % 2])
    yield Change(offset=(1, -1)[number % 2])
    yield Change(offset=(-2, 2)[number % 2])
    yield Change(conjugate_probe=True)
    yield Change(probe_from_corner=True)


def changed(scan: ScanDataset, change: Change) -> ScanDataset:
    """A scan with a change."""
    return replace(
        scan,
        patterns=change.patterns.of_patterns(scan.counts(slice(None))),
        measurement=Measurement.COUNTS,
        counts_per_unit=1.0,
        positions=change.of_positions(scan.positions),
        probe=np.ascontiguousarray(change.of_probe(scan.probe)),
        bad_pixels=change.patterns.of_patterns(scan.bad_pixels),
    )


def outcome(scan: ScanDataset, planted: Change, found: GeometryCheck | None) -> str:
    """Whether an inspection of ``changed(scan, planted)`` is right, wrong, or cannot tell.

    It is right if the scan that it mends is the good one, or one that nobody can tell from it: turned as a whole, and
    the twin, whose positions are negated and whose probe is the reversed complex conjugate. It cannot tell if it says
    so, or if it names such a change among those that fit as well.
    """
    if found is None or found.agreement is Agreement.UNKNOWN:
        return "cannot tell"
    if found.agreement is Agreement.NONE:
        return "wrong"
    if _mends(scan, planted, found.best):
        return "right"
    return "cannot tell" if any(_mends(scan, planted, change) for change in found.alike) else "wrong"


def _mends(scan: ScanDataset, planted: Change, mending: Change) -> bool:
    mended = changed(changed(scan, planted), mending)
    turned = _turn(planted.patterns, mending.patterns)
    for twin in (False, True):
        positions, probe = turned.of_positions(scan.positions), turned.of_patterns(scan.probe)
        if twin:
            positions = 2 * positions.mean(axis=0) - positions
            probe = Orientation(negate_y=True, negate_x=True).of_patterns(probe).conj()
        extent = np.abs(scan.positions - scan.positions.mean(axis=0)).max()
        near = np.abs(mended.positions - positions).max() <= _SCALE_TOLERANCE * extent
        if near and _likeness(mended.probe, probe) >= _LIKE:
            return True
    return False


def _turn(first: Orientation, second: Orientation) -> Orientation:
    """One orientation that does what two do."""
    marks = np.array([[3.0, 1.0], [-3.0, -1.0]])  # no two orientations give the same
    both = second.of_positions(first.of_positions(marks))
    return next(one for one in ORIENTATIONS if np.array_equal(one.of_positions(marks), both))


def _likeness(a: ComplexArray, b: ComplexArray) -> float:
    """Highest correlation of two probes over all shifts, of the sums of their modes' intensities and of their first."""
    fa, fb = np.fft.fft2(a[0]), np.fft.fft2(b[0])
    scale = np.linalg.norm(a[0]) * np.linalg.norm(b[0])
    return float(np.abs(np.fft.ifft2(fa * fb.conj())).max() / scale)


def drawn_scans(first_seed: int, count: int = 40) -> Iterator[tuple[str, ScanDataset]]:
    """Good scans of any dose, strength and overlap, with their true objects; every fifth object is in vacuum."""
    for seed in range(first_seed, first_seed + count):
        rng = np.random.default_rng(seed)
        dose = 10.0 ** rng.uniform(2, 8)
        strength = float(10.0 ** rng.uniform(-1, 0))  # of the phase; rad
        settings = {
            "N": int(rng.choice([32, 32, 64])),
            "rows": int(rng.integers(10, 13)),
            "cols": int(rng.integers(10, 13)),
            "overlap": float(rng.uniform(0.5, 0.85)),
            "nphotons": dose,
            "object_kind": str(rng.choice(["mixture", "cells", "power_law", "porous", "discs_bars", "textured"])),
            "probe_kind": str(rng.choice(["disc", "annular", "gaussian", "defocused"])),
            "amplitude": (1 - 0.6 * strength, 1.0),
            "phase_rad": (-strength, strength),
        }
        if seed % 5 == 0:
            settings |= {"object_kind": "letter"}  # one F in vacuum
        said = (
            f"seed {seed}: {settings['object_kind']}, {settings['probe_kind']}, {dose:.1g} photons, {strength:.1g} rad"
        )
        yield said, simulate_scan(SimulationConfig.model_validate({"seed": seed, **settings}))


def sparse_scans(first_seed: int, count: int) -> Iterator[tuple[str, ScanDataset]]:
    """Parts of good scans whose neighbouring probes overlap by 28% to 32% of their width, of any dose."""
    for seed in range(first_seed, first_seed + count):
        rng = np.random.default_rng(seed)
        dose, strength = 10.0 ** rng.uniform(2, 8), float(10.0 ** rng.uniform(-1, 0.2))
        settings = {
            "N": int(rng.choice([32, 32, 64])),
            "rows": int(rng.integers(5, 10)),
            "cols": int(rng.integers(5, 10)),
            "overlap": float(rng.uniform(0.28, 0.32)),
            "nphotons": dose,
            "object_kind": str(rng.choice(_SPARSE_OBJECTS)),
            "probe_kind": str(rng.choice(["disc", "annular", "gaussian", "defocused"])),
            "scan_kind": str(rng.choice(["raster", "jittered", "spiral"])),
            "amplitude": (max(1 - 0.6 * strength, 0.05), 1.0),
            "phase_rad": (-strength, strength),
        }
        said = f"seed {seed}: {settings['object_kind']}, {settings['probe_kind']}, {dose:.1g} photons"
        yield said, simulate_scan(SimulationConfig.model_validate({"seed": seed, **settings}))
