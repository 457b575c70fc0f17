"""Random probes: specs/02-simulation.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.simulate import simulate_probe
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.simulate.random_probes import draw_probe, vary_probe


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("modes", [1, 3])
def test_drawn_probes_are_orthogonal_and_lie_inside(size: int, modes: int) -> None:
    """[SIM-046]"""
    widths = []
    for seed in range(40):
        probe = draw_probe(size, modes, np.random.default_rng(seed))
        assert probe.shape == (modes, size, size)
        assert probe.dtype == np.complex64
        flat = probe.reshape(modes, -1)
        energy = (np.abs(flat) ** 2).sum(axis=1)
        np.testing.assert_allclose(flat.conj() @ flat.T, np.diag(energy), atol=1e-5)
        assert energy.sum() == pytest.approx(1, rel=1e-4)
        assert (np.diff(energy) < 0).all()
        margin = size // 4
        assert (np.abs(probe[0, margin:-margin, margin:-margin]) ** 2).sum() / energy[0] > 0.75
        widths.append(probe_width_px(probe) / size)
    assert max(widths) > 3 * min(widths)


def test_a_draw_depends_on_its_random_numbers_alone() -> None:
    one, again, other = (draw_probe(32, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("modes", [1, 2])
def test_a_varied_probe_is_near_and_as_bright(modes: int) -> None:
    """[SIM-047]"""
    probe = simulate_probe("disc", 64, photons=1e6, modes=modes)
    likeness = []
    for seed in range(60):
        varied = vary_probe(probe, np.random.default_rng(seed))
        assert varied.dtype == np.complex64
        assert np.linalg.norm(varied) == pytest.approx(np.linalg.norm(probe), rel=1e-5)
        likeness.append(abs(np.vdot(probe, varied)) / np.linalg.norm(probe) ** 2)
    assert 0.4 < min(likeness) < 0.95
    assert 0.75 < np.median(likeness) < 0.99
