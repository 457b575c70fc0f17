"""Loss terms, each a mean that does not move with the dose."""

from __future__ import annotations

import torch
from torch import Tensor

from ptychopinn.forward import COUNT_FLOOR


def poisson_deviance(expected: Tensor, counts: Tensor, good: Tensor, mean_counts: Tensor | float) -> Tensor:
    """Poisson deviance of patterns over the mean counts of a pattern.

    Parameters
    ----------
    expected, counts:
        (..., N, N) float32, counts.
    good:
        broadcastable to them: 1 where the detector measured, else 0.
    mean_counts:
        Mean photons a pattern.

    Returns
    -------
    (...,) float32, dimensionless, 0 for a perfect prediction.
    """
    e, n = expected + COUNT_FLOOR, counts + COUNT_FLOOR
    return ((e - n - n * torch.log(e / n)) * good).sum(dim=(-2, -1)) / mean_counts


def amplitude_error(expected: Tensor, counts: Tensor, good: Tensor, mean_counts: Tensor | float) -> Tensor:
    """Mean absolute error of diffraction amplitudes over their root mean square; shapes as in `poisson_deviance`."""
    pixels = expected.shape[-1] * expected.shape[-2]
    error = ((expected + COUNT_FLOOR).sqrt() - (counts + COUNT_FLOOR).sqrt()).abs() * good
    return error.sum(dim=(-2, -1)) / (mean_counts * pixels) ** 0.5


def total_variation(canvas: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, (..., M, M) complex to (...,)."""
    dy, dx = canvas[..., 1:, :] - canvas[..., :-1, :], canvas[..., :, 1:] - canvas[..., :, :-1]
    return dy.abs().mean(dim=(-2, -1)) + dx.abs().mean(dim=(-2, -1))


def patch_error(patches: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean absolute error against known patches, free of each patch's phase.

    The truth is turned by the phase of the weighted product with the prediction; no gradient goes through that phase.

    Parameters
    ----------
    patches, truth:
        (..., n, n) complex64.
    weights:
        (n, n) float32, probe intensity.

    Returns
    -------
    (...,) float32.
    """
    with torch.no_grad():
        product = (patches * truth.conj() * weights).sum(dim=(-2, -1), keepdim=True) + 1e-12
        turned = truth * (product / product.abs())
    return ((patches - turned).abs() * weights).sum(dim=(-2, -1)) / weights.sum()
