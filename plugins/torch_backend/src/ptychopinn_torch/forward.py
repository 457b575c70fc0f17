"""The physics in the loss: patches of a group are placed on a canvas, cut out, illuminated and propagated.

Placing and cutting are products with small matrices (`ptychopinn.interpolation`), which are differentiable,
deterministic, and the same in every framework.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ptychopinn.interpolation import shift_basis
from ptychopinn.training.constants import COVERAGE_EPSILON, PHASE_ITERATIONS
from ptychopinn_torch.functions import intensity


def shift_matrices(weights: Tensor, n: int) -> Tensor:
    """Matrices that move patches to whole pixels: (..., 7) `shift_weights` to (..., n, n) float32."""
    return _weighted(weights, _basis(n).to(weights.device))


def _basis(n: int) -> Tensor:
    """(7, n, n) float32."""
    return torch.from_numpy(np.array(shift_basis(n), np.float32))


def _weighted(weights: Tensor, basis: Tensor) -> Tensor:
    matrices: Tensor = torch.tensordot(weights, basis, dims=1)
    return matrices


def one_hot_rows(start: Tensor, rows: int, columns: int) -> Tensor:
    """Matrices that select ``rows`` of ``columns`` entries from ``start`` on; entries outside give 0.

    (...,) int64, which may be negative, to (..., rows, columns) float32.
    """
    return _one_hot(start, _starts(rows, columns).to(start.device))


def _starts(rows: int, columns: int) -> Tensor:
    """(rows, columns) int64: the start at which a row selects a column."""
    return torch.arange(columns) - torch.arange(rows)[:, None]


def _one_hot(start: Tensor, starts: Tensor) -> Tensor:
    return (start[..., None, None] == starts).float()


def separable_transform(left: Tensor, image: Tensor, right: Tensor) -> Tensor:
    """``left @ image @ right^T`` for real matrices and a real or complex image; all (..., a, b)."""
    if image.is_complex():
        return torch.complex(left @ image.real @ right.mT, left @ image.imag @ right.mT)
    return left @ image @ right.mT


def shift_probe(probe: Tensor, fractions: Tensor) -> Tensor:
    """As `ptychopinn.interpolation.shift_probe`, differentiable in the probe.

    (modes, N, N) complex64 and (..., 2) float32 fractions (y, x) to (..., modes, N, N) complex64.
    """
    return _shifted(probe, fractions, _frequencies(probe.shape[-1]).to(probe.device))


def _frequencies(n: int) -> Tensor:
    """(2, n) float32: radians per pixel of shift; 0 at the Nyquist frequency, whose imaginary part is dropped."""
    kept = (torch.arange(n) != n // 2).float()
    return torch.stack([-2 * torch.pi * torch.fft.fftfreq(n), kept])


def _shifted(probe: Tensor, fractions: Tensor, frequencies: Tensor) -> Tensor:
    angle = fractions[..., None] * frequencies[0]
    ramp = torch.complex(torch.cos(angle), torch.sin(angle) * frequencies[1])[..., None, :, :]
    shifted: Tensor = torch.fft.ifft2(torch.fft.fft2(probe) * ramp[..., 0, :, None] * ramp[..., 1, None, :])
    return shifted


def group_phases(root_weights: Tensor, placed: Tensor) -> Tensor:
    """Phases that align the patches of each group (`ptychopinn.synchronise` for few patches).

    Square roots of the weights, (g, C, M, M) float32, and patches, (g, C, M, M) complex64, on the canvas, to (g, C)
    complex64 of modulus 1 without gradient; their mean phase is 0.
    """
    with torch.no_grad():
        u = (root_weights * placed).flatten(2)
        overlaps = u @ u.mH
        tiny = overlaps.new_full((1, 1, 1), 1e-12)  # gives 0 a phase
        v = torch.sgn(overlaps[:, :, :1] + tiny)
        for _ in range(PHASE_ITERATIONS):
            v = torch.sgn(torch.baddbmm(tiny, overlaps, v))
        mean = torch.sgn(v.mean(dim=1, keepdim=True) + tiny)
        return (v * mean.conj())[..., 0]


def blur_waves(field: Tensor, sigma_px: float) -> Tensor:
    """Far field of exit waves blurred by a Gaussian: (..., N, N) with DC at [0, 0] to the same."""
    k = torch.fft.fftfreq(field.shape[-1], device=field.device)
    gain = torch.exp(-2 * (torch.pi * sigma_px * k) ** 2)
    return field * gain[:, None] * gain


class GroupForward(torch.nn.Module):
    """Patches of groups to expected counts (`ptychopinn.training.objective.GroupPhysics`).

    ``reach`` is the largest distance, in whole pixels, of a member's corner from its anchor's.
    """

    basis: Tensor
    placing: Tensor
    cutting: Tensor
    frequencies: Tensor

    def __init__(self, N: int, patch_size: int, reach: int) -> None:  # noqa: N803
        super().__init__()
        self.N, self.patch_size, self.reach = N, patch_size, reach
        self.canvas_size = patch_size + 2 * reach
        margin = (N - patch_size) // 2
        # Created once, on the device of the loss.
        self.register_buffer("basis", _basis(patch_size))
        self.register_buffer("placing", _starts(patch_size, self.canvas_size) - reach)
        self.register_buffer("cutting", _starts(N, self.canvas_size) - (reach - margin))
        self.register_buffer("frequencies", _frequencies(N))

    def canvas(self, patches: Tensor, weights: Tensor, offsets: Tensor, shift: Tensor, member: Tensor) -> Tensor:
        """Weighted mean of the patches of each group, minus 1; see `GroupPhysics`."""
        n = self.patch_size
        place = _one_hot(offsets, self.placing).mT @ _weighted(shift, self.basis)  # (g, C, 2, M, n)
        rows, columns = place[:, :, 0], place[:, :, 1]
        placed = separable_transform(rows, patches, columns)
        with torch.no_grad():
            w = separable_transform(rows, weights.expand(*patches.shape[:2], n, n), columns).clamp_min(0)
            w = w * member[:, :, None, None]
            total = w.sum(dim=1)
        v = group_phases(w.sqrt(), placed)
        mean = (w * placed * v.conj()[:, :, None, None]).sum(dim=1)
        return (mean - total) / (total + COVERAGE_EPSILON)

    def forward(
        self, canvas: Tensor, probe: Tensor, offsets: Tensor, fractions: Tensor, *, sigma_px: float = 0.0
    ) -> Tensor:
        """Expected counts of each member; see `GroupPhysics`."""
        cut = _one_hot(offsets, self.cutting)  # (g, C, 2, N, M)
        windows = separable_transform(cut[:, :, 0], canvas[:, None], cut[:, :, 1])
        field = torch.fft.fft2(_shifted(probe, fractions, self.frequencies) * (1 + windows)[:, :, None], norm="ortho")
        if sigma_px:
            field = blur_waves(field, sigma_px)
        return intensity(field).sum(dim=2)

    def single_patterns(self, patches: Tensor, probe: Tensor) -> Tensor:
        """Expected counts of patches on whole pixels; see `GroupPhysics`."""
        margin = (self.N - self.patch_size) // 2
        windows = 1 + F.pad(patches - 1, (margin,) * 4)
        field = torch.fft.fft2(probe * windows[:, None], norm="ortho")
        return intensity(field).sum(dim=1)
