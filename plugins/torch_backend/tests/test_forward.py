"""The physics inside the loss, against the NumPy reference. Requirements: specs/04-stitching.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from ptychopinn.forward import cut_windows, expected_counts
from ptychopinn.interpolation import place_on_pixels, shift_basis, shift_weights, split_positions
from ptychopinn.interpolation import shift_probe as reference_shift_probe
from ptychopinn.simulate import simulate_object, simulate_probe
from ptychopinn.simulate.scan import true_patches
from ptychopinn.stitching import patch_weights
from ptychopinn.typing import ComplexArray, FloatArray
from ptychopinn_torch.forward import (
    GroupForward,
    apply_both,
    blur_waves,
    group_phases,
    one_hot_rows,
    shift_matrices,
    shift_probe,
)

N, SIZE, MARGIN = 32, 16, 8
COUNT = 4


@dataclass
class Group:
    """One group over one object, as a batch has it."""

    obj: ComplexArray
    probe: ComplexArray
    positions: FloatArray
    offsets: Tensor
    fractions: FloatArray
    shift: Tensor
    weights: Tensor
    forward: GroupForward

    @property
    def patches(self) -> Tensor:
        """(1, C, n, n) true patches in the probe's frame."""
        return torch.from_numpy(true_patches(self.obj, self.positions, SIZE))[None]

    def canvas(self, patches: Tensor, member: Tensor | None = None) -> Tensor:
        member = torch.ones(1, COUNT) if member is None else member
        return self.forward.canvas(patches, self.weights, self.offsets, self.shift, member)

    def true_canvas(self) -> Tensor:
        """The object where the canvas lies, minus 1."""
        corner, _ = split_positions(self.positions[:1], SIZE)
        size = self.forward.canvas_size
        return torch.from_numpy(cut_windows(self.obj, corner - self.forward.reach, size) - 1)

    def probes(self, probe: Tensor | None = None) -> Tensor:
        given = torch.from_numpy(self.probe) if probe is None else probe
        return shift_probe(given, torch.from_numpy(self.fractions.astype(np.float32)))[None]

    def lit(self) -> Tensor:
        """(1, M, M) bool: where some pattern of the group sees well."""
        placed = place_on_pixels(np.repeat(self.weights[None].numpy(), COUNT, axis=0), self.fractions)
        canvas = torch.zeros(self.forward.canvas_size, self.forward.canvas_size)
        for image, (y, x) in zip(placed, (self.offsets[0] + self.forward.reach).tolist(), strict=True):
            canvas[y : y + SIZE, x : x + SIZE] += torch.from_numpy(image)
        return canvas[None] > 0.3


@pytest.fixture(params=[1, 3])
def group(request: pytest.FixtureRequest) -> Group:
    """An object that is 1 outside the canvas, so that nothing is left out."""
    rng = np.random.default_rng(2)
    positions = np.array([[40.3, 41.8], [43.1, 38.2], [37.6, 44.4], [41.9, 45.5]])
    corners, fractions = split_positions(positions, N)
    reach = int(np.abs(corners - corners[0]).max())
    size = SIZE + 2 * reach
    corner, _ = split_positions(positions[:1], SIZE)
    obj = np.ones((80, 80), np.complex64)
    inside = tuple(slice(int(c) - reach, int(c) - reach + size) for c in corner[0])
    obj[inside] = simulate_object("textured", (80, 80), rng)[inside]
    probe = simulate_probe("disc", N, photons=1e4, modes=request.param)
    return Group(
        obj=obj,
        probe=probe,
        positions=positions,
        offsets=torch.from_numpy(corners - corners[:1])[None],
        fractions=fractions,
        shift=torch.from_numpy(shift_weights(fractions).astype(np.float32))[None],
        weights=torch.from_numpy(patch_weights(probe, SIZE)),
        forward=GroupForward(N, SIZE, reach),
    )


def relative(found: Tensor | ComplexArray | FloatArray, expected: Tensor | ComplexArray | FloatArray) -> float:
    a, b = np.asarray(found), np.asarray(expected)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_shift_matrices_are_those_of_the_core() -> None:
    fractions = np.array([-0.5, -0.2, 0.0, 0.37])
    found = shift_matrices(torch.from_numpy(shift_weights(fractions).astype(np.float32)), SIZE)
    expected = np.tensordot(shift_weights(fractions), shift_basis(SIZE), axes=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == torch.float32


def test_patches_are_placed_as_the_core_places_them() -> None:
    rng = np.random.default_rng(0)
    patches = (rng.standard_normal((3, SIZE, SIZE)) + 1j * rng.standard_normal((3, SIZE, SIZE))).astype(np.complex64)
    fractions = rng.uniform(-0.5, 0.5, (3, 2))
    matrices = shift_matrices(torch.from_numpy(shift_weights(fractions).astype(np.float32)), SIZE)
    found = apply_both(matrices[:, 0], torch.from_numpy(patches), matrices[:, 1])
    np.testing.assert_allclose(found, place_on_pixels(patches, fractions), atol=2e-5)
    real = apply_both(matrices[:, 0], torch.from_numpy(patches.real.copy()), matrices[:, 1])
    np.testing.assert_allclose(real, found.real, atol=2e-5)


def test_one_hot_rows_cut_and_leave_zero_outside() -> None:
    line = torch.arange(1.0, 6.0)
    found = one_hot_rows(torch.tensor([-2, 1, 4]), 3, 5) @ line
    assert found.tolist() == [[0, 0, 1], [2, 3, 4], [5, 0, 0]]


@pytest.mark.parametrize("modes", [1, 3])
def test_the_probe_is_moved_as_in_the_core(modes: int) -> None:
    probe = simulate_probe("defocused", N, photons=1e4, modes=modes)
    fractions = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 2))
    found = shift_probe(torch.from_numpy(probe), torch.from_numpy(fractions.astype(np.float32)))
    assert relative(found, reference_shift_probe(probe, fractions)) < 1e-5


def test_expected_counts_are_those_of_the_reference(group: Group) -> None:
    """[LOSS-001] One true object on the canvas, 1 outside of it."""
    found = group.forward(group.true_canvas(), group.probes(), group.offsets)
    expected = np.fft.ifftshift(expected_counts(group.obj, group.probe, group.positions), axes=(1, 2))
    assert found.shape == (1, COUNT, N, N)
    assert relative(found[0], expected) < 1e-3
    # and no member's counts are another's
    assert relative(found[0].roll(1, dims=0), expected) > 0.02


def test_true_patches_give_the_object(group: Group) -> None:
    """[LOSS-001]"""
    canvas = group.canvas(group.patches)
    lit = group.lit()
    assert lit.float().mean() > 0.2
    assert relative(canvas[lit] + 1, group.true_canvas()[lit] + 1) < 0.02


def test_each_patch_may_have_any_phase(group: Group) -> None:
    """[SYNC-007] The canvas is the object up to one phase, and nothing is lost to averaging."""
    turn = torch.polar(torch.ones(COUNT), torch.tensor([0.4, -2.0, 1.1, 3.0]))
    canvas = group.canvas(group.patches * turn[None, :, None, None])
    lit = group.lit()
    found, expected = canvas[lit] + 1, group.true_canvas()[lit] + 1
    one = (found.conj() * expected).sum()
    assert relative(found * one / one.abs(), expected) < 0.02


def test_group_phases_undo_random_phases() -> None:
    """[SYNC-007] of modulus 1, mean phase 0, and no gradient passes."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(2, 1, 12, 12, dtype=torch.complex64, generator=generator)
    angle = (torch.rand(2, 5, generator=generator) - 0.5) * 2.4
    turn = torch.polar(torch.ones(2, 5), angle)
    placed = (common * turn[:, :, None, None]).requires_grad_()
    v = group_phases(torch.ones(2, 5, 12, 12), placed)
    assert not v.requires_grad
    torch.testing.assert_close(v.abs(), torch.ones(2, 5))
    torch.testing.assert_close(v.mean(dim=1).angle(), torch.zeros(2), atol=1e-5, rtol=0)
    left = turn * v.conj()
    torch.testing.assert_close(left, left[:, :1].expand(2, 5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("case", ["dark", "apart"])
def test_group_phases_of_nothing_in_common_are_finite(case: str) -> None:
    placed = torch.zeros(1, 3, 9, 9, dtype=torch.complex64)
    if case == "apart":
        for member in range(3):
            placed[0, member, 3 * member] = 1j
    v = group_phases(torch.ones(1, 3, 9, 9), placed)
    torch.testing.assert_close(v.abs(), torch.ones(1, 3))


def test_who_is_no_member_is_not_placed(group: Group) -> None:
    patches = group.patches
    harmed = patches.clone()
    harmed[0, 2] = 7j
    member = torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    torch.testing.assert_close(group.canvas(harmed, member), group.canvas(patches, member))
    assert not torch.allclose(group.canvas(harmed), group.canvas(patches), atol=1e-2)


def test_what_nothing_covers_is_one(group: Group) -> None:
    member = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    canvas = group.canvas(group.patches + 1, member)
    reach = group.forward.reach
    assert reach >= 4
    assert canvas[0, :reach].abs().max() == 0
    assert canvas[0, reach + SIZE :].abs().max() == 0


def test_gradients_reach_patches_and_probe(group: Group) -> None:
    patches = (group.patches * 0.9).requires_grad_()
    probe = torch.from_numpy(group.probe).requires_grad_()
    expected = group.forward(group.canvas(patches), group.probes(probe), group.offsets)
    expected.square().sum().backward()
    for tensor in (patches, probe):
        assert tensor.grad is not None
        assert torch.isfinite(torch.view_as_real(tensor.grad)).all()
        assert tensor.grad.abs().sum() > 0
    assert patches.grad is not None
    assert (patches.grad.abs().sum(dim=(2, 3)) > 0).all()


def test_the_gradient_is_that_of_the_loss(group: Group) -> None:
    """Against a difference quotient, the phases of the patches held."""
    patches, step = group.patches * 0.9, 1e-2
    direction = torch.randn(patches.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    direction = direction * torch.hann_window(SIZE)[:, None] * torch.hann_window(SIZE)

    def loss(moved: Tensor) -> Tensor:
        counts: Tensor = group.forward(group.canvas(moved), group.probes(), group.offsets)
        return (counts + 1).sqrt().sum()

    at = patches.clone().requires_grad_()
    loss(at).backward()
    assert at.grad is not None
    slope = (at.grad.conj() * direction).real.sum()
    quotient = (loss(patches + step * direction) - loss(patches - step * direction)) / (2 * step)
    assert slope.item() == pytest.approx(quotient.item(), rel=0.05)


def test_waves_are_blurred_by_a_gaussian() -> None:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    waves = rng.standard_normal((2, N, N)) + 1j * rng.standard_normal((2, N, N))
    field = blur_waves(torch.fft.fft2(torch.from_numpy(waves)), 1.3)
    expected = gaussian_filter(waves, (0, 1.3, 1.3), mode="wrap", truncate=8)
    assert relative(torch.fft.ifft2(field), expected) < 1e-3


def test_the_blur_acts_on_the_counts(group: Group) -> None:
    canvas = group.true_canvas()
    sharp = group.forward(canvas, group.probes(), group.offsets)
    blurred = group.forward(canvas, group.probes(), group.offsets, sigma_px=0.8)
    assert blurred.sum() < sharp.sum()  # high angles fade
    torch.testing.assert_close(blurred[..., 0, 0], sharp[..., 0, 0])
