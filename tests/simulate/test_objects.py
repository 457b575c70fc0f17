"""Simulated objects. Requirements: specs/02-simulation.md."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychopinn.config.simulation import ObjectKind
from ptychopinn.errors import ConfigError
from ptychopinn.simulate import TRAINING_KINDS, objects, simulate_object
from ptychopinn.simulate.objects import compose, field_pair
from ptychopinn.simulate.textures import FIELDS, spectral_noise, unit

SHAPE = (96, 80)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", list(ObjectKind))
def test_every_kind_fills_its_ranges(kind):
    """[SIM-002]"""
    obj = simulate_object(kind, SHAPE, rng(), amplitude=(0.5, 0.9), phase_rad=(-0.3, 0.7))
    assert obj.dtype == np.complex64
    assert obj.shape == SHAPE
    for values, low, high in ((np.abs(obj), 0.5, 0.9), (np.angle(obj), -0.3, 0.7)):
        assert values.min() == pytest.approx(low, abs=1e-5)
        assert values.max() == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize("kind", [k for k in ObjectKind if k is not ObjectKind.LETTER])
def test_a_seed_says_everything(kind):
    """[SIM-001] and the global generator is left alone."""
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - that it is not used is the point
    first = simulate_object(kind, SHAPE, rng(1))
    np.testing.assert_array_equal(first, simulate_object(kind, SHAPE, rng(1)))
    assert not np.array_equal(first, simulate_object(kind, SHAPE, rng(2)))
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_percentiles_are_moved_to_the_bounds():
    """[SIM-002] half a percent is clipped at either end."""
    field = np.linspace(0, 1, 40000, dtype=np.float32).reshape(200, 200)
    amplitude = np.abs(compose(field, field, (1.0, 3.0), (0.0, 0.0)))
    assert (amplitude <= 1.0 + 1e-6).mean() == pytest.approx(0.005, abs=1e-3)
    assert (amplitude >= 3.0 - 1e-6).mean() == pytest.approx(0.005, abs=1e-3)
    assert amplitude[100, 0] == pytest.approx(2.0, abs=0.02)


def test_a_constant_field_lies_in_the_middle_and_a_rare_one_is_seen():
    """[SIM-002] a feature smaller than the percentiles leave is not lost."""
    rare = np.zeros((64, 64), np.float32)
    rare[3, 4] = 5
    obj = compose(np.zeros_like(rare), rare, (0.4, 1.0), (0.0, 1.0))
    np.testing.assert_allclose(np.abs(obj), 0.7, rtol=1e-6)
    assert np.angle(obj)[3, 4] == pytest.approx(1)
    assert np.angle(obj)[0, 0] == 0


def test_textured_is_the_recipe(monkeypatch):
    """[SIM-003] without its lines it is the noise of the recipe, drawn again here."""
    monkeypatch.setattr(objects, "_lines", lambda shape, _: np.zeros(shape, np.float32))
    obj = simulate_object("textured", SHAPE, rng(5))
    again = rng(5)

    def field(wide, narrow):
        smooth = [gaussian_filter(again.standard_normal(SHAPE), s) for s in (wide, narrow)]
        return sum(w * (f - f.mean()) / f.std() for w, f in zip((1, 0.6), smooth, strict=True))

    for found, expected in ((np.abs(obj), field(12, 4)), (np.angle(obj), field(16, 5))):
        inside = (found > found.min() + 1e-4) & (found < found.max() - 1e-4)  # not clipped
        assert np.corrcoef(found[inside], expected[inside])[0, 1] > 1 - 1e-6


@pytest.mark.parametrize(("shape", "number"), [((392, 392), 130), ((196, 392), 65), ((96, 80), 6)])
def test_textured_has_lines_in_proportion_to_its_area(shape, number):
    """[SIM-003]"""
    drawn = []

    class Counting:
        def __init__(self):
            self.inner = rng()

        def choice(self, options):
            drawn.append(options)
            return self.inner.choice(options)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    canvas = objects._lines(shape, Counting())
    assert len(drawn) == number
    lit = np.count_nonzero(canvas)
    assert 0 < lit < 0.35 * canvas.size
    assert {1.0} == set(np.unique(np.abs(canvas[canvas != 0])) / np.abs(canvas).max())


def test_training_kinds_are_other_kinds():
    """[SIM-004]"""
    assert set(TRAINING_KINDS) == set(ObjectKind) - {ObjectKind.TEXTURED, ObjectKind.LETTER}
    assert set(FIELDS) == set(TRAINING_KINDS)


def test_letter_has_no_symmetry():
    """[SIM-005]"""
    f = simulate_object("letter", (64, 64), rng())
    for other in (f[::-1], f[:, ::-1], f[::-1, ::-1], f.T, f.T[::-1, ::-1], np.rot90(f), np.rot90(f, 3)):
        assert np.mean(np.abs(f - other) > 0.1) > 0.05


@pytest.mark.parametrize("kind", TRAINING_KINDS)
def test_kinds_have_amplitudes_and_phases_of_several_relations(kind):
    """Over some seeds the two fields are alike, opposite, and unrelated."""
    relations = []
    for seed in range(12):
        a, b = field_pair(kind, (64, 64), rng(seed))
        if a.std() and b.std():  # a star may shine past so small a window
            relations.append(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert len(relations) > 6
    assert max(relations) > 0.99 or min(relations) < -0.99
    assert min(np.abs(relations)) < 0.6


def test_unit_and_spectral_noise():
    noise = spectral_noise((50, 70), rng(), lambda k: np.exp(-((k * 10) ** 2)))
    assert noise.shape == (50, 70)
    assert (noise.mean(), noise.std()) == pytest.approx((0, 1), abs=1e-5)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.3  # smooth, as its gain says
    assert not unit(np.full((4, 4), 3.0, np.float32)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (4, 64)}, "4 x 64"),
        ({"amplitude": (1.0, 0.4)}, "1.0, 0.4"),
        ({"amplitude": (-0.1, 0.4)}, "-0.1"),
        ({"phase_rad": (1.0, -1.0)}, "1.0, -1.0"),
    ],
)
def test_refusals(change, message):
    """[SIM-035]"""
    given = {"shape": SHAPE} | change
    with pytest.raises(ConfigError, match=message):
        simulate_object("cells", given.pop("shape"), rng(), **given)
