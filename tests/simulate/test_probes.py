"""Simulated probes. Requirements: specs/02-simulation.md."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychopinn.config.simulation import ProbeKind
from ptychopinn.errors import ConfigError
from ptychopinn.simulate import probe_width_px, simulate_probe


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("kind", list(ProbeKind))
def test_energy_centre_and_type(kind, size):
    """[SIM-010]"""
    probe = simulate_probe(kind, size, photons=2e5)
    assert probe.shape == (1, size, size)
    assert probe.dtype == np.complex64
    energy = np.abs(probe[0]) ** 2
    assert energy.sum() == pytest.approx(2e5, rel=1e-5)
    i = np.arange(size)
    centre = np.array([(energy.sum(axis=1) * i).sum(), (energy.sum(axis=0) * i).sum()]) / energy.sum()
    assert centre == pytest.approx([(size - 1) / 2] * 2, abs=0.02)


@pytest.mark.parametrize("kind", list(ProbeKind))
def test_modes_are_orthogonal_and_decay(kind):
    """[SIM-010]"""
    modes = simulate_probe(kind, 32, photons=1e4, modes=4).reshape(4, -1).astype(complex)
    gram = modes.conj() @ modes.T
    powers = gram.diagonal().real
    np.testing.assert_allclose(powers[1:] / powers[:-1], 0.3, rtol=1e-4)
    assert powers.sum() == pytest.approx(1e4, rel=1e-5)
    assert np.abs(gram - np.diag(powers)).max() < 1e-4 * powers[-1]


def test_more_modes_leave_the_first_as_it_is():
    one, three = (simulate_probe("disc", 32, photons=1.0, modes=m).astype(complex) for m in (1, 3))
    overlap = np.vdot(one[0], three[0]) / np.linalg.norm(one[0]) / np.linalg.norm(three[0])
    assert overlap == pytest.approx(1)


def test_the_disc_is_the_recipe():
    """[SIM-011]"""
    i = np.arange(64) - 31.5
    r2 = i[:, None] ** 2 + i[None, :] ** 2
    disc = gaussian_filter((r2 < 12.8**2).astype(float), 1.28)
    expected = disc * np.exp(-r2 / (2 * 10.24**2)) * np.exp(0.5j * r2 / 10.24**2)
    probe = simulate_probe("disc", 64, photons=1.0)[0]
    np.testing.assert_allclose(probe, expected / np.linalg.norm(expected), atol=1e-6)
    assert probe_width_px(probe[None]) == pytest.approx(22, abs=0.5)


def test_the_width_of_a_disc():
    i = np.arange(64) - 31.5
    disc = (i[:, None] ** 2 + i[None, :] ** 2 < 10**2)[None].astype(complex)
    assert probe_width_px(3 * disc) == pytest.approx(20, abs=0.3)


@pytest.mark.parametrize("change", [{"photons": 0.0}, {"size": 2}, {"modes": 0}])
def test_refusals(change):
    """[SIM-035]"""
    given = {"size": 16, "photons": 1.0, "modes": 1} | change
    with pytest.raises(ConfigError, match=str(next(iter(change.values())))):
        simulate_probe("disc", given.pop("size"), **given)
