"""The physics inside the loss, against the NumPy reference. Requirements: specs/03-physics.md, specs/10-training.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from backend_suite.ops import Ops
from ptychopinn.arrays import NUMPY
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import split_positions
from ptychopinn.interpolation import place_on_pixels, shift_basis, shift_weights
from ptychopinn.interpolation import shift_probe as reference_shift_probe
from ptychopinn.simulate import simulate_object, simulate_probe, true_patches
from ptychopinn.stitching import patch_weights
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

N, SIZE, MARGIN = 32, 16, 8
COUNT = 4


@dataclass
class Group:
    """One group over one object, as a batch has it."""

    ops: Ops
    obj: ComplexArray
    probe: ComplexArray
    positions: FloatArray
    offsets: IntArray
    fractions: FloatArray
    shift: FloatArray
    weights: FloatArray
    reach: int

    @property
    def forward(self) -> Any:
        """The backend's forward model of a group."""
        return self.ops.forward.GroupForward(N, SIZE, self.reach)

    @property
    def canvas_size(self) -> int:
        """Side of the square on which a group is placed, pixels."""
        return SIZE + 2 * self.reach

    @property
    def patches(self) -> ComplexArray:
        """(1, C, n, n) true patches in the probe's frame."""
        return true_patches(self.obj, self.positions, SIZE)[None]

    def canvas(self, patches: Any, member: AnyArray | None = None) -> Any:
        """Of tensors."""
        member = np.ones((1, COUNT), np.float32) if member is None else member
        given = (self.ops.tensor(a) for a in (self.weights, self.offsets, self.shift, member))
        return self.forward.canvas(patches, *given)

    def canvas_of(self, patches: ComplexArray, member: AnyArray | None = None) -> AnyArray:
        """Of arrays."""
        return self.ops.array(self.canvas(self.ops.tensor(patches), member))

    def true_canvas(self) -> ComplexArray:
        """The object where the canvas lies, minus 1."""
        corner, _ = split_positions(self.positions[:1], SIZE)
        return NUMPY.cut_windows(self.obj, corner - self.reach, self.canvas_size) - 1

    def counts(self, canvas: Any, probe: Any, **settings: Any) -> Any:
        """Of tensors."""
        places = (self.ops.tensor(a) for a in (self.offsets, self.fractions.astype(np.float32)[None]))
        return self.forward(canvas, probe, *places, **settings)

    def counts_of(self, canvas: AnyArray, **settings: Any) -> AnyArray:
        """Of arrays."""
        return self.ops.array(self.counts(self.ops.tensor(canvas), self.ops.tensor(self.probe), **settings))

    def prepare_probe(self) -> AnyArray:
        """(1, M, M) bool: where some pattern of the group sees well."""
        weights = np.repeat(self.weights[None], COUNT, axis=0)
        placed = place_on_pixels(weights.astype(np.complex64), self.fractions).real
        canvas = np.zeros((self.canvas_size, self.canvas_size))
        for image, (y, x) in zip(placed, (self.offsets[0] + self.reach).tolist(), strict=True):
            canvas[y : y + SIZE, x : x + SIZE] += image
        return canvas[None] > 0.3


@pytest.fixture(params=[1, 3])
def group(request: pytest.FixtureRequest, ops: Ops) -> Group:
    """An object that is 1 outside the canvas, so that nothing is left out."""
    rng = np.random.default_rng(2)
    positions = np.array([[40.3, 41.8], [43.1, 38.2], [37.6, 44.4], [41.9, 45.5]])
    corners, fractions = split_positions(positions, N)
    reach = int(np.abs(corners - corners[0]).max())
    corner, _ = split_positions(positions[:1], SIZE)
    obj = np.ones((80, 80), np.complex64)
    inside = tuple(slice(int(c) - reach, int(c) + SIZE + reach) for c in corner[0])
    obj[inside] = simulate_object("textured", (80, 80), rng)[inside]
    probe = simulate_probe("disc", N, photons=1e4, modes=request.param)
    return Group(
        ops=ops,
        obj=obj,
        probe=probe,
        positions=positions,
        offsets=(corners - corners[:1])[None],
        fractions=fractions,
        shift=shift_weights(fractions).astype(np.float32)[None],
        weights=patch_weights(probe, SIZE),
        reach=reach,
    )


def relative(found: AnyArray, expected: AnyArray) -> float:
    """``|found - expected| / |expected|`` over all values."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def turns(angles: AnyArray) -> ComplexArray:
    """Complex numbers of modulus 1, to multiply patches by."""
    return np.exp(1j * np.asarray(angles)).astype(np.complex64)[..., None, None]


def test_shift_matrices_are_those_of_the_core(ops: Ops) -> None:
    fractions = np.array([-0.5, -0.2, 0.0, 0.37])
    found = ops.run(ops.forward.shift_matrices, shift_weights(fractions).astype(np.float32), SIZE)
    expected = np.tensordot(shift_weights(fractions), shift_basis(SIZE), axes=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


def test_patches_are_placed_as_the_core_places_them(ops: Ops) -> None:
    rng = np.random.default_rng(0)
    patches = (rng.standard_normal((3, SIZE, SIZE)) + 1j * rng.standard_normal((3, SIZE, SIZE))).astype(np.complex64)
    fractions = rng.uniform(-0.5, 0.5, (3, 2))
    matrices = ops.run(ops.forward.shift_matrices, shift_weights(fractions).astype(np.float32), SIZE)
    found = ops.run(ops.forward.separable_transform, matrices[:, 0], patches, matrices[:, 1])
    np.testing.assert_allclose(found, place_on_pixels(patches, fractions), atol=2e-5)
    real = ops.run(ops.forward.separable_transform, matrices[:, 0], patches.real.copy(), matrices[:, 1])
    np.testing.assert_allclose(real, found.real, atol=2e-5)


def test_one_hot_rows_cut_and_leave_zero_outside(ops: Ops) -> None:
    found = ops.run(ops.forward.one_hot_rows, np.array([-2, 1, 4]), 3, 5) @ np.arange(1.0, 6.0)
    assert found.tolist() == [[0, 0, 1], [2, 3, 4], [5, 0, 0]]


@pytest.mark.parametrize("modes", [1, 3])
def test_the_probe_is_moved_as_in_the_core(ops: Ops, modes: int) -> None:
    probe = simulate_probe("defocused", N, photons=1e4, modes=modes)
    fractions = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 2))
    found = ops.run(ops.forward.shift_probe, probe, fractions.astype(np.float32))
    assert relative(found, reference_shift_probe(probe, fractions)) < 1e-5


def test_expected_counts_are_those_of_the_reference(group: Group) -> None:
    """[LOSS-001] One true object on the canvas, 1 outside of it."""
    found = group.counts_of(group.true_canvas())
    expected = np.fft.ifftshift(expected_counts(group.obj, group.probe, group.positions), axes=(1, 2))
    assert found.shape == (1, COUNT, N, N)
    assert relative(found[0], expected) < 1e-3
    # and no member's counts are another's
    assert relative(np.roll(found[0], 1, axis=0), expected) > 0.02


def test_true_patches_give_the_object(group: Group) -> None:
    """[LOSS-001]"""
    canvas, lit = group.canvas_of(group.patches), group.prepare_probe()
    assert lit.mean() > 0.2
    assert relative(canvas[lit] + 1, group.true_canvas()[lit] + 1) < 0.02


def test_each_patch_may_have_any_phase(group: Group) -> None:
    """[SYNC-007] The canvas is the object up to one phase, and nothing is lost to averaging."""
    canvas = group.canvas_of(group.patches * turns([0.4, -2.0, 1.1, 3.0]))
    lit = group.prepare_probe()
    found, expected = canvas[lit] + 1, group.true_canvas()[lit] + 1
    one = np.vdot(found, expected)
    assert relative(found * one / abs(one), expected) < 0.02


def test_group_phases_undo_random_phases(ops: Ops) -> None:
    """[SYNC-007] of modulus 1, mean phase 0, and no gradient passes."""
    rng = np.random.default_rng(0)
    common = (rng.standard_normal((2, 1, 12, 12)) + 1j * rng.standard_normal((2, 1, 12, 12))).astype(np.complex64)
    turn = turns((rng.random((2, 5)) - 0.5) * 2.4)
    weights = np.ones((2, 5, 12, 12), np.float32)
    v = ops.run(ops.forward.group_phases, weights, common * turn)
    np.testing.assert_allclose(np.abs(v), 1, atol=1e-6)
    np.testing.assert_allclose(np.angle(v.mean(axis=1)), 0, atol=1e-5)
    left = turn[..., 0, 0] * v.conj()
    np.testing.assert_allclose(left, np.repeat(left[:, :1], 5, axis=1), atol=1e-3)
    (gradient,) = ops.gradients(
        lambda p: ops.forward.group_phases(ops.tensor(weights), p) * p[..., 0, 0], common * turn
    )
    np.testing.assert_allclose(gradient[..., 1:, 1:], 0)


@pytest.mark.parametrize("case", ["dark", "apart"])
def test_group_phases_of_nothing_in_common_are_finite(ops: Ops, case: str) -> None:
    placed = np.zeros((1, 3, 9, 9), np.complex64)
    if case == "apart":
        for member in range(3):
            placed[0, member, 3 * member] = 1j
    v = ops.run(ops.forward.group_phases, np.ones((1, 3, 9, 9), np.float32), placed)
    np.testing.assert_allclose(np.abs(v), 1, atol=1e-6)


def test_who_is_no_member_is_not_placed(group: Group) -> None:
    patches = group.patches
    harmed = patches.copy()
    harmed[0, 2] = 7j
    member = np.array([[1, 1, 0, 1]], np.float32)
    np.testing.assert_allclose(group.canvas_of(harmed, member), group.canvas_of(patches, member), atol=1e-6)
    assert not np.allclose(group.canvas_of(harmed), group.canvas_of(patches), atol=1e-2)


def test_what_nothing_covers_is_one(group: Group) -> None:
    canvas = group.canvas_of(group.patches + 1, np.array([[1, 0, 0, 0]], np.float32))
    assert group.reach >= 4
    assert np.abs(canvas[0, : group.reach]).max() == 0
    assert np.abs(canvas[0, group.reach + SIZE :]).max() == 0


def test_gradients_reach_patches_and_probe(group: Group) -> None:
    def loss(patches: Any, probe: Any) -> Any:
        return group.counts(group.canvas(patches), probe) ** 2

    patches, probe = group.ops.gradients(loss, (group.patches * 0.9).astype(np.complex64), group.probe)
    for gradient in (patches, probe):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).sum() > 0
    assert (np.abs(patches).sum(axis=(2, 3)) > 0).all()


def test_the_gradient_is_that_of_the_loss(group: Group) -> None:
    """Against a difference quotient, the phases of the patches held."""
    patches, step = (group.patches * 0.9).astype(np.complex64), 1e-2
    rng = np.random.default_rng(1)
    direction = rng.standard_normal(patches.shape) + 1j * rng.standard_normal(patches.shape)
    direction = (direction * np.hanning(SIZE)[:, None] * np.hanning(SIZE)).astype(np.complex64)

    def loss(moved: Any) -> Any:
        return (group.counts(group.canvas(moved), group.ops.tensor(group.probe)) + 1) ** 0.5

    def value(moved: ComplexArray) -> float:
        return float(group.ops.array(loss(group.ops.tensor(moved))).sum(dtype=np.float64))

    (gradient,) = group.ops.gradients(loss, patches)
    slope = float((gradient.conj() * direction).real.sum())
    quotient = (value(patches + np.float32(step) * direction) - value(patches - np.float32(step) * direction)) / (
        2 * step
    )
    assert slope == pytest.approx(quotient, rel=0.05)


def test_waves_are_blurred_by_a_gaussian(ops: Ops) -> None:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    waves = rng.standard_normal((2, N, N)) + 1j * rng.standard_normal((2, N, N))
    field = ops.run(ops.forward.blur_waves, np.fft.fft2(waves).astype(np.complex64), 1.3)
    expected = gaussian_filter(waves, (0, 1.3, 1.3), mode="wrap", truncate=8)
    assert relative(np.fft.ifft2(field), expected) < 1e-3


def test_the_blur_acts_on_the_counts(group: Group) -> None:
    canvas = group.true_canvas()
    sharp, blurred = group.counts_of(canvas), group.counts_of(canvas, sigma_px=0.8)
    assert blurred.sum() < sharp.sum()  # high angles fade
    np.testing.assert_allclose(blurred[..., 0, 0], sharp[..., 0, 0], rtol=1e-5)


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("size", [SIZE, N])
def test_patches_alone_give_the_counts_of_the_reference(ops: Ops, modes: int, size: int) -> None:
    """[TRAIN-007] Around them the object is 1; DC is at [0, 0]."""
    rng = np.random.default_rng(1)
    patches = (1 + 0.3 * (rng.standard_normal((2, size, size)) + 1j * rng.standard_normal((2, size, size)))).astype(
        np.complex64
    )
    probe = simulate_probe("defocused", N, photons=1e4, modes=modes)
    found = ops.run(ops.forward.GroupForward(N, size, 0).single_patterns, patches, probe)
    for patch, counts in zip(patches, found, strict=True):
        window = np.ones((N, N), np.complex64)
        margin = (N - size) // 2
        window[margin : margin + size, margin : margin + size] = patch
        expected = expected_counts(window, probe, np.full((1, 2), (N - 1) / 2))[0]
        np.testing.assert_allclose(np.fft.fftshift(counts), expected, rtol=1e-3, atol=1e-2)
