"""Random probes: specs/02-simulation.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.forward import far_field
from ptychopinn.simulate import simulate_probe
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.simulate.random_probes import draw_probe, vary_probe
from ptychopinn.typing import FloatArray


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
        assert (np.abs(probe[0, margin:-margin, margin:-margin]) ** 2).sum() / energy[0] > 0.55
        widths.append(probe_width_px(probe) / size)
    assert max(widths) > 3 * min(widths)


def test_drawn_probes_are_as_different_as_those_of_beamlines() -> None:
    """[SIM-046] Narrow and wide, focused and far out of focus, off the middle, and some that fill the detector."""
    size, beam, image, off = 64, [], [], []
    for seed in range(100):
        probe = draw_probe(size, 1, np.random.default_rng(seed))
        place, radius = moments(np.abs(probe[0]) ** 2)
        beam.append(radius / size)
        off.append(np.hypot(*place) / size)
        image.append(moments(np.abs(far_field(probe)[0]) ** 2)[1] / size)
    assert min(beam) < 0.08
    assert max(beam) > 0.22
    assert min(image) < 0.05
    assert max(image) > 0.24
    assert 0.04 < max(off) < 0.12
    both = [first > 0.18 and second > 0.18 for first, second in zip(beam, image, strict=True)]
    assert sum(both) >= 3  # wide in both: the light's phase turns many times


def test_some_drawn_probes_are_nearly_one_mode() -> None:
    """[SIM-046]"""
    shares = [(np.abs(draw_probe(32, 2, np.random.default_rng(seed))[1]) ** 2).sum() for seed in range(100)]
    assert min(shares) < 0.01
    assert 0.3 < max(shares) < 0.4


def moments(power: FloatArray) -> tuple[FloatArray, float]:
    """Centre (y, x) from the middle, and root mean square distance from it, of an (N, N) distribution."""
    axis = np.arange(power.shape[0]) - (power.shape[0] - 1) / 2
    share = power / power.sum()
    place = np.array([share.sum(axis=1) @ axis, share.sum(axis=0) @ axis])
    spread = share.sum(axis=1) @ (axis - place[0]) ** 2 + share.sum(axis=0) @ (axis - place[1]) ** 2
    return place, float(np.sqrt(spread))


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
