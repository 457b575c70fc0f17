"""Gradients that are written out are those of autograd."""

from __future__ import annotations

import torch

from ptychopinn_torch.functions import intensity, polar_less_one


def test_intensity() -> None:
    field = torch.randn(3, 4, dtype=torch.complex128, requires_grad=True)
    torch.testing.assert_close(intensity(field), field.abs() ** 2)
    assert torch.autograd.gradcheck(intensity, field)


def test_polar_less_one() -> None:
    modulus, angle = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.testing.assert_close(polar_less_one(modulus, angle), modulus * torch.exp(1j * angle) - 1)
    assert torch.autograd.gradcheck(polar_less_one, (modulus, angle))
