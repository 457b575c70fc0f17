"""What a scan's conditions are, and which differences are said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.conditions import ScanConditions, conditions_of, describe_differences
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.simulate import simulate_scan

KNOWN = ScanConditions(energy_eV=8800, pixel_size_m=10e-9, photons=1e6)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"energy_eV": 12400}, "photons of 8.8 keV, here 12.4 keV"),
        ({"pixel_size_m": 8.9e-9}, "object pixels of 10 nm, here 8.9 nm"),
        ({"photons": 9e4}, "1e+06 photons a pattern, here 9e+04: patterns are noisier"),
        ({"photons": 1.1e7}, "1e+06 photons a pattern, here 1.1e+07: it did not learn"),
    ],
)
def test_both_values_of_what_differs_are_said(changed: dict[str, float], words: str) -> None:
    """[VER-007] And only of what differs."""
    said = describe_differences(KNOWN, KNOWN.model_copy(update=changed))
    assert said is not None
    assert words in said
    assert said.count("here") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"energy_eV": 9600, "pixel_size_m": 9.2e-9, "photons": 1.1e5},
        {"energy_eV": None, "pixel_size_m": None, "photons": None},
    ],
)
def test_what_is_alike_or_unknown_is_not_said(changed: dict[str, float | None]) -> None:
    """[VER-007] Whichever of the two does not state it."""
    other = KNOWN.model_copy(update=changed)
    assert describe_differences(KNOWN, other) is None
    assert describe_differences(other, KNOWN) is None


def test_the_conditions_of_a_scan_are_those_that_it_states() -> None:
    """[ARC-017] An assumed dose is none."""
    scan = simulate_scan(SimulationConfig(N=32, rows=3, cols=3, nphotons=1e5, seed=1))
    stated = {"probe_energy_eV": 8000.0, "pixel_size_m": 2e-8}
    data = replace(scan, metadata=scan.metadata.model_copy(update=stated))
    found = conditions_of(data, fit_scaling(data))
    assert (found.energy_eV, found.pixel_size_m) == (8000.0, 2e-8)
    assert found.photons == pytest.approx(float(scan.patterns.sum()) / 9, rel=1e-6)
    assumed = replace(scan, metadata=scan.metadata.model_copy(update={"nphotons_assumed": True}))
    assert conditions_of(assumed, fit_scaling(assumed)) == ScanConditions()
